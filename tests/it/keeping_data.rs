//! `up --data DIR`: what one stack leaves behind, however it ended, the next goes on with.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use local::sandbox::Sandbox;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::up::{EXECUTABLE, Up};

const PAGE: &str = "page-1";
const RATE_PER_SECOND: usize = 50;
/// A broadcast that does nothing for so long has stopped. A hint that a worker gave back is silent for 150 s.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// What outlives every `up` of a test: its directory, its tokens, and Messenger.
pub struct Installation {
    directory: TempDir,
    pub sandbox: Sandbox,
    rate_per_second: usize,
}

impl Installation {
    /// With these Pages, and so many messages a second for each of them.
    pub async fn new(pages: &[&str], rate_per_second: usize) -> Self {
        let directory = TempDir::new().unwrap();
        let token = |page: &&str| ((*page).to_owned(), format!("EAAB-{page}"));
        let tokens: BTreeMap<_, _> = pages.iter().map(token).collect();
        let file = directory.path().join("tokens.json");
        fs::write(file, json!(tokens).to_string()).unwrap();
        let sandbox = Sandbox::start(tokens).await.unwrap();
        Self {
            directory,
            sandbox,
            rate_per_second,
        }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn up(&self) -> Up {
        let (tokens, data) = (self.directory.path().join("tokens.json"), self.data());
        Up::start(
            &[
                "--graph-url",
                &self.sandbox.url(),
                "--page-tokens",
                tokens.to_str().unwrap(),
                "--data",
                data.to_str().unwrap(),
            ],
            &[
                ("PAGE_RATE_PER_SECOND", &self.rate_per_second.to_string()),
                ("JOB_LEASE_SECONDS", "3"),
                (
                    "RUST_LOG",
                    "info,dynoxide=error,shared::store::pages=debug,shared::work=debug",
                ),
            ],
        )
    }

    /// Another `up` on the same directory, which must be refused: what it says.
    fn refused_up(&self) -> String {
        let refused = Command::new(EXECUTABLE)
            .args(["up", "--port", "0", "--data", self.data().to_str().unwrap()])
            .output()
            .unwrap();
        assert_eq!(refused.status.code(), Some(1));
        let (said, printed) = (String::from_utf8(refused.stderr), refused.stdout);
        assert_eq!(String::from_utf8(printed).unwrap(), "");
        said.unwrap()
    }

    /// Waits for so many messages, as long as there come more.
    pub async fn has_received(&self, messages: usize) {
        let (mut received, mut since) = (0, Instant::now());
        while received < messages {
            sleep(Duration::from_millis(20)).await;
            if self.sandbox.received_count() > received {
                (received, since) = (self.sandbox.received_count(), Instant::now());
            }
            assert!(
                since.elapsed() < PATIENCE,
                "{received} messages, not {messages}"
            );
        }
    }
}

async fn import(up: &Up, ids: &[String]) {
    let contact = |id| json!({"contact_id": id, "page_id": PAGE});
    let contacts: Vec<_> = ids.iter().map(contact).collect();
    let body = json!({"contacts": contacts});
    let answer = up.call("PUT", "/v1/contacts", &body).await;
    assert_eq!(answer["upserted"], ids.len());
}

/// Waits for the end, as long as fewer become pending.
pub async fn completed(up: &Up, broadcast_id: &str) -> Value {
    let (mut pending, mut since) = (Value::Null, Instant::now());
    loop {
        let path = format!("/v1/broadcasts/{broadcast_id}");
        let report = up.call("GET", &path, &Value::Null).await;
        if report["status"] == "completed" {
            return report;
        }
        if report["counters"]["pending"] != pending {
            (pending, since) = (report["counters"]["pending"].clone(), Instant::now());
        }
        assert!(since.elapsed() < PATIENCE, "{report:#}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_goes_on_by_itself_however_often_the_whole_stack_is_killed() {
    const CONTACTS: usize = 200;
    const KILLS: usize = 3;
    let installation = Installation::new(&[PAGE], RATE_PER_SECOND).await;
    let sandbox = &installation.sandbox;
    sandbox.set_latency_ms(100);
    let ids: Vec<_> = (0..CONTACTS).map(|n| format!("c{n:03}")).collect();
    let body = json!({"contact_ids": ids, "message": {"text": "Hi, we open at nine."}});
    let mut up = installation.up();
    import(&up, &ids).await;
    let accepted = up
        .send("POST", "/v1/broadcasts", Some("opening-hours"), &body)
        .await;
    let accepted: Value = serde_json::from_slice(&accepted.bytes().await.unwrap()).unwrap();
    let id = accepted["broadcast_id"].as_str().unwrap();

    for kill in 1..=KILLS {
        let share = kill * CONTACTS / (KILLS + 1);
        installation.has_received(share).await;
        up.kill();
        up = installation.up();
    }
    let report = completed(&up, id).await;

    let mut received = BTreeMap::<_, usize>::new();
    for message in sandbox.received() {
        *received.entry(message.contact_id).or_default() += 1;
    }
    let twice: Vec<_> = received.iter().filter(|(_, n)| **n > 1).collect();
    assert!(twice.is_empty(), "got two messages: {twice:?}");
    let path = format!("/v1/broadcasts/{id}/deliveries?status=in_doubt&limit=1000");
    let list = up.call("GET", &path, &Value::Null).await;
    let in_doubt: BTreeSet<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["contact_id"].as_str().unwrap().to_owned())
        .collect();
    let reached = |id: &&String| received.contains_key(*id) || in_doubt.contains(*id);
    assert_eq!(ids.iter().filter(reached).count(), CONTACTS, "missing");
    let counters = &report["counters"];
    assert_eq!(counters["in_doubt"], in_doubt.len());
    assert_eq!(counters["sent"], CONTACTS - in_doubt.len());
    // No more are unsure than can have been under way at the kills: two seconds' worth of the rate each time.
    assert!(in_doubt.len() <= KILLS * 2 * RATE_PER_SECOND);
    println!(
        "{CONTACTS} contacts, the stack killed {KILLS} times: {} received, {} in doubt",
        received.len(),
        in_doubt.len()
    );

    let again = up
        .send("POST", "/v1/broadcasts", Some("opening-hours"), &body)
        .await;
    assert_eq!(again.headers()["idempotent-replayed"], "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_broadcast_that_falls_due_while_nothing_runs_is_sent_at_the_next_start() {
    let installation = Installation::new(&[PAGE], RATE_PER_SECOND).await;
    let up = installation.up();
    import(&up, &["ana".to_owned()]).await;
    let at = Timestamp::now() + Duration::from_secs(4);
    let body = json!({"contact_ids": ["ana"], "message": {"text": "Hi"}, "scheduled_at": at});
    let accepted = up.call("POST", "/v1/broadcasts", &body).await;
    assert_eq!(accepted["status"], "scheduled");
    up.kill();

    sleep(Duration::from_secs(5)).await;
    assert_eq!(installation.sandbox.received_count(), 0);
    let up = installation.up();

    let report = completed(&up, accepted["broadcast_id"].as_str().unwrap()).await;
    assert_eq!(report["counters"]["sent"], 1);
    assert_eq!(installation.sandbox.received_count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_up_is_refused_as_long_as_the_first_lives() {
    let installation = Installation::new(&[PAGE], RATE_PER_SECOND).await;
    let first = installation.up();

    let refusal = installation.refused_up();
    first.kill();
    let (ended, _) = installation.up().terminate();

    assert!(
        refusal.contains("is in use: another `up` runs on it"),
        "{refusal}"
    );
    assert!(ended.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_a_later_version_is_refused() {
    let installation = Installation::new(&[PAGE], RATE_PER_SECOND).await;
    let (ended, _) = installation.up().terminate();
    assert!(ended.success());
    fs::write(installation.data().join("format"), "2\n").unwrap();

    let refusal = installation.refused_up();

    assert!(
        refusal.contains("has format 2, of a later version"),
        "{refusal}"
    );
}
