//! The preview of a broadcast, which stores and sends nothing; and sends to testers.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::fixture::{PAGE_WITHOUT_TOKEN, PAGES, TEXT, TestStack, request, request_to};

const DRY_RUN: &str = "/v1/broadcasts?dry_run=true";

impl TestStack {
    /// Returns the preview of a broadcast.
    async fn preview(&self, body: &Value) -> Value {
        let answer = self.call("POST", DRY_RUN, None, Some(body)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.body
    }

    /// Imports these contacts.
    pub async fn import_json(&self, contacts: Value) {
        let answer = self
            .call("PUT", "/v1/contacts", None, Some(&json!({"contacts": contacts})))
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }

    /// Returns the stored items in a form that can be compared.
    async fn stored(&self) -> Vec<String> {
        let items = self.stored_items().await;
        let mut items: Vec<_> = items
            .iter()
            .map(|item| {
                let mut attributes: Vec<_> = item.iter().map(|attribute| format!("{attribute:?}")).collect();
                attributes.sort();
                attributes.join(" ")
            })
            .collect();
        items.sort();
        items
    }
}

/// Returns the warnings of a preview: type, contacts and Page.
fn warnings(preview: &Value) -> Vec<(&str, u64, Option<&str>)> {
    let warnings = preview["warnings"].as_array().unwrap().iter();
    let warnings = warnings.map(|warning| {
        let kind = warning["type"].as_str().unwrap();
        (kind, warning["contacts"].as_u64().unwrap(), warning["page_id"].as_str())
    });
    warnings.collect()
}

#[tokio::test]
async fn preview_shows_what_would_happen_and_stores_nothing() {
    let stack = TestStack::start_with(&[("INLINE_LIMIT", "25"), ("PAGE_RATE_PER_SECOND", "30")]).await;
    let mut ids = stack.import_contacts(100).await;
    stack
        .import_json(json!([
            {"contact_id": "ana", "page_id": PAGES[1], "first_name": "Ana"},
            {"contact_id": "max", "page_id": PAGES[1], "first_name": "Maximilian Alexander"},
            {"contact_id": "nameless", "page_id": PAGES[1]},
            {"contact_id": "out", "page_id": PAGES[1], "opted_out": true},
            {"contact_id": "mute", "page_id": PAGE_WITHOUT_TOKEN, "first_name": "Mute"},
        ]))
        .await;
    ids.extend(["ana", "max", "ana", "nameless", "out", "nobody", "mute"].map(str::to_owned));
    let before = stack.stored().await;

    let body = json!({"contact_ids": ids, "message": {"text": "Hi {{ first_name }}."}});
    let preview = stack.preview(&body).await;

    let expected = json!({
        "requested": 107, "duplicates_removed": 1, "unknown": 1, "unknown_ids": ["nobody"], "opted_out": 1, "accepted": 104
    });
    assert_eq!(preview["contacts"], expected);
    assert_eq!(
        preview["pages"],
        json!([
            {"page_id": PAGES[0], "contacts": 100, "seconds": 4},
            {"page_id": PAGES[1], "contacts": 3, "seconds": 1},
            {"page_id": PAGE_WITHOUT_TOKEN, "contacts": 1, "seconds": 1},
        ])
    );
    assert_eq!(preview["expected_seconds"], 4);
    let texts = preview["texts"].as_array().unwrap();
    assert_eq!(texts.len(), 3);
    assert_eq!(texts[0]["text"], format!("Hi Nr {}.", ids[0]));
    assert_eq!(preview["longest"]["text"], "Hi Maximilian Alexander.");
    assert_eq!(
        (&preview["longest"]["contact_id"], &preview["longest"]["length"]),
        (&json!("max"), &json!(24))
    );
    assert_eq!(
        warnings(&preview),
        [("no_token", 1, Some(PAGE_WITHOUT_TOKEN)), ("fails", 1, None)]
    );
    let reason = preview["warnings"][1]["message"].as_str().unwrap();
    assert!(reason.contains("missing first_name"), "{reason}");
    // Two for each contact, 4 checkpoints, 8 for each Page, a segment, the request key and the broadcast.
    assert_eq!(preview["write_units"], 2 * 104 + 4 + 8 * 3 + 1 + 4);

    assert_eq!(stack.stored().await, before);
    assert_eq!(stack.sandbox.received_count(), 0);
    assert!(stack.receive().await.is_none());
    // It took no request key either: the request itself is new.
    let answer = stack
        .post(&json!({"contact_ids": ["ana"], "message": {"text": "Hi {{ first_name }}."}}))
        .await;
    assert!(!answer.replayed);
}

#[tokio::test]
async fn preview_warns_of_the_window_the_quiet_hours_and_the_end() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "1")]).await;
    let now = stack.app.clock.now();
    let hours_ago = |hours: u64| now - Duration::from_secs(hours * 3_600);
    stack
        .import_json(json!([
            {"contact_id": "new", "page_id": PAGES[0], "last_interaction_at": hours_ago(1)},
            {"contact_id": "day", "page_id": PAGES[0], "last_interaction_at": hours_ago(20)},
            {"contact_id": "old", "page_id": PAGES[0], "last_interaction_at": hours_ago(25)},
            {"contact_id": "unknown", "page_id": PAGES[0]},
        ]))
        .await;
    let mut body = request(&["new", "day", "old", "unknown"].map(str::to_owned));
    assert_eq!(warnings(&stack.preview(&body).await), [("outside_window", 1, None)]);

    // Tomorrow the window of the first one is over, too.
    body["scheduled_at"] = json!(now + Duration::from_secs(24 * 3_600));
    assert_eq!(warnings(&stack.preview(&body).await), [("outside_window", 3, None)]);

    body["messaging_type"] = json!("MESSAGE_TAG");
    body["tag"] = json!("HUMAN_AGENT");
    body["expires_at"] = json!(now + Duration::from_secs(24 * 3_600 + 2));
    assert_eq!(warnings(&stack.preview(&body).await), [("expires", 2, None)]);

    body.as_object_mut().unwrap().remove("expires_at");
    body["scheduled_at"] = json!(format!(
        "{}T22:00",
        (now + Duration::from_secs(48 * 3_600))
            .to_string()
            .split('T')
            .next()
            .unwrap()
    ));
    body["time_zone"] = json!("Asia/Manila");
    body["quiet_hours"] = json!({"from": "21:00", "to": "08:00", "time_zone": "Asia/Manila"});
    let preview = stack.preview(&body).await;
    assert_eq!(warnings(&preview), [("quiet_hours", 4, None)]);
    let begins = preview["begins_local"].as_str().unwrap();
    assert!(begins.ends_with("T08:00:00+08:00[Asia/Manila]"), "{begins}");
}

#[tokio::test]
async fn wrong_request_is_refused_by_its_preview_as_by_itself() {
    let stack = TestStack::start().await;
    let cases = [
        (
            json!({"contact_ids": [], "message": {"text": TEXT}}),
            StatusCode::BAD_REQUEST,
        ),
        (
            json!({"contact_ids": ["nobody"], "message": {"text": TEXT}}),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
    ];
    for (body, status) in cases {
        let preview = stack.call("POST", DRY_RUN, None, Some(&body)).await;
        let itself = stack.post(&body).await;
        assert_eq!((preview.status, &preview.body), (status, &itself.body));
    }
    let body = request(&["nobody".to_owned()]);
    let wrong = stack
        .call("POST", "/v1/broadcasts?dry_run=yes", None, Some(&body))
        .await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

const TEST: &str = "/v1/broadcasts/test";

/// Four contacts: two testers, of two Pages, one who has opted out, and one that is no tester.
fn testers() -> Value {
    json!([
        {"contact_id": "ana", "page_id": PAGES[0], "first_name": "Ana", "tester": true},
        {"contact_id": "ben", "page_id": PAGES[1], "tester": true},
        {"contact_id": "out", "page_id": PAGES[1], "tester": true, "opted_out": true},
        {"contact_id": "customer", "page_id": PAGES[0]},
    ])
}

#[tokio::test]
async fn testers_get_the_message_at_once_and_it_is_no_broadcast_of_the_lists() {
    let stack = TestStack::start_with(&[("REQUIRE_APPROVAL", "on")]).await;
    stack.import_json(testers()).await;
    let body = json!({"contact_ids": ["ana", "ben", "ana"], "message": {"text": "Hi {{ first_name }}."}});

    let answer = stack.call("POST", TEST, None, Some(&body)).await;

    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(
        (&answer.body["status"], &answer.body["test"]),
        (&json!("completed"), &json!(true))
    );
    let deliveries = answer.body["deliveries"].as_array().unwrap().iter();
    let outcomes: Vec<_> = deliveries
        .map(|one| (one["contact_id"].as_str().unwrap(), one["status"].as_str().unwrap()))
        .collect();
    assert_eq!(outcomes, [("ana", "sent"), ("ben", "failed")]);
    assert_eq!(answer.body["deliveries"][1]["reason"], "missing first_name");
    assert_eq!(stack.sandbox.received()[0].text.as_deref(), Some("Hi Ana."));

    stack.let_reads_catch_up();
    let listed = async |query: &str| {
        let list = stack.call("GET", &format!("/v1/broadcasts{query}"), None, None).await;
        list.body["items"].as_array().unwrap().len()
    };
    assert_eq!(listed("").await, 0);
    assert_eq!(listed(&format!("?page_id={}", PAGES[0])).await, 0);
    assert_eq!(listed("?tests=true").await, 1);
}

/// A tester looks at the same message twice; only a key makes the second request a repetition. The broadcast itself is another
/// request, and reaches the testers again.
#[tokio::test]
async fn each_test_is_sent_unless_it_repeats_a_key() {
    let stack = TestStack::start().await;
    stack.import_json(testers()).await;
    let body = json!({"contact_ids": ["ana"], "message": {"text": "Hi."}});
    for (key, sent) in [(None, 1), (None, 2), (Some("k"), 3), (Some("k"), 3)] {
        let answer = stack.call("POST", TEST, key, Some(&body)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(stack.sandbox.received_count(), sent, "{key:?}");
    }
    let broadcast = stack.post_with_key("k", &body).await;
    assert_eq!(broadcast.status, StatusCode::ACCEPTED);
    assert!(!broadcast.replayed);
    assert_eq!(stack.finish(&broadcast.broadcast_id()).await["counters"]["sent"], 1);
}

#[tokio::test]
async fn nobody_but_testers_gets_a_test() {
    let stack = TestStack::start().await;
    stack.import_json(testers()).await;
    let cases = [
        (
            json!({"contact_ids": ["ana", "customer", "out", "nobody"], "message": {"text": "Hi."}}),
            vec![
                ("/contact_ids/1", "is not a tester"),
                ("/contact_ids/2", "has opted out"),
                ("/contact_ids/3", "is not a known contact"),
            ],
        ),
        (
            json!({"contact_ids": ["1", "2", "3", "4", "5", "6"], "message": {"text": "Hi."}}),
            vec![("/contact_ids", "must have at most 5 testers")],
        ),
        (
            json!({"contact_ids": ["ana"], "message": {"text": "Hi."}, "scheduled_at": "2030-01-01T00:00:00Z"}),
            vec![("/scheduled_at", "is not a known field")],
        ),
        (
            json!({"contact_ids": ["ana"], "message": {"text": ""}}),
            vec![("/message/text", "")],
        ),
        (
            json!({}),
            vec![("/contact_ids", "is required"), ("/message", "is required")],
        ),
    ];
    for (body, expected) in cases {
        let answer = stack.call("POST", TEST, None, Some(&body)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}: {answer:?}");
        let faults = answer.body["errors"].as_array().unwrap();
        assert_eq!(faults.len(), expected.len(), "{body}: {faults:?}");
        for (fault, (field, message)) in faults.iter().zip(expected) {
            assert_eq!(fault["field"], field, "{body}");
            assert!(fault["message"].as_str().unwrap().contains(message), "{body}: {fault}");
        }
    }
    assert_eq!(stack.sandbox.received_count(), 0);
}

/// Contacts to which a broadcast has not come yet are in an audience of those who have not got it.
#[tokio::test]
async fn preview_warns_of_a_broadcast_that_is_still_being_sent() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(4).await;
    let first = stack.broadcast(&ids[..3]).await;
    stack.let_reads_catch_up();
    let body = request_to(&json!({"not_sent_in": [first]}));

    let early = stack.preview(&body).await;
    assert_eq!(early["contacts"]["accepted"], 4);
    assert_eq!(warnings(&early), [("still_sending", 3, None)]);

    stack.drain_queue().await;
    stack.let_reads_catch_up();
    let late = stack.preview(&body).await;
    assert_eq!(late["contacts"]["accepted"], 1);
    assert_eq!(warnings(&late), []);
}
