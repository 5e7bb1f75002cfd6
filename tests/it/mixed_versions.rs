//! Two versions on the same tables: attributes that only the later version knows survive the writes of the earlier one, and do
//! not keep it from its work.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use axum::http::StatusCode;
use local::sandbox::{Answer, Fault, GraphError};
use serde_json::json;

use crate::fixture::by_hand::LEASE;
use crate::fixture::{PAGES, TestStack, request};

type Item = HashMap<String, AttributeValue>;

/// Returns attributes of a later version, one of every type.
fn later_attributes() -> Item {
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

/// Returns the key of an item as a text.
fn key(item: &Item) -> String {
    let part = |name: &str| item.get(name).and_then(|value| value.as_s().ok().cloned());
    let parts = ["pk", "sk", "job", "contact_id"].map(part);
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Covers every transition of every item: accepted, claimed, halted, resumed, rate-limited, sent, refused, in doubt, found,
/// resent, contacted by its contact, changed.
#[tokio::test]
async fn attributes_of_a_later_version_survive_every_transition() {
    let stack = TestStack::start_with(&[
        ("IN_DOUBT_POLICY", "resend"),
        ("MESSENGER_TIMEOUT_SECONDS", "1"),
        ("DOUBT_CHECK_SECONDS", "20"),
    ])
    .await;
    let more = later_attributes();
    let ids = stack.import_contacts(6).await;
    stack.add_attributes_by_hand(&more).await;
    let fault = |fault: Fault, id: &String| stack.sandbox.add_fault(fault.to_contacts([id]));
    fault(Fault::answering(GraphError::new(613, "too fast")).times(1), &ids[1]);
    fault(Fault::answering(Answer::Reset).but_arriving().times(1), &ids[2]);
    fault(Fault::answering(Answer::Reset).times(1), &ids[3]);
    fault(Fault::answering(GraphError::new(551, "blocked")), &ids[4]);

    let id = stack.post_with_key("key", &request(&ids)).await.broadcast_id();
    stack.add_attributes_by_hand(&more).await;
    stack.sandbox.revoke_token(PAGES[0]);
    stack.drain_queue().await;
    assert_eq!(stack.report(&id).await["status"], "halted");
    stack.add_attributes_by_hand(&more).await;
    stack.sandbox.restore_token(PAGES[0]);
    let resume = format!("/v1/broadcasts/{id}/resume");
    stack.call("POST", &resume, None, None).await;
    for _ in 0..6 {
        stack.drain_queue().await;
        stack.add_attributes_by_hand(&more).await;
        stack.advance(Duration::from_secs(60));
        stack.sandbox.forget_conversation_calls();
        stack.tick().await;
        stack.add_attributes_by_hand(&more).await;
    }
    let replayed = stack.post_with_key("key", &request(&ids)).await;
    let event = json!({"sender": {"id": ids[0]}, "recipient": {"id": PAGES[0]}, "timestamp": 1_764_000_000_000_i64, "message": {"mid": "m"}});
    assert_eq!(stack.webhook(PAGES[0], &[event]).await, StatusCode::OK);
    let change = json!({"contacts": [{
        "contact_id": ids[0], "page_id": PAGES[0], "first_name": "Ana", "attributes": {"city": "Porto"},
    }, {"contact_id": ids[1], "page_id": PAGES[0], "attributes": null}]});
    stack.call("PUT", "/v1/contacts", None, Some(&change)).await;

    // The work is done and reported as without the attributes.
    let report = stack.report(&id).await;
    assert_eq!(report["status"], "completed", "{report:#}");
    assert_eq!(
        (&report["counters"]["sent"], &report["counters"]["failed"]),
        (&json!(5), &json!(1))
    );
    assert!(replayed.replayed);
    assert_eq!(stack.deliveries(&id, "").await.len(), 6);
    let ana = stack.call("GET", "/v1/contacts/c00000", None, None).await.body;
    assert_eq!(
        (&ana["first_name"], &ana["attributes"]),
        (&json!("Ana"), &json!({"city": "Porto"}))
    );
    let list = stack.call("GET", "/v1/broadcasts", None, None).await.body;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    // All attributes are still there.
    let mut kinds = std::collections::BTreeSet::new();
    for item in stack.stored_items().await {
        kinds.insert(key(&item).split(['#', ' ']).next().unwrap().to_owned());
        for (name, value) in &more {
            assert_eq!(item.get(name), Some(value), "{name} of {}", key(&item));
        }
    }
    for kind in ["broadcast", "segments", "request", "page", "mid", "c00000"] {
        assert!(
            kinds.contains(kind),
            "no {kind} item, so nothing is proved about it: {kinds:?}"
        );
    }
}

/// The earlier version ignores the attribute that tells of the audience, of which nothing or a part is resolved by then.
#[tokio::test]
async fn audience_that_an_earlier_version_comes_to_loses_nobody() {
    for known in [0, 1] {
        let stack = TestStack::start().await;
        let ids = stack.import_contacts(3).await;
        stack.let_reads_catch_up();
        let id = stack.broadcast_to(&json!({"everybody": true})).await;
        if known > 0 {
            let mut claim = stack.claim(&stack.job(&id).await.id()).await;
            assert!(stack.resolve(&mut claim, &ids[..known]).await);
            stack.advance(LEASE + Duration::from_secs(1));
        }
        let resolving = stack.hide_resolving_by_hand(&id).await;
        stack.drain_queue().await;
        stack.show_resolving_by_hand(&id, resolving).await;
        let report = stack.report(&id).await;
        let reason = format!("expired: segment {known} is gone");
        assert_eq!(
            (&report["status"], &report["jobs"][0]["reason"]),
            (&json!("halted"), &json!(reason))
        );

        stack.control("resume", &id).await;
        stack.finish(&id).await;

        stack.assert_received(&id, &ids);
    }
}

#[tokio::test]
async fn every_item_has_the_schema_version() {
    let stack = TestStack::start_with(&[("MESSENGER_TIMEOUT_SECONDS", "1"), ("DOUBT_CHECK_SECONDS", "20")]).await;
    let ids = stack.import_contacts(3).await;
    let unanswered = Fault::answering(Answer::Reset).but_arriving();
    stack.sandbox.add_fault(unanswered.to_contacts([&ids[1]]));
    let limited = Fault::answering(GraphError::new(613, "too fast")).times(1);
    stack.sandbox.add_fault(limited.to_contacts([&ids[2]]));
    let id = stack.broadcast(&ids).await;
    stack.finish(&id).await;
    stack.advance(Duration::from_secs(60));
    stack.tick().await;

    assert_eq!(stack.report(&id).await["counters"]["sent"], 3);
    for item in stack.stored_items().await {
        let one = AttributeValue::N("1".to_owned());
        assert_eq!(item.get("schema"), Some(&one), "{}", key(&item));
    }
}
