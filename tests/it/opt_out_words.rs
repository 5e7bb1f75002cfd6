//! Contacts opt out, and back in, by a message that is wholly one of the configured words.

use axum::http::StatusCode;
use serde_json::{Value, json};
use shared::runtime::config::Config;

use crate::fixture::{PAGES, TestStack, request};
use crate::metrics::{count_events, counts};

/// Returns the event of a message of a contact, by Meta's time in milliseconds.
fn message(contact_id: &str, text: &str, at: i64) -> Value {
    json!({
        "sender": {"id": contact_id}, "recipient": {"id": PAGES[0]}, "timestamp": at, "message": {"mid": "m", "text": text},
    })
}

async fn has_opted_out(stack: &TestStack, contact_id: &str) -> bool {
    let contact = stack
        .call("GET", &format!("/v1/contacts/{contact_id}"), None, None)
        .await;
    contact.body["opted_out"].as_bool().unwrap()
}

#[tokio::test]
async fn contact_that_writes_stop_gets_no_more_broadcasts() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let pending = stack.broadcast(&ids).await;
    let now = stack.app.clock.now().as_millisecond();

    let events = [message(&ids[0], " STOP!", now), message(&ids[1], "please stop", now)];
    assert_eq!(stack.webhook(PAGES[0], &events).await, StatusCode::OK);

    assert!(has_opted_out(&stack, &ids[0]).await);
    assert!(!has_opted_out(&stack, &ids[1]).await);
    let report = stack.finish(&pending).await;
    assert_eq!(
        (&report["counters"]["sent"], &report["counters"]["skipped"]),
        (&json!(2), &json!(1))
    );
    let next = stack.post_with_key("next", &request(&ids)).await;
    assert_eq!(next.body["contacts"]["opted_out"], 1);
}

#[tokio::test]
async fn words_are_configured_in_any_language() {
    let words = [("OPT_OUT_WORDS", "отписаться,停止"), ("OPT_IN_WORDS", "Подписаться")];
    let stack = TestStack::start_with(&words).await;
    let ids = stack.import_contacts(3).await;
    let now = stack.app.clock.now().as_millisecond();
    count_events(&stack);

    let events = [
        message(&ids[0], "ОТПИСАТЬСЯ", now),
        message(&ids[1], "停止。", now),
        message(&ids[2], "stop", now),
    ];
    assert_eq!(stack.webhook(PAGES[0], &events).await, StatusCode::OK);
    assert!(has_opted_out(&stack, &ids[0]).await && has_opted_out(&stack, &ids[1]).await);
    assert!(!has_opted_out(&stack, &ids[2]).await);

    let back = [message(&ids[0], "подписаться", now + 1)];
    assert_eq!(stack.webhook(PAGES[0], &back).await, StatusCode::OK);
    assert!(!has_opted_out(&stack, &ids[0]).await);
    assert_eq!(count_events(&stack), counts([("OptedIn", 1), ("OptedOut", 2)]));
}

/// Meta repeats events, and does not keep their order.
#[tokio::test]
async fn last_word_of_a_contact_counts() {
    let stack = TestStack::start_with(&[("OPT_IN_WORDS", "start")]).await;
    let ids = stack.import_contacts(1).await;
    let now = stack.app.clock.now().as_millisecond();
    count_events(&stack);

    for (text, at) in [("start", now + 2), ("stop", now + 1), ("start", now + 2)] {
        let status = stack.webhook(PAGES[0], &[message(&ids[0], text, at)]).await;
        assert_eq!(status, StatusCode::OK);
        assert!(!has_opted_out(&stack, &ids[0]).await, "{text}");
    }
    let status = stack.webhook(PAGES[0], &[message(&ids[0], "stop", now + 3)]).await;
    assert_eq!(status, StatusCode::OK);
    assert!(has_opted_out(&stack, &ids[0]).await);
    // The operator's word counts, too: the event is known.
    let change = json!({"contacts": [{"contact_id": ids[0], "page_id": PAGES[0], "opted_out": false}]});
    stack.call("PUT", "/v1/contacts", None, Some(&change)).await;
    stack.webhook(PAGES[0], &[message(&ids[0], "stop", now + 3)]).await;
    assert!(!has_opted_out(&stack, &ids[0]).await);
    assert_eq!(count_events(&stack), counts([("OptedIn", 1), ("OptedOut", 1)]));
}

#[tokio::test]
async fn other_events_with_a_word_change_nothing() {
    let stack = TestStack::start_with(&[("CONTACTS_FROM_WEBHOOKS", "off")]).await;
    let ids = stack.import_contacts(1).await;
    let now = stack.app.clock.now().as_millisecond();
    let event = |what: Value| {
        let mut event = json!({"sender": {"id": ids[0]}, "recipient": {"id": PAGES[0]}, "timestamp": now});
        event.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
        event
    };
    let events = [
        // Written by the Page, in another tool.
        event(json!({"message": {"mid": "m", "text": "stop", "is_echo": true}})),
        event(json!({"postback": {"title": "stop", "payload": "stop"}})),
        event(json!({"message": {"mid": "m", "text": "stop stop"}})),
        event(json!({"message": {"mid": "m", "attachments": [{"type": "image"}]}})),
        message("unknown", "stop", now),
    ];

    assert_eq!(stack.webhook(PAGES[0], &events).await, StatusCode::OK);

    assert!(!has_opted_out(&stack, &ids[0]).await);
    let unknown = stack.call("GET", "/v1/contacts/unknown", None, None).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn words_can_be_switched_off() {
    let stack = TestStack::start_with(&[("OPT_OUT_WORDS", "off")]).await;
    let ids = stack.import_contacts(1).await;
    let now = stack.app.clock.now().as_millisecond();
    for word in ["stop", "off"] {
        stack.webhook(PAGES[0], &[message(&ids[0], word, now)]).await;
    }
    assert!(!has_opted_out(&stack, &ids[0]).await);
}

#[tokio::test]
async fn word_of_both_lists_is_refused_at_the_start() {
    let error = |words: &[(&str, &str)]| {
        let variable = |name: &str| {
            let given = words.iter().find(|(given, _)| *given == name);
            given.map_or_else(|| Some("file:x".to_owned()), |(_, value)| Some((*value).to_owned()))
        };
        Config::from_variables(variable).unwrap_err().variable
    };
    for (out, back, wrong) in [("stop", "Stop!", "OPT_IN_WORDS"), ("stop,,x", "start", "OPT_OUT_WORDS")] {
        let numbers = ["MESSENGER_TIMEOUT_SECONDS", "IN_DOUBT_POLICY", "DOUBT_CHECK_SECONDS"].map(|name| (name, ""));
        let words = [&numbers[..], &[("OPT_OUT_WORDS", out), ("OPT_IN_WORDS", back)]].concat();
        assert_eq!(error(&words), wrong);
    }
}
