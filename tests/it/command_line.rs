//! The commands of the local stack: their output, log and exit status.

use std::cell::RefCell;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use local::clients;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::fixture::up::{EXECUTABLE, UpProcess};

const TOKEN: &str = "EAAB-a-token-that-must-not-leak";
const APP_SECRET: &str = "an-app-secret-that-must-not-leak";
const VERIFY_TOKEN: &str = "a-verify-token-that-must-not-leak";
const TEXT: &str = "a-text-that-must-not-be-logged";

fn file_with(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// Exercises the API, the webhooks and Messenger's errors, and searches the log, the metrics, the answers and the items.
#[tokio::test]
async fn no_secret_leaks_and_no_text_is_logged() {
    let tokens = file_with(&json!({"page-1": TOKEN}).to_string());
    let (app_secret, verify_token) = (file_with(APP_SECRET), file_with(VERIFY_TOKEN));
    let by_path = |file: &NamedTempFile| format!("file:{}", file.path().display());
    let up = UpProcess::start(
        &["--page-tokens", tokens.path().to_str().unwrap()],
        &[
            ("RUST_LOG", "trace"),
            ("METRICS_NAMESPACE", "Oncecast/test"),
            ("DOUBT_CHECK_SECONDS", "2"),
            ("APP_SECRET", &by_path(&app_secret)),
            ("WEBHOOK_VERIFY_TOKEN", &by_path(&verify_token)),
        ],
    );
    let sandbox = up.address("summary").replace("/summary", "");
    let http = reqwest::Client::new();
    let fault = async |answer: Value, contact: &str| {
        let faults = json!({"faults": [{"contacts": [contact], "answer": answer}]});
        let call = http.put(format!("{sandbox}/faults"));
        let call = call.header("content-type", "application/json");
        let answer = call.body(faults.to_string()).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    };
    let answers = RefCell::new(String::new());
    let call = async |method: &str, path: &str, body: Value| {
        let answer = up.send(method, path, None, &body).await;
        let text = answer.text().await.unwrap();
        answers.borrow_mut().push_str(&text);
        serde_json::from_str::<Value>(&text).unwrap_or_default()
    };
    let ended = async |id: &Value, status: &str| {
        let path = format!("/v1/broadcasts/{}", id.as_str().unwrap());
        loop {
            let report = call("GET", &path, Value::Null).await;
            if report["status"] == status {
                break report;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let post = async |ids: &[&str], text: &str| {
        let body = json!({"contact_ids": ids, "message": {"text": text}});
        call("POST", "/v1/broadcasts", body).await["broadcast_id"].clone()
    };

    let contacts = json!([{"contact_id": "ana", "page_id": "page-1"}, {"contact_id": "ben", "page_id": "page-1"}]);
    call("PUT", "/v1/contacts", json!({"contacts": contacts})).await;
    let failed = post(&["ana", "ben"], &format!("{TEXT} {{{{ first_name }}}}")).await;
    let sent = post(&["ana", "ben"], TEXT).await;
    post(&["ana", "ben"], TEXT).await;
    post(&["ana"], &format!("{TEXT} {{{{")).await;
    for (id, outcome) in [(&failed, "failed"), (&sent, "sent")] {
        assert_eq!(ended(id, "completed").await["counters"][outcome], 2);
    }
    fault(json!("reset"), "ana").await;
    ended(&post(&["ana"], &format!("{TEXT}, unanswered")).await, "completed").await;
    let quoting = json!({"error": {"code": 190, "message": format!("Malformed token {TOKEN}")}});
    fault(quoting, "ben").await;
    ended(&post(&["ben"], &format!("{TEXT}, refused")).await, "halted").await;
    for token in [VERIFY_TOKEN, "another"] {
        let query = format!("hub.mode=subscribe&hub.challenge=7&hub.verify_token={token}");
        call("GET", &format!("/v1/webhooks/messenger?{query}"), Value::Null).await;
    }
    call("POST", "/v1/webhooks/messenger", json!({"text": TEXT})).await;
    let has_looked_up = |lines: &[String]| lines.iter().any(|line| line.contains("DoubtsLeft"));
    while !has_looked_up(&up.printed()) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let dynamodb = clients::dynamodb(&up.address("DynamoDB"));
    let mut items = String::new();
    for table in ["broadcasts", "deliveries", "contacts"] {
        let scan = dynamodb
            .scan()
            .table_name(format!("oncecast-{table}"))
            .consistent_read(true);
        items.push_str(&format!("{:?}", scan.send().await.unwrap().items()));
    }
    let printed = up.printed().join("\n");
    let (status, log) = up.terminate();

    assert!(status.success(), "{status}");
    for expected in [
        "job completed",
        "job halted",
        "\"duplicates.layer\":\"replay\"",
        "contact worked on",
        "delivery stays in doubt",
    ] {
        assert!(
            log.contains(expected),
            "{expected} is not in the log, which then proves nothing"
        );
    }
    assert!(items.contains(TEXT) && printed.contains("JobsHalted"));
    let answers = answers.into_inner();
    for secret in [TOKEN, APP_SECRET, VERIFY_TOKEN, TEXT] {
        for (what, text) in [("log", &log), ("metrics", &printed)] {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "in the {what}");
        }
    }
    for secret in [TOKEN, APP_SECRET, VERIFY_TOKEN] {
        assert!(!items.contains(secret), "{secret} in an item");
        assert!(!answers.contains(secret), "{secret} in an answer");
    }
}

#[test]
fn startup_error_names_its_cause() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let no_json = file_with("page-1: token");
    let no_strings = file_with(r#"{"page-1": 5}"#);
    let path = |file: &NamedTempFile| file.path().to_str().unwrap().to_owned();
    let cases = [
        (vec!["--port".to_owned(), port.clone()], port.as_str(), 1),
        (
            vec!["--page-tokens".to_owned(), "/no/such/file".to_owned()],
            "/no/such/file",
            1,
        ),
        (vec!["--page-tokens".to_owned(), path(&no_json)], "JSON object", 1),
        (vec!["--page-tokens".to_owned(), path(&no_strings)], "JSON object", 1),
        (
            vec!["--graph-url".to_owned(), "https://graph.facebook.com/v25.0".to_owned()],
            "--page-tokens",
            1,
        ),
        (
            vec!["--process-timeout".to_owned(), "soon".to_owned()],
            "--process-timeout",
            2,
        ),
    ];
    for (arguments, expected, status) in cases {
        let Output {
            status: ended, stderr, ..
        } = Command::new(EXECUTABLE)
            .arg("up")
            .args(
                ["--port", "0"]
                    .iter()
                    .filter(|_| !arguments.contains(&"--port".to_owned())),
            )
            .args(&arguments)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&stderr);
        assert_eq!(ended.code(), Some(status), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
}

/// The first command of the README.
#[test]
fn demo_succeeds() {
    let demos = [(&["demo"][..], "2"), (&["demo", "--faults"], "4")].map(|(arguments, killed)| {
        let mut demo = Command::new(EXECUTABLE);
        demo.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        (demo.spawn().unwrap(), killed)
    });
    for (demo, killed) in demos {
        let demo = demo.wait_with_output().unwrap();

        let (report, errors) = (
            String::from_utf8_lossy(&demo.stdout),
            String::from_utf8_lossy(&demo.stderr),
        );
        assert!(demo.status.success(), "{report}{errors}");
        let figure = |name: &str| {
            let mut lines = report.lines();
            let line = lines.find(|line| line.trim().starts_with(name)).unwrap();
            line.split_whitespace().last().unwrap()
        };
        for name in ["contacts that got two", "contacts missed", "contacts reported wrongly"] {
            assert_eq!(figure(name), "0", "{report}");
        }
        assert_eq!(figure("Processes killed"), killed, "{report}");
        // Every received message is recorded as sent.
        assert_eq!(figure("sent"), figure("messages received"), "{report}");
    }
}
