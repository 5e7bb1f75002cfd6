//! The output and the end of commands: terminals, pipes, full disks, colours, exit statuses, completions and man pages.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use tempfile::{NamedTempFile, tempdir};

use crate::fixture::cli::{self, Ended, Terminal, oncecast};
use crate::fixture::proxy::{self, ProxiedCall};
use crate::fixture::up::{EXECUTABLE, UpProcess};

const ESCAPE: char = '\u{1b}';

/// Starts the stack with a broadcast to thirty contacts of a Page, one message a second.
async fn sending_slowly() -> (UpProcess, String) {
    let up = UpProcess::start(&[], &[("INLINE_LIMIT", "0"), ("PAGE_RATE_PER_SECOND", "1")]);
    let ids: Vec<_> = (1..=30).map(|number| format!("60{number:02}")).collect();
    let contacts: Vec<_> = ids
        .iter()
        .map(|id| json!({"contact_id": id, "page_id": "page-1"}))
        .collect();
    up.call("PUT", "/v1/contacts", &json!({"contacts": contacts})).await;
    let body = json!({"contact_ids": ids, "message": {"text": "Hi"}, "name": "Promoção 王小明"});
    let report = up.call("POST", "/v1/broadcasts", &body).await;
    let id = report["broadcast_id"].as_str().unwrap().to_owned();
    (up, id)
}

#[tokio::test]
async fn followed_broadcast_has_a_bar_on_a_terminal_of_any_size() {
    let (up, id) = sending_slowly().await;
    let terminal = Terminal::start(oncecast(up.url(), &["status", &id, "--follow"]), 80);
    terminal.wait_until(|shown| shown.contains('█') && shown.contains(" of 30"));
    let shown = terminal.shown();
    assert!(shown.contains("Promoção 王小明"), "{shown}");
    assert!(shown.contains("sent "), "{shown}");
    let before = shown.len();
    terminal.resize(30);
    // There is no room for a bar.
    let has_count = |after: &str| {
        after
            .split("page-1  ")
            .skip(1)
            .any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    terminal.wait_until(|shown| shown.get(before..).is_some_and(has_count));
    terminal.signal("INT");
    let (status, shown) = terminal.end();
    assert_eq!(status, 130, "{shown}");
    assert!(shown.contains("error: interrupted"), "{shown}");
    assert!(shown.contains("the broadcast goes on by itself"), "{shown}");
    let report = up.call("GET", &format!("/v1/broadcasts/{id}"), &Value::Null).await;
    assert_eq!(report["history"], json!([]));

    // On a pipe it is a line for each change, without any control character.
    let mut follow = oncecast(up.url(), &["status", &id, "--follow"]);
    let mut child = follow.stdout(Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let lines: Vec<_> = lines.map(Result::unwrap).take(2).collect();
    assert!(lines[0].contains("sending   sent "), "{lines:?}");
    assert_ne!(lines[0], lines[1]);
    assert!(!lines.concat().contains(ESCAPE), "{lines:?}");
    // Its reader has gone.
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn colours_are_for_terminals_without_no_color() {
    let (up, id) = sending_slowly().await;
    let shown = |change: &dyn Fn(&mut Command)| {
        let mut command = oncecast(up.url(), &["status", &id]);
        change(&mut command);
        let (status, shown) = Terminal::start(command, 80).end();
        assert_eq!(status, 0, "{shown}");
        shown
    };
    assert!(shown(&|_| {}).contains(ESCAPE));
    assert!(!shown(&|command| _ = command.env("NO_COLOR", "1")).contains(ESCAPE));
    assert!(!shown(&|command| _ = command.env("TERM", "dumb")).contains(ESCAPE));
    assert!(!shown(&|command| _ = command.arg("--json")).contains(ESCAPE));
    assert!(!cli::run(up.url(), &["status", &id]).stdout.contains(ESCAPE));
}

#[tokio::test]
async fn data_moves_no_cursor() {
    let up = UpProcess::start(&[], &[]);
    let change = json!({"state": "off", "reason": "red \u{1b}[31m\u{202e}\r\n"});
    up.call("PUT", "/v1/sending", &change).await;
    let shown = cli::run(up.url(), &["sending"]);
    assert_eq!(shown.status, 0, "{shown:?}");
    assert!(shown.stdout.contains(r"red \u{1b}[31m\u{202e}"), "{shown:?}");

    let hostile = proxy::start(up.url(), |_| async {
        let problem = json!({
            "type": "/v1/problems/not-found", "title": "", "status": 404, "detail": "no \u{1b}[2J such", "errors": []
        });
        (StatusCode::NOT_FOUND, problem.to_string()).into_response()
    });
    let hostile = hostile.await;
    let refused = tokio::task::spawn_blocking(move || cli::run(&hostile, &["list"]))
        .await
        .unwrap();
    assert_eq!(
        (refused.status, refused.stderr.as_str()),
        (5, "error: no \\u{1b}[2J such\n")
    );
}

#[tokio::test]
async fn full_disk_is_an_error_and_a_closed_pipe_is_none() {
    let (up, id) = sending_slowly().await;
    for arguments in [
        &["status", &id][..],
        &["list", "--json"],
        &["report", &id],
        &["sending"],
        &["man"],
        &["completions", "bash"],
    ] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        // Index entries of the list lag.
        while cli::run(up.url(), arguments).stdout.is_empty() {}
        let ended = Ended::from(
            oncecast(up.url(), arguments)
                .stdout(full)
                .stderr(Stdio::piped())
                .output()
                .unwrap(),
        );
        let expected = "error: the output cannot be written: No space left on device (os error 28)\n";
        assert_eq!((ended.status, ended.stderr.as_str()), (1, expected), "{arguments:?}");

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = Ended::from(
            oncecast(up.url(), arguments)
                .stdout(writer)
                .stderr(Stdio::piped())
                .output()
                .unwrap(),
        );
        assert_eq!((ended.status, ended.stderr.as_str()), (0, ""), "{arguments:?}");
    }
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), "6001").unwrap();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut send = oncecast(
        up.url(),
        &["send", "--text", "Hi", "--to", file.path().to_str().unwrap(), "--yes"],
    );
    let accepted = Ended::from(send.stdout(full).stderr(Stdio::piped()).output().unwrap());
    assert_eq!(accepted.status, 1, "{accepted:?}");
    assert!(
        accepted.stderr.contains(" was accepted\n"),
        "what was accepted is told all the same: {accepted:?}"
    );
}

/// Writes the file of the API's callers, which only its owner may read.
fn callers(tokens: &Value) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.as_file().set_permissions(Permissions::from_mode(0o600)).unwrap();
    file.write_all(tokens.to_string().as_bytes()).unwrap();
    file
}

#[tokio::test]
async fn caller_without_the_right_token_is_told_so() {
    let [maker, reader, approver] = ["a", "b", "c"].map(|letter| letter.repeat(40));
    let all = ["broadcasts:read", "broadcasts:write", "contacts:write"];
    let file = callers(&json!([
        {"name": "maker", "token": maker, "scopes": all},
        {"name": "reader", "token": reader, "scopes": ["broadcasts:read"]},
        {"name": "approver", "token": approver, "scopes": all},
    ]));
    let up = UpProcess::start(&["--api-token", file.path().to_str().unwrap()], &[]);
    let as_caller = |token: &str, arguments: &[&str]| -> Ended {
        oncecast(up.url(), arguments)
            .env("ONCECAST_TOKEN", token)
            .output()
            .unwrap()
            .into()
    };
    let unknown = cli::run(up.url(), &["list"]);
    assert_eq!(unknown.status, 4, "{unknown:?}");
    assert!(
        unknown
            .stderr
            .contains("give a token of this API by ONCECAST_TOKEN or --token-file FILE"),
        "{unknown:?}"
    );
    let wrong = as_caller(&"d".repeat(40), &["list"]);
    assert_eq!(wrong.status, 4, "{wrong:?}");
    assert!(!wrong.stderr.contains("dddd"), "{wrong:?}");
    assert_eq!(as_caller("two words", &["list"]).status, 2);
    let limited = as_caller(&reader, &["stop-all"]);
    assert_eq!(limited.status, 4, "{limited:?}");
    assert!(limited.stderr.contains("scope broadcasts:write"), "{limited:?}");

    let mut token_file = NamedTempFile::new().unwrap();
    writeln!(token_file, "{maker}").unwrap();
    let by_file = ["--token-file", token_file.path().to_str().unwrap()];
    let run = |arguments: &[&str]| as_caller("ignored", &[&by_file, arguments].concat());
    assert_eq!(run(&["list"]).status, 0);
    assert_eq!(as_caller(&maker, &["--token-file", "/no/such/file", "list"]).status, 1);

    let contacts = json!({"contacts": [{"contact_id": "6001", "page_id": "page-1"}]});
    let put = up
        .request("PUT", "/v1/contacts")
        .bearer_auth(&maker)
        .header("content-type", "application/json");
    assert!(
        put.body(contacts.to_string())
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
    );
    fs::write(token_file.path().with_extension("ids"), "6001").unwrap();
    let ids = token_file.path().with_extension("ids");
    let made = run(&[
        "send",
        "--text",
        "Hi",
        "--to",
        ids.to_str().unwrap(),
        "--requires-approval",
        "--yes",
        "--json",
    ]);
    let id = made.objects()[0]["broadcast_id"].as_str().unwrap().to_owned();
    let own = run(&["approve", &id]);
    assert_eq!(own.status, 4, "{own:?}");
    let approved = as_caller(&approver, &["approve", &id]);
    assert_eq!(approved.status, 0, "{approved:?}");
    assert!(approved.stdout.starts_with(&format!("approved {id}: ")), "{approved:?}");
    fs::remove_file(ids).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn api_that_is_busy_is_waited_for_and_one_that_is_none_is_named() {
    let up = UpProcess::start(&[], &[]);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let busy = proxy::start(up.url(), move |call: ProxiedCall| {
        let number = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            match number {
                0 => (
                    StatusCode::TOO_MANY_REQUESTS,
                    [("retry-after", "1")],
                    "{\"message\":\"Too Many Requests\"}",
                )
                    .into_response(),
                1 => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")]).into_response(),
                _ => call.forward().await,
            }
        }
    });
    let busy = busy.await;
    let waited = cli::run(&busy, &["list"]);
    assert_eq!(waited.status, 0, "{waited:?}");
    assert!(
        waited
            .stderr
            .starts_with("the API is busy (429); trying again in 1 s\nthe API is busy (503); trying again in"),
        "{waited:?}"
    );
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    let far = proxy::start(up.url(), |_| async {
        (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "600")]).into_response()
    });
    let given_up = cli::run(&far.await, &["list"]);
    assert_eq!(given_up.status, 3, "{given_up:?}");

    let other = proxy::start(up.url(), |_| async {
        (StatusCode::NOT_FOUND, "<html>").into_response()
    });
    let other = cli::run(&other.await, &["list"]);
    assert_eq!(other.status, 5, "{other:?}");
    assert!(other.stderr.contains("no Oncecast API is there"), "{other:?}");
    let page = proxy::start(up.url(), |_| async { "<html>Welcome".into_response() });
    let page = cli::run(&page.await, &["list"]);
    assert_eq!(page.status, 1, "{page:?}");
    assert!(
        page.stderr.contains("--api and ONCECAST_API name an Oncecast API"),
        "{page:?}"
    );
    assert_eq!(cli::run("no URL", &["list"]).status, 2);

    // A proxy leads to other machines, and not to this one.
    let mut proxied = oncecast(up.url(), &["list"]);
    let proxied = Ended::from(proxied.env("HTTP_PROXY", "http://127.0.0.1:9").output().unwrap());
    assert_eq!(proxied.status, 0, "{proxied:?}");
    let unreachable = cli::run("http://127.0.0.1:9", &["list"]);
    assert_eq!(unreachable.status, 3, "{unreachable:?}");
    let expected = "error: http://127.0.0.1:9 does not answer GET /v1/broadcasts: Connection refused (os error 111)\n";
    assert!(unreachable.stderr.contains(expected), "{unreachable:?}");
}

#[test]
fn completions_and_man_pages_are_of_every_command() {
    let run = |arguments: &[&str]| Ended::from(Command::new(EXECUTABLE).args(arguments).output().unwrap());
    let help = run(&["help"]);
    assert!(help.stdout.contains("Exit statuses:"), "{help:?}");
    let commands: Vec<_> = help
        .stdout
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.len() > 10, "{commands:?}");
    let directory = tempdir().unwrap();
    let pages = directory.path().join("man1");
    assert_eq!(run(&["man", pages.to_str().unwrap()]).status, 0);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).stdout;
        commands
            .iter()
            .for_each(|name| assert!(script.contains(*name), "{shell} has no {name}"));
    }
    for name in commands {
        let page = fs::read_to_string(pages.join(format!("oncecast-{name}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{name}");
    }
    assert!(!pages.join("oncecast-function.1").exists());
    assert!(
        run(&["man"]).stdout.starts_with(".ie"),
        "a page is written to stdout, too"
    );
    assert_eq!(run(&["completions", "tcsh"]).status, 2);
}
