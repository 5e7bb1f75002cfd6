//! What is in doubt becomes sent by Messenger's own word, or stays in doubt; and what `resend` may do, it does once.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use local::sandbox::{Answer, Fault, ForeignMessage, GraphError, Operation};
use serde_json::{Value, json};
use shared::delivery::State;
use shared::ids::{BroadcastId, ContactId};
use shared::store::doubts::{Ordered, Resent, Settled};
use shared::store::jobs::{Claim, Claimed};

use crate::stack::{IMPATIENT, PAGES, Stack, VERIFY_TOKEN, request};

const FIRST_LOOK: Duration = Duration::from_secs(150);
const LAST_LOOK: Duration = Duration::from_secs(600);
const RESEND: (&str, &str) = ("IN_DOUBT_POLICY", "resend");

/// A broadcast to these contacts, completed, with these of them in doubt: Messenger took their message and never said so,
/// or never took it.
async fn with_doubts(
    stack: &Stack,
    ids: &[String],
    arrived: &[usize],
    lost: &[usize],
) -> BroadcastId {
    let contacts = |places: &[usize]| places.iter().map(|n| ids[*n].clone()).collect::<Vec<_>>();
    let unanswered = || Fault::answering(Answer::Reset);
    if !arrived.is_empty() {
        let fault = unanswered().but_arriving().to_contacts(contacts(arrived));
        stack.sandbox.add_fault(fault);
    }
    if !lost.is_empty() {
        stack
            .sandbox
            .add_fault(unanswered().to_contacts(contacts(lost)));
    }
    let id = stack.broadcast(ids).await;
    stack.work_off().await;
    stack.sandbox.clear_faults();
    let report = stack.report(&id).await;
    assert_eq!(report["status"], "completed");
    assert_eq!(
        report["counters"]["in_doubt"],
        arrived.len() + lost.len(),
        "{report:#}"
    );
    id
}

async fn look_after(stack: &Stack, age: Duration) {
    stack.advance(age);
    stack.sandbox.forget_conversation_calls();
    stack.scheduled().await;
}

async fn counters(stack: &Stack, id: &BroadcastId) -> [u64; 3] {
    let report = stack.report(id).await;
    ["sent", "failed", "in_doubt"].map(|name| report["counters"][name].as_u64().unwrap())
}

async fn row(stack: &Stack, id: &BroadcastId, contact_id: &str) -> Value {
    let rows = stack.deliveries(id, "").await;
    let mut rows = rows.into_iter();
    rows.find(|row| row["contact_id"] == contact_id).unwrap()
}

/// Somebody else writes a contact what the broadcasts here do, now or at that time in milliseconds.
fn write_the_same(stack: &Stack, contact_id: &str, at: Option<i64>) {
    stack.sandbox.add_message(ForeignMessage {
        page_id: PAGES[0].to_owned(),
        contact_id: contact_id.to_owned(),
        text: format!("Hi Nr {contact_id}, we open at nine."),
        from_contact: false,
        at,
    });
}

/// The id of the newest message that a contact got. Contacts of one broadcast get theirs in any order.
fn message_to(stack: &Stack, contact_id: &str) -> String {
    let mut received = stack.sandbox.received();
    received.retain(|message| message.contact_id == contact_id);
    received.pop().unwrap().message_id
}

#[tokio::test]
async fn a_message_that_is_found_was_sent() {
    let stack = Stack::start().await;
    let ids = stack.contacts(3).await;
    let id = with_doubts(&stack, &ids, &[0], &[]).await;

    look_after(&stack, FIRST_LOOK - Duration::from_secs(10)).await;
    assert_eq!(counters(&stack, &id).await, [2, 0, 1]);
    look_after(&stack, Duration::from_secs(20)).await;

    assert_eq!(counters(&stack, &id).await, [3, 0, 0]);
    let row = row(&stack, &id, &ids[0]).await;
    assert_eq!(row["message_id"], message_to(&stack, &ids[0]));
}

#[tokio::test]
async fn a_message_that_is_not_found_stays_in_doubt_and_is_not_looked_for_for_ever() {
    let stack = Stack::start().await;
    let ids = stack.contacts(2).await;
    let id = with_doubts(&stack, &ids, &[], &[0]).await;

    look_after(&stack, FIRST_LOOK).await;
    assert_eq!(row(&stack, &id, &ids[0]).await["reason"], "connection lost");
    look_after(&stack, LAST_LOOK - FIRST_LOOK).await;
    let after_last = row(&stack, &id, &ids[0]).await;
    look_after(&stack, LAST_LOOK).await;

    assert_eq!(stack.sandbox.conversation_calls(), 0);
    assert_eq!(after_last["status"], "in_doubt");
    assert_eq!(
        after_last["reason"],
        "connection lost; not found in Messenger"
    );
    assert_eq!(counters(&stack, &id).await, [1, 0, 1]);
    assert_eq!(stack.received(&id).get(&ids[0]), None);
}

/// CHECKED 4: whoever moves a row out of doubt counts it, also for a broadcast that is completed.
#[tokio::test]
async fn an_echo_settles_what_was_given_up_and_repeating_it_changes_nothing() {
    let stack = Stack::start().await;
    let ids = stack.contacts(2).await;
    let id = with_doubts(&stack, &ids, &[0], &[]).await;
    let message_id = message_to(&stack, &ids[0]);

    for _ in 0..3 {
        let status = stack.echo(&id, &ids[0], 1, &message_id).await;
        assert_eq!(status, StatusCode::OK);
    }

    assert_eq!(counters(&stack, &id).await, [2, 0, 0]);
    assert_eq!(row(&stack, &id, &ids[0]).await["message_id"], message_id);
    let other = stack.echo(&id, &ids[0], 1, "m_other").await;
    assert_eq!(other, StatusCode::OK);
    assert_eq!(row(&stack, &id, &ids[0]).await["message_id"], message_id);
}

#[tokio::test]
async fn what_the_last_look_does_not_find_is_sent_again_once() {
    let stack = Stack::with(&[RESEND]).await;
    let ids = stack.contacts(5).await;
    let id = with_doubts(&stack, &ids, &[], &[1, 3]).await;

    look_after(&stack, FIRST_LOOK).await;
    assert_eq!(counters(&stack, &id).await, [3, 0, 2]);
    look_after(&stack, LAST_LOOK - FIRST_LOOK).await;
    assert_eq!(stack.report(&id).await["status"], "queued");
    let report = stack.finish(&id).await;

    assert_eq!(report["counters"]["sent"], 5, "{report:#}");
    assert_eq!(stack.received(&id).len(), 5);
    assert_eq!(row(&stack, &id, &ids[1]).await["attempts"], 2);
    assert_eq!(report["duplicates_prevented"]["reservation"], 0);
}

/// CHECKED 17: of two in doubt one had arrived, and only its look-ups fail.
#[tokio::test]
async fn a_resend_takes_only_the_rows_that_it_names() {
    let stack = Stack::with(&[RESEND]).await;
    let ids = stack.contacts(2).await;
    let id = with_doubts(&stack, &ids, &[0], &[1]).await;
    let no_answer = GraphError {
        status: 500,
        ..GraphError::new(2, "try again later")
    };
    let fault = Fault::answering(no_answer).on(Operation::Lookup);
    stack.sandbox.add_fault(fault.to_contacts([&ids[0]]));

    look_after(&stack, FIRST_LOOK).await;
    look_after(&stack, LAST_LOOK - FIRST_LOOK).await;
    let report = stack.finish(&id).await;

    assert_eq!(report["counters"]["in_doubt"], 1, "{report:#}");
    assert_eq!(row(&stack, &id, &ids[0]).await["attempts"], 1);
    assert_eq!(stack.received(&id).len(), 2);
    // A look that failed was none: the first that succeeds finds it.
    stack.sandbox.clear_faults();
    look_after(&stack, FIRST_LOOK).await;
    assert_eq!(counters(&stack, &id).await, [2, 0, 0]);
}

/// CHECKED 8, 15 and 16: in doubt, sent again, and the second attempt is refused, or the contact has opted out since. The
/// first may have arrived all the same.
#[tokio::test]
async fn a_contact_once_in_doubt_never_fails() {
    for (refused, opted_out) in [(true, false), (false, true)] {
        let stack = Stack::with(&[RESEND]).await;
        let ids = stack.contacts(2).await;
        let id = with_doubts(&stack, &ids, &[], &[0]).await;
        look_after(&stack, FIRST_LOOK).await;
        look_after(&stack, LAST_LOOK - FIRST_LOOK).await;
        if refused {
            let refusal = GraphError::new(551, "not available");
            stack.sandbox.add_fault(Fault::answering(refusal));
        }
        if opted_out {
            let contact = json!({"contact_id": ids[0], "page_id": PAGES[0], "opted_out": true});
            let body = json!({"contacts": [contact]});
            stack.call("PUT", "/v1/contacts", None, Some(&body)).await;
        }

        stack.finish(&id).await;

        let row = row(&stack, &id, &ids[0]).await;
        assert_eq!(
            (&row["status"], &row["attempts"]),
            (&json!("in_doubt"), &json!(2))
        );
        assert_eq!(counters(&stack, &id).await, [1, 0, 1]);
        // The proof that the first attempt did arrive comes late, and counts.
        stack.sandbox.clear_faults();
        let message_id = stack.deliver_by_hand(&id, &ids[0]).await;
        stack.echo(&id, &ids[0], 1, &message_id).await;
        assert_eq!(counters(&stack, &id).await, [2, 0, 0]);
    }
}

/// Where a message did not arrive, those of others with the same text are no evidence for it: not one that is recorded for
/// another broadcast, nor one of which nobody knows whose it is.
#[tokio::test]
async fn broadcasts_with_one_text_do_not_steal_each_others_evidence() {
    let stack = Stack::start().await;
    let ids = stack.contacts(2).await;
    let lost = with_doubts(&stack, &ids, &[], &[0, 1]).await;
    let body = |key: &str| (key.to_owned(), request(&ids));
    let (key, second) = body("second");
    // One contact gets the second broadcast; the other perhaps.
    let unanswered = Fault::answering(Answer::Reset).but_arriving();
    stack.sandbox.add_fault(unanswered.to_contacts([&ids[1]]));
    let sent = stack.post_with_key(&key, &second).await.broadcast_id();
    stack.work_off().await;
    stack.sandbox.clear_faults();
    assert_eq!(counters(&stack, &sent).await, [1, 0, 1]);

    look_after(&stack, FIRST_LOOK).await;
    look_after(&stack, LAST_LOOK - FIRST_LOOK).await;

    assert_eq!(counters(&stack, &lost).await, [0, 0, 2]);
    assert_eq!(counters(&stack, &sent).await, [1, 0, 1]);
    let reasons = [&ids[0], &ids[1]].map(|contact| row(&stack, &lost, contact));
    let [first, second] = reasons;
    assert_eq!(
        first.await["reason"],
        "connection lost; not found in Messenger"
    );
    let unclear = "connection lost; a message like it may be another broadcast's";
    assert_eq!(second.await["reason"], unclear);
    // An echo knows whose it is.
    let message_id = message_to(&stack, &ids[1]);
    stack.echo(&sent, &ids[1], 1, &message_id).await;
    assert_eq!(counters(&stack, &sent).await, [2, 0, 0]);
}

/// A delivery that was sent again may have arrived at its first attempt, too, and nobody could see that in time: what turns up
/// then is no evidence for another broadcast.
#[tokio::test]
async fn an_attempt_before_the_one_that_is_known_is_no_evidence_for_another_broadcast() {
    let stack = Stack::with(&[RESEND]).await;
    let ids = stack.contacts(1).await;
    let lost = with_doubts(&stack, &ids, &[], &[0]).await;
    stack.sandbox.set_visible_after_ms(86_400_000);
    let unanswered = || Fault::answering(Answer::Reset);
    stack.sandbox.add_fault(unanswered().but_arriving());
    let body = request(&ids);
    let other = stack.post_with_key("other", &body).await.broadcast_id();
    stack.work_off().await;
    stack.sandbox.clear_faults();
    look_after(&stack, FIRST_LOOK).await;
    look_after(&stack, LAST_LOOK - FIRST_LOOK).await;
    // Both are sent again; of the other it is known this time.
    stack.sandbox.add_fault(unanswered());
    stack.process_job(&stack.hint_for(&lost).await).await;
    stack.sandbox.clear_faults();
    stack.process_job(&stack.hint_for(&other).await).await;
    assert_eq!(counters(&stack, &lost).await, [0, 0, 1]);
    assert_eq!(counters(&stack, &other).await, [1, 0, 0]);

    stack.sandbox.set_visible_after_ms(0);
    look_after(&stack, FIRST_LOOK).await;

    assert_eq!(counters(&stack, &lost).await, [0, 0, 1]);
    // The other one got two: a message was invisible for longer than `resend` assumes.
    stack.forget_broadcasts();
}

/// Only what is known not to be there is sent again by policy.
#[tokio::test]
async fn what_is_unclear_is_not_sent_again() {
    let stack = Stack::with(&[RESEND]).await;
    let ids = stack.contacts(1).await;
    let id = with_doubts(&stack, &ids, &[], &[0]).await;
    look_after(&stack, FIRST_LOOK).await;
    stack.advance(LAST_LOOK - FIRST_LOOK);
    write_the_same(&stack, &ids[0], None);

    stack.scheduled().await;

    let unclear = "connection lost; a message like it is too new to tell whose it is";
    assert_eq!(row(&stack, &id, &ids[0]).await["reason"], unclear);
    assert_eq!(stack.report(&id).await["status"], "completed");
    stack.forget_broadcasts();
}

/// A contact whose sends end in doubt each time is left to the operator some time.
#[tokio::test]
async fn attempts_run_out_for_who_is_sent_to_again_too() {
    let stack = Stack::with(&[RESEND, ("RETRY_ATTEMPTS", "2")]).await;
    let ids = stack.contacts(1).await;
    let id = with_doubts(&stack, &ids, &[], &[0]).await;
    stack.sandbox.add_fault(Fault::answering(Answer::Reset));
    for _ in 0..2 {
        look_after(&stack, FIRST_LOOK).await;
        look_after(&stack, LAST_LOOK - FIRST_LOOK).await;
        stack.finish(&id).await;
    }

    let row = row(&stack, &id, &ids[0]).await;
    assert_eq!(
        (&row["status"], &row["attempts"]),
        (&json!("in_doubt"), &json!(2))
    );
}

#[tokio::test]
async fn what_a_human_wrote_before_is_no_evidence() {
    let stack = Stack::start().await;
    let ids = stack.contacts(1).await;
    let before = jiff::Timestamp::now().as_millisecond() - 60_000;
    write_the_same(&stack, &ids[0], Some(before));
    let id = with_doubts(&stack, &ids, &[], &[0]).await;

    look_after(&stack, FIRST_LOOK).await;

    assert_eq!(counters(&stack, &id).await, [0, 0, 1]);
}

/// It may be of a broadcast that the index of jobs does not show yet.
#[tokio::test]
async fn a_message_that_is_very_new_is_no_evidence_yet() {
    let stack = Stack::start().await;
    let ids = stack.contacts(1).await;
    let id = with_doubts(&stack, &ids, &[], &[0]).await;
    stack.advance(FIRST_LOOK);
    write_the_same(&stack, &ids[0], None);

    stack.scheduled().await;

    assert_eq!(counters(&stack, &id).await, [0, 0, 1]);
    stack.forget_broadcasts();
}

#[tokio::test]
async fn look_ups_keep_messengers_limit_and_end_where_it_is_reached() {
    let stack = Stack::start().await;
    let ids = stack.contacts(6).await;
    let all: Vec<_> = (0..5).collect();
    let id = with_doubts(&stack, &ids, &all, &[]).await;
    let limit = Fault::answering(GraphError::new(613, "too fast")).on(Operation::Lookup);
    stack.sandbox.add_fault(limit.times(1));

    look_after(&stack, FIRST_LOOK).await;
    assert_eq!(counters(&stack, &id).await, [1, 0, 5]);
    assert_eq!(stack.sandbox.conversation_calls(), 1);
    stack.advance(Duration::from_secs(60));
    // The schedule fires twice.
    tokio::join!(stack.scheduled(), stack.scheduled());

    assert_eq!(counters(&stack, &id).await, [6, 0, 0]);
    assert!(stack.sandbox.peak_conversation_calls_per_second() <= 2);
}

/// Of Messenger's word and the worker's, whichever is first; the other changes nothing.
#[tokio::test]
async fn an_echo_that_overtakes_the_answer_settles_the_delivery() {
    let stack = Stack::with(&[IMPATIENT]).await;
    let ids = stack.contacts(3).await;
    stack.sandbox.add_fault(
        Fault::answering(Answer::Hang)
            .but_arriving()
            .to_contacts([&ids[1]]),
    );
    let id = stack.broadcast(&ids).await;
    let hint = stack.receive().await.unwrap();

    let (_, ()) = tokio::join!(stack.process_job(&hint), async {
        let message_id = loop {
            let received = stack.sandbox.received();
            if let Some(message) = received.iter().find(|message| message.contact_id == ids[1]) {
                break message.message_id.clone();
            }
            tokio::task::yield_now().await;
        };
        stack.echo(&id, &ids[1], 1, &message_id).await;
    });

    let report = stack.report(&id).await;
    assert_eq!(report["status"], "completed");
    assert_eq!(counters(&stack, &id).await, [3, 0, 0]);
    // It was our own send, not a duplicate.
    assert_eq!(report["duplicates_prevented"]["reservation"], 0);
}

async fn claim(stack: &Stack, id: &BroadcastId) -> Claim {
    let (job, now) = (stack.job(id).await.id(), stack.app.clock.now());
    let claimed = stack.app.store.claim(&job, Duration::from_secs(90), now);
    match claimed.await.unwrap() {
        Claimed::Won(claim) => *claim,
        other => panic!("{other:?}"),
    }
}

/// A job whose resend has been wished for two rows, as of the next claim.
async fn wished(stack: &Stack, ids: &[String]) -> BroadcastId {
    let id = with_doubts(stack, ids, &[], &[0, 1]).await;
    look_after(stack, FIRST_LOOK).await;
    look_after(stack, LAST_LOOK - FIRST_LOOK).await;
    assert!(stack.job(&id).await.resend_wish);
    id
}

/// From `waiting` only `sent`, by proof.
#[tokio::test]
async fn an_echo_keeps_who_waits_to_be_sent_to_again_from_getting_it_twice() {
    let stack = Stack::with(&[RESEND]).await;
    let ids = stack.contacts(3).await;
    let id = wished(&stack, &ids).await;
    let mut claim = claim(&stack, &id).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let (rows, _) = store.rows_to_resend(&claim.job.id(), None).await.unwrap();
    let resent = store.resend(&mut claim, &rows, now).await.unwrap();
    assert!(matches!(resent, Resent::Done), "{resent:?}");

    // It had arrived after all, and nobody could see it.
    let message_id = stack.deliver_by_hand(&id, &ids[0]).await;
    stack.echo(&id, &ids[0], 1, &message_id).await;
    let report = stack.finish(&id).await;

    assert_eq!(report["counters"]["sent"], 3, "{report:#}");
    assert_eq!(stack.received(&id).values().max(), Some(&1));
}

/// CHECKED 3 and 18: who carries out a resend dies in the middle of it, and the next one finds what is left.
#[tokio::test]
async fn a_resend_that_is_cut_off_is_carried_out_by_the_next_claim() {
    let stack = Stack::with(&[RESEND]).await;
    let ids = stack.contacts(4).await;
    let id = wished(&stack, &ids).await;
    let mut dead = claim(&stack, &id).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let (rows, _) = store.rows_to_resend(&dead.job.id(), None).await.unwrap();
    assert_eq!(rows.len(), 2);
    store.resend(&mut dead, &rows[..1], now).await.unwrap();
    stack.advance(Duration::from_secs(200));

    let report = stack.finish(&id).await;
    // And the dead one comes back.
    let late = store.resend(&mut dead, &rows[1..], now).await.unwrap();

    assert!(
        matches!(late, Resent::Stale | Resent::Changed(_)),
        "{late:?}"
    );
    assert_eq!(report["counters"]["sent"], 4, "{report:#}");
    assert_eq!(stack.received(&id).len(), 4);
}

/// CHECKED 5, for a resend: the job is another's by now, and the rows are as they were.
#[tokio::test]
async fn a_worker_that_was_overtaken_puts_nobody_back_in_line() {
    let stack = Stack::with(&[RESEND]).await;
    let ids = stack.contacts(2).await;
    let id = wished(&stack, &ids).await;
    let mut old = claim(&stack, &id).await;
    stack.advance(Duration::from_secs(91));
    claim(&stack, &id).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let (rows, _) = store.rows_to_resend(&old.job.id(), None).await.unwrap();

    let resent = store.resend(&mut old, &rows, now).await.unwrap();

    assert!(matches!(resent, Resent::Stale), "{resent:?}");
    // Nor does it take the wish away from whoever carries it out now.
    assert!(!store.fulfil_resend_wish(&mut old, now).await.unwrap());
    let job = stack.job(&id).await;
    assert_eq!((job.segments, job.resend_wish), (1, true));
}

/// Whoever works on it may be about to pass the contact.
#[tokio::test]
async fn a_job_that_is_worked_on_takes_no_wish() {
    let stack = Stack::with(&[RESEND]).await;
    let ids = stack.contacts(3).await;
    let id = wished(&stack, &ids[..2]).await;
    let working = claim(&stack, &id).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let contact = ContactId::parse(&ids[0]).unwrap();
    let job = working.job.id();
    let row = store.delivery(&job, &contact).await.unwrap().unwrap();

    let ordered = store.order_resend(&job, &row, now).await.unwrap();

    assert_eq!(ordered, Ordered::NotNow);
    assert_eq!(stack.job(&id).await.status.to_string(), "processing");
    stack.advance(Duration::from_secs(200));
    stack.finish(&id).await;
}

/// CHECKED 8, by the table: also when the refusal comes late.
#[tokio::test]
async fn what_may_have_arrived_before_does_not_fail_late() {
    let stack = Stack::with(&[RESEND]).await;
    let ids = stack.contacts(2).await;
    let id = with_doubts(&stack, &ids, &[], &[0]).await;
    look_after(&stack, FIRST_LOOK).await;
    look_after(&stack, LAST_LOOK - FIRST_LOOK).await;
    let again = Fault::answering(Answer::Reset).to_contacts([&ids[0]]);
    stack.sandbox.add_fault(again);
    stack.finish(&id).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let (job, contact) = (
        stack.job(&id).await.id(),
        ContactId::parse(&ids[0]).unwrap(),
    );
    let row = store.delivery(&job, &contact).await.unwrap().unwrap();
    assert!(row.earlier_doubt.is_some());

    let failed = State::Failed {
        reason: "refused".to_owned(),
    };
    let settled = store.settle(&job, &row, &failed, None, now).await.unwrap();

    assert!(matches!(settled, Settled::Otherwise(_)), "{settled:?}");
    assert_eq!(counters(&stack, &id).await, [1, 0, 1]);
}

/// CHECKED 14, for an echo: its row was put in doubt, and counted, since it was seen.
#[tokio::test]
async fn an_echo_that_was_overtaken_does_not_settle_past_the_counters() {
    let stack = Stack::start().await;
    let ids = stack.contacts(2).await;
    let id = with_doubts(&stack, &ids, &[0], &[]).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let (job, contact) = (
        stack.job(&id).await.id(),
        ContactId::parse(&ids[0]).unwrap(),
    );
    let mut seen = store.delivery(&job, &contact).await.unwrap().unwrap();
    seen.state = State::Reserved;

    let sent = State::Sent {
        message_id: message_to(&stack, &ids[0]),
    };
    let proved = store.prove(&job, &seen, &sent, now).await.unwrap();

    assert!(matches!(proved, Settled::Otherwise(_)), "{proved:?}");
    assert_eq!(counters(&stack, &id).await, [1, 0, 1]);
}

/// CHECKED 14, for a resend: what was settled since the row was seen is left out.
#[tokio::test]
async fn a_row_that_was_settled_meanwhile_is_not_sent_again() {
    let stack = Stack::with(&[RESEND]).await;
    let ids = stack.contacts(2).await;
    let id = wished(&stack, &ids).await;
    let mut claim = claim(&stack, &id).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let (rows, _) = store.rows_to_resend(&claim.job.id(), None).await.unwrap();
    let message_id = stack.deliver_by_hand(&id, &ids[0]).await;
    stack.echo(&id, &ids[0], 1, &message_id).await;

    let resent = store.resend(&mut claim, &rows, now).await.unwrap();

    assert!(
        matches!(&resent, Resent::Changed(which) if *which == [0]),
        "{resent:?}"
    );
    stack.advance(Duration::from_secs(200));
    let report = stack.finish(&id).await;
    assert_eq!(report["counters"]["sent"], 2, "{report:#}");
    // Nor is it wished to be, by who saw it in doubt.
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let job = stack.job(&id).await.id();
    let ordered = store.order_resend(&job, &rows[0], now).await.unwrap();
    assert_eq!(ordered, Ordered::Otherwise);
    assert_eq!(stack.report(&id).await["status"], "completed");
}

/// What was not found concerns the attempt that was looked for, not one that was made since.
#[tokio::test]
async fn a_look_for_an_earlier_attempt_says_nothing_of_this_one() {
    let stack = Stack::start().await;
    let ids = stack.contacts(1).await;
    let id = with_doubts(&stack, &ids, &[0], &[]).await;
    let store = &stack.app.store;
    let (job, contact) = (
        stack.job(&id).await.id(),
        ContactId::parse(&ids[0]).unwrap(),
    );
    let mut seen = store.delivery(&job, &contact).await.unwrap().unwrap();
    seen.token = "of an earlier attempt".to_owned();

    let no_more = Err("not found");
    store.look_again(&job, &seen, no_more).await.unwrap();

    assert_eq!(row(&stack, &id, &ids[0]).await["reason"], "connection lost");
    look_after(&stack, FIRST_LOOK).await;
    assert_eq!(counters(&stack, &id).await, [1, 0, 0]);
}

/// Of two who have proof of one delivery, one counts it.
#[tokio::test]
async fn a_row_that_was_settled_meanwhile_is_not_counted_again() {
    let stack = Stack::start().await;
    let ids = stack.contacts(3).await;
    let id = with_doubts(&stack, &ids, &[0], &[1]).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let (job, contact) = (
        stack.job(&id).await.id(),
        ContactId::parse(&ids[0]).unwrap(),
    );
    let seen = store.delivery(&job, &contact).await.unwrap().unwrap();
    let message_id = message_to(&stack, &ids[0]);
    stack.echo(&id, &ids[0], 1, &message_id).await;

    let sent = State::Sent {
        message_id: "another".to_owned(),
    };
    let settled = store.settle(&job, &seen, &sent, None, now).await.unwrap();

    assert!(matches!(settled, Settled::Otherwise(_)), "{settled:?}");
    assert_eq!(counters(&stack, &id).await, [2, 0, 1]);
}

/// Two look-ups find one message for two deliveries, and neither sees the other's row.
#[tokio::test]
async fn one_message_settles_one_delivery() {
    let stack = Stack::start().await;
    let ids = stack.contacts(1).await;
    let first = with_doubts(&stack, &ids, &[0], &[]).await;
    let body = request(&ids);
    stack.sandbox.add_fault(Fault::answering(Answer::Reset));
    let second = stack.post_with_key("second", &body).await.broadcast_id();
    stack.work_off().await;
    let contact = ContactId::parse(&ids[0]).unwrap();
    let message_id = message_to(&stack, &ids[0]);
    let sent = State::Sent {
        message_id: message_id.clone(),
    };
    let (store, now) = (&stack.app.store, stack.app.clock.now());

    let mut settled = Vec::new();
    for id in [&first, &second] {
        let job = stack.job(id).await.id();
        let row = store.delivery(&job, &contact).await.unwrap().unwrap();
        let one = store.settle(&job, &row, &sent, Some(&message_id), now);
        settled.push(one.await.unwrap());
    }

    assert!(matches!(settled[0], Settled::Now), "{settled:?}");
    assert!(matches!(settled[1], Settled::MessageTaken), "{settled:?}");
    assert_eq!(counters(&stack, &second).await, [0, 0, 1]);
}

// The webhook.

#[tokio::test]
async fn meta_subscribes_only_with_the_verify_token() {
    let stack = Stack::start().await;
    let ask = async |query: &str| {
        let request = Request::get(format!("/v1/webhooks/messenger?{query}"));
        stack.raw(request.body(Body::empty()).unwrap()).await
    };
    let right = format!("hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}&hub.challenge=11%3C58");

    let answer = ask(&right).await;
    assert_eq!(
        (answer.status(), &answer.body()[..]),
        (StatusCode::OK, &b"11<58"[..])
    );
    assert!(
        answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
    for wrong in [
        "",
        "hub.mode=subscribe&hub.challenge=1158",
        "hub.mode=subscribe&hub.verify_token=guess&hub.challenge=1158",
        &right.replace("subscribe", "unsubscribe"),
    ] {
        assert_eq!(ask(wrong).await.status(), StatusCode::FORBIDDEN, "{wrong}");
    }
}

#[tokio::test]
async fn only_meta_can_settle_a_delivery() {
    let stack = Stack::start().await;
    let ids = stack.contacts(1).await;
    let id = with_doubts(&stack, &ids, &[], &[0]).await;
    let page = PAGES[0];
    let metadata = format!("oncecast/1 {id} {page} 1 {}", ids[0]);
    let event = |sender: &str, recipient: &str, mid: &str| {
        json!({
            "sender": {"id": sender}, "recipient": {"id": recipient}, "timestamp": 0,
            "message": {"is_echo": true, "mid": mid, "metadata": metadata},
        })
    };
    let right = event(page, &ids[0], "m_forged");
    let body = json!({"entry": [{"id": page, "messaging": [&right]}]}).to_string();

    assert_eq!(
        stack.signed_webhook(&body, "guess").await,
        StatusCode::FORBIDDEN
    );
    let unsigned = Request::post("/v1/webhooks/messenger")
        .body(Body::from(body))
        .unwrap();
    assert_eq!(stack.raw(unsigned).await.status(), StatusCode::FORBIDDEN);
    // Another Page of the same app cannot speak for this one, and no contact for another.
    for (entry, event) in [
        (PAGES[1], right.clone()),
        (page, event(PAGES[1], &ids[0], "m_forged")),
        (page, event(page, "somebody-else", "m_forged")),
        (page, event(page, &ids[0], "")),
    ] {
        assert_eq!(stack.webhook(entry, &[event]).await, StatusCode::OK);
    }
    assert_eq!(counters(&stack, &id).await, [0, 0, 1]);
}

#[tokio::test]
async fn events_of_other_kinds_are_taken_in_and_harm_nobody() {
    let stack = Stack::start().await;
    for body in [
        "nonsense",
        "{}",
        r#"{"object": "page", "entry": []}"#,
        r#"{"entry": [{"id": "page-1", "messaging": [{}, 5, {"delivery": {"watermark": 1}}]}]}"#,
        r#"{"entry": [{"id": "page-1", "changes": [{"field": "feed"}]}]}"#,
    ] {
        let status = stack.signed_webhook(body, crate::stack::APP_SECRET).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }
}

#[tokio::test]
async fn echoes_are_heard_on_standby_too() {
    let stack = Stack::start().await;
    let ids = stack.contacts(1).await;
    let id = with_doubts(&stack, &ids, &[0], &[]).await;
    let message_id = message_to(&stack, &ids[0]);
    let event = json!({
        "sender": {"id": PAGES[0]}, "recipient": {"id": ids[0]}, "timestamp": 0,
        "message": {
            "is_echo": true, "mid": message_id,
            "metadata": format!("oncecast/1 {id} {} 1 {}", PAGES[0], ids[0]),
        },
    });
    let body = json!({"entry": [{"id": PAGES[0], "standby": [event]}]}).to_string();

    let status = stack.signed_webhook(&body, crate::stack::APP_SECRET).await;

    assert_eq!(status, StatusCode::OK);
    assert_eq!(counters(&stack, &id).await, [1, 0, 0]);
}

#[tokio::test]
async fn who_writes_to_a_page_was_heard_of_then_and_never_earlier() {
    let stack = Stack::start().await;
    let ids = stack.contacts(1).await;
    let event = |contact: &str, timestamp: i64, what: Value| {
        let mut event = json!({"sender": {"id": contact}, "recipient": {"id": PAGES[0]}, "timestamp": timestamp});
        event
            .as_object_mut()
            .unwrap()
            .extend(what.as_object().unwrap().clone());
        event
    };
    let message = || json!({"message": {"mid": "m", "text": "Hello"}});
    let events = [
        event(&ids[0], 1_795_000_000_000, message()),
        event(
            &ids[0],
            1_794_000_000_000,
            json!({"postback": {"payload": "x"}}),
        ),
        event(
            &ids[0],
            1_796_000_000_000,
            json!({"read": {"watermark": 1}}),
        ),
        event("nobody-of-ours", 1_795_000_000_000, message()),
    ];

    assert_eq!(stack.webhook(PAGES[0], &events).await, StatusCode::OK);

    let contact = stack
        .call("GET", &format!("/v1/contacts/{}", ids[0]), None, None)
        .await;
    assert_eq!(contact.body["last_interaction_at"], "2026-11-18T11:06:40Z");
    let nobody = stack
        .call("GET", "/v1/contacts/nobody-of-ours", None, None)
        .await;
    assert_eq!(nobody.status, StatusCode::NOT_FOUND);
}
