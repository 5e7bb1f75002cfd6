//! Webhook calls with events that cannot be read: they spoil no other event, and are counted.

use axum::http::StatusCode;
use serde_json::json;
use shared::domain::ids::BroadcastId;

use crate::fixture::{APP_SECRET, PAGES, TestStack};
use crate::metrics::{count_events, counts};

/// Returns an echo for the first Page, with this message in front of its metadata.
fn echo(id: &BroadcastId, contact_id: &str, message: &str) -> String {
    let page = PAGES[0];
    format!(
        r#"{{"sender": {{"id": "{page}"}}, "recipient": {{"id": "{contact_id}"}},
            "message": {{{message}, "metadata": "oncecast/1 {id} {page} 1 {contact_id}"}}}}"#
    )
}

#[tokio::test]
async fn echo_is_settled_beside_what_cannot_be_read() {
    let page = PAGES[0];
    let surrogate =
        r#"{"sender": {"id": "c00001"}, "timestamp": 1795000000000, "message": {"mid": "m_u", "text": "ok \ud83d"}}"#;
    let entries = |echo: &str| {
        [
            format!(r#"{{"id": "{page}", "messaging": [{surrogate}]}}, {{"id": "{page}", "messaging": [{echo}]}}"#),
            format!(r#"{{"id": "{page}", "messaging": [{surrogate}, {echo}]}}"#),
            format!(r#"{{"id": "{page}", "messaging": null, "standby": [{echo}]}}"#),
            format!(r#"{{"messaging": [{echo}]}}"#),
            format!(r#"{{"id": "{page}", "time": 1e999, "messaging": [5, {echo}], "standby": 5}}, null, 5"#),
        ]
    };
    for n in 0..entries("").len() {
        let stack = TestStack::start().await;
        let ids = stack.import_contacts(2).await;
        let id = stack.broadcast_with_doubts(&ids, &[0], &[]).await;
        let message_id = stack.newest_message_id(&ids[0]);
        let echo = echo(
            &id,
            &ids[0],
            &format!(r#""is_echo": true, "mid": "{message_id}", "text": "\udc00""#),
        );
        let body = format!(r#"{{"object": "page", "entry": [{}]}}"#, entries(&echo)[n]);

        assert_eq!(stack.signed_webhook(&body, APP_SECRET).await, StatusCode::OK, "{body}");

        assert_eq!(stack.sent_failed_in_doubt(&id).await, [2, 0, 0], "{body}");
        if body.contains(surrogate) {
            let contact = stack.call("GET", "/v1/contacts/c00001", None, None).await;
            assert_eq!(contact.body["last_interaction_at"], "2026-11-18T11:06:40Z");
        }
    }
}

/// Meta repeats a refused call; after some minutes the event is confirmed, so that the repetitions end.
#[tokio::test]
async fn new_unreadable_echo_is_refused_and_old_one_confirmed() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let id = stack.broadcast_with_doubts(&ids, &[0, 1], &[]).await;
    count_events(&stack);
    let readable = echo(
        &id,
        &ids[0],
        &format!(r#""mid": "{}""#, stack.newest_message_id(&ids[0])),
    );
    let unreadable = echo(&id, &ids[1], r#""mid": "\ud83d""#);
    let call = async |minutes_ago: i64| {
        let sent_at = stack.app.clock.now().as_millisecond() - minutes_ago * 60_000;
        let body = format!(
            r#"{{"entry": [{{"id": "{}", "time": {sent_at}, "messaging": [{unreadable}, {readable}]}}]}}"#,
            PAGES[0]
        );
        stack.signed_webhook(&body, APP_SECRET).await
    };

    assert_eq!(call(4).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [1, 0, 1]);
    for minutes_ago in [6, -6] {
        assert_eq!(call(minutes_ago).await, StatusCode::OK);
    }

    assert_eq!(stack.sent_failed_in_doubt(&id).await, [1, 0, 1]);
    let expected = counts([("Sent", 1), ("DoubtsSettled", 1), ("WebhookEventsUnreadable", 3)]);
    assert_eq!(count_events(&stack), expected);
}

/// Nothing bounds the repetitions of an event without a time, and an unreadable event of another sender is no loss.
#[tokio::test]
async fn unreadable_event_is_confirmed_if_it_has_no_time_or_is_not_ours() {
    let stack = TestStack::start().await;
    let now = stack.app.clock.now().as_millisecond();
    for body in [
        "oncecast/1 nonsense".to_owned(),
        r#"{"entry": {"messaging": "oncecast/1"}}"#.to_owned(),
        json!({"entry": [{"id": "page-1", "messaging": "oncecast/1"}]}).to_string(),
        json!({"entry": [{"id": "page-1", "time": now, "messaging": ["text", {"message": 5}]}]}).to_string(),
    ] {
        assert_eq!(stack.signed_webhook(&body, APP_SECRET).await, StatusCode::OK, "{body}");
    }
    assert_eq!(count_events(&stack), counts([("WebhookEventsUnreadable", 5)]));
}
