//! Acceptance of a request: once, whole, and for every contact that it names.

use std::time::Duration;

use axum::http::StatusCode;
use send::accept::accept;
use send::api::broadcasts::NewBroadcast;
use send::caller::Caller;
use serde_json::json;
use shared::domain::ids::Pages;

use crate::fixture::{PAGES, TEXT, TestStack, request};

#[tokio::test]
async fn contact_receives_one_message() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;

    let id = stack.broadcast(&ids).await;
    let report = stack.finish(&id).await;

    assert_eq!(report["status"], "completed");
    assert_eq!(report["counters"]["sent"], 1);
    assert_eq!(stack.received(&id), [("c00000".to_owned(), 1)].into());
    let message = &stack.sandbox.received()[0];
    assert_eq!(message.text.as_deref(), Some("Hi Nr c00000, we open at nine."));
    assert_eq!(message.page_id, PAGES[0]);
}

#[tokio::test]
async fn repeated_ids_receive_one_message() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(20).await;
    let repeated = [&ids[..], &ids[5..15], &ids[..1]].concat();

    let answer = stack.post(&request(&repeated)).await;
    let report = stack.finish(&answer.broadcast_id()).await;

    let contacts = json!({"requested": 31, "duplicates_removed": 11, "unknown": 0, "unknown_ids": [], "opted_out": 0, "accepted": 20});
    assert_eq!(answer.body["contacts"], contacts);
    assert_eq!(answer.body["counters"]["pending"], 20);
    assert_eq!(report["duplicates_prevented"]["request"], 11);
    assert_eq!(stack.received(&answer.broadcast_id()).len(), 20);
}

#[tokio::test]
async fn each_contact_is_sent_to_by_its_own_page() {
    let stack = TestStack::start().await;
    let mut ids = Vec::new();
    for page in PAGES {
        let of_page: Vec<_> = (0..5).map(|n| format!("{page}-{n}")).collect();
        stack.import(page, &of_page).await;
        ids.extend(of_page);
    }

    let id = stack.broadcast(&ids).await;
    let report = stack.finish(&id).await;

    let jobs: Vec<_> = report["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| (&job["page_id"], &job["counters"]["sent"]))
        .collect();
    assert_eq!(
        jobs,
        PAGES
            .map(|page| (json!(page), json!(5)))
            .each_ref()
            .map(|(page, sent)| (page, sent))
    );
    for message in stack.sandbox.received() {
        assert!(message.contact_id.starts_with(&message.page_id), "{message:?}");
    }
}

#[tokio::test]
async fn unknown_and_opted_out_contacts_are_reported() {
    let stack = TestStack::start().await;
    let mut ids = stack.import_contacts(3).await;
    let opted_out = json!({"contacts": [{"contact_id": ids[2], "page_id": PAGES[0], "opted_out": true}]});
    stack.call("PUT", "/v1/contacts", None, Some(&opted_out)).await;
    ids.push("unknown".to_owned());

    let answer = stack.post(&request(&ids)).await;
    let none = stack.post(&request(&ids[2..])).await;

    let contacts = &answer.body["contacts"];
    assert_eq!((&contacts["accepted"], &contacts["opted_out"]), (&json!(2), &json!(1)));
    assert_eq!(
        (&contacts["unknown"], &contacts["unknown_ids"]),
        (&json!(1), &json!(["unknown"]))
    );
    assert_eq!(none.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn double_click_creates_one_broadcast() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let reversed: Vec<_> = ids.iter().rev().cloned().collect();

    let first = stack.post(&request(&ids)).await;
    let second = stack.post(&request(&reversed)).await;

    assert_eq!((second.status, second.replayed), (StatusCode::ACCEPTED, true));
    assert_eq!(second.broadcast_id(), first.broadcast_id());
    assert_eq!(second.body["duplicates_prevented"]["replay"], 1);
    assert_eq!(second.body["contacts"], first.body["contacts"]);

    stack.advance(Duration::from_secs(301));
    let later = stack.post(&request(&ids)).await;
    assert_ne!(later.broadcast_id(), first.broadcast_id());
}

#[tokio::test]
async fn concurrent_requests_with_one_key_create_one_broadcast() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(50).await;
    let body = request(&ids);

    let (a, b, c) = tokio::join!(
        stack.post_with_key("k", &body),
        stack.post_with_key("k", &body),
        stack.post_with_key("k", &body)
    );

    assert_eq!([&a, &b, &c].iter().filter(|answer| !answer.replayed).count(), 1);
    assert_eq!(
        (a.broadcast_id(), b.broadcast_id()),
        (b.broadcast_id(), c.broadcast_id())
    );
    let report = stack.finish(&a.broadcast_id()).await;
    assert_eq!(report["duplicates_prevented"]["replay"], 2);
    assert_eq!(stack.sandbox.received_count(), 50);
}

#[tokio::test]
async fn request_key_is_bound_to_its_first_body_until_it_expires() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let first = stack.post_with_key("k", &request(&ids)).await;

    let other = stack.post_with_key("k", &request(&ids[..1])).await;
    stack.advance(Duration::from_secs(29 * 86_400));
    let same = stack.post_with_key("k", &request(&ids)).await;
    stack.advance(Duration::from_secs(2 * 86_400));
    let expired = stack.post_with_key("k", &request(&ids)).await;

    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(same.broadcast_id(), first.broadcast_id());
    assert_ne!(expired.broadcast_id(), first.broadcast_id());
}

/// The contacts were there when the first request came, and are deleted before the second.
#[tokio::test]
async fn replay_a_moment_later_is_answered_before_contacts_are_looked_up() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let first = stack.post(&request(&ids)).await;

    let path = format!("/v1/contacts/{}", ids[0]);
    let deleted = stack.call("DELETE", &path, None, None).await;
    let second = stack.post(&request(&ids)).await;

    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    assert_eq!((second.status, second.replayed), (StatusCode::ACCEPTED, true));
    assert_eq!(second.broadcast_id(), first.broadcast_id());
    assert_eq!(stack.finish(&first.broadcast_id()).await["counters"]["skipped"], 1);
}

#[tokio::test]
async fn replay_is_answered_before_scheduled_time_is_validated() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let at = stack.app.clock.now() + Duration::from_secs(60);
    let body = json!({"contact_ids": ids, "message": {"text": TEXT}, "scheduled_at": at});
    let first = stack.post_with_key("k", &body).await;

    stack.advance(Duration::from_secs(120));
    let again = stack.post_with_key("k", &body).await;
    let new = stack.post(&body).await;

    assert_eq!(
        (again.status, again.broadcast_id()),
        (StatusCode::ACCEPTED, first.broadcast_id())
    );
    assert_eq!(new.status, StatusCode::BAD_REQUEST);
}

/// The key is valid when the request is received, and no longer when it is looked up.
#[tokio::test]
async fn request_received_before_key_expiry_is_a_replay() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let first = stack.post(&request(&ids)).await;
    let received = stack.app.clock.now() + Duration::from_secs(290);

    stack.advance(Duration::from_secs(330));
    let new = NewBroadcast::parse(&request(&ids), &Pages::All).unwrap();
    let caller = Caller::unauthenticated();
    let second = accept(&stack.app, &caller, new, None, received);
    let second = second.await.unwrap();

    assert!(second.replayed);
    assert_eq!(second.report.summary.broadcast_id, first.broadcast_id());
}
