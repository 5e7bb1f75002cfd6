//! The end of a broadcast: what is not sent by `expires_at` is skipped.

use std::time::Duration;

use axum::http::StatusCode;
use local::sandbox::{Answer, Fault, GraphError};
use serde_json::json;
use shared::domain::ids::{BroadcastId, JobId, PageId};

use tokio::time::timeout;

use crate::fixture::{PAGE_WITHOUT_TOKEN, PAGES, TestStack, request};

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
        sent <= before as u64 + 15,
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

/// A drain needs neither the Page's pace nor its token.
#[tokio::test]
async fn expired_broadcast_ends_at_once_whatever_its_pages_can_do() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "1")]).await;
    let mut ids = stack.import_contacts(200).await;
    stack.import(PAGE_WITHOUT_TOKEN, &["mute".to_owned()]).await;
    ids.push("mute".to_owned());
    let mut body = request(&ids);
    body["expires_at"] = json!(stack.app.clock.now() + Duration::from_secs(600));
    let id = stack.post(&body).await.broadcast_id();
    let answered = stack.app.clock.now();

    stack.advance(Duration::from_secs(601));
    // Another job sends for the Page.
    let other = JobId {
        broadcast_id: BroadcastId::random(),
        page_id: PageId::parse(PAGES[0]).unwrap(),
    };
    let leases = stack.app.store.page_leases();
    leases
        .acquire(&other, Duration::from_secs(3_600), stack.app.clock.now())
        .await
        .unwrap();
    let report = timeout(Duration::from_secs(60), stack.finish(&id)).await.unwrap();

    assert_eq!(
        (&report["status"], &report["counters"]["skipped"]),
        (&json!("completed"), &json!(201))
    );
    assert!(
        stack.app.clock.now() < answered + Duration::from_secs(700),
        "the job waited for its Page"
    );
    assert_eq!(report["reasons"][0]["code"], "expired");
}

#[tokio::test]
async fn job_that_waits_is_woken_at_the_end() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let at = |hours: u64| stack.app.clock.now() + Duration::from_secs(hours * 3_600);
    let hour = |hours: u64| at(hours).to_string()[11..13].to_owned();
    let mut body = request(&ids);
    body["scheduled_at"] = json!(at(1));
    body["quiet_hours"] =
        json!({"from": format!("{}:00", hour(3)), "to": format!("{}:00", hour(15)), "time_zone": "UTC"});
    body["expires_at"] = json!(at(6));
    let id = stack.post(&body).await.broadcast_id();

    // The first worker comes late.
    stack.advance(Duration::from_secs(4 * 3_600));
    stack.tick().await;
    stack.drain_queue().await;
    let job = &stack.report(&id).await["jobs"][0];
    assert_eq!(
        (&job["reason"], &job["due_at"]),
        (&json!("quiet_hours"), &body["expires_at"])
    );
    stack.advance(Duration::from_secs(2 * 3_600));
    stack.tick().await;
    stack.drain_queue().await;
    let report = stack.report(&id).await;
    assert_eq!(
        (&report["status"], &report["counters"]["skipped"]),
        (&json!("completed"), &json!(3))
    );
}

/// `IN_DOUBT_POLICY=resend` sends nothing again after the end.
#[tokio::test]
async fn message_in_doubt_is_not_sent_again_after_the_end() {
    let variables = [
        ("IN_DOUBT_POLICY", "resend"),
        ("DOUBT_CHECK_SECONDS", "30"),
        ("MESSENGER_TIMEOUT_SECONDS", "1"),
    ];
    let stack = TestStack::start_with(&variables).await;
    let ids = stack.import_contacts(2).await;
    stack
        .sandbox
        .add_fault(Fault::answering(Answer::Reset).to_contacts([&ids[1]]));
    let mut body = request(&ids);
    body["expires_at"] = json!(stack.app.clock.now() + Duration::from_secs(60));
    let id = stack.post(&body).await.broadcast_id();
    let report = stack.finish(&id).await;
    assert_eq!(report["counters"]["in_doubt"], 1);
    stack.sandbox.clear_faults();

    for _ in 0..3 {
        stack.advance(Duration::from_secs(61));
        stack.sandbox.forget_conversation_calls();
        stack.tick().await;
        stack.drain_queue().await;
    }

    let report = stack.report(&id).await;
    assert_eq!(
        (&report["status"], &report["counters"]["in_doubt"]),
        (&json!("completed"), &json!(1))
    );
    assert_eq!(stack.sandbox.received_count(), 1);
    let path = format!("/v1/broadcasts/{id}/deliveries/{}", ids[1]);
    let evidence = stack.call("GET", &path, None, None).await.body;
    assert_eq!(evidence["next_lookup_at"], json!(null), "{evidence}");
}
