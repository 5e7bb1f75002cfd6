//! The reasons why contacts got no message: in the report of a broadcast, in words, and as a filter of its deliveries.

use axum::http::StatusCode;
use jiff::SignedDuration;
use local::sandbox::{Answer, Fault, GraphError};
use serde_json::{Value, json};
use shared::domain::ids::BroadcastId;

use crate::fixture::{PAGES, TestStack, request};

/// Returns the reasons of a report as status, code and contacts.
fn reasons(report: &Value) -> Vec<(&str, &str, u64)> {
    let reasons = report["reasons"].as_array().unwrap().iter();
    let reasons = reasons.map(|reason| {
        let text = |name: &str| reason[name].as_str().unwrap();
        assert!(text("meaning").ends_with('.'), "{reason}");
        (text("status"), text("code"), reason["contacts"].as_u64().unwrap())
    });
    reasons.collect()
}

/// Completes a broadcast to two Pages: three contacts are blocked, one has no first name, one opts out after acceptance, one is in
/// doubt, two get the message. Returns it with the ids.
async fn mixed_broadcast(stack: &TestStack) -> (BroadcastId, Vec<String>) {
    let ids: Vec<_> = (0..8).map(|n| format!("c{n}")).collect();
    stack.import(PAGES[0], &ids[..6]).await;
    stack.import(PAGES[1], &ids[6..]).await;
    let change = |change: Value| json!({ "contacts": [change] });
    let nameless = change(json!({"contact_id": ids[3], "page_id": PAGES[0], "first_name": null}));
    stack.call("PUT", "/v1/contacts", None, Some(&nameless)).await;
    let blocked = GraphError {
        subcode: Some(1_545_041),
        ..GraphError::new(551, "not now")
    };
    let with_subcode = Fault::answering(blocked).to_contacts([&ids[0], &ids[6]]);
    stack.sandbox.add_fault(with_subcode);
    let without = Fault::answering(GraphError::new(551, "not now")).to_contacts([&ids[1]]);
    stack.sandbox.add_fault(without);
    stack
        .sandbox
        .add_fault(Fault::answering(Answer::Reset).to_contacts([&ids[2]]));
    let mut body = request(&ids);
    body["message"]["text"] = json!("Hi {{ first_name }}");
    let id = stack.post(&body).await.broadcast_id();
    let opts_out = change(json!({"contact_id": ids[4], "page_id": PAGES[0], "opted_out": true}));
    stack.call("PUT", "/v1/contacts", None, Some(&opts_out)).await;
    stack.let_reads_catch_up();
    let report = stack.finish(&id).await;
    assert_eq!(report["status"], "completed", "{report:#}");
    stack.sandbox.clear_faults();
    (id, ids)
}

#[tokio::test]
async fn report_tells_why_contacts_got_no_message() {
    let stack = TestStack::start().await;
    let (id, ids) = mixed_broadcast(&stack).await;

    let report = stack.report(&id).await;

    assert_eq!(
        reasons(&report),
        [
            ("failed", "551/1545041", 2),
            ("failed", "551", 1),
            ("failed", "missing first_name", 1),
            ("skipped", "opted_out", 1),
            ("in_doubt", "connection lost", 1),
        ]
    );
    let meaning = |n: usize| report["reasons"][n]["meaning"].as_str().unwrap();
    assert!(meaning(0).contains("blocked the Page"), "{}", meaning(0));
    assert!(meaning(2).contains("no first_name"), "{}", meaning(2));
    assert!(meaning(4).contains("may have got the message"), "{}", meaning(4));
    let of_second = reasons(&report["jobs"][1]);
    assert_eq!(of_second, [("failed", "551/1545041", 1)]);

    // Evidence takes a contact out of the reasons.
    stack.echo(&id, &ids[2], 1, "m_late").await;
    let report = stack.report(&id).await;
    assert_eq!(reasons(&report).len(), 4, "{report:#}");
    assert_eq!(report["counters"]["sent"], 3);
    stack.skip_promise_check();
}

#[tokio::test]
async fn deliveries_are_listed_by_reason_and_page_and_time() {
    let stack = TestStack::start().await;
    let (id, ids) = mixed_broadcast(&stack).await;
    let list = async |filter: &str| -> Vec<String> {
        let rows = stack.deliveries(&id, filter).await;
        rows.iter()
            .map(|row| row["contact_id"].as_str().unwrap().to_owned())
            .collect()
    };
    let of = |indices: &[usize]| indices.iter().map(|n| ids[*n].clone()).collect::<Vec<_>>();

    assert_eq!(list("&reason=551").await, of(&[0, 1, 6]));
    assert_eq!(list("&reason=551/1545041").await, of(&[0, 6]));
    assert_eq!(list("&reason=missing%20first_name").await, of(&[3]));
    assert_eq!(list("&reason=551&status=skipped").await, of(&[]));
    assert_eq!(list(&format!("&page_id={}", PAGES[1])).await, of(&[6, 7]));
    assert_eq!(list(&format!("&page_id={}&status=sent", PAGES[1])).await, of(&[7]));
    assert_eq!(list("&page_id=another").await, of(&[]));
    let rows = stack.deliveries(&id, "").await;
    assert_eq!(
        (&rows[0]["code"], &rows[5]["code"]),
        (&json!("551/1545041"), &Value::Null)
    );

    // A later change shows in the time.
    let last = stack.app.clock.now();
    stack.advance(std::time::Duration::from_secs(60));
    let between = last + SignedDuration::from_secs(30);
    stack.echo(&id, &ids[2], 1, "m_late").await;
    assert_eq!(list(&format!("&updated_after={between}")).await, of(&[2]));
    assert_eq!(list(&format!("&updated_before={between}")).await.len(), 7);
    assert_eq!(list(&format!("&updated_before={between}&reason=551")).await.len(), 3);
    stack.skip_promise_check();
}

#[tokio::test]
async fn wrong_filter_of_deliveries_is_refused_with_the_nearest_right_one() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    for (filter, field, word) in [
        ("reason=opted-out", "reason", "\"opted_out\""),
        ("reason=", "reason", "551"),
        ("page_id=a/b", "page_id", ""),
        ("updated_after=2026-11-26", "updated_after", "offset"),
        ("updated_before=now", "updated_before", "offset"),
    ] {
        let path = format!("/v1/broadcasts/{id}/deliveries?{filter}");
        let answer = stack.call("GET", &path, None, None).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{filter}");
        let fault = &answer.body["errors"][0];
        assert_eq!(fault["field"], field);
        assert!(fault["message"].as_str().unwrap().contains(word), "{fault}");
    }
}

/// The job's item is read and written at every checkpoint, so it stays small whatever Messenger answers.
#[tokio::test]
async fn rare_reasons_beyond_thirty_are_counted_together() {
    let stack = TestStack::start().await;
    let ids: Vec<_> = (0..35).map(|n| format!("c{n:02}")).collect();
    let contacts = ids.iter().enumerate().map(|(n, id)| {
        let attributes: serde_json::Map<_, _> = (0..n).map(|n| (format!("a{n}"), json!("x"))).collect();
        json!({"contact_id": id, "page_id": PAGES[0], "attributes": attributes})
    });
    let contacts = json!({"contacts": contacts.collect::<Vec<_>>()});
    stack.call("PUT", "/v1/contacts", None, Some(&contacts)).await;
    let mut body = request(&ids);
    let text: String = (0..35).map(|n| format!("{{{{ attributes.a{n} }}}}")).collect();
    body["message"]["text"] = json!(text);
    let id = stack.post(&body).await.broadcast_id();

    let report = stack.finish(&id).await;

    assert_eq!(report["counters"]["failed"], 35);
    let reasons = reasons(&report);
    assert_eq!(reasons.len(), 31);
    assert_eq!(reasons[0], ("failed", "other", 5));
    assert_eq!(reasons.iter().map(|(_, _, contacts)| contacts).sum::<u64>(), 35);
    let rows = stack.deliveries(&id, "&reason=missing%20attributes.a34").await;
    assert_eq!(rows.len(), 1);
}

/// Also one that waited for another reason.
#[tokio::test]
async fn cancelled_contacts_have_that_reason() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(4).await;
    let limited = Fault::answering(GraphError::new(613, "too fast"));
    stack.sandbox.add_fault(limited.to_contacts([&ids[1]]));
    let id = stack.broadcast(&ids).await;
    stack.drain_queue().await;
    assert_eq!(stack.deliveries(&id, "&status=waiting&reason=613").await.len(), 1);

    let cancel = format!("/v1/broadcasts/{id}/cancel");
    let answer = stack.call("POST", &cancel, None, None).await;
    assert!(answer.status.is_success(), "{answer:?}");
    stack.drain_queue().await;

    let report = stack.report(&id).await;
    assert_eq!(report["status"], "cancelled");
    let skipped = report["counters"]["skipped"].as_u64().unwrap();
    assert!(skipped > 0, "{report:#}");
    assert_eq!(reasons(&report), [("skipped", "cancelled", skipped)]);
    let listed = stack.deliveries(&id, "&reason=cancelled").await;
    assert_eq!(listed.len() as u64, skipped);
    assert_eq!(stack.deliveries(&id, "&reason=613").await.len(), 0);
}

#[tokio::test]
async fn contacts_that_an_earlier_version_counted_have_other_reasons() {
    let stack = TestStack::start().await;
    let (id, _) = mixed_broadcast(&stack).await;
    stack
        .forget_reasons_by_hand(&id, PAGES[1], &["failed/551/1545041"])
        .await;

    let report = stack.report(&id).await;

    assert_eq!(reasons(&report["jobs"][1]), [("failed", "other", 1)]);
    assert!(reasons(&report).contains(&("failed", "other", 1)), "{report:#}");
    stack.skip_promise_check();
}
