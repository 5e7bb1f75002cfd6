//! Broadcasts to audiences: each contact that matches when the broadcast starts gets one message, and no other contact any.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::fixture::audiences::{ids, resolved, vips};
use crate::fixture::{PAGES, TestStack, request_to};

#[tokio::test]
async fn each_matching_contact_receives_one_message_and_no_other_contact_any() {
    let stack = TestStack::start().await;
    let matching = [ids("a", 40), ids("b", 3)].concat();
    stack.import_tagged(PAGES[0], &matching[..40], &["vip", "new"]).await;
    stack.import_tagged(PAGES[1], &matching[40..], &["vip"]).await;
    stack.import_tagged(PAGES[0], &ids("c", 5), &["new"]).await;
    stack.import_tagged(PAGES[2], &ids("d", 2), &["vip"]).await;
    stack.import_tagged(PAGES[1], &ids("e", 2), &["vip"]).await;
    for id in ids("e", 2) {
        stack
            .change_contact(json!({"contact_id": id, "page_id": PAGES[1], "opted_out": true}))
            .await;
    }
    stack.let_reads_catch_up();

    let audience = json!({"page_ids": [PAGES[1], PAGES[0]], "tags_any": ["vip"]});
    let answer = stack.post(&request_to(&audience)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    let unresolved = ("queued".to_owned(), 0, true);
    assert_eq!(resolved(&answer.body), (false, vec![unresolved.clone(), unresolved]));
    let id = answer.broadcast_id();
    stack.advance(Duration::from_secs(3));
    let report = stack.finish(&id).await;

    stack.assert_received(&id, &matching);
    let done = |contacts| ("completed".to_owned(), contacts, false);
    assert_eq!(resolved(&report), (true, vec![done(40), done(3)]));
    let counts = json!({
        "requested": 50, "duplicates_removed": 0, "unknown": 0, "unknown_ids": [], "opted_out": 2, "accepted": 43,
    });
    assert_eq!(
        (&report["contacts"], &report["counters"]["sent"]),
        (&counts, &json!(43))
    );
    assert_eq!(report["audience"]["filters"], audience);
}

/// The first contact is known for long, so that acceptance finds one; the others are not in the index when the worker begins.
#[tokio::test]
async fn import_right_before_the_request_counts() {
    let stack = TestStack::start().await;
    stack.import_vips(1).await;
    let late = ids("v", 9);
    stack.import_tagged(PAGES[0], &late, &["vip"]).await;

    let id = stack.post(&request_to(&vips())).await.broadcast_id();
    let report = stack.finish(&id).await;

    stack.assert_received(&id, &late);
    assert_eq!(report["contacts"]["accepted"], 9);
}

/// No contact is in the index when the request comes.
#[tokio::test]
async fn audience_that_was_imported_a_moment_ago_is_not_refused_as_empty() {
    let stack = TestStack::start().await;
    let ids = ids("v", 3);
    stack.import_tagged(PAGES[0], &ids, &["vip"]).await;

    let id = stack.post(&request_to(&vips())).await.broadcast_id();
    stack.finish(&id).await;

    stack.assert_received(&id, &ids);
}

#[tokio::test]
async fn empty_audience_is_refused_with_the_counts_that_explain_it() {
    let stack = TestStack::start().await;
    stack.import_tagged(PAGES[0], &ids("a", 4), &["new"]).await;
    stack.import_tagged(PAGES[1], &ids("b", 2), &["vip"]).await;
    for id in ids("b", 2) {
        stack
            .change_contact(json!({"contact_id": id, "page_id": PAGES[1], "opted_out": true}))
            .await;
    }
    stack.advance(Duration::from_secs(60));

    for path in ["/v1/broadcasts", "/v1/broadcasts?dry_run=true"] {
        let answer = stack.call("POST", path, None, Some(&request_to(&vips()))).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
        assert_eq!(answer.body["type"], "/v1/problems/no-contact-accepted");
        assert_eq!(
            answer.body["detail"],
            "No contact accepted: of 6 contacts on 2 Pages are left out 4 by tags_any, 2 by opted_out."
        );
    }
    stack.let_reads_catch_up();
    let list = stack.call("GET", "/v1/broadcasts", None, None).await.body;
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn audience_without_any_page_is_refused_at_any_time() {
    let stack = TestStack::start().await;
    let mut body = request_to(&vips());
    body["scheduled_at"] = json!(stack.app.clock.now() + Duration::from_secs(3_600));

    let answer = stack.post(&body).await;

    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
}

#[tokio::test]
async fn attributes_are_asked_for_when_the_audience_is_resolved() {
    let stack = TestStack::start().await;
    let ids = stack.import_vips(3).await;
    for (id, city) in ids.iter().zip(["Porto", "Lisboa", "Porto"]) {
        let change = json!({"contact_id": id, "page_id": PAGES[0], "attributes": {"city": city}});
        stack.change_contact(change).await;
    }
    stack.let_reads_catch_up();

    let id = stack.broadcast_to(&json!({"attributes": {"city": ["Porto"]}})).await;
    stack.advance(Duration::from_secs(3));
    stack.finish(&id).await;

    stack.assert_received(&id, [&ids[0], &ids[2]]);
}

#[tokio::test]
async fn broadcast_keeps_the_saved_audience_as_it_was() {
    let stack = TestStack::start().await;
    let ids = stack.import_vips(2).await;
    stack.import_tagged(PAGES[0], &["w".to_owned()], &["new"]).await;
    let save = async |filters: &Value| {
        let answer = stack.call("PUT", "/v1/audiences/vips", None, Some(filters)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    };
    save(&vips()).await;
    let unknown = stack.post(&request_to(&json!({"name": "vip"}))).await;
    let id = stack.broadcast_to(&json!({"name": "vips"})).await;
    save(&json!({"tags_any": ["new"]})).await;
    stack.advance(Duration::from_secs(3));
    let report = stack.finish(&id).await;

    stack.assert_received(&id, &ids);
    assert_eq!(
        report["audience"],
        json!({"name": "vips", "filters": vips(), "resolved": true})
    );
    assert_eq!(unknown.status, StatusCode::BAD_REQUEST, "{unknown:?}");
    assert_eq!(unknown.body["errors"][0]["field"], "/audience/name");
}

#[tokio::test]
async fn scheduled_audience_is_resolved_at_its_time() {
    let stack = TestStack::start().await;
    let ids = ids("v", 4);
    stack.import_tagged(PAGES[0], &ids, &["new"]).await;
    let mut body = request_to(&vips());
    body["scheduled_at"] = json!(stack.app.clock.now() + Duration::from_secs(3_600));
    let answer = stack.post(&body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    assert_eq!(resolved(&answer.body), (false, vec![("scheduled".to_owned(), 0, true)]));
    let id = answer.broadcast_id();

    stack.import_tagged(PAGES[0], &ids[1..3], &["vip"]).await;
    stack.advance(Duration::from_secs(3_601));
    stack.tick().await;
    let report = stack.finish(&id).await;

    stack.assert_received(&id, &ids[1..3]);
    assert_eq!(report["contacts"]["requested"], 4);
}

#[tokio::test]
async fn audience_that_has_nobody_at_its_time_completes_at_once() {
    let stack = TestStack::start().await;
    stack.import_tagged(PAGES[0], &ids("a", 3), &["new"]).await;
    let mut body = request_to(&vips());
    body["scheduled_at"] = json!(stack.app.clock.now() + Duration::from_secs(3_600));
    let id = stack.post(&body).await.broadcast_id();

    stack.advance(Duration::from_secs(3_601));
    stack.tick().await;
    let wake_up = stack.receive().await.unwrap();
    stack.process_job(&wake_up).await;

    let report = stack.report(&id).await;
    assert_eq!(resolved(&report), (true, vec![("completed".to_owned(), 0, false)]));
    assert_eq!(
        (&report["contacts"]["requested"], &report["contacts"]["accepted"]),
        (&json!(3), &json!(0))
    );
}

#[tokio::test]
async fn repeated_request_is_known_by_its_audience() {
    let stack = TestStack::start().await;
    stack.import_vips(2).await;
    let body = request_to(&vips());
    let first = stack.post_with_key("k", &body).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{first:?}");

    let again = stack.post_with_key("k", &body).await;
    let other = request_to(&json!({"tags_any": ["vip"], "tags_none": ["new"]}));
    let other = stack.post_with_key("k", &other).await;
    let ids = stack.post_with_key("k", &crate::fixture::request(&ids("v", 2))).await;

    assert_eq!((again.replayed, again.broadcast_id()), (true, first.broadcast_id()));
    for answer in [other, ids] {
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
        assert_eq!(answer.body["type"], "/v1/problems/idempotency-key-reused");
    }
}

#[tokio::test]
async fn audience_on_ninety_pages_is_accepted_and_on_ninety_one_refused() {
    let stack = TestStack::start().await;
    for n in 0..91 {
        let id = format!("v{n:03}");
        stack.import_tagged(&format!("p{n:02}"), &[id], &["vip"]).await;
    }
    stack.let_reads_catch_up();
    let pages: Vec<_> = (0..90).map(|n| format!("p{n:02}")).collect();

    let ninety = stack
        .post(&request_to(&json!({"page_ids": pages, "tags_any": ["vip"]})))
        .await;
    let all = stack.post(&request_to(&vips())).await;

    assert_eq!(ninety.status, StatusCode::ACCEPTED, "{ninety:?}");
    assert_eq!(ninety.body["jobs"].as_array().unwrap().len(), 90);
    assert_eq!(all.status, StatusCode::BAD_REQUEST, "{all:?}");
    assert_eq!(
        all.body["errors"],
        json!([{"field": "/audience", "message": "are on 91 Pages, more than 90"}])
    );
}

#[tokio::test]
async fn preview_counts_the_audience_and_shows_texts_of_its_first_contacts() {
    let stack = TestStack::start().await;
    let ids = stack.import_vips(5).await;
    stack.import_tagged(PAGES[1], &["w".to_owned()], &["vip"]).await;
    stack
        .change_contact(json!({"contact_id": "w", "page_id": PAGES[1], "first_name": null}))
        .await;
    stack.let_reads_catch_up();
    let mut body = request_to(&vips());
    body["message"]["text"] = json!("Hi {{ first_name }}.");

    let answer = stack
        .call("POST", "/v1/broadcasts?dry_run=true", None, Some(&body))
        .await;

    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let preview = answer.body;
    assert_eq!(
        (
            &preview["contacts"]["accepted"],
            &preview["contacts"]["requested"],
            &preview["complete"]
        ),
        (&json!(6), &json!(6), &json!(true))
    );
    let pages = json!([
        {"page_id": PAGES[0], "contacts": 5, "seconds": 1}, {"page_id": PAGES[1], "contacts": 1, "seconds": 1},
    ]);
    assert_eq!(preview["pages"], pages);
    let shown: Vec<_> = preview["texts"].as_array().unwrap().iter().collect();
    assert_eq!(
        (shown.len(), &shown[0]["contact_id"], &shown[0]["text"]),
        (3, &json!(ids[0]), &json!("Hi Ana."))
    );
    assert_eq!(preview["warnings"][0]["type"], "fails");
    assert_eq!(stack.sandbox.received_count(), 0);
}

#[tokio::test]
async fn audience_is_fixed_when_the_broadcast_is_changed() {
    let stack = TestStack::start().await;
    let ids = stack.import_vips(2).await;
    let mut body = request_to(&vips());
    body["scheduled_at"] = json!(stack.app.clock.now() + Duration::from_secs(3_600));
    let id = stack.post(&body).await.broadcast_id();
    let path = format!("/v1/broadcasts/{id}");

    let refused = stack
        .call("PATCH", &path, None, Some(&json!({"audience": {"everybody": true}})))
        .await;
    let later = json!({"scheduled_at": stack.app.clock.now() + Duration::from_secs(7_200)});
    let changed = stack.call("PATCH", &path, None, Some(&later)).await;

    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    assert_eq!(refused.body["errors"][0]["field"], "/audience");
    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
    stack.advance(Duration::from_secs(7_201));
    stack.tick().await;
    stack.finish(&id).await;
    stack.assert_received(&id, &ids);
}
