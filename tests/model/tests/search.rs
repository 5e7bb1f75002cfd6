//! The models searched whole; and searched without each of their rules, to see what it is good for.
//!
//! `cargo test -p model -- --nocapture` prints how many states there were and, where a rule was missing, the shortest way to
//! the damage.

use std::fmt::Debug;
use std::time::Instant;

use model::accept::{self, Accept};
use model::evidence::{self, Evidence};
use model::protocol::{Answer, Condition, Protocol, Rules};
use stateright::{Checker, Model};

/// Everything that can come of a send.
const ALL_ANSWERS: &[Answer] = &[
    Answer::Accepted,
    Answer::AcceptedUnclearly,
    Answer::Unclear,
    Answer::Never,
    Answer::Later,
    Answer::Skipped,
];

/// The shortest way to a state in which a promise is broken, or nothing if there is no such state among all.
fn search<M>(name: &str, model: M) -> Option<Vec<M::Action>>
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + std::hash::Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let begun = Instant::now();
    // One thread: with more of them the way found first need not be the shortest.
    let checker = model.checker().threads(1).spawn_bfs().join();
    let found = checker.discovery("promises");
    let took = begun.elapsed().as_secs_f64();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth() - 1);
    let Some(path) = found else {
        assert!(checker.is_done(), "{name}: not searched whole");
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

fn holds<M>(name: &str, model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + std::hash::Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let broken = search(name, model);
    assert!(broken.is_none(), "{name} is broken: {broken:#?}");
}

/// What is broken at the end of the shortest way, and after how many steps. The recovery run, which often shows the damage,
/// is not counted among them.
fn breaks(name: &str, model: Protocol) -> Option<(&'static str, usize)> {
    let steps = search(name, model)?;
    let mut state = model.init_states().remove(0);
    for step in &steps {
        state.step(&model, *step);
    }
    let broken = model.broken(&state)?;
    println!("    {broken}");
    Some((broken, steps.len()))
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

/// Nobody dies, freezes or answers unclearly; answers of DynamoDB are lost, and hints are doubled.
fn clear() -> Protocol {
    Protocol {
        answers: &[
            Answer::Accepted,
            Answer::Never,
            Answer::Later,
            Answer::Skipped,
        ],
        losses: 2,
        delays: 1,
        retries: 1,
        deaths: false,
        clear: true,
        ..Protocol::new(2, 1)
    }
}

#[test]
fn one_contact_and_four_claims() {
    holds("1 contact × 4 claims, 1 lost answer, retry", one_contact(4));
}

#[test]
fn one_contact_and_two_lost_answers() {
    let model = Protocol {
        losses: 2,
        ..one_contact(3)
    };
    holds("1 contact × 3 claims, 2 lost answers, retry", model);
}

#[test]
fn one_contact_resent() {
    let model = Protocol {
        resend: true,
        ..one_contact(4)
    };
    holds("1 contact × 4 claims, 1 lost answer, retry, resend", model);
}

#[test]
fn two_contacts_and_two_claims() {
    let model = Protocol {
        in_flight: 2,
        delays: 1,
        ..two_contacts()
    };
    holds("2 contacts × 2 claims, 1 lost answer, retry", model);
}

#[test]
fn two_contacts_and_three_claims() {
    let model = Protocol {
        proofs: true,
        ..Protocol::new(2, 3)
    };
    holds("2 contacts × 3 claims", model);
}

#[test]
fn two_contacts_resent() {
    let model = Protocol {
        epochs: 3,
        resend: true,
        retries: 0,
        ..two_contacts()
    };
    holds("2 contacts × 3 claims, 1 lost answer, resend", model);
}

#[test]
fn three_contacts_and_two_claims() {
    let model = Protocol {
        proofs: true,
        ..Protocol::new(3, 2)
    };
    holds("3 contacts × 2 claims", model);
}

/// A lost answer of DynamoDB alone costs nobody a certain outcome.
#[test]
fn nobody_is_in_doubt_without_a_cause() {
    holds("2 contacts × 1 claim, 2 lost answers, no doubt", clear());
}

#[test]
fn three_requests_with_one_key() {
    let model = Accept {
        rules: accept::Rules::ALL,
        requests: 3,
        losses: 2,
    };
    holds("3 requests with one key, 2 lost answers", model);
}

#[test]
fn two_broadcasts_with_one_text() {
    let rules = evidence::Rules::ALL;
    holds("2 broadcasts with one text", Evidence { rules });
}

/// Each rule is taken out of the smallest search that shows what it is good for.
#[test]
fn every_rule_has_its_reason() {
    type Out = fn(&mut Rules);
    let one = one_contact(2);
    let retried = one_contact(3);
    let resent = Protocol {
        resend: true,
        retries: 0,
        ..one_contact(3)
    };
    let two_retried = two_contacts();
    let two_resent = Protocol {
        resend: true,
        retries: 0,
        ..two_contacts()
    };
    let rules: [(&str, Out, Protocol, &str, usize); 16] = [
        (
            "reserve_if_free",
            |rules| rules.reserve_if_free = false,
            one,
            "never twice",
            1,
        ),
        (
            "reserve_if_not_newer",
            |rules| rules.reserve_if_not_newer = false,
            retried,
            "conservation: counters",
            13,
        ),
        (
            "older_is_not_free",
            |rules| rules.older_is_not_free = false,
            one,
            "never twice",
            2,
        ),
        (
            "older_is_in_doubt",
            |rules| rules.older_is_in_doubt = false,
            one,
            "nobody lost",
            2,
        ),
        (
            "own_token_is_a_win",
            |rules| rules.own_token_is_a_win = false,
            clear(),
            "in doubt without a cause",
            4,
        ),
        (
            "record_under_my_token",
            |rules| rules.record_under_my_token = false,
            one,
            "never twice",
            7,
        ),
        (
            "no_way_back_from_doubt",
            |rules| rules.no_way_back_from_doubt = false,
            one,
            "nobody lost",
            3,
        ),
        (
            "not_failed_after_doubt",
            |rules| rules.not_failed_after_doubt = false,
            retried,
            "no guess: failed",
            7,
        ),
        (
            "checkpoint",
            |rules| rules.checkpoint = Condition::Nothing,
            one,
            "conservation: counters",
            1,
        ),
        (
            "append_with_cursor",
            |rules| rules.append_with_cursor = false,
            one,
            "nobody lost",
            5,
        ),
        (
            "doubt_as_found",
            |rules| rules.doubt_as_found = false,
            one,
            "conservation: counters",
            6,
        ),
        (
            "doubt_is_counted",
            |rules| rules.doubt_is_counted = false,
            one,
            "conservation: counters",
            2,
        ),
        (
            "retry_in_one",
            |rules| rules.retry_in_one = false,
            retried,
            "nobody lost",
            9,
        ),
        (
            "batch_on_segment_count",
            |rules| rules.batch_on_segment_count = false,
            two_retried,
            "nobody lost",
            12,
        ),
        (
            "resend_names_rows",
            |rules| rules.resend_names_rows = false,
            two_resent,
            "never twice",
            9,
        ),
        (
            "no_sender_at_last_look",
            |rules| rules.no_sender_at_last_look = false,
            resent,
            "never twice",
            8,
        ),
    ];
    let mut found = Vec::new();
    let mut expected = Vec::new();
    for (name, out, model, promise, steps) in rules {
        let mut rules = Rules::ALL;
        out(&mut rules);
        let broken = breaks(&format!("without {name}"), Protocol { rules, ..model });
        found.push((name, broken));
        expected.push((name, Some((promise, steps))));
    }
    assert_eq!(found, expected);
}

/// That a claim id is never used twice, and that a checkpoint stands on the one before instead of on the epoch alone, each
/// keep the counters right without the other. Both stay: without claim ids two workers of one epoch put each other's contacts
/// in doubt.
#[test]
fn claim_ids_and_checkpoint_ids_stand_in_for_each_other() {
    let one = Protocol {
        retries: 0,
        ..one_contact(2)
    };
    let claim_ids = Rules {
        claim_ids: false,
        ..Rules::ALL
    };
    let checkpoint_ids = Rules {
        checkpoint: Condition::Epoch,
        ..Rules::ALL
    };
    let neither = Rules {
        claim_ids: false,
        ..checkpoint_ids
    };

    holds(
        "without claim_ids",
        Protocol {
            rules: claim_ids,
            ..one
        },
    );
    holds(
        "with checkpoints on the epoch",
        Protocol {
            rules: checkpoint_ids,
            ..one
        },
    );

    let broken = breaks(
        "with neither",
        Protocol {
            rules: neither,
            ..one
        },
    );
    assert_eq!(broken, Some(("conservation: counters", 8)));
    let broken = breaks(
        "without claim_ids, no doubt",
        Protocol {
            rules: claim_ids,
            ..clear()
        },
    );
    assert_eq!(broken, Some(("in doubt without a cause", 5)));
}

#[test]
fn every_rule_of_accepting_has_its_reason() {
    type Out = fn(&mut accept::Rules);
    let without = |name: &str, out: Out| {
        let mut rules = accept::Rules::ALL;
        out(&mut rules);
        let model = Accept {
            rules,
            requests: 2,
            losses: 1,
        };
        search(&format!("without {name}"), model).map(|steps| steps.len())
    };
    assert_eq!(
        without("commit_if_free", |rules| rules.commit_if_free = false),
        Some(6)
    );
    assert_eq!(
        without("by_time_of_receipt", |rules| rules.by_time_of_receipt =
            false),
        Some(8)
    );
    assert_eq!(
        without("key_outlives_validity", |rules| rules
            .key_outlives_validity =
            false),
        Some(9)
    );
    // The commit alone would do; looking first spares the work, and answers before anything that depends on time is checked.
    assert_eq!(without("look_up", |rules| rules.look_up = false), None);
    // Begun again, a request would find its own key and be answered with its own broadcast, but as a replay.
    assert_eq!(
        without("own_key_is_a_win", |rules| rules.own_key_is_a_win = false),
        None
    );
}

#[test]
fn every_rule_of_evidence_has_its_reason() {
    type Out = fn(&mut evidence::Rules);
    let without = |name: &str, out: Out| {
        let mut rules = evidence::Rules::ALL;
        out(&mut rules);
        search(&format!("without {name}"), Evidence { rules }).map(|steps| steps.len())
    };
    let ask_first = without("ask_first", |rules| rules.ask_first = false);
    let not_anothers = without("not_anothers", |rules| rules.not_anothers = false);
    let none_while_open = without("none_while_another_is_open", |rules| {
        rules.none_while_another_is_open = false;
    });
    let earlier_doubt = without("earlier_doubt_is_open", |rules| {
        rules.earlier_doubt_is_open = false
    });
    assert_eq!(
        [ask_first, not_anothers, none_while_open, earlier_doubt],
        [Some(7), Some(8), Some(7), Some(12)]
    );

    // What the others prevent already; and all that is left where the index does not show the other broadcast.
    let claim_message = without("claim_message", |rules| rules.claim_message = false);
    let blind = without("another_is_found", |rules| rules.another_is_found = false);
    let both = without("another_is_found and claim_message", |rules| {
        (rules.another_is_found, rules.claim_message) = (false, false);
    });
    assert_eq!([claim_message, blind, both], [None, None, Some(11)]);
}
