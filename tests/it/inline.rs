//! Inline work: a small broadcast is processed within its request, with the same claims and reservations as any other.

use std::time::Duration;

use axum::http::StatusCode;
use local::sandbox::{Answer, Fault, GraphError};
use serde_json::json;
use shared::store::page_leases::Acquired;

use crate::fixture::{PAGES, TEXT, TestStack, request};

async fn start_inline() -> TestStack {
    TestStack::start_with(&[("INLINE_LIMIT", "25")]).await
}

#[tokio::test]
async fn small_broadcast_is_answered_with_its_outcome() {
    let stack = start_inline().await;
    let ids = stack.import_contacts(24).await;
    stack.import(PAGES[1], &["other".to_owned()]).await;
    let all = [&ids[..], &["other".to_owned()]].concat();

    let answer = stack.post(&request(&all)).await;
    let again = stack.post(&request(&all)).await;

    assert_eq!(
        (answer.status, &answer.body["status"]),
        (StatusCode::OK, &json!("completed"))
    );
    assert_eq!(answer.body["counters"]["sent"], 25);
    assert_eq!((again.status, again.replayed), (StatusCode::OK, true));
    assert_eq!(again.broadcast_id(), answer.broadcast_id());
    assert_eq!(stack.received(&answer.broadcast_id()).len(), 25);
    assert!(stack.receive().await.is_none());
}

#[tokio::test]
async fn large_or_scheduled_broadcast_is_left_to_the_queue() {
    let stack = start_inline().await;
    let ids = stack.import_contacts(26).await;
    let later = json!({
        "contact_ids": ids[..1],
        "message": {"text": TEXT},
        "scheduled_at": stack.app.clock.now() + Duration::from_secs(60),
    });

    let large = stack.post(&request(&ids)).await;
    let later = stack.post(&later).await;

    assert_eq!(
        (large.status, &large.body["status"]),
        (StatusCode::ACCEPTED, &json!("queued"))
    );
    assert_eq!(
        (later.status, &later.body["status"]),
        (StatusCode::ACCEPTED, &json!("scheduled"))
    );
    assert_eq!(stack.sandbox.received_count(), 0);
}

#[tokio::test]
async fn rate_limited_contact_is_sent_to_later() {
    let stack = start_inline().await;
    let ids = stack.import_contacts(3).await;
    let busy = GraphError::new(613, "too fast");
    stack
        .sandbox
        .add_fault(Fault::answering(busy).to_contacts([&ids[1]]).times(1));

    let answer = stack.post(&request(&ids)).await;
    let again = stack.post(&request(&ids)).await;
    let report = stack.finish(&answer.broadcast_id()).await;

    assert_eq!(
        (answer.status, &answer.body["status"]),
        (StatusCode::ACCEPTED, &json!("waiting"))
    );
    assert_eq!((again.status, again.replayed), (StatusCode::ACCEPTED, true));
    assert_eq!(report["counters"]["sent"], 3);
}

#[tokio::test]
async fn large_job_with_busy_page_is_left_to_the_queue() {
    let stack = TestStack::start_with(&[("INLINE_LIMIT", "50")]).await;
    let ids = stack.import_contacts(52).await;
    let first = stack.post(&request(&ids[..26])).await.broadcast_id();
    let (job, lease) = (stack.job(&first).await.id(), stack.app.config.job_lease);
    let leases = stack.app.store.page_leases();
    let held = leases.acquire(&job, lease, stack.app.clock.now()).await.unwrap();
    let Acquired::Lease(page) = held else {
        panic!("{held:?}")
    };

    let answer = stack.post(&request(&ids[26..])).await;
    assert_eq!(
        (answer.status, &answer.body["status"]),
        (StatusCode::ACCEPTED, &json!("queued"))
    );
    leases.release_if_held(&page).await.unwrap();
    stack.drain_queue().await;

    let report = stack.report(&answer.broadcast_id()).await;
    assert_eq!(
        (&report["status"], &report["counters"]["sent"]),
        (&json!("completed"), &json!(26))
    );
}

#[tokio::test]
async fn concurrent_requests_with_one_key_send_once() {
    let stack = start_inline().await;
    let ids = stack.import_contacts(20).await;
    stack.sandbox.set_latency_ms(100);
    let body = request(&ids);

    let (a, b) = tokio::join!(stack.post_with_key("k", &body), stack.post_with_key("k", &body));
    let report = stack.finish(&a.broadcast_id()).await;

    assert_eq!(a.broadcast_id(), b.broadcast_id());
    assert_eq!(report["counters"]["sent"], 20);
    assert_eq!(stack.sandbox.received_count(), 20);
}

#[tokio::test]
async fn request_killed_midway_is_finished_by_the_schedule() {
    let stack = start_inline().await;
    let ids = stack.import_contacts(5).await;
    stack
        .sandbox
        .add_fault(Fault::answering(Answer::Hang).to_contacts([&ids[2]]).times(1));
    let body = request(&ids);

    // Long enough to send, and shorter than the Messenger time-out: the future is dropped, as when the process is killed.
    let died = tokio::time::timeout(Duration::from_millis(500), stack.post_with_key("k", &body)).await;
    assert!(died.is_err());
    let id = stack.post_with_key("k", &body).await.broadcast_id();
    let report = stack.finish(&id).await;

    let counted = |name: &str| report["counters"][name].as_u64().unwrap();
    assert_eq!(report["status"], "completed");
    assert_eq!(counted("sent") + counted("in_doubt"), 5);
    assert!((1..=5).contains(&counted("in_doubt")), "{report:#}");
}
