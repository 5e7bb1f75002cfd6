//! The promise at full size: a hundred thousand contacts, twenty kills of the whole stack, and every row compared with the
//! messages received.
//!
//! The test takes a quarter of an hour or more:
//!
//! ```sh
//! cargo test -p tests --test it -- --ignored --nocapture twenty_kills
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use local::sandbox::Sandbox;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::fixture::installation::{Installation, PATIENCE, completed};
use crate::fixture::up::UpProcess;

pub const CONTACTS: usize = 100_000;
const KILLS: usize = 20;
/// The kills before which the deliveries of the running broadcast are exported.
const EXPORTS: [usize; 3] = [5, 10, 15];
pub const PAGES: [&str; 5] = ["page-1", "page-2", "page-3", "page-4", "page-5"];
/// The rate of each Page, which is the default of `up`.
const RATE_PER_SECOND: usize = 30;
/// Rows of one import.
const MAX_IMPORT: usize = 1_000;
/// Rows of one CSV answer.
const MAX_ROWS: usize = 10_000;

/// A row of the export.
#[derive(Debug, PartialEq)]
pub struct ExportedRow {
    pub page_id: String,
    pub status: String,
    pub message_id: String,
}

/// A message in the sandbox's ledger.
#[derive(Debug)]
pub struct LedgerEntry {
    pub page_id: String,
    pub message_id: String,
    pub text: Option<String>,
}

/// Returns the Page of the nth contact; neighbours in the request have different Pages.
pub fn page_of(n: usize) -> &'static str {
    PAGES[n % PAGES.len()]
}

pub fn id_of(n: usize) -> String {
    format!("{:017}", 6_000_000_000 + n)
}

/// Returns the answer of a call that may be repeated; repeats it while the answer is 503, as on a busy machine.
async fn answer(call: impl Fn() -> RequestBuilder) -> Response {
    let begun = Instant::now();
    loop {
        let answer = call().send().await.unwrap();
        let busy = answer.status() == StatusCode::SERVICE_UNAVAILABLE;
        if !busy || begun.elapsed() > PATIENCE {
            assert_eq!(answer.status(), StatusCode::OK);
            return answer;
        }
        println!("503: the call is repeated");
        sleep(Duration::from_secs(1)).await;
    }
}

/// Imports this many contacts, on all Pages.
pub async fn import(up: &UpProcess, contacts: usize) {
    let all: Vec<_> = (0..contacts).collect();
    for some in all.chunks(MAX_IMPORT) {
        let mut csv = "contact_id,page_id,first_name,tags\n".to_owned();
        for &n in some {
            csv += &format!("{},{},Ana {n},vip;new\n", id_of(n), page_of(n));
        }
        let import = || {
            let call = up.request("PUT", "/v1/contacts");
            call.header("content-type", "text/csv").body(csv.clone())
        };
        let answer = answer(import).await;
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert_eq!(answer["upserted"], some.len());
    }
}

/// Returns all deliveries by contact, read as CSV; checks that they are in order, and so that no contact is there twice.
pub async fn export(up: &UpProcess, broadcast_id: &str) -> BTreeMap<String, ExportedRow> {
    let (mut rows, mut last, mut cursor) = (BTreeMap::new(), None, String::new());
    loop {
        let path = format!("/v1/broadcasts/{broadcast_id}/deliveries{cursor}");
        let answer = answer(|| up.request("GET", &path).header("accept", "text/csv")).await;
        let next = answer.headers().get("x-next-cursor").cloned();
        let body = answer.bytes().await.unwrap();
        let before = rows.len();
        for record in csv::Reader::from_reader(&body[..]).into_deserialize() {
            let mut record: BTreeMap<String, String> = record.unwrap();
            let mut cell = |column| record.remove(column).unwrap();
            let (contact_id, row) = (
                cell("contact_id"),
                ExportedRow {
                    page_id: cell("page_id"),
                    status: cell("status"),
                    message_id: cell("message_id"),
                },
            );
            let place = Some((row.page_id.clone(), contact_id.clone()));
            assert!(place > last, "{place:?} comes after {last:?}");
            last = place;
            let twice = rows.insert(contact_id, row);
            assert_eq!(twice, None, "two rows of one contact: {last:?}");
        }
        assert!(rows.len() - before <= MAX_ROWS);
        let Some(next) = next else {
            return rows;
        };
        cursor = format!("?cursor={}", next.to_str().unwrap());
    }
}

/// Returns the message that each contact got; fails if a contact got two.
pub fn ledger(sandbox: &Sandbox) -> BTreeMap<String, LedgerEntry> {
    let mut ledger = BTreeMap::new();
    for received in sandbox.received() {
        let contact_id = received.contact_id;
        let message = LedgerEntry {
            page_id: received.page_id,
            message_id: received.message_id,
            text: received.text,
        };
        if let Some(first) = ledger.insert(contact_id.clone(), message) {
            panic!("{contact_id} got two messages: {first:?} and another");
        }
    }
    ledger
}

/// Checks that a row agrees with the ledger: it is `sent` only with the proof, and no received message is reported otherwise
/// than as sent, in doubt or in flight.
fn check(contact_id: &str, row: &ExportedRow, got: Option<&LedgerEntry>) {
    match (row.status.as_str(), got) {
        ("sent", Some(message)) => {
            let said = (&row.page_id, &row.message_id);
            assert_eq!(said, (&message.page_id, &message.message_id), "{contact_id}");
        }
        ("in_doubt" | "reserved", Some(message)) => {
            let said = (&row.page_id, row.message_id.as_str());
            assert_eq!(said, (&message.page_id, ""), "{contact_id}");
        }
        ("in_doubt" | "reserved", None) => {}
        _ => panic!("{contact_id}: {row:?}, and the ledger says {got:?}"),
    }
}

/// Exports while the broadcast runs; checks that every contact that had got a message before has a row, and that a sent row
/// does not change.
async fn check_while_running(
    up: &UpProcess,
    broadcast_id: &str,
    sandbox: &Sandbox,
    earlier: &BTreeMap<String, ExportedRow>,
) -> BTreeMap<String, ExportedRow> {
    let before = ledger(sandbox);
    let rows = export(up, broadcast_id).await;
    let after = ledger(sandbox);
    for contact_id in before.keys() {
        assert!(rows.contains_key(contact_id), "{contact_id} has no row");
    }
    for (contact_id, row) in &rows {
        check(contact_id, row, after.get(contact_id));
    }
    for (contact_id, row) in earlier.iter().filter(|(_, row)| row.status == "sent") {
        assert_eq!(rows.get(contact_id), Some(row), "{contact_id} was sent");
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a quarter of an hour: a named longer run"]
async fn twenty_kills_of_the_stack_send_no_duplicate_and_lose_no_contact() {
    let installation = Installation::new(&PAGES, RATE_PER_SECOND).await;
    let sandbox = &installation.sandbox;
    sandbox.set_latency_ms(100);
    let mut up = installation.up();
    let begun = Instant::now();
    import(&up, CONTACTS).await;
    println!("{CONTACTS} contacts imported in {:.1?}", begun.elapsed());

    let ids: Vec<_> = (0..CONTACTS).map(id_of).collect();
    let message = json!({"text": "Hi {{ first_name }}, we open at nine."});
    let body = json!({"contact_ids": ids, "message": message});
    let begun = Instant::now();
    let accepted = up.call("POST", "/v1/broadcasts", &body).await;
    println!("accepted in {:.1?}", begun.elapsed());
    assert_eq!(accepted["contacts"]["accepted"], CONTACTS);
    let id = accepted["broadcast_id"].as_str().unwrap();
    let path = format!("/v1/broadcasts/{id}");

    let mut rows = BTreeMap::new();
    for kill in 1..=KILLS {
        if EXPORTS.contains(&kill) {
            let exporting = Instant::now();
            rows = check_while_running(&up, id, sandbox, &rows).await;
            println!("{} rows exported in {:.1?}", rows.len(), exporting.elapsed());
        }
        // The stack makes progress between two kills: five claims in a row without progress would halt a job.
        let share = kill * CONTACTS / (KILLS + 1);
        let progress = sandbox.received_count() + CONTACTS / 100;
        installation.has_received(share.max(progress)).await;
        let report = answer(|| up.request("GET", &path)).await;
        let report: Value = serde_json::from_slice(&report.bytes().await.unwrap()).unwrap();
        assert_ne!(report["status"], "completed", "killed too late");
        let counters = report["counters"].as_object().unwrap().values();
        let counted: u64 = counters.map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(counted, CONTACTS as u64, "{report:#}");
        println!(
            "kill {kill} after {:.0?}: {} received",
            begun.elapsed(),
            sandbox.received_count()
        );
        // Alternately `up` alone, whose functions then end by themselves, and all processes at once.
        if kill % 2 == 1 {
            up.kill();
        } else {
            up.kill_all();
        }
        up = installation.up();
    }
    let report = completed(&up, id).await;
    let took = begun.elapsed();
    rows = check_while_running(&up, id, sandbox, &rows).await;
    let received = ledger(sandbox);

    assert_eq!(rows.len(), CONTACTS);
    let mut by_page = BTreeMap::<_, BTreeMap<_, usize>>::new();
    for n in 0..CONTACTS {
        let (contact_id, page_id) = (id_of(n), page_of(n));
        let row = rows.get(&contact_id);
        let row = row.unwrap_or_else(|| panic!("{contact_id} is missing"));
        let got = received.get(&contact_id);
        check(&contact_id, row, got);
        assert_eq!(row.page_id, page_id, "{contact_id}");
        if let Some(message) = got {
            let text = format!("Hi Ana {n}, we open at nine.");
            assert_eq!(message.text, Some(text));
        }
        let counts = by_page.entry(page_id).or_default();
        *counts.entry(row.status.clone()).or_default() += 1;
    }
    let unrequested: Vec<_> = received.keys().filter(|id| !rows.contains_key(*id)).collect();
    assert!(unrequested.is_empty(), "{unrequested:?}");

    let mut in_doubt = 0;
    let jobs = report["jobs"].as_array().unwrap();
    let pages: BTreeSet<_> = jobs.iter().map(|job| job["page_id"].as_str().unwrap()).collect();
    assert_eq!(pages, BTreeSet::from(PAGES));
    for job in jobs {
        let counts = &by_page[job["page_id"].as_str().unwrap()];
        check_counters(&job["counters"], counts);
        let doubts = counts.get("in_doubt").copied().unwrap_or_default();
        // Two seconds' worth of the rate at each kill.
        assert!(doubts <= KILLS * 2 * RATE_PER_SECOND, "{doubts}");
        in_doubt += doubts;
    }
    let whole = BTreeMap::from([
        ("sent".to_owned(), CONTACTS - in_doubt),
        ("in_doubt".to_owned(), in_doubt),
    ]);
    check_counters(&report["counters"], &whole);
    println!(
        "{CONTACTS} contacts on {} Pages, the stack killed {KILLS} times: {} received, {in_doubt} in doubt, {:.0} s, {:.0} messages a second",
        PAGES.len(),
        received.len(),
        took.as_secs_f64(),
        received.len() as f64 / took.as_secs_f64()
    );
}

/// Checks that each of the six counters equals the number of rows with its status.
pub fn check_counters(counters: &Value, rows: &BTreeMap<String, usize>) {
    let counters = counters.as_object().unwrap();
    assert_eq!(counters.len(), 6);
    for (status, count) in counters {
        let rows = rows.get(status).copied().unwrap_or_default();
        assert_eq!(*count, rows, "{status} of {counters:?}");
    }
}
