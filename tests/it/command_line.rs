//! The local stack as its user starts it: by its commands, with what they print, log and exit with.

use std::io::Write;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::up::{EXECUTABLE, Up};

const TOKEN: &str = "EAAB-a-token-that-nobody-may-see";
const TEXT: &str = "a-text-that-nobody-may-see";

fn file_of(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[tokio::test]
async fn a_broadcast_by_hand_leaves_no_token_and_no_text_in_any_log() {
    let tokens = file_of(&json!({"page-1": TOKEN}).to_string());
    let page_tokens = ["--page-tokens", tokens.path().to_str().unwrap()];
    let up = Up::start(&page_tokens, &[("RUST_LOG", "trace")]);
    let call = async |method: &str, path: &str, body: Value| up.call(method, path, &body).await;

    let contacts = json!([{"contact_id": "ana", "page_id": "page-1"}, {"contact_id": "ben", "page_id": "page-1"}]);
    call("PUT", "/v1/contacts", json!({"contacts": contacts})).await;
    let body = json!({"contact_ids": ["ana", "ben"], "message": {"text": format!("{TEXT} {{{{ first_name }}}}")}});
    let failed = call("POST", "/v1/broadcasts", body).await;
    let body = json!({"contact_ids": ["ana", "ben"], "message": {"text": TEXT}});
    let sent = call("POST", "/v1/broadcasts", body.clone()).await;
    call("POST", "/v1/broadcasts", body).await;
    call(
        "POST",
        "/v1/broadcasts",
        json!({"contact_ids": ["ana"], "message": {"text": format!("{TEXT} {{{{")}}),
    )
    .await;
    for (id, outcome) in [
        (&failed["broadcast_id"], "failed"),
        (&sent["broadcast_id"], "sent"),
    ] {
        let path = format!("/v1/broadcasts/{}", id.as_str().unwrap());
        loop {
            let report = call("GET", &path, Value::Null).await;
            if report["status"] == "completed" {
                assert_eq!(report["counters"][outcome], 2);
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let (ended, log) = up.terminate();

    assert!(ended.success(), "{ended}");
    for expected in [
        "job completed",
        "\"duplicates.layer\":\"replay\"",
        "contact worked on",
    ] {
        assert!(
            log.contains(expected),
            "{expected} is not in the log: it would prove nothing"
        );
    }
    for secret in [TOKEN, TEXT] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
}

#[test]
fn what_keeps_it_from_starting_is_said_in_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let no_json = file_of("page-1: token");
    let no_strings = file_of(r#"{"page-1": 5}"#);
    let path = |file: &NamedTempFile| file.path().to_str().unwrap().to_owned();
    let cases = [
        (vec!["--port".to_owned(), port.clone()], port.as_str(), 1),
        (
            vec!["--page-tokens".to_owned(), "/no/such/file".to_owned()],
            "/no/such/file",
            1,
        ),
        (
            vec!["--page-tokens".to_owned(), path(&no_json)],
            "JSON object",
            1,
        ),
        (
            vec!["--page-tokens".to_owned(), path(&no_strings)],
            "JSON object",
            1,
        ),
        (
            vec![
                "--graph-url".to_owned(),
                "https://graph.facebook.com/v25.0".to_owned(),
            ],
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
            status: ended,
            stderr,
            ..
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

/// The README's first command.
#[test]
fn the_demo_ends_well() {
    for (arguments, killed) in [(&["demo"][..], "2"), (&["demo", "--faults"], "4")] {
        let demo = Command::new(EXECUTABLE).args(arguments).output().unwrap();

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
        for name in [
            "contacts that got two",
            "contacts missed",
            "contacts reported wrongly",
        ] {
            assert_eq!(figure(name), "0", "{report}");
        }
        assert_eq!(figure("Processes killed"), killed, "{report}");
        // Whoever got the message is known to have got it.
        assert_eq!(figure("sent"), figure("messages received"), "{report}");
    }
}
