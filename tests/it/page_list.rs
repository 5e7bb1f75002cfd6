//! The list of Pages: the token, the pace, the switch and the webhook of each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use jiff::Timestamp;
use local::sandbox::{Answer, Fault, GraphError};
use serde_json::{Value, json};

use crate::fixture::proxy::{self, ProxiedCall, no_answer};
use crate::fixture::{APP_SECRET, Endpoints, PAGES, Services, TestStack};

/// The time for which a process does not write again that it heard a webhook.
const HEARD_FOR: Duration = Duration::from_secs(600);

/// Returns the Pages of the list.
async fn listed(stack: &TestStack) -> Vec<Value> {
    stack.let_reads_catch_up();
    let list = stack.call("GET", "/v1/pages", None, None).await.body;
    list["items"].as_array().unwrap().clone()
}

/// Returns a webhook call about a Page, with a message of a person.
fn call(page: &str, person: &str) -> String {
    let event = json!({
        "sender": {"id": person}, "recipient": {"id": page}, "timestamp": 1_795_000_000_000_i64,
        "message": {"mid": "m", "text": "Hello"},
    });
    json!({"object": "page", "entry": [{"id": page, "messaging": [event]}]}).to_string()
}

#[tokio::test]
async fn pages_are_listed_with_the_state_of_their_tokens() {
    let stack = TestStack::start().await;
    for page in ["page-9", PAGES[1], PAGES[0]] {
        stack.import(page, &[format!("c-{page}")]).await;
    }
    stack.let_reads_catch_up();

    let all = stack.call("GET", "/v1/pages", None, None).await.body;
    let first = stack.call("GET", "/v1/pages?limit=2", None, None).await.body;
    let cursor = first["next_cursor"].as_str().unwrap();
    let path = format!("/v1/pages?limit=2&cursor={cursor}");
    let rest = stack.call("GET", &path, None, None).await.body;

    let page = |id: &str, token: &str| {
        json!({
            "page_id": id, "token": token, "rate": 1_000, "paused_until": null, "backoffs": 0, "switch": null,
            "webhook_heard_at": null,
        })
    };
    let expected = [page(PAGES[0], "ok"), page(PAGES[1], "ok"), page("page-9", "missing")];
    assert_eq!(all, json!({"items": expected, "next_cursor": null}));
    assert_eq!(first["items"], json!(expected[..2]));
    assert_eq!(rest, json!({"items": expected[2..], "next_cursor": null}));
}

#[tokio::test]
async fn pages_are_listed_with_their_pauses_and_switches() {
    let stack = TestStack::start().await;
    for page in &PAGES[..3] {
        stack.import(page, &[format!("of-{page}")]).await;
    }
    let limited = Answer::Error {
        error: GraphError::new(80_006, "too many"),
        headers: BTreeMap::new(),
    };
    let contact = format!("of-{}", PAGES[1]);
    let fault = Fault::answering(limited).times(1).to_contacts([&contact]);
    stack.sandbox.add_fault(fault);
    stack.broadcast(&[contact]).await;
    stack.drain_queue().await;
    let off = json!({"state": "off", "reason": "wrong text", "page_id": PAGES[2]});
    stack.call("PUT", "/v1/sending", None, Some(&off)).await;

    let pages = listed(&stack).await;

    let limited = &pages[1];
    assert_eq!((&limited["rate"], &limited["backoffs"]), (&json!(500), &json!(1)));
    let paused_until: Timestamp = limited["paused_until"].as_str().unwrap().parse().unwrap();
    assert!(paused_until > stack.app.clock.now());
    let switch = &pages[2]["switch"];
    assert_eq!(
        (&switch["state"], &switch["reason"]),
        (&json!("off"), &json!("wrong text"))
    );
    // What concerns one Page is shown at no other.
    for other in [&pages[0], &pages[2]] {
        assert_eq!((&other["paused_until"], &other["backoffs"]), (&Value::Null, &json!(0)));
    }
    assert_eq!((&pages[0]["switch"], &pages[1]["switch"]), (&Value::Null, &Value::Null));

    stack.advance(Duration::from_secs(3_600));
    assert_eq!(
        listed(&stack).await[1]["paused_until"],
        Value::Null,
        "the pause is over"
    );
}

#[tokio::test]
async fn time_of_a_webhook_call_is_shown_and_written_once_in_ten_minutes() {
    let stack = TestStack::start().await;
    let heard = async |n: usize| listed(&stack).await[n]["webhook_heard_at"].clone();
    stack.import(PAGES[1], &["1".to_owned()]).await;
    let first = stack.app.clock.now();

    // It makes the first contact of its Page, which no list had before.
    assert_eq!(
        stack.signed_webhook(&call(PAGES[0], "7"), APP_SECRET).await,
        StatusCode::OK
    );
    assert_eq!(
        stack.signed_webhook(&call(PAGES[0], "8"), "another").await,
        StatusCode::FORBIDDEN
    );

    let shown: Timestamp = heard(0).await.as_str().unwrap().parse().unwrap();
    assert!(shown.duration_since(first).abs().as_secs() < 5, "{shown} {first}");
    assert_eq!(heard(1).await, Value::Null, "no call was about the other Page");

    let before = heard(0).await;
    stack.signed_webhook(&call(PAGES[0], "7"), APP_SECRET).await;
    assert_eq!(heard(0).await, before, "within ten minutes it is not written again");
    stack.advance(HEARD_FOR);
    stack.signed_webhook(&call(PAGES[0], "7"), APP_SECRET).await;
    let after: Timestamp = heard(0).await.as_str().unwrap().parse().unwrap();
    assert!(after.duration_since(shown).as_secs() >= 600);
}

/// An audience of everybody goes through all listed Pages.
#[tokio::test]
async fn webhook_call_lists_no_page_without_contacts() {
    let stack = TestStack::start_with(&[("CONTACTS_FROM_WEBHOOKS", "off")]).await;

    assert_eq!(
        stack.signed_webhook(&call(PAGES[0], "7"), APP_SECRET).await,
        StatusCode::OK
    );

    assert_eq!(listed(&stack).await, [] as [Value; 0]);
}

#[tokio::test]
async fn webhook_call_whose_time_cannot_be_kept_is_confirmed() {
    let services = Services::start().await;
    let refused = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&refused);
    let hook = move |call: ProxiedCall| {
        let is_note = call.body().contains("webhook_heard_at");
        counter.fetch_add(usize::from(is_note), Ordering::Relaxed);
        async move {
            match is_note {
                true => no_answer(),
                false => call.forward().await,
            }
        }
    };
    let endpoints = Endpoints {
        dynamodb: proxy::start(&services.endpoints.dynamodb, hook).await,
        ..services.endpoints.clone()
    };
    let stack = TestStack::start_on(services, &endpoints, &[]).await;

    let answer = stack.signed_webhook(&call(PAGES[0], "7"), APP_SECRET).await;

    assert_eq!(answer, StatusCode::OK);
    assert!(refused.load(Ordering::Relaxed) > 0);
    assert_eq!(listed(&stack).await[0]["webhook_heard_at"], Value::Null);
}
