//! The roles of `infra/template.yaml` grant exactly the AWS calls that the functions make.
//!
//! The fixture finds missing grants: at its end, every stack compares its calls with the roles. One test here finds unused
//! grants: it makes every call that the functions can make.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use local::calls::Call;
use local::sandbox::{Answer, Fault, GraphError};
use serde_json::{Value, json};
use shared::domain::ids::BroadcastId;
use tempfile::NamedTempFile;
use tokio::time::{Instant, sleep};

use crate::fixture::iam::{allowing, refused};
use crate::fixture::parameter_store::{self, ParameterStore};
use crate::fixture::template::TEMPLATE;
use crate::fixture::up::UpProcess;
use crate::fixture::{PAGES, TestStack, VERIFY_TOKEN, request};

/// Makes every AWS call that the functions can make.
#[tokio::test]
async fn every_grant_is_used() {
    let variables = [
        ("IN_DOUBT_POLICY", "resend"),
        ("INLINE_LIMIT", "3"),
        ("MESSENGER_TIMEOUT_SECONDS", "1"),
        ("DOUBT_CHECK_SECONDS", "20"),
        ("MIN_GAP_SECONDS", "1"),
    ];
    let (stack, parameters) = parameter_store::start_stack(&variables).await;

    let past = use_the_whole_api(&stack).await;
    resolve_an_audience(&stack, &past).await;
    renew_token_during_broadcast(&stack, &parameters).await;
    settle_and_resend(&stack).await;
    erase_a_contact(&stack).await;

    let calls = stack.calls.made();
    let used: BTreeSet<_> = calls.iter().flat_map(allowing).collect();
    let granted = TEMPLATE.grants().into_iter();
    let granted = granted.flat_map(|(function, grants)| {
        let of_function = move |grant| (function.clone(), grant);
        grants.into_iter().map(of_function)
    });
    let unused: Vec<_> = granted.filter(|grant| !used.contains(grant)).collect();
    assert!(unused.is_empty(), "granted, and never used: {unused:#?}");
}

/// Uses contacts, a broadcast processed inline with one contact in doubt and one requeued, reports and webhooks; returns the
/// broadcast.
async fn use_the_whole_api(stack: &TestStack) -> BroadcastId {
    let ids = stack.import_contacts(3).await;
    stack.import(PAGES[0], &["gone".to_owned()]).await;
    stack.write_contact_by_hand("of-an-earlier-version", PAGES[0]).await;
    for method in ["GET", "DELETE"] {
        let answer = stack.call(method, "/v1/contacts/gone", None, None).await;
        assert!(answer.status.is_success());
    }
    for path in ["/v1/contacts", "/v1/contacts?page_id=page-1", "/v1/checks"] {
        let answer = stack.call("GET", path, None, None).await;
        assert!(answer.status.is_success());
    }
    let unanswered = Fault::answering(Answer::Reset).but_arriving();
    stack.sandbox.add_fault(unanswered.to_contacts([&ids[0]]));
    let limited = Fault::answering(GraphError::new(613, "too fast")).times(1);
    stack.sandbox.add_fault(limited.to_contacts([&ids[1]]));
    let id = stack.post(&request(&ids)).await.broadcast_id();
    stack.sandbox.clear_faults();
    stack.report(&id).await;
    stack.deliveries(&id, "").await;
    stack.let_reads_catch_up();
    stack.call("GET", "/v1/broadcasts", None, None).await;
    let of_contact = format!("/v1/contacts/{}/deliveries", ids[0]);
    let answer = stack.call("GET", &of_contact, None, None).await;
    assert_eq!(answer.status, StatusCode::OK);
    let audience = json!({"tags_none": ["old"], "not_sent_in": [id], "attributes": {"city": ["Porto"]}});
    for (method, path, body) in [
        ("PUT", "/v1/audiences/missed", Some(&audience)),
        ("GET", "/v1/audiences", None),
        ("GET", "/v1/audiences/missed/count", None),
        ("DELETE", "/v1/audiences/missed", None),
    ] {
        let answer = stack.call(method, path, None, body).await;
        assert!(answer.status.is_success(), "{answer:?}");
    }
    let message = &stack.sandbox.received()[0];
    let status = stack.echo(&id, &message.contact_id, 1, &message.message_id).await;
    assert_eq!(status, StatusCode::OK);
    let query = format!("hub.mode=subscribe&hub.challenge=7&hub.verify_token={VERIFY_TOKEN}");
    let verify = Request::get(format!("/v1/webhooks/messenger?{query}"));
    let verified = stack.send_raw(verify.body(Body::empty()).unwrap()).await;
    assert_eq!(verified.status(), StatusCode::OK);
    stack.finish(&id).await;
    id
}

/// Sends to an audience that names another broadcast, and asks for attributes, which the index does not have.
async fn resolve_an_audience(stack: &TestStack, past: &BroadcastId) {
    let contact = json!({"contact_id": "ana", "page_id": PAGES[0], "attributes": {"city": "Porto"}});
    let import = json!({"contacts": [contact]});
    stack.call("PUT", "/v1/contacts", None, Some(&import)).await;
    stack.let_reads_catch_up();
    let audience = json!({"not_sent_in": [past], "attributes": {"city": ["Porto"]}});
    let id = stack.broadcast_to(&audience).await;
    assert_eq!(stack.finish(&id).await["counters"]["sent"], 1);
}

/// Sends more contacts than inline work takes, with a token that is renewed meanwhile, so that the next run is woken.
async fn renew_token_during_broadcast(stack: &TestStack, parameters: &ParameterStore) {
    stack.sandbox.set_token(PAGES[0], "EAAB-renewed");
    parameters.set(parameter_store::TOKEN, "EAAB-renewed");
    stack.advance(Duration::from_secs(2));
    let ids = stack.import_contacts(10).await;
    let refused = Fault::answering(Answer::Reset).to_contacts([&ids[5]]);
    stack.sandbox.add_fault(refused);
    let mut body = request(&ids);
    body["message"]["text"] = json!("Another text");
    let id = stack.post(&body).await.broadcast_id();
    let report = stack.finish(&id).await;
    assert_eq!(report["counters"]["in_doubt"], 1, "{report:#}");
    stack.sandbox.clear_faults();
}

/// Settles one doubt by a lookup, although the contact is in another broadcast too, and resends one that is not found.
async fn settle_and_resend(stack: &TestStack) {
    stack.advance(Duration::from_secs(2));
    let ids = stack.import_contacts(6).await;
    let unanswered = Fault::answering(Answer::Reset).but_arriving();
    stack.sandbox.add_fault(unanswered.to_contacts([&ids[3]]));
    let mut body = request(&ids[2..6]);
    body["message"]["text"] = json!("A third text");
    let id = stack.post(&body).await.broadcast_id();
    stack.finish(&id).await;
    stack.sandbox.clear_faults();
    for _ in 0..3 {
        stack.advance(Duration::from_secs(60));
        stack.sandbox.forget_conversation_calls();
        stack.tick().await;
        stack.drain_queue().await;
    }
    let report = stack.report(&id).await;
    assert_eq!(report["counters"]["sent"], 4, "{report:#}");
}

/// Erases a contact that has been sent to.
async fn erase_a_contact(stack: &TestStack) {
    let ids = stack.import_contacts(1).await;
    let id = stack.post_with_key("erased", &request(&ids)).await.broadcast_id();
    stack.finish(&id).await;
    stack.advance(Duration::from_secs(700));
    let path = format!("/v1/contacts/{}?erase=true&page_id={}", ids[0], PAGES[0]);
    let answer = stack.call("DELETE", &path, None, None).await;
    assert_ne!(answer.body["erased"]["deliveries"], 0, "{answer:?}");
    stack.skip_promise_check();
}

/// The calls of the processes of `up` are recognised by the keys that they sign with, and all are allowed.
#[tokio::test]
async fn each_process_signs_with_the_key_of_its_function() {
    let file = NamedTempFile::new().unwrap();
    let up = UpProcess::start(
        &["--log-calls", file.path().to_str().unwrap()],
        &[("INLINE_LIMIT", "0")],
    );
    let contact = json!({"contact_id": "ana", "page_id": PAGES[0]});
    up.call("PUT", "/v1/contacts", &json!({"contacts": [contact]})).await;
    let body = json!({"contact_ids": ["ana"], "message": {"text": "Hi"}});
    let accepted = up.call("POST", "/v1/broadcasts", &body).await;
    let path = format!("/v1/broadcasts/{}", accepted["broadcast_id"].as_str().unwrap());
    let ends = Instant::now() + Duration::from_secs(60);
    while up.call("GET", &path, &Value::Null).await["status"] != "completed" {
        assert!(Instant::now() < ends);
        sleep(Duration::from_millis(50)).await;
    }

    // The schedule ticks at the start, and every second.
    let made = || {
        let text = std::fs::read_to_string(file.path()).unwrap();
        let lines = text.lines().map(|line| {
            let mut words = line.split('\t').map(str::to_owned);
            let mut word = || words.next().unwrap();
            Call {
                function: word(),
                action: word(),
                resource: word(),
            }
        });
        lines.collect::<BTreeSet<_>>()
    };
    let functions = |calls: &BTreeSet<Call>| {
        let functions = calls.iter().map(|call| call.function.clone());
        functions.collect::<BTreeSet<_>>()
    };
    while functions(&made()).len() < 3 {
        assert!(Instant::now() < ends, "{:?}", made());
        sleep(Duration::from_millis(50)).await;
    }
    let expected = ["send", "process-job", "scheduled"].map(str::to_owned);
    assert_eq!(functions(&made()), expected.into());
    assert_eq!(refused(&made()), [] as [String; 0]);
}
