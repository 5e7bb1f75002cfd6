//! Complete searches of the models; and searches without each of their rules, to see what the rule is needed for.
//!
//! `cargo test -p model -- --nocapture` prints the number of states and, where a rule is missing, the shortest trace to the
//! damage.

use std::fmt::Debug;
use std::time::Instant;

use model::accept::{self, Accept};
use model::evidence::{self, Evidence};
use model::pages::{self, Pages};
use model::protocol::{Answer, Condition, Protocol, Rules};
use stateright::{Checker, Model};

const ALL_ANSWERS: &[Answer] = &[
    Answer::Accepted,
    Answer::AcceptedUnclearly,
    Answer::Unclear,
    Answer::Never,
    Answer::Later,
    Answer::Skipped,
];

/// Returns the shortest trace to a state in which a promise is broken, or `None` if no state among all is one.
fn search<M>(name: &str, model: M) -> Option<Vec<M::Action>>
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + std::hash::Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let begun = Instant::now();
    // One thread: with more of them the trace found first need not be the shortest.
    let checker = model.checker().threads(1).spawn_bfs().join();
    let found = checker.discovery("promises");
    let took = begun.elapsed().as_secs_f64();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth() - 1);
    let Some(path) = found else {
        assert!(checker.is_done(), "{name}: the search is not complete");
        println!("{name}: {states} states, up to {depth} steps, {took:.1} s: nothing is broken");
        return None;
    };
    let steps = path.into_actions();
    println!(
        "{name}: broken after {} steps ({states} states, {took:.1} s)",
        steps.len()
    );
    for step in &steps {
        println!("    {step:?}");
    }
    Some(steps)
}

fn assert_holds<M>(name: &str, model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + std::hash::Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let broken = search(name, model);
    assert!(broken.is_none(), "{name} is broken: {broken:#?}");
}

/// Returns the promise that is broken at the end of the shortest trace, and the length of the trace. The steps of a recovery,
/// which often shows the damage, are not included.
fn damage(name: &str, model: Protocol) -> Option<(&'static str, usize)> {
    let steps = search(name, model)?;
    let mut state = model.init_states().remove(0);
    for step in &steps {
        state.step(&model, *step);
    }
    let broken = model.broken(&state)?;
    println!("    {broken}");
    Some((broken, steps.len()))
}

/// A rule, the smallest search that shows what it is needed for, and the damage without it.
type Reason = (&'static str, fn(&mut Rules), Protocol, &'static str, usize);

fn assert_reasons(reasons: &[Reason]) {
    let mut found = Vec::new();
    let mut expected = Vec::new();
    for &(name, remove, model, broken, steps) in reasons {
        let mut rules = Rules::ALL;
        remove(&mut rules);
        found.push((name, damage(&format!("without {name}"), Protocol { rules, ..model })));
        expected.push((name, Some((broken, steps))));
    }
    assert_eq!(found, expected);
}

/// One contact and everything that may happen to it.
fn one_contact(epochs: u8) -> Protocol {
    Protocol {
        answers: ALL_ANSWERS,
        losses: 1,
        delays: 1,
        retries: 1,
        proofs: true,
        ..Protocol::new(1, epochs)
    }
}

/// Two contacts, one after the other, and everything that may happen to them.
fn two_contacts() -> Protocol {
    Protocol {
        in_flight: 1,
        losses: 1,
        retries: 1,
        proofs: true,
        ..Protocol::new(2, 2)
    }
}

/// One contact and everything that may happen to it, with controls by the operator.
fn controlled(controls: u8, epochs: u8) -> Protocol {
    Protocol {
        controls,
        halts: 1,
        ..one_contact(epochs)
    }
}

/// Two contacts of which none may end in doubt: no worker dies or freezes, and every answer of Messenger is clear. Answers of
/// DynamoDB are lost, and wake-ups are repeated.
fn no_doubt() -> Protocol {
    Protocol {
        answers: &[Answer::Accepted, Answer::Never, Answer::Later, Answer::Skipped],
        losses: 2,
        delays: 1,
        retries: 1,
        deaths: false,
        no_doubt: true,
        ..Protocol::new(2, 1)
    }
}

/// An audience: its contacts are found by one or more runs, and sent to by others. All but the last one match at acceptance.
fn audience(contacts: u8, epochs: u8) -> Protocol {
    Protocol {
        answers: &[Answer::Accepted, Answer::Later],
        in_flight: 1,
        members: Some((1 << (contacts - 1)) - 1),
        changes: 1,
        ..Protocol::new(contacts, epochs)
    }
}

#[test]
fn one_contact_with_four_claims_holds() {
    assert_holds("1 contact × 4 claims, 1 lost answer, retry", one_contact(4));
}

#[test]
fn one_contact_with_two_lost_answers_holds() {
    let model = Protocol {
        losses: 2,
        ..one_contact(3)
    };
    assert_holds("1 contact × 3 claims, 2 lost answers, retry", model);
}

#[test]
fn one_contact_with_resend_holds() {
    let model = Protocol {
        resend: true,
        ..one_contact(4)
    };
    assert_holds("1 contact × 4 claims, 1 lost answer, retry, resend", model);
}

#[test]
fn one_contact_with_controls_holds() {
    assert_holds(
        "1 contact × 3 claims, 1 lost answer, retry, 3 controls",
        controlled(3, 3),
    );
}

#[test]
fn one_contact_with_resend_and_controls_holds() {
    let model = Protocol {
        resend: true,
        delays: 0,
        ..controlled(2, 3)
    };
    assert_holds("1 contact × 3 claims, 1 lost answer, retry, resend, 2 controls", model);
}

#[test]
fn two_contacts_with_controls_hold() {
    let model = Protocol {
        controls: 2,
        losses: 0,
        in_flight: 2,
        ..two_contacts()
    };
    assert_holds("2 contacts × 2 claims, retry, 2 controls", model);
}

#[test]
fn two_contacts_with_controls_and_a_lost_answer_hold() {
    let model = Protocol {
        controls: 2,
        ..two_contacts()
    };
    assert_holds("2 contacts × 2 claims, 1 lost answer, retry, 2 controls", model);
}

#[test]
fn two_contacts_with_three_claims_and_controls_hold() {
    let model = Protocol {
        epochs: 3,
        losses: 0,
        retries: 0,
        controls: 1,
        ..two_contacts()
    };
    assert_holds("2 contacts × 3 claims, 1 control", model);
}

/// The largest searches with controls.
#[test]
#[ignore = "takes four minutes"]
fn larger_searches_with_controls_hold() {
    let one = Protocol {
        halts: 0,
        ..controlled(2, 4)
    };
    assert_holds("1 contact × 4 claims, 1 lost answer, retry, 2 controls", one);
    let two = |controls, retries| Protocol {
        epochs: 3,
        losses: 0,
        controls,
        retries,
        ..two_contacts()
    };
    assert_holds("2 contacts × 3 claims, 2 controls", two(2, 0));
    assert_holds("2 contacts × 3 claims, retry, 1 control", two(1, 1));
    let three = Protocol {
        controls: 1,
        in_flight: 1,
        proofs: true,
        ..Protocol::new(3, 2)
    };
    assert_holds("3 contacts × 2 claims, 1 control", three);
}

/// Neither pause and resume nor cancel make an outcome uncertain.
#[test]
fn controls_cause_no_doubt() {
    let model = Protocol {
        epochs: 4,
        losses: 1,
        controls: 3,
        ..no_doubt()
    };
    assert_holds(
        "2 contacts × 4 claims, 1 lost answer, retry, 3 controls, no doubt",
        model,
    );
}

#[test]
fn two_contacts_with_two_claims_hold() {
    let model = Protocol {
        in_flight: 2,
        delays: 1,
        ..two_contacts()
    };
    assert_holds("2 contacts × 2 claims, 1 lost answer, retry", model);
}

#[test]
fn two_contacts_with_three_claims_hold() {
    let model = Protocol {
        proofs: true,
        ..Protocol::new(2, 3)
    };
    assert_holds("2 contacts × 3 claims", model);
}

#[test]
fn two_contacts_with_resend_hold() {
    let model = Protocol {
        epochs: 3,
        resend: true,
        retries: 0,
        ..two_contacts()
    };
    assert_holds("2 contacts × 3 claims, 1 lost answer, resend", model);
}

#[test]
fn three_contacts_with_two_claims_hold() {
    let model = Protocol {
        proofs: true,
        ..Protocol::new(3, 2)
    };
    assert_holds("3 contacts × 2 claims", model);
}

#[test]
fn audience_that_two_workers_resolve_holds() {
    let model = Protocol {
        losses: 1,
        ..audience(3, 2)
    };
    assert_holds("audience of 3 contacts × 2 claims, 1 lost answer, 1 change", model);
}

#[test]
fn audience_with_a_lost_answer_holds() {
    let model = Protocol {
        losses: 1,
        ..audience(2, 3)
    };
    assert_holds("audience of 2 contacts × 3 claims, 1 lost answer, 1 change", model);
}

#[test]
fn audience_with_two_changes_holds() {
    let model = Protocol {
        changes: 2,
        ..audience(2, 3)
    };
    assert_holds("audience of 2 contacts × 3 claims, 2 changes", model);
}

#[test]
fn audience_with_controls_holds() {
    let model = Protocol {
        controls: 2,
        halts: 1,
        members: Some(0b11),
        changes: 0,
        ..audience(2, 3)
    };
    assert_holds("audience of 2 contacts × 3 claims, 1 halt, 2 controls", model);
}

#[test]
fn audience_with_retry_holds() {
    let model = Protocol {
        answers: ALL_ANSWERS,
        retries: 1,
        proofs: true,
        members: Some(0b11),
        changes: 0,
        ..audience(2, 3)
    };
    assert_holds("audience of 2 contacts × 3 claims, retry", model);
}

/// The largest searches of an audience.
#[test]
#[ignore = "takes some minutes"]
fn larger_searches_of_audiences_hold() {
    let lost = Protocol {
        losses: 1,
        ..audience(3, 3)
    };
    assert_holds("audience of 3 contacts × 3 claims, 1 lost answer, 1 change", lost);
    let changed = Protocol {
        changes: 2,
        ..audience(2, 4)
    };
    assert_holds("audience of 2 contacts × 4 claims, 2 changes", changed);
    let controlled = Protocol {
        controls: 2,
        halts: 1,
        losses: 1,
        ..audience(2, 3)
    };
    assert_holds(
        "audience of 2 contacts × 3 claims, 1 lost answer, 1 change, 1 halt, 2 controls",
        controlled,
    );
    let retried = Protocol {
        answers: ALL_ANSWERS,
        losses: 1,
        retries: 1,
        proofs: true,
        ..audience(2, 3)
    };
    assert_holds(
        "audience of 2 contacts × 3 claims, 1 lost answer, 1 change, retry",
        retried,
    );
}

#[test]
fn contact_of_two_pages_holds() {
    let rules = pages::Rules::ALL;
    assert_holds("1 contact, 2 Pages, 4 changes", Pages { rules, changes: 4 });
}

/// A lost answer of DynamoDB alone makes no outcome uncertain.
#[test]
fn lost_answers_of_dynamodb_cause_no_doubt() {
    assert_holds("2 contacts × 1 claim, 2 lost answers, no doubt", no_doubt());
}

#[test]
fn three_requests_with_one_key_hold() {
    let model = Accept {
        rules: accept::Rules::ALL,
        requests: 3,
        losses: 2,
    };
    assert_holds("3 requests with one key, 2 lost answers", model);
}

#[test]
fn two_broadcasts_with_one_text_hold() {
    let rules = evidence::Rules::ALL;
    assert_holds("2 broadcasts with one text", Evidence { rules });
}

#[rustfmt::skip] // A table.
#[test]
fn every_rule_of_deliveries_has_its_reason() {
    let (one, retried) = (one_contact(2), one_contact(3));
    assert_reasons(&[
        ("reserve_if_free", |rules| rules.reserve_if_free = false, one, "sent twice", 1),
        ("reserve_if_not_newer", |rules| rules.reserve_if_not_newer = false, retried, "wrong counters", 13),
        ("older_is_not_free", |rules| rules.older_is_not_free = false, one, "sent twice", 2),
        ("older_is_in_doubt", |rules| rules.older_is_in_doubt = false, one, "contact lost", 2),
        ("own_token_is_a_win", |rules| rules.own_token_is_a_win = false, no_doubt(), "in doubt without a cause", 4),
        ("record_under_own_token", |rules| rules.record_under_own_token = false, one, "sent twice", 7),
        ("no_way_back_from_doubt", |rules| rules.no_way_back_from_doubt = false, one, "contact lost", 3),
        ("not_failed_after_doubt", |rules| rules.not_failed_after_doubt = false, retried, "guessed: failed", 7),
    ]);
}

#[rustfmt::skip] // A table.
#[test]
fn every_rule_of_jobs_has_its_reason() {
    let (one, retried) = (one_contact(2), one_contact(3));
    assert_reasons(&[
        ("checkpoint", |rules| rules.checkpoint = Condition::Nothing, one, "wrong counters", 1),
        ("append_with_cursor", |rules| rules.append_with_cursor = false, one, "contact lost", 5),
        ("doubt_as_found", |rules| rules.doubt_as_found = false, one, "wrong counters", 6),
        ("doubt_is_counted", |rules| rules.doubt_is_counted = false, one, "wrong counters", 2),
        ("retry_in_one_transaction", |rules| rules.retry_in_one_transaction = false, retried, "contact lost", 9),
        ("batch_on_segment_count", |rules| rules.batch_on_segment_count = false, two_contacts(), "contact lost", 12),
    ]);
}

#[rustfmt::skip] // A table.
#[test]
fn every_rule_of_controls_has_its_reason() {
    let without_retry = |model| Protocol { retries: 0, ..model };
    let (one, two) = (without_retry(controlled(1, 2)), without_retry(controlled(2, 2)));
    let retried = controlled(1, 4);
    assert_reasons(&[
        ("claim_obeys_stop", |rules| rules.claim_obeys_stop = false, one, "not cancelled by a recovery", 1),
        ("checkpoint_shows_stop", |rules| rules.checkpoint_shows_stop = false, one, "started after a stop", 4),
        ("control_on_status", |rules| rules.control_on_status = false, one, "not cancelled by a recovery", 4),
        ("control_once", |rules| rules.control_once = false, two, "stopped against the last word", 3),
        ("cancel_is_final", |rules| rules.cancel_is_final = false, two, "cancel forgotten", 2),
        ("paused_if_it_stands", |rules| rules.paused_if_it_stands = false, two, "stopped against the last word", 5),
        ("completed_unless_cancelled", |rules| rules.completed_unless_cancelled = false, one, "cancel forgotten", 7),
        ("halted_unless_cancelled", |rules| rules.halted_unless_cancelled = false, one, "cancel forgotten", 3),
        ("pause_ends", |rules| rules.pause_ends = false, one, "stopped against the last word", 3),
        ("cancel_is_drain", |rules| rules.cancel_is_drain = false, one, "wrong counters", 2),
        ("skip_if_free", |rules| rules.skip_if_free = false, one, "guessed: failed", 3),
        ("skip_unless_earlier_doubt", |rules| rules.skip_unless_earlier_doubt = false, retried, "guessed: failed", 10),
        ("command_before_work", |rules| rules.command_before_work = false, retried, "sent twice", 12),
        ("command_if_completed", |rules| rules.command_if_completed = false, retried, "wrong counters", 5),
        ("command_before_completion", |rules| rules.command_before_completion = false, retried, "retry forgotten", 9),
    ]);
}

#[rustfmt::skip] // A table.
#[test]
fn every_rule_of_audiences_has_its_reason() {
    let (two, three) = (audience(2, 3), audience(3, 3));
    assert_reasons(&[
        ("part_on_last_write", |rules| rules.part_on_last_write = false, three, "wrong counters", 1),
        ("part_in_transaction", |rules| rules.part_in_transaction = false, three, "wrong counters", 10),
        ("position_in_transaction", |rules| rules.position_in_transaction = false, two, "wrong counters", 5),
        ("resolve_before_sending", |rules| rules.resolve_before_sending = false, three, "wrong counters", 11),
        ("resolved_before_completion", |rules| rules.resolved_before_completion = false, two, "member missed", 2),
        ("wait_for_index", |rules| rules.wait_for_index = false, two, "member missed", 3),
    ]);
}

#[test]
fn every_rule_of_pages_has_its_reason() {
    type Remove = fn(&mut pages::Rules);
    let without = |name: &str, remove: Remove| {
        let mut rules = pages::Rules::ALL;
        remove(&mut rules);
        let model = Pages { rules, changes: 2 };
        let steps = search(&format!("without {name}"), model)?;
        let mut state = model.init_states().remove(0);
        for step in &steps {
            state = model.next_state(&state, *step)?;
        }
        Some((state.broken()?, steps.len()))
    };
    let stays = without("stays_on_its_page", |rules| rules.stays_on_its_page = false);
    let refuse = without("refuse_after_lag", |rules| rules.refuse_after_lag = false);
    let wait = without("wait_for_index", |rules| rules.wait_for_index = false);
    let skip = without("skip_on_other_page", |rules| rules.skip_on_other_page = false);
    let id = without("id_is_of_one_page", |rules| rules.id_is_of_one_page = false);
    assert_eq!(
        [stays, refuse, wait, skip, id],
        [
            Some(("in two jobs", 6)),
            Some(("refused though somebody matches", 1)),
            Some(("in two jobs", 3)),
            Some(("sent from a Page that the contact has left", 7)),
            Some(("sent twice", 11)),
        ]
    );
}

#[rustfmt::skip] // A table.
#[test]
fn every_rule_of_resends_has_its_reason() {
    let resend = |model| Protocol { resend: true, retries: 0, ..model };
    let (one, two) = (resend(one_contact(3)), resend(two_contacts()));
    assert_reasons(&[
        ("resend_names_rows", |rules| rules.resend_names_rows = false, two, "sent twice", 9),
        ("no_sender_at_last_lookup", |rules| rules.no_sender_at_last_lookup = false, one, "sent twice", 8),
    ]);
}

/// Unique claim ids, and checkpoints conditional on the one before instead of on the epoch alone, each keep the counters right
/// without the other. Both stay: without claim ids two workers of one epoch put each other's contacts in doubt.
#[test]
fn claim_ids_and_checkpoint_ids_replace_each_other() {
    let without = |unique_claim_ids, checkpoint, model| Protocol {
        rules: Rules {
            unique_claim_ids,
            checkpoint,
            ..Rules::ALL
        },
        ..model
    };
    let one = Protocol {
        retries: 0,
        ..one_contact(2)
    };

    assert_holds("without unique_claim_ids", without(false, Condition::LastWrite, one));
    assert_holds("with checkpoints on the epoch", without(true, Condition::Epoch, one));

    let broken = damage("with neither", without(false, Condition::Epoch, one));
    assert_eq!(broken, Some(("wrong counters", 8)));
    let broken = damage(
        "without unique_claim_ids, no doubt",
        without(false, Condition::LastWrite, no_doubt()),
    );
    assert_eq!(broken, Some(("in doubt without a cause", 5)));
}

#[test]
fn every_rule_of_accepting_has_its_reason() {
    type Remove = fn(&mut accept::Rules);
    let without = |name: &str, remove: Remove| {
        let mut rules = accept::Rules::ALL;
        remove(&mut rules);
        let model = Accept {
            rules,
            requests: 2,
            losses: 1,
        };
        search(&format!("without {name}"), model).map(|steps| steps.len())
    };
    assert_eq!(without("commit_if_free", |rules| rules.commit_if_free = false), Some(6));
    assert_eq!(
        without("by_time_of_receipt", |rules| rules.by_time_of_receipt = false),
        Some(8)
    );
    assert_eq!(
        without("key_outlives_validity", |rules| rules.key_outlives_validity = false),
        Some(9)
    );
    // The commit alone would do. Reading the key first saves the work, and answers before anything that depends on time is
    // checked.
    assert_eq!(without("read_key_first", |rules| rules.read_key_first = false), None);
    // A request that begins again finds its own key and is answered with its own broadcast, but as a replay.
    assert_eq!(
        without("own_key_is_a_win", |rules| rules.own_key_is_a_win = false),
        None
    );
}

#[test]
fn every_rule_of_evidence_has_its_reason() {
    type Remove = fn(&mut evidence::Rules);
    let without = |name: &str, remove: Remove| {
        let mut rules = evidence::Rules::ALL;
        remove(&mut rules);
        search(&format!("without {name}"), Evidence { rules }).map(|steps| steps.len())
    };
    let ask_first = without("ask_first", |rules| rules.ask_first = false);
    let not_of_other = without("not_of_other", |rules| rules.not_of_other = false);
    let none_while_open = without("none_while_other_is_open", |rules| {
        rules.none_while_other_is_open = false;
    });
    let earlier_doubt = without("earlier_doubt_is_open", |rules| rules.earlier_doubt_is_open = false);
    assert_eq!(
        [ask_first, not_of_other, none_while_open, earlier_doubt],
        [Some(7), Some(8), Some(7), Some(12)]
    );

    // The other rules already prevent what this one prevents. It is all that is left where the index does not show the other
    // broadcast.
    let claim_message = without("claim_message", |rules| rules.claim_message = false);
    let not_found = without("other_is_found", |rules| rules.other_is_found = false);
    let neither = without("other_is_found and claim_message", |rules| {
        (rules.other_is_found, rules.claim_message) = (false, false);
    });
    assert_eq!([claim_message, not_found, neither], [None, None, Some(11)]);
}
