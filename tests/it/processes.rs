//! Real processes that really die: the whole local stack, with its functions as children that are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use local::stack::{Settings, Stack};
use serde_json::{Value, json};
use shared::pace::MAX_IN_FLIGHT;
use tokio::time::{Instant, sleep};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_oncecast-local");
const CONTACTS: usize = 10_000;
const PAGES: usize = 3;

/// The API as somebody outside reaches it.
struct Api {
    http: reqwest::Client,
    url: String,
}

impl Api {
    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}{path}", self.url);
        let mut call = self.http.request(method.parse().unwrap(), url);
        if let Some(body) = body {
            let json = ("content-type", "application/json");
            call = call.header(json.0, json.1).body(body.to_string());
        }
        let answer = call.send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }

    async fn in_doubt(&self, broadcast_id: &str) -> BTreeSet<String> {
        let (mut ids, mut cursor) = (BTreeSet::new(), String::new());
        loop {
            let filter = format!("status=in_doubt&limit=1000{cursor}");
            let path = format!("/v1/broadcasts/{broadcast_id}/deliveries?{filter}");
            let list = self.call("GET", &path, None).await;
            let items = list["items"].as_array().unwrap().iter();
            ids.extend(items.map(|item| item["contact_id"].as_str().unwrap().to_owned()));
            let Some(next) = list["next_cursor"].as_str() else {
                return ids;
            };
            cursor = format!("&cursor={next}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_contacts_on_three_pages_get_ten_thousand_messages() {
    let in_doubt = broadcast_with_kills(0).await;

    assert_eq!(in_doubt, 0);
}

/// Every kill finds a worker with sends in flight; who was among them may be in doubt, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn killing_workers_of_ten_thousand_sends_changes_nothing_but_time() {
    const KILLS: usize = 6;

    let in_doubt = broadcast_with_kills(KILLS).await;

    assert!(in_doubt <= KILLS * MAX_IN_FLIGHT, "{in_doubt} in doubt");
}

/// Sends to 10,000 contacts while so many workers are killed; how many contacts end in doubt.
async fn broadcast_with_kills(kills: usize) -> usize {
    let environment = [
        ("JOB_LEASE_SECONDS", "3"),
        ("PAGE_RATE_PER_SECOND", "1000"),
        ("RUST_LOG", "error"),
    ];
    let stack = Stack::start(Settings {
        executable: EXECUTABLE.into(),
        schedule_every: Duration::from_secs(1),
        // A killed worker's hint comes back after this. Without kills nobody is to be ended by it, however slow the machine.
        process_timeout: Duration::from_secs(if kills == 0 { 60 } else { 8 }),
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
    sandbox.set_latency_ms(100);
    let api = Api {
        http: reqwest::Client::builder().no_proxy().build().unwrap(),
        url: stack.api_url(),
    };
    let ids: Vec<_> = (0..CONTACTS).map(|n| format!("c{n:05}")).collect();
    for (batch, ids) in ids.chunks(1_000).enumerate() {
        let page = format!("page-{}", batch % PAGES + 1);
        let contacts: Vec<_> = ids
            .iter()
            .map(|id| json!({"contact_id": id, "page_id": page}))
            .collect();
        let body = json!({"contacts": contacts});
        api.call("PUT", "/v1/contacts", Some(body)).await;
    }

    let begun = Instant::now();
    let body = json!({"contact_ids": ids, "message": {"text": "Hi, we open at nine."}});
    let accepted = api.call("POST", "/v1/broadcasts", Some(body)).await;
    let id = accepted["broadcast_id"].as_str().unwrap();
    let mut killed = 0;
    let report = loop {
        let path = format!("/v1/broadcasts/{id}");
        let report = api.call("GET", &path, None).await;
        if report["status"] == "completed" {
            break report;
        }
        let elapsed = begun.elapsed();
        assert!(elapsed.as_secs() < 300, "never completed: {report:#}");
        if killed < kills && sandbox.received_count() > (killed + 1) * CONTACTS / (kills + 2) {
            killed += usize::from(stack.process_job().kill_one_busy().await.is_some());
        }
        sleep(Duration::from_millis(200)).await;
    };
    let took = begun.elapsed();
    let in_doubt = api.in_doubt(id).await;

    let mut received = BTreeMap::<_, usize>::new();
    for message in sandbox.received() {
        *received.entry(message.contact_id).or_default() += 1;
    }
    stack.stop().await;
    println!(
        "{CONTACTS} contacts on {PAGES} Pages in {took:.1?}: {} received, {killed} processes killed, {} in doubt",
        received.values().sum::<usize>(),
        in_doubt.len()
    );
    assert_eq!(killed, kills, "a kill found no worker at work");
    let twice: Vec<_> = received.iter().filter(|(_, n)| **n > 1).collect();
    assert!(twice.is_empty(), "got two messages: {twice:?}");
    let reached = |id: &String| received.contains_key(id) || in_doubt.contains(id);
    let missed: Vec<_> = ids.iter().filter(|id| !reached(id)).collect();
    assert!(missed.is_empty(), "missed: {missed:?}");
    let counters = &report["counters"];
    assert_eq!(counters["in_doubt"], in_doubt.len());
    assert_eq!(counters["sent"], CONTACTS - in_doubt.len());
    in_doubt.len()
}
