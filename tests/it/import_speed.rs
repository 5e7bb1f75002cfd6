//! The speed at which contacts come in, which is printed. It means something on a quiet machine and in a release build only:
//!
//! ```sh
//! cargo test --release -p tests --test it -- --ignored --nocapture contacts_a_second
//! ```

use std::path::PathBuf;
use std::time::Instant;

use axum::http::StatusCode;
use futures_util::stream::{self, StreamExt};
use serde_json::json;
use tempfile::TempDir;

use crate::fixture::up::EXECUTABLE;
use crate::fixture::{PAGES, TestStack};

/// The contacts of each import.
const CONTACTS: usize = 40_000;
/// The contacts of one request.
const MAX_IMPORT: usize = 1_000;
/// The requests that are made at once.
const REQUESTS: [usize; 2] = [1, 8];
/// The people of a webhook call.
const PEOPLE: usize = 1_000;

/// Returns a CSV file of contacts from the nth on.
fn file(from: usize, round: usize) -> String {
    let rows =
        (from..from + MAX_IMPORT).map(|n| format!("{:017},page-1,Ana {n},vip;new,Porto\n", round * 1_000_000 + n));
    format!(
        "contact_id,page_id,first_name,tags,attributes.city\n{}",
        rows.collect::<String>()
    )
}

/// Prints the contacts a second that a whole local stack takes: the functions are processes of their own.
async fn import_into(database: &str, data: Option<PathBuf>) {
    let settings = local::stack::Settings {
        executable: EXECUTABLE.into(),
        data,
        ..local::stack::Settings::default()
    };
    let stack = local::stack::Stack::start(settings).await.unwrap();
    stack.ready().await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/v1/contacts", stack.api_url());
    for (round, at_once) in REQUESTS.into_iter().enumerate() {
        for kind in ["new", "known"] {
            let files: Vec<_> = (0..CONTACTS)
                .step_by(MAX_IMPORT)
                .map(|from| file(from, round))
                .collect();
            let begun = Instant::now();
            let imports = files.into_iter().map(|file| {
                let call = http.put(&url).header("content-type", "text/csv").body(file);
                async move {
                    let answer = call.send().await.unwrap();
                    assert_eq!(answer.status(), StatusCode::OK);
                }
            });
            stream::iter(imports)
                .buffer_unordered(at_once)
                .collect::<Vec<_>>()
                .await;
            let took = begun.elapsed();
            let speed = CONTACTS as f64 / took.as_secs_f64();
            println!(
                "{CONTACTS} {kind} contacts, database {database}, {at_once} requests at once: {took:.1?}, {speed:.0} contacts/s"
            );
        }
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute: a named longer run, which prints the contacts a second of imports"]
async fn contacts_a_second_of_imports() {
    let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    import_into("in memory", None).await;
    import_into("on disk", Some(directory.path().join("data"))).await;
}

/// Meta waits five seconds for the answer.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a named longer run, which prints how long a webhook call of a thousand unknown people takes"]
async fn contacts_a_second_of_webhooks() {
    let stack = TestStack::start().await;
    for round in 0..5 {
        let event = |n: usize| {
            json!({
                "sender": {"id": format!("p{round}-{n}")}, "recipient": {"id": PAGES[0]}, "timestamp": 1_795_000_000_000_i64,
                "message": {"mid": "m", "text": "Hello"},
            })
        };
        let events: Vec<_> = (0..PEOPLE).map(event).collect();
        let begun = Instant::now();
        assert_eq!(stack.webhook(PAGES[0], &events).await, StatusCode::OK);
        println!("{PEOPLE} unknown people in one webhook call: {:.2?}", begun.elapsed());
    }
}
