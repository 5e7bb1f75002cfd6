//! Webhooks: Meta's subscription, echoes, and messages from contacts.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use local::sandbox::{Answer, Fault, GraphError};
use serde_json::{Value, json};
use shared::domain::delivery::Metadata;

use crate::fixture::{APP_SECRET, PAGES, TestStack, VERIFY_TOKEN};

#[tokio::test]
async fn subscription_requires_the_verify_token() {
    let stack = TestStack::start().await;
    let ask = async |query: &str| {
        let request = Request::get(format!("/v1/webhooks/messenger?{query}"));
        stack.send_raw(request.body(Body::empty()).unwrap()).await
    };
    let right = format!("hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}&hub.challenge=11%3C58");

    let answer = ask(&right).await;
    assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::OK, &b"11<58"[..]));
    assert!(
        answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
    for wrong in [
        "",
        "hub.mode=subscribe&hub.challenge=1158",
        "hub.mode=subscribe&hub.verify_token=guess&hub.challenge=1158",
        &right.replace("subscribe", "unsubscribe"),
    ] {
        assert_eq!(ask(wrong).await.status(), StatusCode::FORBIDDEN, "{wrong}");
    }
}

#[tokio::test]
async fn only_meta_can_settle_a_delivery() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast_with_doubts(&ids, &[], &[0]).await;
    let page = PAGES[0];
    let metadata = format!("oncecast/1 {id} {page} 1 {}", ids[0]);
    let event = |sender: &str, recipient: &str, mid: &str| {
        json!({
            "sender": {"id": sender}, "recipient": {"id": recipient}, "timestamp": 0,
            "message": {"is_echo": true, "mid": mid, "metadata": metadata},
        })
    };
    let right = event(page, &ids[0], "m_forged");
    let body = json!({"entry": [{"id": page, "messaging": [&right]}]}).to_string();

    assert_eq!(stack.signed_webhook(&body, "guess").await, StatusCode::FORBIDDEN);
    let unsigned = Request::post("/v1/webhooks/messenger").body(Body::from(body)).unwrap();
    assert_eq!(stack.send_raw(unsigned).await.status(), StatusCode::FORBIDDEN);
    // The event must come from the entry's own Page, and name the contact of the delivery and a message.
    for (entry, event) in [
        (PAGES[1], right.clone()),
        (page, event(PAGES[1], &ids[0], "m_forged")),
        (page, event(page, "another-contact", "m_forged")),
        (page, event(page, &ids[0], "")),
    ] {
        assert_eq!(stack.webhook(entry, &[event]).await, StatusCode::OK);
    }
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [0, 0, 1]);
}

#[tokio::test]
async fn unrelated_events_are_accepted_and_ignored() {
    let stack = TestStack::start().await;
    for body in [
        "nonsense",
        "{}",
        r#"{"object": "page", "entry": []}"#,
        r#"{"entry": [{"id": "page-1", "messaging": [{}, 5, {"delivery": {"watermark": 1}}]}]}"#,
        r#"{"entry": [{"id": "page-1", "changes": [{"field": "feed"}]}]}"#,
    ] {
        let status = stack.signed_webhook(body, APP_SECRET).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }
}

#[tokio::test]
async fn standby_echo_settles_the_delivery() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast_with_doubts(&ids, &[0], &[]).await;
    let message_id = stack.newest_message_id(&ids[0]);
    let event = json!({
        "sender": {"id": PAGES[0]}, "recipient": {"id": ids[0]}, "timestamp": 0,
        "message": {
            "is_echo": true, "mid": message_id,
            "metadata": format!("oncecast/1 {id} {} 1 {}", PAGES[0], ids[0]),
        },
    });
    let body = json!({"entry": [{"id": PAGES[0], "standby": [event]}]}).to_string();

    let status = stack.signed_webhook(&body, APP_SECRET).await;

    assert_eq!(status, StatusCode::OK);
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [1, 0, 0]);
}

/// The rows of a call are read together, and most of them are known to have arrived.
#[tokio::test]
async fn one_call_settles_those_of_its_deliveries_that_are_open() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(4).await;
    let unanswered = Fault::answering(Answer::Reset).but_arriving();
    let refused = Fault::answering(GraphError::new(551, "not now")).but_arriving();
    stack.sandbox.add_fault(unanswered.to_contacts([&ids[0]]));
    stack.sandbox.add_fault(refused.to_contacts([&ids[1]]));
    let id = stack.broadcast(&ids).await;
    stack.drain_queue().await;
    stack.sandbox.clear_faults();
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [2, 1, 1]);
    stack.let_reads_catch_up();

    let echo = |(metadata, message_id): (Metadata, String)| {
        json!({
            "sender": {"id": PAGES[0]}, "recipient": {"id": metadata.contact_id}, "timestamp": 0,
            "message": {"is_echo": true, "mid": message_id, "metadata": metadata.to_string()},
        })
    };
    let echoes: Vec<_> = stack.echoes(&id).into_iter().map(echo).collect();
    // Twice in one call, in either order.
    let events: Vec<_> = echoes.iter().chain(echoes.iter().rev()).cloned().collect();
    assert_eq!(stack.webhook(PAGES[0], &events).await, StatusCode::OK);

    assert_eq!(stack.sent_failed_in_doubt(&id).await, [3, 1, 0]);
    for contact_id in &ids {
        let row = stack.delivery(&id, contact_id).await;
        assert_eq!(row["message_id"], stack.newest_message_id(contact_id), "{row}");
    }
}

#[tokio::test]
async fn last_interaction_only_moves_forward() {
    let stack = TestStack::start_with(&[("CONTACTS_FROM_WEBHOOKS", "off")]).await;
    let ids = stack.import_contacts(1).await;
    let event = |contact: &str, timestamp: i64, what: Value| {
        let mut event = json!({"sender": {"id": contact}, "recipient": {"id": PAGES[0]}, "timestamp": timestamp});
        event.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
        event
    };
    let message = || json!({"message": {"mid": "m", "text": "Hello"}});
    let events = [
        event(&ids[0], 1_795_000_000_000, message()),
        event(&ids[0], 1_794_000_000_000, json!({"postback": {"payload": "x"}})),
        event(&ids[0], 1_796_000_000_000, json!({"read": {"watermark": 1}})),
        event("unknown", 1_795_000_000_000, message()),
    ];

    assert_eq!(stack.webhook(PAGES[0], &events).await, StatusCode::OK);

    let contact = stack.call("GET", &format!("/v1/contacts/{}", ids[0]), None, None).await;
    assert_eq!(contact.body["last_interaction_at"], "2026-11-18T11:06:40Z");
    let unknown = stack.call("GET", "/v1/contacts/unknown", None, None).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}
