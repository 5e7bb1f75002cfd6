//! The whole local stack, with its functions as real processes: they really die, and their queue brings what is not ours.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use local::clients;
use local::sandbox::Sandbox;
use local::stack::{Settings, Stack};
use serde_json::{Value, json};
use shared::pace::MAX_IN_FLIGHT;
use tokio::time::{Instant, sleep};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_oncecast-local");
const PAGES: usize = 3;
const VISIBILITY_MARGIN: Duration = Duration::from_secs(1);

/// The API as somebody outside reaches it.
pub struct Api {
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

    pub async fn import(&self, page: &str, ids: &[String]) {
        let contact = |id| json!({"contact_id": id, "page_id": page});
        let contacts: Vec<_> = ids.iter().map(contact).collect();
        let body = json!({"contacts": contacts});
        self.call("PUT", "/v1/contacts", Some(body)).await;
    }

    /// Asks for a broadcast; its id.
    pub async fn broadcast(&self, ids: &[String]) -> String {
        let body = json!({"contact_ids": ids, "message": {"text": "Hi, we open at nine."}});
        let accepted = self.call("POST", "/v1/broadcasts", Some(body)).await;
        accepted["broadcast_id"].as_str().unwrap().to_owned()
    }

    pub async fn report(&self, broadcast_id: &str) -> Value {
        let path = format!("/v1/broadcasts/{broadcast_id}");
        self.call("GET", &path, None).await
    }

    /// The rows of a broadcast, of those with this filter.
    pub async fn deliveries(&self, broadcast_id: &str, filter: &str) -> Vec<Value> {
        let (mut rows, mut cursor) = (Vec::new(), String::new());
        loop {
            let query = format!("limit=1000{filter}{cursor}");
            let path = format!("/v1/broadcasts/{broadcast_id}/deliveries?{query}");
            let mut list = self.call("GET", &path, None).await;
            rows.append(list["items"].as_array_mut().unwrap());
            let Some(next) = list["next_cursor"].as_str() else {
                return rows;
            };
            cursor = format!("&cursor={next}");
        }
    }

    async fn in_doubt(&self, broadcast_id: &str) -> BTreeSet<String> {
        let rows = self.deliveries(broadcast_id, "&status=in_doubt").await;
        let ids = rows.iter().map(|row| row["contact_id"].as_str().unwrap());
        ids.map(str::to_owned).collect()
    }

    pub async fn resume(&self, broadcast_id: &str) {
        let path = format!("/v1/broadcasts/{broadcast_id}/resume");
        self.call("POST", &path, None).await;
    }

    /// Waits until it is completed, and everybody who got its message is known to have got it; its report then.
    pub async fn settled(&self, broadcast_id: &str, sandbox: &Sandbox) -> Value {
        let begun = Instant::now();
        loop {
            let report = self.report(broadcast_id).await;
            if report["status"] == "halted" {
                self.resume(broadcast_id).await;
            }
            let is_settled = report["counters"]["sent"] == sandbox.received_count();
            if report["status"] == "completed" && is_settled {
                return report;
            }
            assert!(begun.elapsed().as_secs() < 180, "not settled: {report:#}");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The stack, with a quick schedule and no inline work, and its API.
async fn start(process_timeout: Duration) -> (Stack, Api) {
    start_with(process_timeout, &[]).await
}

/// The same, with these variables.
pub async fn start_with(process_timeout: Duration, variables: &[(&str, &str)]) -> (Stack, Api) {
    let mut environment = BTreeMap::from([
        ("JOB_LEASE_SECONDS", "3"),
        ("PAGE_RATE_PER_SECOND", "1000"),
        ("INLINE_LIMIT", "0"),
        ("RUST_LOG", "error"),
    ]);
    environment.extend(variables.iter().copied());
    let stack = Stack::start(Settings {
        executable: EXECUTABLE.into(),
        schedule_every: Duration::from_secs(1),
        process_timeout,
        visibility_margin: VISIBILITY_MARGIN,
        env: environment
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        ..Settings::default()
    })
    .await
    .unwrap();
    stack.ready().await.unwrap();
    let api = Api {
        http: reqwest::Client::builder().no_proxy().build().unwrap(),
        url: stack.api_url(),
    };
    (stack, api)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_thousand_contacts_on_three_pages_get_three_thousand_messages() {
    let in_doubt = broadcast_with_kills(3_000, 0).await;

    assert_eq!(in_doubt, 0);
}

/// Every kill finds a worker with sends in flight; who was among them may be in doubt, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn killing_workers_of_ten_thousand_sends_changes_nothing_but_time() {
    const KILLS: usize = 6;

    let in_doubt = broadcast_with_kills(10_000, KILLS).await;

    assert!(in_doubt <= KILLS * MAX_IN_FLIGHT, "{in_doubt} in doubt");
}

/// Sends to so many contacts while so many workers are killed; how many contacts end in doubt.
async fn broadcast_with_kills(contacts: usize, kills: usize) -> usize {
    // A killed worker's hint comes back after this. Without kills nobody is to be ended by it, however slow the machine.
    let process_timeout = Duration::from_secs(if kills == 0 { 60 } else { 8 });
    let (stack, api) = start(process_timeout).await;
    let sandbox = stack.sandbox().unwrap();
    sandbox.set_latency_ms(100);
    let ids: Vec<_> = (0..contacts).map(|n| format!("c{n:05}")).collect();
    for (batch, ids) in ids.chunks(1_000).enumerate() {
        let page = format!("page-{}", batch % PAGES + 1);
        api.import(&page, ids).await;
    }

    let begun = Instant::now();
    let id = &api.broadcast(&ids).await;
    let mut killed = 0;
    let report = loop {
        let report = api.report(id).await;
        if report["status"] == "completed" {
            break report;
        }
        let elapsed = begun.elapsed();
        assert!(elapsed.as_secs() < 600, "never completed: {report:#}");
        if killed < kills && sandbox.received_count() > (killed + 1) * contacts / (kills + 2) {
            killed += usize::from(stack.process_job().kill_one_busy().await.is_some());
        }
        sleep(Duration::from_millis(200)).await;
    };
    let took = begun.elapsed();
    let in_doubt = api.in_doubt(id).await;

    let mut received = BTreeMap::<_, usize>::new();
    for message in sandbox.received() {
        // Right ones, or the sandbox would have refused it: the functions got the secret that was made up.
        assert!(message.appsecret_proof.is_some());
        *received.entry(message.contact_id).or_default() += 1;
    }
    stack.stop().await;
    println!(
        "{contacts} contacts on {PAGES} Pages in {took:.1?}: {} received, {killed} processes killed, {} in doubt",
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
    assert_eq!(counters["sent"], contacts - in_doubt.len());
    in_doubt.len()
}

/// Five receives, each for a whole visibility time-out: so long it is in the way of its own group, and of nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_not_ours_ends_as_a_dead_letter_and_holds_up_its_group_no_longer() {
    const NOT_OURS: &str = r#"{"order": 17}"#;
    const RECEIVES: u32 = 5;
    let process_timeout = Duration::from_secs(4);
    let visibility = process_timeout + VISIBILITY_MARGIN;
    let (stack, api) = start(process_timeout).await;
    let (sandbox, queues) = (stack.sandbox().unwrap(), stack.queue_urls());
    let sqs = clients::sqs(stack.queue_endpoint());
    let ids = |page: &str| (0..20).map(|n| format!("{page}-{n}")).collect::<Vec<_>>();
    let (behind_it, beside_it) = (ids("page-1"), ids("page-2"));
    api.import("page-1", &behind_it).await;
    api.import("page-2", &beside_it).await;

    let begun = Instant::now();
    sqs.send_message()
        .queue_url(&queues.jobs)
        .message_body(NOT_OURS)
        .message_group_id("page-1")
        .message_deduplication_id("17")
        .send()
        .await
        .unwrap();
    let behind = api.broadcast(&behind_it).await;
    let beside = api.broadcast(&beside_it).await;

    completed(&api, &beside, begun + visibility * RECEIVES).await;
    let beside_took = begun.elapsed();
    assert_eq!(api.report(&behind).await["counters"]["pending"], 20);

    completed(&api, &behind, begun + visibility * (RECEIVES + 2)).await;
    let behind_took = begun.elapsed();
    println!(
        "5 receives of {visibility:?}: beside it {beside_took:.1?}, behind it {behind_took:.1?}"
    );
    assert!(behind_took >= visibility * RECEIVES, "{behind_took:.1?}");
    let dead = sqs.receive_message().queue_url(&queues.dead_letters);
    let dead = dead.send().await.unwrap();
    let bodies: Vec<_> = dead.messages().iter().map(|letter| letter.body()).collect();
    assert_eq!(bodies, [Some(NOT_OURS)]);
    let received = sandbox.received().into_iter();
    let mut received: Vec<_> = received.map(|message| message.contact_id).collect();
    received.sort();
    let mut all = [behind_it, beside_it].concat();
    all.sort();
    assert_eq!(received, all);
    stack.stop().await;
}

/// Waits until a broadcast is completed, at most until then.
async fn completed(api: &Api, id: &str, until: Instant) {
    loop {
        let report = api.report(id).await;
        if report["status"] == "completed" {
            return;
        }
        assert!(Instant::now() < until, "not completed in time: {report:#}");
        sleep(Duration::from_millis(50)).await;
    }
}
