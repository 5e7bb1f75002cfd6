//! The end of a broadcast: what is not sent by `expires_at` is skipped.

use std::time::Duration;

use axum::http::StatusCode;
use local::sandbox::{Fault, GraphError};
use serde_json::json;

use crate::fixture::{TestStack, request};

/// The system was down, or the switch off, until the sale was over.
#[tokio::test]
async fn broadcast_that_begins_after_its_end_is_not_sent() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(10).await;
    let mut body = request(&ids);
    body["expires_at"] = json!(stack.app.clock.now() + Duration::from_secs(600));
    let answer = stack.post(&body).await;
    assert_eq!(
        (answer.status, &answer.body["expires_at"]),
        (StatusCode::ACCEPTED, &body["expires_at"])
    );
    let id = answer.broadcast_id();

    stack.advance(Duration::from_secs(600));
    let report = stack.finish(&id).await;

    assert_eq!(
        (&report["status"], &report["counters"]["skipped"]),
        (&json!("completed"), &json!(10))
    );
    let rows = stack.deliveries(&id, "").await;
    assert!(rows.iter().all(|row| row["reason"] == "expired"), "{rows:?}");
    assert_eq!(stack.sandbox.received_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn run_under_way_sends_nothing_after_the_end() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "30")]).await;
    let ids = stack.import_contacts(200).await;
    let mut body = request(&ids);
    body["expires_at"] = json!(stack.app.clock.now() + Duration::from_secs(3_600));
    let id = stack.post(&body).await.broadcast_id();
    let wake_up = stack.receive().await.unwrap();
    let passing = async {
        while stack.sandbox.received_count() < 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stack.advance(Duration::from_secs(3_600));
        stack.sandbox.received_count()
    };

    let (before, _) = tokio::join!(passing, stack.process_job(&wake_up));
    stack.delete(&wake_up).await;
    let report = stack.finish(&id).await;

    let sent = report["counters"]["sent"].as_u64().unwrap();
    assert_eq!(sent, stack.sandbox.received_count() as u64);
    // Those in flight at the end have arrived.
    assert!(
        sent <= before as u64 + 60,
        "{sent} were sent, {before} of them before the end"
    );
    assert_eq!(report["counters"]["skipped"], 200 - sent);
}

/// The Page pauses beyond the end.
#[tokio::test]
async fn contact_that_waits_is_skipped_at_the_end() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let busy = Fault::answering(GraphError::new(613, "too fast"));
    stack.sandbox.add_fault(busy.to_contacts([&ids[1]]));
    let mut body = request(&ids);
    body["expires_at"] = json!(stack.app.clock.now() + Duration::from_secs(60));
    let id = stack.post(&body).await.broadcast_id();
    stack.drain_queue().await;
    assert_eq!(stack.report(&id).await["status"], "waiting");

    stack.advance(Duration::from_secs(61));
    stack.tick().await;
    let report = stack.finish(&id).await;

    let skipped = report["counters"]["skipped"].as_u64().unwrap();
    assert!(skipped >= 1, "{report:#}");
    assert_eq!(report["counters"]["sent"], 3 - skipped);
    assert_eq!(report["status"], "completed");
}
