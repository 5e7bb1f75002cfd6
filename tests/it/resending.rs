//! Resending: a delivery that the last lookup does not find is sent again once under the policy `resend`, and never twice.

use std::time::Duration;

use local::sandbox::{Answer, Fault, ForeignMessage, GraphError, Operation};
use serde_json::json;
use shared::domain::delivery::State;
use shared::domain::ids::{BroadcastId, ContactId};
use shared::store::transactions::{CommandOutcome, Resent, Settled};

use crate::fixture::doubts::{FIRST_LOOKUP, LAST_LOOKUP, RESEND};
use crate::fixture::{PAGES, TestStack};

#[tokio::test]
async fn delivery_not_found_by_the_last_lookup_is_resent_once() {
    let stack = TestStack::start_with(&[RESEND]).await;
    let ids = stack.import_contacts(5).await;
    let id = stack.broadcast_with_doubts(&ids, &[], &[1, 3]).await;

    stack.tick_after(FIRST_LOOKUP).await;
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [3, 0, 2]);
    stack.tick_after(LAST_LOOKUP - FIRST_LOOKUP).await;
    assert_eq!(stack.report(&id).await["status"], "queued");
    let report = stack.finish(&id).await;

    assert_eq!(report["counters"]["sent"], 5, "{report:#}");
    assert_eq!(stack.received(&id).len(), 5);
    assert_eq!(stack.delivery(&id, &ids[1]).await["attempts"], 2);
    assert_eq!(report["duplicates_prevented"]["reservation"], 0);
}

/// One of two deliveries in doubt has arrived, and only its lookups fail.
#[tokio::test]
async fn resend_takes_only_the_named_rows() {
    let stack = TestStack::start_with(&[RESEND]).await;
    let ids = stack.import_contacts(2).await;
    let id = stack.broadcast_with_doubts(&ids, &[0], &[1]).await;
    let no_answer = GraphError {
        status: 500,
        ..GraphError::new(2, "try again later")
    };
    let fault = Fault::answering(no_answer).on(Operation::Lookup);
    stack.sandbox.add_fault(fault.to_contacts([&ids[0]]));

    stack.tick_at_both_lookups().await;
    let report = stack.finish(&id).await;

    assert_eq!(report["counters"]["in_doubt"], 1, "{report:#}");
    assert_eq!(stack.delivery(&id, &ids[0]).await["attempts"], 1);
    assert_eq!(stack.received(&id).len(), 2);
    // A failed lookup does not count as one: the first successful one finds the message.
    stack.sandbox.clear_faults();
    stack.tick_after(FIRST_LOOKUP).await;
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [2, 0, 0]);
}

/// The second attempt of a delivery in doubt is refused, or the contact has opted out since. The first
/// attempt may have arrived all the same.
#[tokio::test]
async fn contact_once_in_doubt_never_fails() {
    for (refused, opted_out) in [(true, false), (false, true)] {
        let stack = TestStack::start_with(&[RESEND]).await;
        let ids = stack.import_contacts(2).await;
        let id = stack.broadcast_with_doubts(&ids, &[], &[0]).await;
        stack.tick_at_both_lookups().await;
        if refused {
            let refusal = GraphError::new(551, "not available");
            stack.sandbox.add_fault(Fault::answering(refusal));
        }
        if opted_out {
            let contact = json!({"contact_id": ids[0], "page_id": PAGES[0], "opted_out": true});
            let body = json!({"contacts": [contact]});
            stack.call("PUT", "/v1/contacts", None, Some(&body)).await;
            stack.let_reads_catch_up();
        }

        stack.finish(&id).await;

        let row = stack.delivery(&id, &ids[0]).await;
        assert_eq!((&row["status"], &row["attempts"]), (&json!("in_doubt"), &json!(2)));
        assert_eq!(stack.sent_failed_in_doubt(&id).await, [1, 0, 1]);
        // A late proof that the first attempt arrived still counts.
        stack.sandbox.clear_faults();
        let message_id = stack.deliver_by_hand(&id, &ids[0]).await;
        stack.echo(&id, &ids[0], 1, &message_id).await;
        assert_eq!(stack.sent_failed_in_doubt(&id).await, [2, 0, 0]);
    }
}

/// The policy applies only to a message that is known to be missing: here the conversation shows too little of the past.
#[tokio::test]
async fn unclear_lookup_is_not_resent() {
    let stack = TestStack::start_with(&[RESEND]).await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast_with_doubts(&ids, &[], &[0]).await;
    stack.tick_after(FIRST_LOOKUP).await;
    for n in 0..30 {
        stack.sandbox.add_message(ForeignMessage {
            page_id: PAGES[0].to_owned(),
            contact_id: ids[0].clone(),
            text: format!("Another message, number {n}"),
            from_contact: true,
            at: None,
        });
    }

    stack.tick_after(LAST_LOOKUP - FIRST_LOOKUP).await;

    let unclear = "connection lost; too many messages have been written since";
    assert_eq!(stack.delivery(&id, &ids[0]).await["reason"], unclear);
    assert_eq!(stack.report(&id).await["status"], "completed");
}

/// A contact whose every send ends in doubt is left to the operator after its last attempt.
#[tokio::test]
async fn resends_end_after_the_last_attempt() {
    let stack = TestStack::start_with(&[RESEND, ("RETRY_ATTEMPTS", "2")]).await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast_with_doubts(&ids, &[], &[0]).await;
    stack.sandbox.add_fault(Fault::answering(Answer::Reset));
    for _ in 0..2 {
        stack.tick_at_both_lookups().await;
        stack.finish(&id).await;
    }

    let row = stack.delivery(&id, &ids[0]).await;
    assert_eq!((&row["status"], &row["attempts"]), (&json!("in_doubt"), &json!(2)));
}

/// Creates a job with a command to resend its first two rows, which the next claim carries out.
async fn commanded(stack: &TestStack, ids: &[String]) -> BroadcastId {
    let id = stack.broadcast_with_doubts(ids, &[], &[0, 1]).await;
    stack.tick_at_both_lookups().await;
    assert!(stack.job(&id).await.resend_command);
    id
}

/// A waiting row becomes `sent` by proof.
#[tokio::test]
async fn echo_cancels_pending_resend() {
    let stack = TestStack::start_with(&[RESEND]).await;
    let ids = stack.import_contacts(3).await;
    let id = commanded(&stack, &ids).await;
    let mut claim = stack.claim(&stack.job(&id).await.id()).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let (rows, _) = store
        .deliveries()
        .named_for_resend(&claim.job.id(), None)
        .await
        .unwrap();
    let resent = store.transactions().resend(&mut claim, &rows, now).await.unwrap();
    assert!(matches!(resent, Resent::Done), "{resent:?}");

    // The first attempt had arrived, unseen by the lookups.
    let message_id = stack.deliver_by_hand(&id, &ids[0]).await;
    stack.echo(&id, &ids[0], 1, &message_id).await;
    let report = stack.finish(&id).await;

    assert_eq!(report["counters"]["sent"], 3, "{report:#}");
    assert_eq!(stack.received(&id).values().max(), Some(&1));
}

/// The worker dies in the middle of a resend, and the next claim finds the rest.
#[tokio::test]
async fn interrupted_resend_is_completed_by_the_next_claim() {
    let stack = TestStack::start_with(&[RESEND]).await;
    let ids = stack.import_contacts(4).await;
    let id = commanded(&stack, &ids).await;
    let mut dead = stack.claim(&stack.job(&id).await.id()).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let (rows, _) = store.deliveries().named_for_resend(&dead.job.id(), None).await.unwrap();
    assert_eq!(rows.len(), 2);
    store.transactions().resend(&mut dead, &rows[..1], now).await.unwrap();
    stack.advance(Duration::from_secs(200));

    let report = stack.finish(&id).await;
    // The dead worker turns out to have been frozen.
    let late = store.transactions().resend(&mut dead, &rows[1..], now).await.unwrap();

    assert!(matches!(late, Resent::Stale | Resent::Changed(_)), "{late:?}");
    assert_eq!(report["counters"]["sent"], 4, "{report:#}");
    assert_eq!(stack.received(&id).len(), 4);
}

/// Another worker has the job by now, and the rows are unchanged.
#[tokio::test]
async fn stale_worker_cannot_requeue_contacts() {
    let stack = TestStack::start_with(&[RESEND]).await;
    let ids = stack.import_contacts(2).await;
    let id = commanded(&stack, &ids).await;
    let mut old = stack.claim(&stack.job(&id).await.id()).await;
    stack.advance(Duration::from_secs(91));
    stack.claim(&stack.job(&id).await.id()).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let (rows, _) = store.deliveries().named_for_resend(&old.job.id(), None).await.unwrap();

    let resent = store.transactions().resend(&mut old, &rows, now).await.unwrap();

    assert!(matches!(resent, Resent::Stale), "{resent:?}");
    // The stale worker does not clear the command either, which the new one carries out.
    assert!(!store.jobs().clear_command_if_claimed(&mut old, now).await.unwrap());
    let job = stack.job(&id).await;
    assert_eq!((job.segments, job.resend_command), (1, true));
}

/// The worker may be about to pass the contact.
#[tokio::test]
async fn processing_job_refuses_a_resend_command() {
    let stack = TestStack::start_with(&[RESEND]).await;
    let ids = stack.import_contacts(3).await;
    let id = commanded(&stack, &ids[..2]).await;
    let working = stack.claim(&stack.job(&id).await.id()).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let contact = ContactId::parse(&ids[0]).unwrap();
    let job = working.job.id();
    let row = store.deliveries().get(&job, &contact).await.unwrap().unwrap();

    let outcome = store
        .transactions()
        .command_resend_if_completed(&job, &row, now)
        .await
        .unwrap();

    assert_eq!(outcome, CommandOutcome::NotNow);
    assert_eq!(stack.job(&id).await.status.to_string(), "processing");
    stack.advance(Duration::from_secs(200));
    stack.finish(&id).await;
}

/// A refusal that arrives late changes nothing either.
#[tokio::test]
async fn late_refusal_does_not_fail_a_contact_once_in_doubt() {
    let stack = TestStack::start_with(&[RESEND]).await;
    let ids = stack.import_contacts(2).await;
    let id = stack.broadcast_with_doubts(&ids, &[], &[0]).await;
    stack.tick_at_both_lookups().await;
    let again = Fault::answering(Answer::Reset).to_contacts([&ids[0]]);
    stack.sandbox.add_fault(again);
    stack.finish(&id).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let (job, contact) = (stack.job(&id).await.id(), ContactId::parse(&ids[0]).unwrap());
    let row = store.deliveries().get(&job, &contact).await.unwrap().unwrap();
    assert!(row.earlier_doubt.is_some());

    let failed = State::Failed {
        reason: "Messenger error 551".to_owned(),
    };
    let settled = store
        .transactions()
        .settle(&job, &row, &failed, None, now)
        .await
        .unwrap();

    assert!(matches!(settled, Settled::Otherwise(_)), "{settled:?}");
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [1, 0, 1]);
}

/// A row that was settled after the worker read it is left out.
#[tokio::test]
async fn row_settled_meanwhile_is_not_resent() {
    let stack = TestStack::start_with(&[RESEND]).await;
    let ids = stack.import_contacts(2).await;
    let id = commanded(&stack, &ids).await;
    let mut claim = stack.claim(&stack.job(&id).await.id()).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let (rows, _) = store
        .deliveries()
        .named_for_resend(&claim.job.id(), None)
        .await
        .unwrap();
    let message_id = stack.deliver_by_hand(&id, &ids[0]).await;
    stack.echo(&id, &ids[0], 1, &message_id).await;

    let resent = store.transactions().resend(&mut claim, &rows, now).await.unwrap();

    assert!(matches!(&resent, Resent::Changed(which) if *which == [0]), "{resent:?}");
    stack.advance(Duration::from_secs(200));
    let report = stack.finish(&id).await;
    assert_eq!(report["counters"]["sent"], 2, "{report:#}");
    // A command based on the outdated row is refused too.
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let job = stack.job(&id).await.id();
    let outcome = store
        .transactions()
        .command_resend_if_completed(&job, &rows[0], now)
        .await
        .unwrap();
    assert_eq!(outcome, CommandOutcome::RowChanged);
    assert_eq!(stack.report(&id).await["status"], "completed");
}
