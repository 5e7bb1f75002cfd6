//! Deliveries to one contact: one with what is kept of its attempts, and those of all broadcasts.

use std::time::Duration;

use axum::http::StatusCode;
use jiff::Timestamp;
use local::sandbox::{Answer, Fault, GraphError};
use serde_json::{Value, json};
use shared::domain::ids::BroadcastId;

use crate::fixture::{PAGES, TestStack, request};

async fn shown(stack: &TestStack, id: &BroadcastId, contact_id: &str) -> Value {
    let path = format!("/v1/broadcasts/{id}/deliveries/{contact_id}");
    let answer = stack.call("GET", &path, None, None).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body
}

/// Parses a time: as texts, one without a fraction comes after one with it.
fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn delivery_is_shown_with_its_attempts_and_evidence() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(4).await;
    let lost = Fault::answering(Answer::Reset);
    stack.sandbox.add_fault(lost.to_contacts([&ids[1]]));
    let limited = Fault::answering(GraphError::new(613, "too fast"));
    stack.sandbox.add_fault(limited.to_contacts([&ids[2]]));
    let refused = Fault::answering(GraphError::new(551, "This person isn't available right now."));
    stack.sandbox.add_fault(refused.but_arriving().to_contacts([&ids[3]]));
    let id = stack.broadcast(&ids).await;
    let early = stack
        .call("GET", &format!("/v1/broadcasts/{id}/deliveries/{}", ids[0]), None, None)
        .await;
    assert_eq!(early.status, StatusCode::NOT_FOUND);
    stack.drain_queue().await;

    let sent = shown(&stack, &id, &ids[0]).await;
    assert_eq!((&sent["status"], &sent["attempts"]), (&json!("sent"), &json!(1)));
    assert_eq!(sent["broadcast_id"], id.to_string());
    assert_eq!(sent["page_id"], PAGES[0]);
    let received = stack.sandbox.received();
    assert!(
        received
            .iter()
            .any(|message| sent["message_id"] == message.message_id.as_str())
    );
    for absent in ["next_attempt_at", "next_lookup_at", "unclear_attempt_at", "refused_at"] {
        assert_eq!(sent[absent], Value::Null, "{absent}");
    }
    let in_doubt = shown(&stack, &id, &ids[1]).await;
    assert_eq!(in_doubt["status"], "in_doubt");
    assert!(time(&in_doubt["next_lookup_at"]) > time(&in_doubt["last_attempt_at"]));
    let waiting = shown(&stack, &id, &ids[2]).await;
    assert_eq!(waiting["status"], "waiting");
    assert!(time(&waiting["next_attempt_at"]) > time(&waiting["last_attempt_at"]));
    let failed = shown(&stack, &id, &ids[3]).await;
    assert_eq!(
        (&failed["status"], &failed["arrived_after_refusal"]),
        (&json!("failed"), &json!(false))
    );
    // An echo tells that it arrived all the same.
    let received = stack.sandbox.received();
    let arrived = received.iter().find(|message| message.contact_id == ids[3]).unwrap();
    stack.echo(&id, &ids[3], 1, &arrived.message_id).await;
    let late = shown(&stack, &id, &ids[3]).await;
    assert_eq!(
        (&late["arrived_after_refusal"], &late["message_id"]),
        (&json!(true), &json!(arrived.message_id))
    );

    for path in [
        format!("/v1/broadcasts/{id}/deliveries/nobody"),
        format!("/v1/broadcasts/{id}/deliveries/a%20b"),
        format!("/v1/broadcasts/{}/deliveries/{}", BroadcastId::random(), ids[0]),
    ] {
        assert_eq!(
            stack.call("GET", &path, None, None).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    stack.sandbox.clear_faults();
    stack.finish(&id).await;
}

/// Returns the broadcasts of a contact's deliveries, listed by parts of this size, and the number of parts.
async fn broadcasts_of(stack: &TestStack, contact_id: &str, limit: usize) -> (Vec<String>, usize) {
    let (mut ids, mut parts, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let path = format!("/v1/contacts/{contact_id}/deliveries?limit={limit}{cursor}");
        let answer = stack.call("GET", &path, None, None).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let items = answer.body["items"].as_array().unwrap();
        assert!(
            items
                .iter()
                .all(|item| item["contact_id"] == contact_id && item["status"] == "sent")
        );
        ids.extend(
            items
                .iter()
                .map(|item| item["broadcast_id"].as_str().unwrap().to_owned()),
        );
        parts += 1;
        let Some(next) = answer.body["next_cursor"].as_str() else {
            return (ids, parts);
        };
        cursor = format!("&cursor={next}");
    }
}

#[tokio::test]
async fn deliveries_to_a_contact_are_listed_from_the_newest_broadcast() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let of_page_2 = vec!["of-page-2".to_owned()];
    stack.import(PAGES[1], &of_page_2).await;
    let mut expected = Vec::new();
    for n in 0..5 {
        let contacts = match n % 2 {
            0 => [&ids[..], &of_page_2].concat(),
            _ => ids[1..].to_vec(),
        };
        let mut new = request(&contacts);
        new["message"]["text"] = json!(format!("Nr {n}"));
        let id = stack.post(&new).await.broadcast_id();
        stack.finish(&id).await;
        if n % 2 == 0 {
            expected.insert(0, id.to_string());
        }
        stack.advance(Duration::from_secs(1));
    }
    stack.let_reads_catch_up();

    for limit in [1, 2, 5, 100] {
        let (found, parts) = broadcasts_of(&stack, &ids[0], limit).await;
        assert_eq!(found, expected, "{limit} at a time");
        // A part of one job that did not have the contact is empty and not the last.
        assert!(limit > 1 || parts >= 5, "{parts} parts");
    }
    assert_eq!(broadcasts_of(&stack, &ids[1], 50).await.0.len(), 5);
    assert_eq!(broadcasts_of(&stack, "of-page-2", 50).await.0.len(), 3);
    let nobody = stack.call("GET", "/v1/contacts/nobody/deliveries", None, None).await;
    assert_eq!(nobody.status, StatusCode::NOT_FOUND);
    let too_many = stack
        .call("GET", "/v1/contacts/c00000/deliveries?limit=101", None, None)
        .await;
    assert_eq!(too_many.body["errors"][0]["field"], "limit");
}

#[tokio::test]
async fn caller_sees_the_deliveries_of_its_own_pages_alone() {
    let stack = TestStack::start_with(&[("PAGES_CLAIM", "pages")]).await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    stack.finish(&id).await;
    stack.let_reads_catch_up();
    for (page, status) in [(PAGES[0], StatusCode::OK), (PAGES[1], StatusCode::NOT_FOUND)] {
        let caller = json!({"jwt": {"claims": {"iss": "i", "sub": "s", "pages": page}, "scopes": []}});
        for path in [
            format!("/v1/contacts/{}/deliveries", ids[0]),
            format!("/v1/broadcasts/{id}/deliveries/{}", ids[0]),
        ] {
            let answer = stack.call_as(&caller, ("GET", &path), None, None).await;
            assert_eq!(answer.status, status, "{page}: {path}");
        }
    }
}
