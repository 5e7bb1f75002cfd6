//! Settling: a delivery in doubt becomes `sent` only by evidence from Messenger, and otherwise stays in doubt.

use std::time::Duration;

use axum::http::StatusCode;
use local::sandbox::{Answer, Fault, GraphError, Operation};
use shared::domain::delivery::State;
use shared::domain::ids::ContactId;
use shared::store::deliveries::RowChange;
use shared::store::doubts::NextLookup;
use shared::store::transactions::Settled;

use crate::fixture::doubts::{FIRST_LOOKUP, LAST_LOOKUP, RESEND};
use crate::fixture::{SHORT_MESSENGER_TIMEOUT, TestStack, request};

#[tokio::test]
async fn found_message_settles_the_delivery() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let id = stack.broadcast_with_doubts(&ids, &[0], &[]).await;

    stack.tick_after(FIRST_LOOKUP - Duration::from_secs(10)).await;
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [2, 0, 1]);
    stack.tick_after(Duration::from_secs(20)).await;

    assert_eq!(stack.sent_failed_in_doubt(&id).await, [3, 0, 0]);
    let row = stack.delivery(&id, &ids[0]).await;
    assert_eq!(row["message_id"], stack.newest_message_id(&ids[0]));
}

#[tokio::test]
async fn delivery_not_found_stays_in_doubt_and_lookups_end() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let id = stack.broadcast_with_doubts(&ids, &[], &[0]).await;

    stack.tick_after(FIRST_LOOKUP).await;
    assert_eq!(stack.delivery(&id, &ids[0]).await["reason"], "connection lost");
    // The index still shows it as due.
    stack.sandbox.forget_conversation_calls();
    stack.tick().await;
    assert_eq!(stack.sandbox.conversation_calls(), 0);
    stack.tick_after(LAST_LOOKUP - FIRST_LOOKUP).await;
    let after_last = stack.delivery(&id, &ids[0]).await;
    stack.tick_after(LAST_LOOKUP).await;

    assert_eq!(stack.sandbox.conversation_calls(), 0);
    assert_eq!(after_last["status"], "in_doubt");
    assert_eq!(after_last["reason"], "connection lost; not found in Messenger");
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [1, 0, 1]);
    assert_eq!(stack.received(&id).get(&ids[0]), None);
}

/// A write that moves a row out of doubt also counts it, even for a completed broadcast.
#[tokio::test]
async fn repeated_echo_settles_the_delivery_once() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let id = stack.broadcast_with_doubts(&ids, &[0], &[]).await;
    let message_id = stack.newest_message_id(&ids[0]);

    for _ in 0..3 {
        let status = stack.echo(&id, &ids[0], 1, &message_id).await;
        assert_eq!(status, StatusCode::OK);
    }

    assert_eq!(stack.sent_failed_in_doubt(&id).await, [2, 0, 0]);
    assert_eq!(stack.delivery(&id, &ids[0]).await["message_id"], message_id);
    let other = stack.echo(&id, &ids[0], 1, "m_other").await;
    assert_eq!(other, StatusCode::OK);
    assert_eq!(stack.delivery(&id, &ids[0]).await["message_id"], message_id);
}

/// A message with the same text is no evidence for a message that did not arrive: neither one that is recorded for another
/// broadcast, nor one that may belong to either.
#[tokio::test]
async fn broadcasts_with_equal_text_share_no_evidence() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let lost = stack.broadcast_with_doubts(&ids, &[], &[0, 1]).await;
    let body = |key: &str| (key.to_owned(), request(&ids));
    let (key, second) = body("second");
    // One contact gets the second broadcast; the other is in doubt.
    let unanswered = Fault::answering(Answer::Reset).but_arriving();
    stack.sandbox.add_fault(unanswered.to_contacts([&ids[1]]));
    let sent = stack.post_with_key(&key, &second).await.broadcast_id();
    stack.drain_queue().await;
    stack.sandbox.clear_faults();
    assert_eq!(stack.sent_failed_in_doubt(&sent).await, [1, 0, 1]);

    stack.tick_at_both_lookups().await;

    assert_eq!(stack.sent_failed_in_doubt(&lost).await, [0, 0, 2]);
    assert_eq!(stack.sent_failed_in_doubt(&sent).await, [1, 0, 1]);
    let reasons = [&ids[0], &ids[1]].map(|contact| stack.delivery(&lost, contact));
    let [first, second] = reasons;
    assert_eq!(first.await["reason"], "connection lost; not found in Messenger");
    let unclear = "connection lost; a message like it may be another broadcast's";
    assert_eq!(second.await["reason"], unclear);
    // An echo names its broadcast.
    let message_id = stack.newest_message_id(&ids[1]);
    stack.echo(&sent, &ids[1], 1, &message_id).await;
    assert_eq!(stack.sent_failed_in_doubt(&sent).await, [2, 0, 0]);
}

/// The first attempt of a delivery that was sent again may have arrived too, and become visible only later: its message is no
/// evidence for another broadcast.
#[tokio::test]
async fn earlier_attempt_is_no_evidence_for_another_broadcast() {
    let stack = TestStack::start_with(&[RESEND]).await;
    let ids = stack.import_contacts(1).await;
    let lost = stack.broadcast_with_doubts(&ids, &[], &[0]).await;
    stack.sandbox.set_visible_after_ms(86_400_000);
    let unanswered = || Fault::answering(Answer::Reset);
    stack.sandbox.add_fault(unanswered().but_arriving());
    let body = request(&ids);
    let other = stack.post_with_key("other", &body).await.broadcast_id();
    stack.drain_queue().await;
    stack.sandbox.clear_faults();
    stack.tick_at_both_lookups().await;
    // Both are sent again; the second attempt of the other is answered.
    stack.sandbox.add_fault(unanswered());
    stack.process_job(&stack.wake_up_for(&lost).await).await;
    stack.sandbox.clear_faults();
    stack.process_job(&stack.wake_up_for(&other).await).await;
    assert_eq!(stack.sent_failed_in_doubt(&lost).await, [0, 0, 1]);
    assert_eq!(stack.sent_failed_in_doubt(&other).await, [1, 0, 0]);

    stack.sandbox.set_visible_after_ms(0);
    stack.tick_after(FIRST_LOOKUP).await;

    assert_eq!(stack.sent_failed_in_doubt(&lost).await, [0, 0, 1]);
    // The contact got two messages of the other: a message was invisible for longer than `resend` assumes.
    stack.skip_promise_check();
}

#[tokio::test]
async fn message_older_than_the_reservation_is_no_evidence() {
    let stack = TestStack::start_with(&[RESEND]).await;
    let ids = stack.import_contacts(1).await;
    // Older by more than clocks may differ.
    let before = jiff::Timestamp::now().as_millisecond() - 310_000;
    stack.add_foreign_message(&ids[0], Some(before));
    let id = stack.broadcast_with_doubts(&ids, &[], &[0]).await;

    stack.tick_after(FIRST_LOOKUP).await;
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [0, 0, 1]);
    stack.tick_after(LAST_LOOKUP - FIRST_LOOKUP).await;
    stack.finish(&id).await;

    assert_eq!(stack.received(&id).get(&ids[0]), Some(&1), "sent again");
}

/// A message of the last ten seconds may belong to a broadcast that the index of jobs does not show yet.
#[tokio::test]
async fn very_new_message_is_no_evidence_yet() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast_with_doubts(&ids, &[], &[0]).await;
    stack.advance(FIRST_LOOKUP);
    stack.add_foreign_message(&ids[0], None);

    stack.tick().await;
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [0, 0, 1], "too new");

    stack.tick_after(Duration::from_secs(12)).await;

    assert_eq!(stack.sent_failed_in_doubt(&id).await, [1, 0, 0]);
    stack.skip_promise_check();
}

#[tokio::test]
async fn lookups_keep_messengers_limit_and_stop_when_limited() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(6).await;
    let all: Vec<_> = (0..5).collect();
    let id = stack.broadcast_with_doubts(&ids, &all, &[]).await;
    let limit = Fault::answering(GraphError::new(613, "too fast")).on(Operation::Lookup);
    stack.sandbox.add_fault(limit.times(1));

    stack.tick_after(FIRST_LOOKUP).await;
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [1, 0, 5]);
    assert_eq!(stack.sandbox.conversation_calls(), 1);
    stack.advance(Duration::from_secs(60));
    // Two concurrent ticks share the limit.
    tokio::join!(stack.tick(), stack.tick());

    assert_eq!(stack.sent_failed_in_doubt(&id).await, [6, 0, 0]);
    assert!(stack.sandbox.peak_conversation_calls_per_second() <= 2);
    // One tick alone makes the two calls of each lookup.
    assert_eq!(stack.sandbox.conversation_calls(), 1 + 2 * 5);
}

/// The echo and the answer prove the same; the first one settles the delivery, and the second changes nothing.
#[tokio::test]
async fn echo_before_the_response_settles_the_delivery() {
    let stack = TestStack::start_with(&[SHORT_MESSENGER_TIMEOUT]).await;
    let ids = stack.import_contacts(3).await;
    stack
        .sandbox
        .add_fault(Fault::answering(Answer::Hang).but_arriving().to_contacts([&ids[1]]));
    let id = stack.broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();

    let (_, ()) = tokio::join!(stack.process_job(&wake_up), async {
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
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [3, 0, 0]);
    // The settled row is the worker's own send, not a prevented duplicate.
    assert_eq!(report["duplicates_prevented"]["reservation"], 0);
}

/// After the echo's handler read the row, it was put in doubt, and counted.
#[tokio::test]
async fn echo_on_an_outdated_row_does_not_bypass_the_counters() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let id = stack.broadcast_with_doubts(&ids, &[0], &[]).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let (job, contact) = (stack.job(&id).await.id(), ContactId::parse(&ids[0]).unwrap());
    let mut seen = store.deliveries().get(&job, &contact).await.unwrap().unwrap();
    seen.state = State::Reserved;

    let sent = State::Sent {
        message_id: stack.newest_message_id(&ids[0]),
    };
    let marked = store
        .deliveries()
        .mark_sent_if_unchanged(&job, &seen, &sent, now)
        .await
        .unwrap();

    assert!(matches!(marked, RowChange::Refused(_)), "{marked:?}");
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [1, 0, 1]);
}

/// The result of a lookup concerns the attempt that it looked for, not one that was made since.
#[tokio::test]
async fn lookup_of_an_earlier_attempt_leaves_the_row_unchanged() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast_with_doubts(&ids, &[0], &[]).await;
    let store = &stack.app.store;
    let (job, contact) = (stack.job(&id).await.id(), ContactId::parse(&ids[0]).unwrap());
    let mut seen = store.deliveries().get(&job, &contact).await.unwrap().unwrap();
    seen.token = "of an earlier attempt".to_owned();

    let never = NextLookup::Never { reason: "not found" };
    store
        .doubts()
        .schedule_lookup_if_in_doubt(&job, &seen, never)
        .await
        .unwrap();

    assert_eq!(stack.delivery(&id, &ids[0]).await["reason"], "connection lost");
    stack.tick_after(FIRST_LOOKUP).await;
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [1, 0, 0]);
}

/// Two proofs of one delivery count it once.
#[tokio::test]
async fn row_settled_meanwhile_is_not_counted_again() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let id = stack.broadcast_with_doubts(&ids, &[0], &[1]).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let (job, contact) = (stack.job(&id).await.id(), ContactId::parse(&ids[0]).unwrap());
    let seen = store.deliveries().get(&job, &contact).await.unwrap().unwrap();
    let message_id = stack.newest_message_id(&ids[0]);
    stack.echo(&id, &ids[0], 1, &message_id).await;

    let sent = State::Sent {
        message_id: "another".to_owned(),
    };
    let settled = store
        .transactions()
        .settle(&job, &seen, &sent, None, now)
        .await
        .unwrap();

    assert!(matches!(settled, Settled::Otherwise(_)), "{settled:?}");
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [2, 0, 1]);
}

/// Two lookups find one message for two deliveries, and neither sees the other's row.
#[tokio::test]
async fn one_message_settles_one_delivery() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let first = stack.broadcast_with_doubts(&ids, &[0], &[]).await;
    let body = request(&ids);
    stack.sandbox.add_fault(Fault::answering(Answer::Reset));
    let second = stack.post_with_key("second", &body).await.broadcast_id();
    stack.drain_queue().await;
    let contact = ContactId::parse(&ids[0]).unwrap();
    let message_id = stack.newest_message_id(&ids[0]);
    let sent = State::Sent {
        message_id: message_id.clone(),
    };
    let (store, now) = (&stack.app.store, stack.app.clock.now());

    let mut settled = Vec::new();
    for id in [&first, &second] {
        let job = stack.job(id).await.id();
        let row = store.deliveries().get(&job, &contact).await.unwrap().unwrap();
        let transactions = store.transactions();
        let one = transactions.settle(&job, &row, &sent, Some(&message_id), now).await;
        settled.push(one.unwrap());
    }

    assert!(matches!(settled[0], Settled::Now), "{settled:?}");
    assert!(matches!(settled[1], Settled::MessageTaken), "{settled:?}");
    assert_eq!(stack.sent_failed_in_doubt(&second).await, [0, 0, 1]);
}
