//! The roles of `infra/template.yaml` grant what the functions call, and nothing else.
//!
//! Too little is found by every story: its stack compares each call with the role when it ends. Too much is found by one
//! story here that makes every call there is.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use local::calls::{Call, calls};
use local::sandbox::{Answer, Fault, GraphError};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::time::{Instant, sleep};

use crate::parameters::{self, Manager};
use crate::stack::{PAGES, Stack, VERIFY_TOKEN, request};
use crate::template::{Grant, TEMPLATE};
use crate::up::Up;

/// What the functions of a stack have called, by the requests that they send.
#[derive(Clone, Debug, Default)]
pub struct Calls(Arc<Mutex<BTreeSet<Call>>>);

impl Intercept for Calls {
    fn name(&self) -> &'static str {
        "Calls"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request();
        let header = |name| request.headers().get(name).unwrap_or_default();
        let body = request.body().bytes().unwrap_or_default();
        let calls = calls(header("authorization"), header("x-amz-target"), body);
        self.0.lock().unwrap().extend(calls);
        Ok(())
    }
}

impl Calls {
    pub fn made(&self) -> BTreeSet<Call> {
        self.0.lock().unwrap().clone()
    }
}

/// The grants of a function's role that allow a call.
fn allowing(call: &Call) -> Vec<(String, Grant)> {
    let resource = call.resource.trim_start_matches('/');
    // Names begin with that of their stack.
    let name = resource.split_once(['-', '/']).map_or("", |(_, name)| name);
    let allows = |(action, on): &&Grant| {
        let matches = match on.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == on,
        };
        *action == call.action && matches
    };
    let grants = TEMPLATE.grants();
    let own = grants.get(&call.function).into_iter().flatten();
    own.filter(allows)
        .map(|grant| (call.function.clone(), grant.clone()))
        .collect()
}

/// Too little: calls that a function's role would not allow.
pub fn refused(calls: &BTreeSet<Call>) -> Vec<String> {
    let refused = calls.iter().filter(|call| allowing(call).is_empty());
    refused.map(Call::to_string).collect()
}

/// Everything that the functions ever do, once.
#[tokio::test]
async fn what_is_granted_is_called() {
    let variables = [
        ("IN_DOUBT_POLICY", "resend"),
        ("INLINE_LIMIT", "3"),
        ("MESSENGER_TIMEOUT_SECONDS", "1"),
        ("DOUBT_CHECK_SECONDS", "20"),
    ];
    let (stack, manager) = parameters::start_with(&variables).await;

    send_does_everything(&stack).await;
    process_job_is_given_another_token(&stack, &manager).await;
    doubts_are_settled_and_resent(&stack).await;

    let calls = stack.calls.made();
    let used: BTreeSet<_> = calls.iter().flat_map(allowing).collect();
    let granted = TEMPLATE.grants().into_iter();
    let granted = granted.flat_map(|(function, grants)| {
        let of_function = move |grant| (function.clone(), grant);
        grants.into_iter().map(of_function)
    });
    let unused: Vec<_> = granted.filter(|grant| !used.contains(grant)).collect();
    assert!(unused.is_empty(), "granted, and never called: {unused:#?}");
}

/// Contacts, a broadcast worked off inline with one contact in doubt and one in line again, reports, webhooks.
async fn send_does_everything(stack: &Stack) {
    let ids = stack.contacts(3).await;
    stack.import(PAGES[0], &["gone".to_owned()]).await;
    for method in ["GET", "DELETE"] {
        let answer = stack.call(method, "/v1/contacts/gone", None, None).await;
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
    stack.call("GET", "/v1/broadcasts", None, None).await;
    let message = &stack.sandbox.received()[0];
    let status = stack
        .echo(&id, &message.contact_id, 1, &message.message_id)
        .await;
    assert_eq!(status, StatusCode::OK);
    let query = format!("hub.mode=subscribe&hub.challenge=7&hub.verify_token={VERIFY_TOKEN}");
    let verify = Request::get(format!("/v1/webhooks/messenger?{query}"));
    let verified = stack.raw(verify.body(Body::empty()).unwrap()).await;
    assert_eq!(verified.status(), StatusCode::OK);
    stack.finish(&id).await;
}

/// Too many contacts for a request, and a token that is renewed meanwhile: the next slice is hinted.
async fn process_job_is_given_another_token(stack: &Stack, manager: &Manager) {
    stack.sandbox.set_token(PAGES[0], "EAAB-renewed");
    manager.set(parameters::TOKEN, "EAAB-renewed");
    let ids = stack.contacts(10).await;
    let refused = Fault::answering(Answer::Reset).to_contacts([&ids[5]]);
    stack.sandbox.add_fault(refused);
    let mut body = request(&ids);
    body["message"]["text"] = json!("Another text");
    let id = stack.post(&body).await.broadcast_id();
    let report = stack.finish(&id).await;
    assert_eq!(report["counters"]["in_doubt"], 1, "{report:#}");
    stack.sandbox.clear_faults();
}

/// One is found by a look, in spite of another broadcast to the same contact, and one is not, and sent again.
async fn doubts_are_settled_and_resent(stack: &Stack) {
    let ids = stack.contacts(6).await;
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
        stack.scheduled().await;
        stack.work_off().await;
    }
    let report = stack.report(&id).await;
    assert_eq!(report["counters"]["sent"], 4, "{report:#}");
}

/// The same by the processes of `up`, which sign with keys of their own: each call is told from the others' and allowed.
#[tokio::test]
async fn each_process_signs_with_the_key_of_its_function() {
    let file = NamedTempFile::new().unwrap();
    let up = Up::start(
        &["--log-calls", file.path().to_str().unwrap()],
        &[("INLINE_LIMIT", "0")],
    );
    let contact = json!({"contact_id": "ana", "page_id": PAGES[0]});
    up.call("PUT", "/v1/contacts", &json!({"contacts": [contact]}))
        .await;
    let body = json!({"contact_ids": ["ana"], "message": {"text": "Hi"}});
    let accepted = up.call("POST", "/v1/broadcasts", &body).await;
    let path = format!(
        "/v1/broadcasts/{}",
        accepted["broadcast_id"].as_str().unwrap()
    );
    let ends = Instant::now() + Duration::from_secs(60);
    while up.call("GET", &path, &Value::Null).await["status"] != "completed" {
        assert!(Instant::now() < ends);
        sleep(Duration::from_millis(50)).await;
    }

    // The schedule fires at once, and every second.
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
