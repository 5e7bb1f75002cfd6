//! Real processes that really die: the whole local stack, with its functions as children that are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use local::stack::{Settings, Stack};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_oncecast-local");
const CONTACTS: usize = 600;

struct Api {
    http: reqwest::Client,
    url: String,
}

impl Api {
    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let mut call = self
            .http
            .request(method.parse().unwrap(), format!("{}{path}", self.url));
        if let Some(body) = body {
            call = call
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let answer = call.send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_workers_at_random_changes_nothing_but_time() {
    let environment = [
        ("JOB_LEASE_SECONDS", "3"),
        ("PAGE_RATE_PER_SECOND", "50"),
        ("RUST_LOG", "error"),
    ];
    let stack = Stack::start(Settings {
        executable: EXECUTABLE.into(),
        schedule_every: Duration::from_secs(1),
        process_timeout: Duration::from_secs(8),
        visibility_margin: Duration::from_secs(1),
        env: environment
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..Settings::default()
    })
    .await
    .unwrap();
    stack.ready().await.unwrap();
    let sandbox = stack.sandbox().unwrap();
    sandbox.set_latency_ms(200);
    let api = Api {
        http: reqwest::Client::new(),
        url: stack.api_url(),
    };
    let ids: Vec<_> = (0..CONTACTS).map(|n| format!("c{n:04}")).collect();
    let contacts: Vec<_> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| json!({"contact_id": id, "page_id": format!("page-{}", n % 2 + 1)}))
        .collect();
    api.call("PUT", "/v1/contacts", Some(json!({"contacts": contacts})))
        .await;

    let body = json!({"contact_ids": ids, "message": {"text": "Hi, we open at nine."}});
    let accepted = api.call("POST", "/v1/broadcasts", Some(body)).await;
    let id = accepted["broadcast_id"].as_str().unwrap();
    let mut killed = 0;
    let give_up = Instant::now() + Duration::from_secs(120);
    let report = loop {
        let report = api.call("GET", &format!("/v1/broadcasts/{id}"), None).await;
        if report["status"] == "completed" {
            break report;
        }
        assert!(Instant::now() < give_up, "never completed: {report:#}");
        if killed < 4 && sandbox.received_count() > (killed + 1) * CONTACTS / 8 {
            killed += usize::from(stack.process_job().kill_one_busy().await.is_some());
        }
        sleep(Duration::from_millis(50)).await;
    };

    let mut received = BTreeMap::<_, usize>::new();
    for message in sandbox.received() {
        *received.entry(message.contact_id).or_default() += 1;
    }
    let path = format!("/v1/broadcasts/{id}/deliveries?status=in_doubt&limit=1000");
    let in_doubt = api.call("GET", &path, None).await;
    let in_doubt: BTreeSet<_> = in_doubt["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["contact_id"].as_str().unwrap().to_owned())
        .collect();
    stack.stop().await;

    assert_eq!(killed, 4, "not all kills found a worker at work");
    assert!(
        received.values().all(|messages| *messages == 1),
        "{received:?}"
    );
    for contact in &ids {
        assert!(
            received.contains_key(contact) || in_doubt.contains(contact),
            "{contact} is missed"
        );
    }
    assert_eq!(report["counters"]["in_doubt"], in_doubt.len());
    assert_eq!(
        report["counters"]["sent"].as_u64().unwrap() as usize + in_doubt.len(),
        CONTACTS
    );
}
