//! Echoes of messages that were recorded as not sent: the row keeps its state, and shows the message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::StatusCode;
use local::sandbox::{Fault, GraphError};
use serde_json::json;
use shared::domain::delivery::State;
use shared::domain::ids::{BroadcastId, ContactId};
use shared::store::deliveries::RowChange;

use crate::fixture::doubts::{FIRST_LOOKUP, LAST_LOOKUP};
use crate::fixture::proxy::Reply;
use crate::fixture::{TestStack, request};
use crate::metrics::{count_events, counts};

/// Completes a broadcast whose message to the first contact arrives, although Messenger answers that it does not.
async fn broadcast_with_refusal(stack: &TestStack, ids: &[String]) -> BroadcastId {
    let refusal = Fault::answering(GraphError::new(551, "not now")).but_arriving();
    stack.sandbox.add_fault(refusal.to_contacts([&ids[0]]));
    let id = stack.post_with_key("refused", &request(ids)).await.broadcast_id();
    let report = stack.finish(&id).await;
    stack.sandbox.clear_faults();
    assert_eq!(report["counters"]["failed"], 1);
    id
}

#[tokio::test]
async fn late_echo_of_a_failed_delivery_shows_its_message() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let id = broadcast_with_refusal(&stack, &ids).await;
    let message_id = stack.newest_message_id(&ids[0]);
    count_events(&stack);

    for message_id in [&*message_id, &*message_id, "m_of_another_attempt"] {
        assert_eq!(stack.echo(&id, &ids[0], 1, message_id).await, StatusCode::OK);
    }

    let row = stack.delivery(&id, &ids[0]).await;
    assert_eq!(
        (&row["status"], &row["message_id"]),
        (&json!("failed"), &json!(message_id))
    );
    let reason = "Messenger error 551; its echo came later: the contact has got the message";
    assert_eq!(row["reason"], reason);
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [1, 1, 0]);
    assert_eq!(count_events(&stack), counts([("ArrivedAfterRefusal", 1)]));
}

#[tokio::test]
async fn lost_answer_to_a_late_echo_is_not_a_refusal() {
    let lost = Arc::new(AtomicBool::new(false));
    let is_lost = Arc::clone(&lost);
    let hook = move |call: &str| match call.contains("SET arrived_as") && !is_lost.swap(true, Ordering::SeqCst) {
        true => Reply::IsLost,
        false => Reply::Arrives,
    };
    let stack = TestStack::start_with_lossy_database(hook, &[]).await;
    let ids = stack.import_contacts(1).await;
    let id = broadcast_with_refusal(&stack, &ids).await;
    let message_id = stack.newest_message_id(&ids[0]);
    count_events(&stack);

    assert_eq!(stack.echo(&id, &ids[0], 1, &message_id).await, StatusCode::OK);

    assert!(lost.load(Ordering::SeqCst));
    assert_eq!(stack.delivery(&id, &ids[0]).await["message_id"], message_id);
    assert_eq!(count_events(&stack), counts([("ArrivedAfterRefusal", 1)]));
}

/// The echo's handler read the row as failed, and it is another attempt's, or in doubt, by the time of the write.
#[tokio::test]
async fn late_echo_leaves_a_row_that_changed_meanwhile() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast_with_doubts(&ids, &[0], &[]).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let (job, contact) = (stack.job(&id).await.id(), ContactId::parse(&ids[0]).unwrap());
    let in_doubt = store.deliveries().get(&job, &contact).await.unwrap().unwrap();
    let mut failed = in_doubt.clone();
    failed.state = State::Failed {
        reason: "Messenger error 551".to_owned(),
    };
    let mut of_another_attempt = in_doubt.clone();
    of_another_attempt.token = "of another attempt".to_owned();

    for seen in [failed, of_another_attempt] {
        let kept = store
            .deliveries()
            .keep_late_echo(&job, &seen, "m_1", now)
            .await
            .unwrap();
        assert!(matches!(kept, RowChange::Refused(_)), "{kept:?}");
    }

    assert_eq!(store.deliveries().get(&job, &contact).await.unwrap(), Some(in_doubt));
}

/// The message of a delivery that is recorded as failed is as little another broadcast's as that of one that is sent, also when
/// its echo came only a moment ago.
#[tokio::test]
async fn message_of_a_late_echo_is_no_evidence_for_another_broadcast() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let lost = stack.broadcast_with_doubts(&ids, &[], &[0]).await;
    let refused = broadcast_with_refusal(&stack, &ids).await;
    let message_id = stack.newest_message_id(&ids[0]);

    stack.advance(FIRST_LOOKUP);
    stack.echo(&refused, &ids[0], 1, &message_id).await;
    stack.tick().await;
    stack.tick_after(LAST_LOOKUP - FIRST_LOOKUP).await;

    assert_eq!(stack.sent_failed_in_doubt(&lost).await, [0, 0, 1]);
    assert_eq!(stack.sent_failed_in_doubt(&refused).await, [0, 1, 0]);
}
