//! The switch for sending: it stops runs under way within seconds, loses nothing, and is off in tables that were restored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use shared::domain::ids::BroadcastId;
use tokio::time::timeout;

use crate::fixture::installation::{Installation, completed};
use crate::fixture::proxy::{self, ProxiedCall};
use crate::fixture::{Endpoints, PAGES, Services, TEXT, TestStack, request};

const SENDING: &str = "/v1/sending";
/// The longest time from the answer to "off" to the last new send.
const OBEYED_WITHIN: Duration = Duration::from_secs(5);

impl TestStack {
    /// Sets the switch, and returns it.
    async fn switch(&self, state: &str) -> Value {
        let body = json!({"state": state, "reason": "wrong text"});
        let answer = self.call("PUT", SENDING, None, Some(&body)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.body
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn run_under_way_stops_within_seconds_and_continues_when_on() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "30")]).await;
    let ids = stack.import_contacts(300).await;
    let id = stack.broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();

    let switching = async {
        while stack.sandbox.received_count() < 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stack.switch("off").await;
        Instant::now()
    };
    let run = async {
        stack.process_job(&wake_up).await;
        Instant::now()
    };
    let (off, ended) = timeout(Duration::from_secs(60), async { tokio::join!(switching, run) })
        .await
        .unwrap();
    stack.delete(&wake_up).await;

    assert!(ended - off < OBEYED_WITHIN, "the run went on for {:?}", ended - off);
    let report = stack.report(&id).await;
    assert_eq!(report["status"], "waiting");
    let sent = report["counters"]["sent"].as_u64().unwrap();
    assert_eq!(
        sent,
        stack.sandbox.received_count() as u64,
        "a send in flight was not recorded"
    );
    assert!(sent < 300, "the run sent to everybody");
    assert_eq!(report["counters"]["in_doubt"], 0);

    stack.advance(Duration::from_secs(3_600));
    stack.tick().await;
    assert!(stack.receive().await.is_none(), "a job is woken while sending is off");

    stack.switch("on").await;
    stack.tick().await;
    stack.drain_queue().await;
    let report = stack.report(&id).await;
    assert_eq!(
        (&report["status"], &report["counters"]["sent"]),
        (&json!("completed"), &json!(300))
    );
}

#[tokio::test]
async fn broadcasts_are_accepted_while_off_and_sent_when_on() {
    let stack = TestStack::start_with(&[("INLINE_LIMIT", "5")]).await;
    let ids = stack.import_contacts(20).await;
    stack.switch("off").await;
    let at = stack.app.clock.now() + Duration::from_secs(3_600);
    let scheduled = json!({"contact_ids": ids, "message": {"text": TEXT}, "scheduled_at": at});

    let small = stack.post(&request(&ids[..2])).await;
    let large = stack.post(&request(&ids)).await;
    let scheduled = stack.post(&scheduled).await;
    stack.drain_queue().await;
    stack.advance(Duration::from_secs(4_000));
    stack.tick().await;

    assert!(stack.receive().await.is_none(), "a job is woken while sending is off");
    let statuses = [(&small, "queued"), (&large, "queued"), (&scheduled, "scheduled")];
    for (answer, status) in statuses {
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
        assert_eq!(stack.report(&answer.broadcast_id()).await["status"], status);
    }
    assert_eq!(stack.sandbox.received_count(), 0);

    stack.switch("on").await;
    stack.tick().await;
    stack.drain_queue().await;
    for (answer, sent) in [(&small, 2), (&large, 20), (&scheduled, 20)] {
        let report = stack.report(&answer.broadcast_id()).await;
        assert_eq!(
            (&report["status"], &report["counters"]["sent"]),
            (&json!("completed"), &json!(sent))
        );
    }
}

/// The wake-up of a job came while sending was off. The job does not wait for the three minutes after which a lost wake-up is
/// replaced.
#[tokio::test]
async fn queued_job_is_woken_at_the_first_tick_after_on() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    stack.switch("off").await;
    let id = stack.broadcast(&ids).await;
    stack.drain_queue().await;

    stack.switch("on").await;
    stack.let_reads_catch_up();
    stack.tick().await;
    stack.drain_queue().await;

    assert_eq!(stack.report(&id).await["counters"]["sent"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn halt_ends_runs_and_halts_due_jobs() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "30")]).await;
    let ids = stack.import_contacts(300).await;
    let running = stack.broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();
    let switching = async {
        while stack.sandbox.received_count() < 5 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stack.switch("halt").await;
    };
    tokio::join!(switching, stack.process_job(&wake_up));
    stack.delete(&wake_up).await;
    let received = stack.sandbox.received_count();

    let due = stack.broadcast(&ids[..1]).await;
    stack.drain_queue().await;
    for id in [&running, &due] {
        let report = stack.report(id).await;
        let job = &report["jobs"][0];
        assert_eq!(
            (&job["status"], &job["reason"]),
            (&json!("halted"), &json!("sending is halted: wrong text"))
        );
    }
    assert_eq!(stack.sandbox.received_count(), received, "sent while halted");

    stack.switch("on").await;
    stack
        .call("POST", &format!("/v1/broadcasts/{due}/resume"), None, None)
        .await;
    stack.drain_queue().await;
    assert_eq!(stack.report(&due).await["status"], "completed");
}

/// A table that was restored lacks what was sent since its copy was made.
#[tokio::test]
async fn replaced_table_switches_sending_off() {
    for n in 0..3 {
        let stack = TestStack::start().await;
        let config = &stack.app.config;
        let table = [
            &config.contacts_table,
            &config.broadcasts_table,
            &config.deliveries_table,
        ][n];
        let ids = stack.import_contacts(3).await;
        let id = stack.broadcast(&ids).await;
        assert_eq!(stack.call("GET", SENDING, None, None).await.body["state"], "on");

        stack.replace_table(table).await;
        stack.advance(Duration::from_secs(600));
        let switch = stack.call("GET", SENDING, None, None).await.body;
        assert_eq!(switch["state"], "off", "{table}: {switch}");
        assert_eq!(
            switch["reason"],
            "a table was restored or replaced since sending was switched on"
        );
        stack.drain_queue().await;
        stack.tick().await;
        stack.drain_queue().await;
        assert_eq!(stack.sandbox.received_count(), 0, "{table}: sent from a copy");

        stack.switch("on").await;
        assert_eq!(stack.finish(&id).await["counters"]["pending"], 0);
    }
}

/// The process that sets the switch has read the tables' ids just before one of them was replaced.
#[tokio::test]
async fn switch_is_set_for_the_tables_as_they_are() {
    let stack = TestStack::start().await;
    assert_eq!(stack.call("GET", SENDING, None, None).await.body["state"], "on");
    stack.replace_table(&stack.app.config.deliveries_table).await;

    stack.switch("on").await;
    stack.advance(Duration::from_secs(600));

    assert_eq!(stack.call("GET", SENDING, None, None).await.body["state"], "on");
}

/// Without knowledge of the switch nothing is sent, and the job comes back when the database answers again.
#[tokio::test]
async fn unreadable_switch_sends_nothing() {
    let services = Services::start().await;
    let is_down = Arc::new(AtomicBool::new(false));
    let down = Arc::clone(&is_down);
    let hook = move |call: ProxiedCall| {
        let lost = down.load(Ordering::Relaxed) && call.body().contains(r#""pk":{"S":"sending"}"#);
        async move { if lost { proxy::no_answer() } else { call.forward().await } }
    };
    let endpoints = Endpoints {
        dynamodb: proxy::start(&services.endpoints.dynamodb, hook).await,
        ..services.endpoints.clone()
    };
    let stack = TestStack::start_on(services, &endpoints, &[]).await;
    let ids = stack.import_contacts(3).await;
    let id = stack.broadcast(&ids).await;

    is_down.store(true, Ordering::Relaxed);
    let wake_up = stack.receive().await.unwrap();
    let answer = stack.process_job(&wake_up).await;
    assert_eq!(
        answer.batch_item_failures.len(),
        1,
        "the wake-up is to be delivered again"
    );
    assert_eq!(stack.sandbox.received_count(), 0);
    assert_eq!(
        stack.call("GET", "/v1/health", None, None).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );

    is_down.store(false, Ordering::Relaxed);
    stack.process_job(&wake_up).await;
    stack.delete(&wake_up).await;
    assert_eq!(stack.report(&id).await["counters"]["sent"], 3);
}

#[tokio::test]
async fn switch_shows_by_whom_and_why_it_was_set() {
    let stack = TestStack::start_with(&[("PAGES_CLAIM", "pages?")]).await;
    let health = stack.call("GET", "/v1/health", None, None).await.body;
    assert_eq!(health, json!({"status": "ok", "sending": "on"}));
    let caller = |claims: Value| json!({"jwt": {"claims": claims, "scopes": []}});
    let operator = caller(json!({"iss": "https://issuer", "sub": "ana"}));
    let partner = caller(json!({"iss": "https://issuer", "sub": "partner", "pages": PAGES[0]}));
    let off = json!({"state": "off", "reason": "  wrong text "});

    let answer = stack.call_as(&operator, ("PUT", SENDING), None, Some(&off)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let shown = stack.call("GET", SENDING, None, None).await.body;
    assert_eq!(shown, answer.body);
    assert_eq!(
        (&shown["state"], &shown["reason"]),
        (&json!("off"), &json!("wrong text"))
    );
    assert!(shown["changed_by"].as_str().unwrap().contains("ana"), "{shown}");
    let changed_at: jiff::Timestamp = shown["changed_at"].as_str().unwrap().parse().unwrap();
    assert!(stack.app.clock.now().duration_since(changed_at).as_secs() < 60);
    let health = stack.call("GET", "/v1/health", None, None).await.body;
    assert_eq!(health, json!({"status": "ok", "sending": "off"}));

    let refused = stack
        .call_as(&partner, ("PUT", SENDING), None, Some(&json!({"state": "on"})))
        .await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
    assert_eq!(stack.call("GET", SENDING, None, None).await.body["state"], "off");
}

#[tokio::test]
async fn wrong_switch_is_refused_and_changes_nothing() {
    let stack = TestStack::start().await;
    let long = "x".repeat(201);
    let cases = [
        (json!({}), "/state"),
        (json!({"state": null}), "/state"),
        (json!({"state": "paused"}), "/state"),
        (json!({"state": true}), "/state"),
        (json!({"state": "off", "reason": " \u{200b}"}), "/reason"),
        (json!({"state": "off", "reason": long}), "/reason"),
        (json!({"state": "off", "reason": 1}), "/reason"),
        (json!({"state": "off", "page_id": ""}), "/page_id"),
        (json!({"state": "off", "page_id": 1}), "/page_id"),
        (json!({"state": "off", "page": "1"}), "/page"),
        (json!("off"), ""),
    ];
    for (body, field) in cases {
        let answer = stack.call("PUT", SENDING, None, Some(&body)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}: {answer:?}");
        assert_eq!(answer.body["errors"][0]["field"], field, "{body}");
    }
    assert_eq!(stack.call("GET", SENDING, None, None).await.body["state"], "on");
}

#[tokio::test(flavor = "multi_thread")]
async fn switch_outlives_the_stack_and_its_start_can_set_it() {
    let installation = Installation::new(&["page-1"], 100).await;
    let up = installation.up();
    let contacts = json!({"contacts": [{"contact_id": "6001", "page_id": "page-1"}]});
    up.call("PUT", "/v1/contacts", &contacts).await;
    up.call("PUT", SENDING, &json!({"state": "off"})).await;
    let accepted = up
        .call(
            "POST",
            "/v1/broadcasts",
            &json!({"contact_ids": ["6001"], "message": {"text": "Hi."}}),
        )
        .await;
    up.kill();

    let up = installation.up();
    assert_eq!(up.call("GET", "/v1/health", &Value::Null).await["sending"], "off");
    assert_eq!(installation.sandbox.received_count(), 0);
    up.kill();

    let up = installation.up_with(&["--sending", "on"]);
    completed(&up, accepted["broadcast_id"].as_str().unwrap()).await;
    up.kill();
    let up = installation.up_with(&["--sending", "halt"]);
    assert_eq!(up.call("GET", SENDING, &Value::Null).await["state"], "halt");
}

impl TestStack {
    /// Sets the switch of a Page.
    async fn switch_page(&self, page: &str, state: &str) {
        let body = json!({"state": state, "reason": "wrong text", "page_id": page});
        let answer = self.call("PUT", SENDING, None, Some(&body)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(
            (&answer.body["state"], &answer.body["page_id"]),
            (&json!(state), &json!(page))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn switch_of_a_page_stops_its_run_within_seconds_and_no_other() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "30")]).await;
    let ids = stack.import_contacts(300).await;
    let others: Vec<_> = (0..300).map(|n| format!("other{n}")).collect();
    stack.import(PAGES[1], &others).await;
    let id = stack.broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();
    let other = stack.broadcast(&others).await;

    let switching = async {
        while stack.sandbox.received_count() < 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stack.switch_page(PAGES[0], "off").await;
        Instant::now()
    };
    let run = async {
        stack.process_job(&wake_up).await;
        Instant::now()
    };
    let (off, ended) = timeout(Duration::from_secs(60), async { tokio::join!(switching, run) })
        .await
        .unwrap();
    stack.delete(&wake_up).await;
    stack.drain_queue().await;

    assert!(ended - off < OBEYED_WITHIN, "the run went on for {:?}", ended - off);
    let stopped = stack.report(&id).await;
    assert_eq!(stopped["status"], "waiting");
    assert!(stopped["counters"]["sent"].as_u64().unwrap() < 300);
    assert_eq!(stack.report(&other).await["counters"]["sent"], 300);

    stack.advance(Duration::from_secs(3_600));
    stack.tick().await;
    assert!(stack.receive().await.is_none(), "a job is woken while its Page is off");

    stack.switch_page(PAGES[0], "on").await;
    stack.let_reads_catch_up();
    stack.tick().await;
    stack.drain_queue().await;
    let report = stack.report(&id).await;
    assert_eq!(
        (&report["status"], &report["counters"]["sent"]),
        (&json!("completed"), &json!(300))
    );
}

#[tokio::test]
async fn report_shows_by_which_switch_its_jobs_are_stopped() {
    let stack = TestStack::start_with(&[("INLINE_LIMIT", "5")]).await;
    let ids = stack.import_contacts(2).await;
    stack.import(PAGES[1], &["other".to_owned()]).await;
    let caller = json!({"jwt": {"claims": {"iss": "https://issuer", "sub": "ana"}, "scopes": []}});
    let off = json!({"state": "off", "reason": "wrong text", "page_id": PAGES[1]});
    stack.call_as(&caller, ("PUT", SENDING), None, Some(&off)).await;
    stack.let_reads_catch_up();

    let both = [&ids[..1], &["other".to_owned()]].concat();
    let accepted = stack.post(&request(&both)).await;
    let id = accepted.broadcast_id();
    let report = stack.report(&id).await;
    assert_eq!(accepted.body["stopped"], report["stopped"]);
    assert_eq!(report["status"], "queued");
    let (done, waits) = (&report["jobs"][0], &report["jobs"][1]);
    assert_eq!((&done["status"], &done["stopped"]), (&json!("completed"), &Value::Null));
    assert_eq!(waits["stopped"], report["stopped"]);
    let stopped = &report["stopped"];
    assert_eq!(
        (&stopped["reason"], &stopped["page_id"]),
        (&json!("wrong text"), &json!(PAGES[1]))
    );
    assert!(stopped["by"].as_str().unwrap().contains("ana"), "{stopped}");
    let tag = stack.entity_tag(&id).await;

    stack.switch("off").await;
    stack.let_reads_catch_up();
    let stopped = stack.report(&id).await["stopped"].clone();
    assert_eq!((&stopped["by"], &stopped["page_id"]), (&Value::Null, &Value::Null));
    assert_ne!(
        stack.entity_tag(&id).await,
        tag,
        "a caller that polls does not see the switch"
    );

    stack.switch("on").await;
    stack.switch_page(PAGES[1], "on").await;
    stack.let_reads_catch_up();
    assert_eq!(stack.report(&id).await["stopped"], Value::Null);
    assert_eq!(stack.finish(&id).await["counters"]["sent"], 2);
}

impl TestStack {
    async fn entity_tag(&self, id: &BroadcastId) -> String {
        let request = Request::get(format!("/v1/broadcasts/{id}"));
        let answer = self.send_raw(request.body(Body::empty()).unwrap()).await;
        answer.headers()["etag"].to_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn history_shows_the_last_fifty_changes_newest_first() {
    let stack = TestStack::start().await;
    for n in 0..26 {
        stack.switch(if n % 2 == 0 { "off" } else { "on" }).await;
        stack.advance(Duration::from_secs(1));
        stack.switch_page(PAGES[0], "on").await;
        stack.advance(Duration::from_secs(1));
    }

    let all = stack.call("GET", SENDING, None, None).await.body;
    let history = all["history"].as_array().unwrap();
    assert_eq!(history.len(), 50);
    assert_eq!(
        (&history[0]["page_id"], &history[1]["page_id"]),
        (&json!(PAGES[0]), &Value::Null)
    );
    assert_eq!(
        (&history[1]["state"], &history[3]["state"]),
        (&json!("on"), &json!("off"))
    );
    assert_eq!(history[1]["reason"], "wrong text");
    assert!(history.is_sorted_by_key(|change| std::cmp::Reverse(change["changed_at"].as_str())));

    let other = stack
        .call("GET", &format!("{SENDING}?page_id={}", PAGES[1]), None, None)
        .await
        .body;
    assert_eq!((&other["state"], &other["changed_at"]), (&json!("on"), &Value::Null));
    let of_all = other["history"].as_array().unwrap();
    assert!(of_all.iter().all(|change| change["page_id"].is_null()), "{other}");
}

#[tokio::test]
async fn caller_limited_to_pages_switches_those_alone() {
    let stack = TestStack::start_with(&[("PAGES_CLAIM", "pages")]).await;
    let caller = |pages: &str| json!({"jwt": {"claims": {"iss": "https://issuer", "sub": "partner", "pages": pages}, "scopes": []}});
    let partner = caller(PAGES[0]);
    let off = |page: &str| json!({"state": "off", "page_id": page});
    let set =
        async |caller: &Value, body: &Value| stack.call_as(caller, ("PUT", SENDING), None, Some(body)).await.status;
    let shown = async |page: &str| {
        let path = format!("{SENDING}?page_id={page}");
        stack.call_as(&partner, ("GET", &path), None, None).await
    };

    assert_eq!(set(&partner, &json!({"state": "off"})).await, StatusCode::FORBIDDEN);
    assert_eq!(set(&partner, &off(PAGES[1])).await, StatusCode::NOT_FOUND);
    assert_eq!(set(&partner, &off(PAGES[0])).await, StatusCode::OK);
    assert_eq!(set(&caller(PAGES[1]), &off(PAGES[1])).await, StatusCode::OK);

    assert_eq!(shown(PAGES[1]).await.status, StatusCode::NOT_FOUND);
    let own = shown(PAGES[0]).await.body;
    assert_eq!((&own["state"], &own["all_pages"]), (&json!("off"), &json!("on")));
    let all = stack.call_as(&partner, ("GET", SENDING), None, None).await.body;
    assert_eq!(all["state"], "on");
    assert_eq!(all["history"].as_array().unwrap().len(), 1, "{all}");
}

#[tokio::test]
async fn page_that_is_on_sends_nothing_while_sending_is_off() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    stack.switch_page(PAGES[0], "on").await;
    stack.switch("off").await;

    let id = stack.broadcast(&ids).await;
    stack.drain_queue().await;

    assert_eq!(stack.sandbox.received_count(), 0);
    stack.switch("on").await;
    stack.let_reads_catch_up();
    assert_eq!(stack.finish(&id).await["counters"]["sent"], 1);
}

/// A misspelt Page would stop nothing.
#[tokio::test]
async fn page_without_token_cannot_be_switched_off() {
    let stack = TestStack::start().await;
    for (page, state, status) in [
        ("page-l", "off", StatusCode::NOT_FOUND),
        ("page-l", "on", StatusCode::OK),
        (PAGES[0], "off", StatusCode::OK),
    ] {
        let body = json!({"state": state, "page_id": page});
        let answer = stack.call("PUT", SENDING, None, Some(&body)).await;
        assert_eq!(answer.status, status, "{page} {state}: {answer:?}");
    }
}
