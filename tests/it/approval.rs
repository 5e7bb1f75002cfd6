//! Approval: a broadcast waits for another caller than the one who made it.

use std::time::Duration;

use axum::http::StatusCode;
use send::caller::Caller;
use send::change::entry;
use serde_json::{Value, json};
use shared::domain::history::Action;
use shared::domain::ids::BroadcastId;
use shared::store::transactions::Changed;

use crate::fixture::{ApiResponse, TestStack, request};

impl TestStack {
    /// Calls the API as this person.
    async fn call_by(&self, person: &str, method: &str, path: &str, body: Option<&Value>) -> ApiResponse {
        let authorizer = json!({"jwt": {"claims": {"iss": "https://issuer", "sub": person}, "scopes": []}});
        self.call_as(&authorizer, (method, path), None, body).await
    }

    async fn approve_by(&self, person: &str, id: &BroadcastId) -> ApiResponse {
        self.call_by(person, "POST", &format!("/v1/broadcasts/{id}/approve"), None)
            .await
    }
}

#[tokio::test]
async fn broadcast_waits_until_another_caller_approves_it() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let mut body = request(&ids);
    body["requires_approval"] = json!(true);

    let answer = stack.call_by("ana", "POST", "/v1/broadcasts", Some(&body)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    let id = answer.broadcast_id();
    assert_eq!(
        (
            &answer.body["status"],
            &answer.body["requires_approval"],
            &answer.body["approved_at"]
        ),
        (&json!("awaiting_approval"), &json!(true), &Value::Null)
    );
    stack.advance(Duration::from_secs(3_600));
    stack.tick().await;
    let wake_up = stack.wake_up_for(&id).await;
    stack.process_job(&wake_up).await;
    assert_eq!(stack.sandbox.received_count(), 0, "sent without approval");

    let own = stack.approve_by("ana", &id).await;
    assert_eq!(own.status, StatusCode::FORBIDDEN, "{own:?}");
    let approved = stack.approve_by("ben", &id).await;
    assert_eq!(approved.status, StatusCode::ACCEPTED, "{approved:?}");
    assert_eq!(approved.body["status"], "queued");
    assert!(approved.body["approved_at"].is_string());
    stack.drain_queue().await;
    let report = stack.report(&id).await;
    assert_eq!(report["counters"]["sent"], 3);
    let entry = &report["history"][0];
    assert_eq!((&entry["action"], &entry["contacts"]), (&json!("approve"), &json!(3)));
    assert!(entry["caller"].as_str().unwrap().contains("ben"), "{entry}");
    let again = stack.approve_by("ben", &id).await;
    assert_eq!(
        (again.status, &again.body["status"]),
        (StatusCode::ACCEPTED, &json!("completed"))
    );
}

#[tokio::test]
async fn approved_broadcast_is_sent_at_its_time() {
    let stack = TestStack::start_with(&[("REQUIRE_APPROVAL", "on"), ("INLINE_LIMIT", "5")]).await;
    let ids = stack.import_contacts(2).await;
    let mut body = request(&ids);
    body["scheduled_at"] = json!(stack.app.clock.now() + Duration::from_secs(3_600));
    let id = stack
        .call_by("ana", "POST", "/v1/broadcasts", Some(&body))
        .await
        .broadcast_id();

    let approved = stack.approve_by("ben", &id).await;
    assert_eq!(approved.body["status"], "scheduled", "{approved:?}");
    stack.advance(Duration::from_secs(3_500));
    stack.tick().await;
    assert!(stack.receive().await.is_none(), "woken before it is due");
    stack.advance(Duration::from_secs(101));
    stack.tick().await;
    stack.drain_queue().await;
    assert_eq!(stack.report(&id).await["counters"]["sent"], 2);
}

/// An approver has seen the text; it cannot be exchanged afterwards.
#[tokio::test]
async fn change_needs_approval_anew_and_by_another_than_its_author() {
    let stack = TestStack::start_with(&[("REQUIRE_APPROVAL", "on")]).await;
    let ids = stack.import_contacts(1).await;
    let mut body = request(&ids);
    body["scheduled_at"] = json!(stack.app.clock.now() + Duration::from_secs(3_600));
    let id = stack
        .call_by("ana", "POST", "/v1/broadcasts", Some(&body))
        .await
        .broadcast_id();
    let path = format!("/v1/broadcasts/{id}");
    assert_eq!(stack.approve_by("ben", &id).await.body["status"], "scheduled");

    let change = json!({"message": {"text": "Another text."}});
    let changed = stack.call_by("ben", "PATCH", &path, Some(&change)).await;
    assert_eq!(
        (changed.status, &changed.body["status"], &changed.body["approved_at"]),
        (StatusCode::OK, &json!("awaiting_approval"), &Value::Null)
    );
    stack.advance(Duration::from_secs(3_700));
    stack.tick().await;
    assert!(stack.receive().await.is_none(), "a change was sent without approval");
    for person in ["ana", "ben"] {
        assert_eq!(
            stack.approve_by(person, &id).await.status,
            StatusCode::FORBIDDEN,
            "{person}"
        );
    }
    // Its time has passed meanwhile: it is sent at once.
    assert_eq!(stack.approve_by("eve", &id).await.body["status"], "queued");
    stack.drain_queue().await;
    assert_eq!(stack.sandbox.received()[0].text.as_deref(), Some("Another text."));
}

#[tokio::test]
async fn approval_is_refused_where_there_is_nothing_to_approve() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let answer = stack.approve_by("ben", &id).await;
    assert_eq!(
        (answer.status, &answer.body["type"]),
        (StatusCode::CONFLICT, &json!("/v1/problems/nothing-to-approve"))
    );
    let store = &stack.app.store;
    let (seen, jobs, history) = store.broadcasts().get_with_history(&id).await.unwrap().unwrap();
    let now = stack.app.clock.now();
    let entry = entry(&Caller::unauthenticated(), Action::Approve, &jobs, None, now);
    let transactions = store.transactions();
    let (approved, _) = transactions
        .approve_if_unchanged((&seen, &jobs, &history), &entry, now)
        .await
        .unwrap();
    assert_eq!(approved, Changed::Meanwhile, "a job that does not wait is released");
    let unknown = BroadcastId::random();
    assert_eq!(stack.approve_by("ben", &unknown).await.status, StatusCode::NOT_FOUND);
    stack.finish(&id).await;

    // Without authentication there is one caller.
    let mut body = request(&ids);
    body["requires_approval"] = json!(true);
    let id = stack.post(&body).await.broadcast_id();
    let answer = stack
        .call("POST", &format!("/v1/broadcasts/{id}/approve"), None, None)
        .await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(
        detail.contains("all callers without authentication are one"),
        "{detail}"
    );
    stack.approve_by("ben", &id).await;
    stack.finish(&id).await;
}

/// Both have read the broadcast as it waits; a change between the two keeps what was not seen from being sent.
#[tokio::test]
async fn approval_of_a_broadcast_that_has_changed_is_refused() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let mut body = request(&ids);
    body["requires_approval"] = json!(true);
    let id = stack
        .call_by("ana", "POST", "/v1/broadcasts", Some(&body))
        .await
        .broadcast_id();
    let (seen, jobs, history) = stack
        .app
        .store
        .broadcasts()
        .get_with_history(&id)
        .await
        .unwrap()
        .unwrap();

    let change = json!({"message": {"text": "Not seen."}});
    stack
        .call_by("ana", "PATCH", &format!("/v1/broadcasts/{id}"), Some(&change))
        .await;
    let now = stack.app.clock.now();
    let entry = entry(&Caller::unauthenticated(), Action::Approve, &jobs, None, now);
    let (approved, _) = stack
        .app
        .store
        .transactions()
        .approve_if_unchanged((&seen, &jobs, &history), &entry, now)
        .await
        .unwrap();

    assert_eq!(approved, Changed::Meanwhile);
    assert_eq!(stack.report(&id).await["status"], "awaiting_approval");
    stack.approve_by("ben", &id).await;
    stack.finish(&id).await;
}

#[tokio::test]
async fn broadcast_that_is_cancelled_before_its_approval_is_not_sent() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let mut body = request(&ids);
    body["requires_approval"] = json!(true);
    let id = stack
        .call_by("ana", "POST", "/v1/broadcasts", Some(&body))
        .await
        .broadcast_id();
    stack.control("cancel", &id).await;

    let answer = stack.approve_by("ben", &id).await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{answer:?}");
    stack.drain_queue().await;
    let report = stack.report(&id).await;
    assert_eq!(
        (&report["status"], &report["counters"]["skipped"]),
        (&json!("cancelled"), &json!(2))
    );
    assert_eq!(stack.sandbox.received_count(), 0);
}
