//! An old version and a new one on the same tables: what the new one has written beside what the old one knows stays there,
//! and does not keep the old one from its work.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use axum::http::StatusCode;
use local::sandbox::{Answer, Fault, GraphError};
use serde_json::json;

use crate::stack::{PAGES, Stack, request};

type Item = HashMap<String, AttributeValue>;

/// What a later version may write, in every type that an attribute can have.
fn of_a_later_version() -> Item {
    use AttributeValue::{B, Bool, L, M, N, Ns, Null, S, Ss};
    let text = || S("of a later version".to_owned());
    [
        ("schema", N("2".to_owned())),
        ("later_text", text()),
        ("later_number", N("12345678901234567890.5".to_owned())),
        ("later_bytes", B(Blob::new([0xff, 0x00]))),
        ("later_flag", Bool(true)),
        ("later_nothing", Null(true)),
        ("later_list", L(vec![text(), N("1".to_owned())])),
        ("later_map", M([("inside".to_owned(), text())].into())),
        ("later_texts", Ss(vec!["a".to_owned(), "b".to_owned()])),
        ("later_numbers", Ns(vec!["1".to_owned()])),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// A text that no two items share: its key.
fn key(item: &Item) -> String {
    let part = |name: &str| item.get(name).and_then(|value| value.as_s().ok().cloned());
    let parts = ["pk", "sk", "job", "contact_id"].map(part);
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Every transition of every item: accepted, claimed, halted, resumed, limited, sent, refused, in doubt, found, sent again,
/// heard of, changed.
#[tokio::test]
async fn what_a_later_version_has_written_survives_everything() {
    let stack = Stack::with(&[
        ("IN_DOUBT_POLICY", "resend"),
        ("MESSENGER_TIMEOUT_SECONDS", "1"),
        ("DOUBT_CHECK_SECONDS", "20"),
    ])
    .await;
    let more = of_a_later_version();
    let ids = stack.contacts(6).await;
    stack.write_more_by_hand(&more).await;
    let fault = |fault: Fault, id: &String| stack.sandbox.add_fault(fault.to_contacts([id]));
    fault(
        Fault::answering(GraphError::new(613, "too fast")).times(1),
        &ids[1],
    );
    fault(
        Fault::answering(Answer::Reset).but_arriving().times(1),
        &ids[2],
    );
    fault(Fault::answering(Answer::Reset).times(1), &ids[3]);
    fault(Fault::answering(GraphError::new(551, "blocked")), &ids[4]);

    let id = stack
        .post_with_key("key", &request(&ids))
        .await
        .broadcast_id();
    stack.write_more_by_hand(&more).await;
    stack.sandbox.revoke_token(PAGES[0]);
    stack.work_off().await;
    assert_eq!(stack.report(&id).await["status"], "halted");
    stack.write_more_by_hand(&more).await;
    stack.sandbox.restore_token(PAGES[0]);
    let resume = format!("/v1/broadcasts/{id}/resume");
    stack.call("POST", &resume, None, None).await;
    for _ in 0..6 {
        stack.work_off().await;
        stack.write_more_by_hand(&more).await;
        stack.advance(Duration::from_secs(60));
        stack.sandbox.forget_conversation_calls();
        stack.scheduled().await;
        stack.write_more_by_hand(&more).await;
    }
    let replayed = stack.post_with_key("key", &request(&ids)).await;
    let event = json!({"sender": {"id": ids[0]}, "recipient": {"id": PAGES[0]}, "timestamp": 1_764_000_000_000_i64, "message": {"mid": "m"}});
    assert_eq!(stack.webhook(PAGES[0], &[event]).await, StatusCode::OK);
    let change = json!({"contacts": [{
        "contact_id": ids[0], "page_id": PAGES[0], "first_name": "Ana", "attributes": {"city": "Porto"},
    }, {"contact_id": ids[1], "page_id": PAGES[0], "attributes": null}]});
    stack.call("PUT", "/v1/contacts", None, Some(&change)).await;

    // The work is done, and shown, as if nothing of it were there …
    let report = stack.report(&id).await;
    assert_eq!(report["status"], "completed", "{report:#}");
    assert_eq!(
        (&report["counters"]["sent"], &report["counters"]["failed"]),
        (&json!(5), &json!(1))
    );
    assert!(replayed.replayed);
    assert_eq!(stack.deliveries(&id, "").await.len(), 6);
    let ana = stack
        .call("GET", "/v1/contacts/c00000", None, None)
        .await
        .body;
    assert_eq!(
        (&ana["first_name"], &ana["attributes"]),
        (&json!("Ana"), &json!({"city": "Porto"}))
    );
    let list = stack.call("GET", "/v1/broadcasts", None, None).await.body;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    // … and all of it still is.
    let mut kinds = std::collections::BTreeSet::new();
    for item in stack.stored().await {
        kinds.insert(key(&item).split(['#', ' ']).next().unwrap().to_owned());
        for (name, value) in &more {
            assert_eq!(item.get(name), Some(value), "{name} of {}", key(&item));
        }
    }
    for kind in ["broadcast", "segments", "request", "page", "mid", "c00000"] {
        assert!(
            kinds.contains(kind),
            "no {kind}: it would prove nothing about it: {kinds:?}"
        );
    }
}

#[tokio::test]
async fn every_item_says_by_which_version_it_was_written() {
    let stack = Stack::with(&[
        ("MESSENGER_TIMEOUT_SECONDS", "1"),
        ("DOUBT_CHECK_SECONDS", "20"),
    ])
    .await;
    let ids = stack.contacts(3).await;
    let unanswered = Fault::answering(Answer::Reset).but_arriving();
    stack.sandbox.add_fault(unanswered.to_contacts([&ids[1]]));
    let limited = Fault::answering(GraphError::new(613, "too fast")).times(1);
    stack.sandbox.add_fault(limited.to_contacts([&ids[2]]));
    let id = stack.broadcast(&ids).await;
    stack.finish(&id).await;
    stack.advance(Duration::from_secs(60));
    stack.scheduled().await;

    assert_eq!(stack.report(&id).await["counters"]["sent"], 3);
    for item in stack.stored().await {
        let one = AttributeValue::N("1".to_owned());
        assert_eq!(item.get("schema"), Some(&one), "{}", key(&item));
    }
}
