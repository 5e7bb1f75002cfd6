//! `oncecast send`: the look before it, the question, the contacts of files, and the repetition of an interrupted request.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use tempfile::{NamedTempFile, tempdir};
use tokio::sync::Notify;

use crate::fixture::cli::{self, Ended, Terminal, oncecast};
use crate::fixture::proxy::{self, ProxiedCall};
use crate::fixture::up::UpProcess;

const TEXT: &str = "Hi {{ first_name | default('there') }}, it's open.";

/// Starts the stack, with three contacts with a tag on two Pages, one of which has opted out.
async fn start() -> UpProcess {
    let up = UpProcess::start(&[], &[]);
    let contacts = json!([
        {"contact_id": "6001", "page_id": "page-1", "first_name": "Ana", "tags": ["loyal"]},
        {"contact_id": "6002", "page_id": "page-2", "tags": ["loyal"]},
        {"contact_id": "6003", "page_id": "page-2", "tags": ["loyal"], "opted_out": true},
    ]);
    up.call("PUT", "/v1/contacts", &json!({"contacts": contacts})).await;
    up
}

/// Returns the broadcasts once the list shows so many.
async fn broadcasts(up: &UpProcess, number: usize) -> Vec<Value> {
    loop {
        let list = up.call("GET", "/v1/broadcasts", &Value::Null).await;
        let items = list["items"].as_array().unwrap();
        if items.len() >= number {
            return items.clone();
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn file_with(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// Looks at a send to the contacts of a file.
fn look(api: &str, file: &NamedTempFile) -> Ended {
    let path = file.path().to_str().unwrap();
    cli::run(api, &["send", "--text", TEXT, "--to", path, "--dry-run", "--json"])
}

#[tokio::test]
async fn broadcast_is_sent_once_its_number_of_contacts_is_typed() {
    let up = start().await;
    let send = || oncecast(up.url(), &["send", "--text", TEXT, "--tag", "loyal", "--name", "Open"]);
    // The index of contacts with a tag lags.
    while cli::run(up.url(), &["send", "--text", TEXT, "--tag", "loyal", "--dry-run"]).status != 0 {}

    let mut wrong = Terminal::start(send(), 80);
    wrong.wait_for("Type the number of contacts to send it: ");
    wrong.type_line("3");
    let (status, shown) = wrong.end();
    assert_eq!(status, 1, "{shown}");
    assert!(
        shown.contains("error: nothing was done: 2 was to be typed, and not `3`"),
        "{shown}"
    );

    let mut right = Terminal::start(send(), 80);
    right.wait_for("Type the number of contacts to send it: ");
    right.type_line("2");
    let (status, shown) = right.end();
    assert_eq!(status, 0, "{shown}");
    for expected in [
        "3 contacts match on 2 Pages: 1 opted out, 2 to be sent to",
        "page-1 1 · page-2 1",
        "6001  Hi Ana, it's open.",
        "6002  Hi there, it's open.",
        "about a second",
        "follow it with: oncecast status ",
    ] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }

    let broadcasts = broadcasts(&up, 1).await;
    assert_eq!(broadcasts.len(), 1);
    assert_eq!(broadcasts[0]["name"], "Open");
    assert!(
        shown.contains(broadcasts[0]["broadcast_id"].as_str().unwrap()),
        "{shown}"
    );
}

#[tokio::test]
async fn nothing_is_sent_where_nobody_can_be_asked() {
    let up = start().await;
    let asked = cli::run(up.url(), &["send", "--text", TEXT, "--everybody"]);
    assert_eq!(asked.status, 2);
    assert!(
        asked
            .stderr
            .contains("--yes does it without asking; --dry-run, where there is one, only shows what would be done")
    );

    let ids = "6001\r\n\n 6002 \n6001\n6009\n";
    let looked = cli::run_with(up.url(), &["send", "--text", TEXT, "--to", "-", "--dry-run"], ids);
    assert_eq!(looked.status, 0, "{looked:?}");
    let counted = "2 contacts to be sent to on 2 Pages · 1 repeated · 1 unknown";
    assert!(looked.stdout.contains(counted), "{looked:?}");
    assert!(looked.stdout.contains("  unknown    6009\n"), "{looked:?}");
    let sent = cli::run_with(up.url(), &["send", "--text", TEXT, "--to", "-", "--yes", "--json"], ids);
    assert_eq!(sent.status, 0, "{sent:?}");
    assert_eq!(sent.objects()[0]["counters"]["sent"], 2);

    let broadcasts = broadcasts(&up, 1).await;
    assert_eq!(broadcasts.len(), 1, "{broadcasts:?}");
}

#[tokio::test]
async fn options_of_a_send_reach_the_api() {
    let up = start().await;
    let path = file_with(b"6001");
    let to = path.path().to_str().unwrap();
    let options =
        "--at 2030-12-01T09:00 --time-zone Asia/Manila --name Opening --priority high --requires-approval --yes --json";
    let mut arguments = vec!["send", "--text", TEXT, "--to", to];
    arguments.extend(options.split(' '));
    let far = cli::run(up.url(), &arguments);
    assert_eq!(far.status, 5, "more than a year ahead: {far:?}");
    assert!(far.stderr.contains("/scheduled_at"), "{far:?}");

    let tomorrow = jiff::ZonedDateTime::now()
        .tomorrow()
        .unwrap()
        .strftime("%Y-%m-%dT09:00")
        .to_string();
    arguments[6] = &tomorrow;
    let accepted = cli::run(up.url(), &arguments);
    assert_eq!(accepted.status, 0, "{accepted:?}");
    let report = &accepted.objects()[0];
    assert_eq!(report["scheduled_local"], format!("{tomorrow}:00+08:00[Asia/Manila]"));
    assert_eq!(
        (&report["name"], &report["requires_approval"]),
        (&json!("Opening"), &json!(true))
    );
    assert_eq!(report["status"], "awaiting_approval");

    arguments.drain(7..9);
    let without_zone = cli::run(up.url(), &arguments);
    assert_eq!(without_zone.status, 2, "{without_zone:?}");
    assert!(without_zone.stderr.contains("--time-zone"), "{without_zone:?}");

    let of = |recipients: &[&str]| {
        let arguments = [&["send", "--text", TEXT, "--dry-run", "--json"], recipients].concat();
        cli::run(up.url(), &arguments)
    };
    while of(&["--everybody"]).status != 0 {}
    let accepted = |recipients: &[&str]| of(recipients).objects()[0]["contacts"]["accepted"].clone();
    assert_eq!(accepted(&["--everybody"]), 2);
    assert_eq!(accepted(&["--everybody", "--page", "page-1"]), 1);
    assert_eq!(
        accepted(&[
            "--tag", "other", "--tag", "loyal", "--page", "page-1", "--page", "page-2"
        ]),
        2
    );
    up.call("PUT", "/v1/audiences/vips", &json!({"page_id": "page-2"}))
        .await;
    assert_eq!(accepted(&["--audience", "vips"]), 1);
    for wrong in [
        &["--everybody", "--tag", "loyal"][..],
        &["--page", "page-1"],
        &["--audience", "vips", "--page", "page-1"],
    ] {
        assert_eq!(of(wrong).status, 2, "{wrong:?}");
    }
    assert_eq!(of(&["--tag", "nobody"]).status, 5);
}

#[tokio::test]
async fn file_of_contacts_is_read_as_ids_or_as_csv() {
    let up = start().await;
    for text in [
        "6001\n6002\n",
        "\u{feff}6001\r\n6002",
        "contact_id\n6001\n6002\n",
        "name;\"Contact_ID\";tags\nAna;6001;a;b\n;;\nBen;6002;\n",
        "page_id\tcontact_id\npage-1\t 6001\npage-2\t6002\n",
        "\u{feff}contact_id,name\r\n6001,\"Ana\nMaria\"\r\n6002,\r\n",
    ] {
        let looked = look(up.url(), &file_with(text.as_bytes()));
        assert_eq!(looked.status, 0, "{text:?}: {looked:?}");
        assert_eq!(looked.objects()[0]["contacts"]["accepted"], 2, "{text:?}");
    }
}

#[test]
fn file_that_holds_no_contact_ids_is_refused_before_anything_is_sent() {
    // Nothing listens there: each is refused before a request.
    let nowhere = "http://127.0.0.1:9";
    let many = "6001\n".repeat(100_001);
    let cases: [(&[u8], &str); 9] = [
        (b"", "is empty: it holds no contact id"),
        (b" \n\n", "is empty: it holds no contact id"),
        (b"contact_id,page_id\n", "is empty: it holds no contact id"),
        (b"60\x0001\n", "is a binary file"),
        (b"\xff\xfe6\x000\x00", "is UTF-16\n  save it as UTF-8"),
        (b"6001\nJos\xe9\n", "is not UTF-8 in line 2"),
        (
            b"6001,page-1\n6002,page-2\n",
            "line 1 has several columns, and the first line names none contact_id",
        ),
        (
            b"contact_id,name\n6001,Ana\n2.4E+16,Ben\n",
            "line 3: the id `2.4E+16` is a number as a spreadsheet writes it",
        ),
        (
            many.as_bytes(),
            "a broadcast takes at most 100,000 ids, and there are 100,001 ids",
        ),
    ];
    for (bytes, expected) in cases {
        let refused = look(nowhere, &file_with(bytes));
        assert_eq!(refused.status, 2, "{refused:?}");
        assert!(refused.stderr.contains(expected), "{expected}: {refused:?}");
    }
    let escapes = look(nowhere, &file_with(b"6001\n\x1b[31mred\n"));
    assert!(
        escapes.stderr.contains(r"line 2: the id `\u{1b}[31mred`"),
        "{escapes:?}"
    );
    for (path, expected) in [("/no/such/file", "No such file"), ("/", "directory")] {
        let refused = cli::run(nowhere, &["send", "--text", TEXT, "--to", path, "--dry-run"]);
        assert_eq!(refused.status, 1, "{refused:?}");
        assert!(refused.stderr.contains(expected), "{refused:?}");
    }
}

#[test]
fn file_that_changes_while_it_is_read_is_refused() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("ids.txt");
    fs::write(&path, "600000001\n".repeat(1_000_000)).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let (stop, mut file) = (
        Arc::clone(&is_over),
        OpenOptions::new().append(true).open(&path).unwrap(),
    );
    let writer = thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            file.write_all(b"600000002\n").unwrap();
            thread::yield_now();
        }
    });
    let arguments = ["send", "--text", TEXT, "--to", path.to_str().unwrap(), "--dry-run"];
    // The file has too many ids also for a process that reads it between two writes.
    let tries = (0..20).map(|_| cli::run("http://127.0.0.1:9", &arguments));
    let refused = tries.into_iter().find(|ended| ended.status != 2);
    is_over.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    let Some(refused) = refused else {
        panic!("none of twenty reads was refused")
    };
    assert_eq!(refused.status, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("changed while it was read; nothing was sent"),
        "{refused:?}"
    );
}

/// Returns the command that an unsuccessful send has printed.
fn printed_command(ended: &Ended) -> String {
    let line = ended.stderr.lines().find(|line| line.contains("--idempotency-key"));
    line.unwrap_or_else(|| panic!("{ended:?}")).trim().to_owned()
}

/// Runs a printed command against the API itself.
fn repeat(up: &UpProcess, command: &str) -> Ended {
    let mut shell = Command::new("bash");
    shell
        .args(["-c", command])
        .env("ONCECAST_API", up.url())
        .stdin(Stdio::null());
    shell.output().unwrap().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_send_is_repeated_by_the_printed_command_without_a_second_broadcast() {
    let up = start().await;
    let accepted = Arc::new(Notify::new());
    let is_accepted = Arc::clone(&accepted);
    let slow = proxy::start(up.url(), move |call: ProxiedCall| {
        let accepted = Arc::clone(&accepted);
        async move {
            let is_request = call.name() == "POST /v1/broadcasts";
            let answer = call.forward().await;
            if is_request {
                accepted.notify_one();
                std::future::pending::<()>().await;
            }
            answer
        }
    })
    .await;
    let file = file_with(b"6001\n6002\n");
    let path = file.path().to_str().unwrap();
    let mut send = oncecast(
        &slow,
        &["send", "--text", TEXT, "--to", path, "--name", "it's 王", "--yes"],
    );
    let child = send.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    is_accepted.notified().await;
    cli::signal(&child, "INT");
    let interrupted = Ended::from(child.wait_with_output().unwrap());
    assert_eq!(interrupted.status, 130, "{interrupted:?}");
    assert!(
        interrupted
            .stderr
            .contains("error: interrupted\n  the request may have been accepted."),
        "{interrupted:?}"
    );
    assert_eq!(interrupted.stdout, "");

    let command = printed_command(&interrupted);
    let ids: Vec<_> = [repeat(&up, &command), repeat(&up, &command)]
        .into_iter()
        .map(|repeated| {
            assert_eq!(repeated.status, 0, "{command}: {repeated:?}");
            assert!(repeated.stderr.contains("nothing is sent twice"), "{repeated:?}");
            repeated.stdout
        })
        .collect();
    assert_eq!(ids[0], ids[1]);
    let broadcasts = broadcasts(&up, 1).await;
    assert_eq!(broadcasts.len(), 1, "{broadcasts:?}");
    assert_eq!(
        format!("accepted {}\n", broadcasts[0]["broadcast_id"].as_str().unwrap()),
        ids[0]
    );
    // The API knows the request by the printed key: with another one the same message is another broadcast.
    let other = repeat(&up, &command.replace("--idempotency-key ", "--idempotency-key other-"));
    assert_eq!(other.status, 0, "{other:?}");
    assert_ne!(other.stdout, ids[0]);
    let path = format!("/v1/broadcasts/{}", broadcasts[0]["broadcast_id"].as_str().unwrap());
    let report = up.call("GET", &path, &Value::Null).await;
    assert_eq!(
        (&report["name"], &report["counters"]["sent"]),
        (&json!("it's 王"), &json!(2))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn send_whose_answer_is_lost_prints_the_command_that_repeats_it() {
    let up = start().await;
    let lossy = proxy::start(up.url(), |call: ProxiedCall| async {
        let is_request = call.name() == "POST /v1/broadcasts";
        let answer = call.forward().await;
        match is_request {
            true => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            false => answer,
        }
    })
    .await;
    let file = file_with(b"6001\n6002\n");
    let lost = cli::run(
        &lossy,
        &["send", "--text", TEXT, "--to", file.path().to_str().unwrap(), "--yes"],
    );
    assert_eq!(lost.status, 1, "{lost:?}");
    let repeated = repeat(&up, &printed_command(&lost));
    assert_eq!(repeated.status, 0, "{repeated:?}");
    assert_eq!(broadcasts(&up, 1).await.len(), 1);

    // Of a request that the API has refused, nothing is left to be repeated.
    let refused = cli::run(up.url(), &["send", "--text", "{{", "--everybody", "--yes"]);
    assert_eq!(refused.status, 5, "{refused:?}");
    assert!(!refused.stderr.contains("--idempotency-key"), "{refused:?}");
    assert!(refused.stderr.contains("/message/text"), "{refused:?}");
}
