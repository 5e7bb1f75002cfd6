//! The operator's orders at full size: a hundred thousand contacts on five Pages are paused and resumed, one Page is cancelled,
//! the failed are retried, and the stack is killed in between. The end of every contact is compared with the messages received.
//!
//! ```sh
//! cargo test -p tests --test it -- --ignored --nocapture orders_and_kills
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use local::sandbox::{Fault, GraphError};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::fixture::controls::OBEYED_WITHIN;
use crate::fixture::installation::{Installation, PATIENCE};
use crate::fixture::up::UpProcess;
use crate::long_run::{
    CONTACTS, ExportedRow, LedgerEntry, PAGES, check_counters, export, id_of, import, ledger, page_of,
};

/// The rate of each Page.
const RATE_PER_SECOND: usize = 60;
/// The Page that is cancelled.
const CANCELLED: &str = PAGES[4];
/// The latency of Messenger.
const LATENCY: Duration = Duration::from_millis(100);
/// The time within which nothing is sent while the broadcast is paused.
const SILENCE: Duration = Duration::from_secs(5);
/// The time within which a Page is cancelled, with a kill in between.
const CANCELLED_WITHIN: Duration = Duration::from_secs(60);

/// Returns whether Messenger refuses the nth contact until the retry.
fn is_refused(n: usize) -> bool {
    n % 49 == 7
}

/// An installation with one broadcast, and the process that is running at present.
struct ControlledRun {
    installation: Installation,
    up: UpProcess,
    id: String,
    contacts: usize,
    kills: usize,
}

impl ControlledRun {
    /// Starts a broadcast to this many contacts.
    async fn start(contacts: usize) -> Self {
        let installation = Installation::new(&PAGES, RATE_PER_SECOND).await;
        let sandbox = &installation.sandbox;
        sandbox.set_latency_ms(LATENCY.as_millis().try_into().unwrap());
        let refused = (0..contacts).filter(|n| is_refused(*n)).map(id_of);
        sandbox.add_fault(Fault::answering(GraphError::new(551, "blocked")).to_contacts(refused));
        let up = installation.up();
        import(&up, contacts).await;
        let ids: Vec<_> = (0..contacts).map(id_of).collect();
        let body = json!({"contact_ids": ids, "message": {"text": "We open at nine."}});
        let accepted = up.call("POST", "/v1/broadcasts", &body).await;
        assert_eq!(accepted["contacts"]["accepted"], contacts, "{accepted:#}");
        Self {
            id: accepted["broadcast_id"].as_str().unwrap().to_owned(),
            installation,
            up,
            contacts,
            kills: 0,
        }
    }

    /// Waits until this part of the contacts, in percent, have got the message.
    async fn has_sent(&self, percent: usize) {
        self.installation.has_received(percent * self.contacts / 100).await;
    }

    /// Kills all processes at once, or `up` alone, in turn; and starts again.
    fn kill(self) -> Self {
        let Self {
            installation,
            up,
            id,
            contacts,
            kills,
        } = self;
        if kills % 2 == 0 {
            up.kill_all();
        } else {
            up.kill();
        }
        let up = installation.up();
        Self {
            installation,
            up,
            id,
            contacts,
            kills: kills + 1,
        }
    }

    /// Gives an order, which must be accepted; a call that is answered with 503 is repeated, as on a busy machine.
    async fn order(&self, verb: &str, body: &Value) -> Value {
        let begun = Instant::now();
        loop {
            let path = format!("/v1/broadcasts/{}/{verb}", self.id);
            let answer = self.up.send("POST", &path, None, body).await;
            let (status, body) = (answer.status(), answer.bytes().await.unwrap());
            if status != StatusCode::SERVICE_UNAVAILABLE || begun.elapsed() > PATIENCE {
                let body: Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(status, StatusCode::ACCEPTED, "{verb}: {body:#}");
                return body;
            }
        }
    }

    /// Returns the report, of which the counters add up, in each job and in whole.
    async fn report(&self) -> Value {
        let path = format!("/v1/broadcasts/{}", self.id);
        let report = self.up.call("GET", &path, &Value::Null).await;
        let sum = |counters: &Value| -> u64 {
            let counters = counters.as_object().unwrap().values();
            counters.map(|count| count.as_u64().unwrap()).sum()
        };
        assert_eq!(sum(&report["counters"]), self.contacts as u64, "{report:#}");
        for job in report["jobs"].as_array().unwrap() {
            assert_eq!(sum(&job["counters"]), job["contacts"].as_u64().unwrap(), "{job:#}");
        }
        report
    }

    /// Polls until the job of each Page is in one of these states; returns the report.
    async fn rests_in(&self, states: &[&str]) -> Value {
        let (mut counters, mut since) = (Value::Null, Instant::now());
        loop {
            let report = self.report().await;
            let mut jobs = report["jobs"].as_array().unwrap().iter();
            if jobs.all(|job| states.contains(&job["status"].as_str().unwrap())) {
                return report;
            }
            if report["counters"] != counters {
                (counters, since) = (report["counters"].clone(), Instant::now());
            }
            assert!(since.elapsed() < PATIENCE, "no job is moved on: {report:#}");
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Pauses the broadcast. Returns the time of the answer.
    async fn pause(&self) -> Timestamp {
        let answer = self.order("pause", &json!({})).await;
        assert!(answer["affected"]["jobs"].as_u64().unwrap() > 0, "{answer:#}");
        Timestamp::now()
    }

    /// Checks that every job is paused, unless it is over; that no send started later than it may after the answer; and that
    /// nothing is sent for a while.
    async fn stays_paused(&self, answered: Timestamp) {
        self.rests_in(&["paused", "completed", "cancelled"]).await;
        sleep(OBEYED_WITHIN + LATENCY).await;
        let received = self.installation.sandbox.received();
        sleep(SILENCE).await;
        let (last, now) = (received.iter().map(|message| message.at).max(), received.len());
        assert_eq!(self.installation.sandbox.received_count(), now, "sent while paused");
        let late = Duration::from_millis(u64::try_from(last.unwrap() - answered.as_millisecond()).unwrap_or_default());
        println!("paused: the last message arrived {late:?} after the answer");
        assert!(late <= OBEYED_WITHIN + LATENCY, "a send started too late");
    }
}

/// Checks the end of a contact by the message that it got.
fn check(n: usize, row: &ExportedRow, got: Option<&LedgerEntry>) {
    match (row.status.as_str(), got) {
        ("sent", Some(message)) => {
            let said = (&row.page_id, &row.message_id);
            assert_eq!(said, (&message.page_id, &message.message_id), "{n}");
        }
        ("in_doubt", _) => {}
        ("skipped", None) if row.page_id == CANCELLED => {}
        // The contacts of the cancelled Page are not retried.
        ("failed", None) if is_refused(n) && row.page_id == CANCELLED => {}
        _ => panic!("{n}: {row:?}, and the ledger says {got:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: a named longer run"]
async fn orders_and_kills_of_the_stack_send_no_duplicate_and_lose_no_contact() {
    let begun = Instant::now();
    let mut run = ControlledRun::start(CONTACTS).await;

    // Killed in the middle of a run, while paused, and at once after a resume.
    run.has_sent(10).await;
    run = run.kill();
    run.has_sent(20).await;
    let paused = run.pause().await;
    run.stays_paused(paused).await;
    run = run.kill();
    run.stays_paused(paused).await;
    run.order("resume", &json!({})).await;
    run = run.kill();

    // Killed at once after a cancel.
    run.has_sent(35).await;
    let cancelling = Instant::now();
    let cancelled = run.order("cancel", &json!({"page_id": CANCELLED})).await;
    run = run.kill();
    let is_cancelled = |report: &Value| report["jobs"][4]["status"] == "cancelled";
    while !is_cancelled(&run.report().await) {
        assert!(cancelling.elapsed() < CANCELLED_WITHIN, "{:#}", run.report().await);
        sleep(Duration::from_millis(100)).await;
    }
    println!(
        "{} contacts cancelled within {:.1?}, with a kill",
        cancelled["affected"]["contacts"],
        cancelling.elapsed()
    );

    // Killed at once after a pause.
    run.has_sent(45).await;
    let paused = run.pause().await;
    run = run.kill();
    run.stays_paused(paused).await;
    run.order("resume", &json!({})).await;
    run.has_sent(60).await;
    run = run.kill();
    let report = run.rests_in(&["completed", "cancelled"]).await;

    // Killed in the middle of a retry.
    run.installation.sandbox.clear_faults();
    let before = run.installation.sandbox.received_count();
    let mut reopened = 0;
    for (page, job) in PAGES.iter().zip(report["jobs"].as_array().unwrap()) {
        if *page != CANCELLED {
            let body = json!({"statuses": ["failed"], "page_id": page});
            let answer = run.order("retry", &body).await;
            assert_eq!(answer["reopened"], job["counters"]["failed"], "{answer:#}");
            reopened += usize::try_from(answer["reopened"].as_u64().unwrap()).unwrap();
        }
    }
    run.installation.has_received(before + reopened / 2).await;
    run = run.kill();
    let report = run.rests_in(&["completed", "cancelled"]).await;
    let took = begun.elapsed();

    let rows = export(&run.up, &run.id).await;
    let received = ledger(&run.installation.sandbox);
    assert_eq!(rows.len(), CONTACTS);
    let mut by_page = BTreeMap::<_, BTreeMap<_, usize>>::new();
    for n in 0..CONTACTS {
        let row = rows.get(&id_of(n)).unwrap_or_else(|| panic!("{n} is missing"));
        assert_eq!(row.page_id, page_of(n));
        check(n, row, received.get(&id_of(n)));
        let counts = by_page.entry(page_of(n)).or_default();
        *counts.entry(row.status.clone()).or_default() += 1;
    }
    assert!(received.keys().all(|id| rows.contains_key(id)), "others got messages");
    let mut in_doubt = 0;
    for (page, job) in PAGES.iter().zip(report["jobs"].as_array().unwrap()) {
        let is_cancelled = *page == CANCELLED;
        let counts = &by_page[page];
        assert_eq!(job["status"], if is_cancelled { "cancelled" } else { "completed" });
        check_counters(&job["counters"], counts);
        assert_eq!(counts.contains_key("skipped"), is_cancelled, "{counts:?}");
        in_doubt += counts.get("in_doubt").copied().unwrap_or_default();
    }
    // Two seconds' worth of the rate at each kill.
    assert!(in_doubt <= run.kills * PAGES.len() * 2 * RATE_PER_SECOND, "{in_doubt}");
    println!(
        "{CONTACTS} contacts on {} Pages, the stack killed {} times: {} received, {reopened} retried, {in_doubt} in doubt, {:.0} s",
        PAGES.len(),
        run.kills,
        received.len(),
        took.as_secs_f64(),
    );
}
