//! The view of the sandbox in the console: what contacts see, and what goes wrong on request.

use serde_json::{Value, json};

use crate::fixture::console::Visitor;
use crate::fixture::up::UpProcess;

/// Stores contacts of page-1 with these names; returns their ids.
async fn contacts(up: &UpProcess, names: &[&str]) -> Vec<String> {
    let ids: Vec<_> = (0..names.len()).map(|n| format!("{}", 6001 + n)).collect();
    let contact = |(id, name)| json!({"contact_id": id, "page_id": "page-1", "first_name": name});
    let contacts: Vec<_> = ids.iter().zip(names).map(contact).collect();
    up.call("PUT", "/v1/contacts", &json!({ "contacts": contacts })).await;
    ids
}

/// Sends a broadcast, and waits for its end.
async fn sent(up: &UpProcess, message: &Value, ids: &[String]) -> String {
    let body = json!({"contact_ids": ids, "name": "Opening hours", "message": message});
    let accepted = up.call("POST", "/v1/broadcasts", &body).await;
    let id = accepted["broadcast_id"].as_str().unwrap().to_owned();
    let path = format!("/v1/broadcasts/{id}");
    while up.call("GET", &path, &Value::Null).await["status"] != "completed" {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    id
}

#[tokio::test]
async fn sandbox_shows_that_each_contact_got_one_message() {
    let up = UpProcess::start(&[], &[]);
    let visitor = Visitor::open(up.url()).await;
    let empty = visitor.page("/sandbox").await;
    assert!(empty.has("Nothing has arrived yet."), "{}", empty.html);
    let ids = contacts(&up, &["Ana", "<script>alert(1)</script>", "محمد"]).await;
    let twice = [ids.as_slice(), ids.as_slice()].concat();

    let id = sent(&up, &json!({"text": "Hi {{ first_name }}, we open at nine."}), &twice).await;

    // The list of broadcasts, which has their names and tells that nothing is sent any more, lags.
    let mut page = visitor.page("/sandbox").await;
    while !page.has("Opening hours") || page.has("hx-trigger") {
        page = visitor.page("/sandbox").await;
    }
    assert!(page.has("Nobody got a broadcast twice."), "{}", page.html);
    assert!(page.has("3 messages shown"), "{}", page.html);
    assert!(page.has("Hi محمد, we open at nine."), "{}", page.html);
    assert!(!page.has("<script>alert"), "{}", page.html);
    let one = visitor
        .page(&format!("/sandbox?broadcast_id={id}&contact_id={}", ids[0]))
        .await;
    assert!(
        one.has("Hi Ana, we open at nine.") && one.has("1 message shown"),
        "{}",
        one.html
    );
}

#[tokio::test]
async fn contact_answers_in_its_inbox() {
    let up = UpProcess::start(&[], &[]);
    let visitor = Visitor::open(up.url()).await;
    let ids = contacts(&up, &["<b>Ana</b>"]).await;
    let replies = json!([{"content_type": "text", "title": "STOP", "payload": "STOP"}]);
    sent(
        &up,
        &json!({"text": "We open at nine.", "quick_replies": replies}),
        &ids,
    )
    .await;
    let inbox = "/sandbox/inbox?page_id=page-1&contact_id=6001";
    let page = visitor.page(inbox).await;
    assert!(
        page.has("We open at nine.") && page.has("value=\"STOP\""),
        "{}",
        page.html
    );
    assert!(!page.has("<b>Ana</b>"), "{}", page.html);

    let fields = [("page_id", "page-1"), ("contact_id", "6001")];
    let empty = visitor.submit("/sandbox/inbox", &fields).await;
    assert_eq!(empty.status, 422);
    assert!(empty.has("Write a text first"), "{}", empty.html);
    let tapped = visitor
        .submit("/sandbox/inbox", &[fields.as_slice(), &[("text", "STOP")]].concat())
        .await;

    assert_eq!((tapped.status, tapped.location.as_deref()), (303, Some(inbox)));
    let page = visitor.page(inbox).await;
    assert!(page.has("class=\"own\""), "{}", page.html);
    assert!(
        !page.has("value=\"STOP\""),
        "the answers of an older message are gone: {}",
        page.html
    );
    // The webhook of the message opts the contact out.
    while up.call("GET", "/v1/contacts/6001", &Value::Null).await["opted_out"] != true {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn fault_is_switched_on_by_its_words_and_off_again() {
    let up = UpProcess::start(&[], &[]);
    let visitor = Visitor::open(up.url()).await;
    let ids = contacts(&up, &["Ana", "Ben"]).await;
    let wrong = [("kind", "blocked"), ("contact_id", "6001"), ("times", "many")];
    let refused = visitor.submit("/sandbox/faults", &wrong).await;
    assert_eq!(refused.status, 422);
    let kept = [
        "value=\"blocked\" checked",
        "value=\"6001\"",
        "value=\"many\"",
        "whole number",
    ];
    assert!(kept.iter().all(|kept| refused.has(kept)), "{}", refused.html);

    let added = visitor.submit("/sandbox/faults", &wrong[..2]).await;

    assert_eq!(
        (added.status, added.location.as_deref()),
        (303, Some("/sandbox/faults"))
    );
    let page = visitor.page("/sandbox/faults").await;
    assert!(page.has("all Pages · contact 6001"), "{}", page.html);
    let id = sent(&up, &json!({"text": "We open at nine."}), &ids).await;
    let report = up.call("GET", &format!("/v1/broadcasts/{id}"), &Value::Null).await;
    assert_eq!(
        (&report["counters"]["sent"], &report["counters"]["failed"]),
        (&json!(1), &json!(1))
    );
    visitor.submit("/sandbox/faults/off", &[("index", "0")]).await;
    let page = visitor.page("/sandbox/faults").await;
    assert!(page.has("None: every message is accepted"), "{}", page.html);
}

#[tokio::test]
async fn revoked_token_is_told_on_the_page_of_faults() {
    let up = UpProcess::start(&[], &[]);
    let visitor = Visitor::open(up.url()).await;

    visitor
        .submit("/sandbox/tokens", &[("page_id", "page-2"), ("token", "revoked")])
        .await;

    let page = visitor.page("/sandbox/faults").await;
    assert!(page.has("revoked") && page.has("Give back"), "{}", page.html);
    visitor
        .submit("/sandbox/tokens", &[("page_id", "page-2"), ("token", "valid")])
        .await;
    assert!(!visitor.page("/sandbox/faults").await.has("Give back"));
}

#[tokio::test]
async fn messages_are_forgotten_only_after_a_question() {
    let up = UpProcess::start(&[], &[]);
    let visitor = Visitor::open(up.url()).await;
    let ids = contacts(&up, &["Ana"]).await;
    sent(&up, &json!({"text": "We open at nine."}), &ids).await;
    let asked = visitor.page("/sandbox/forget").await;
    assert!(asked.has("Forget all messages of the sandbox?"), "{}", asked.html);
    assert!(visitor.page("/sandbox").await.has("We open at nine."));

    visitor.submit("/sandbox/forget", &[]).await;

    assert!(visitor.page("/sandbox").await.has("Nothing has arrived yet."));
}
