//! `oncecast doctor` and `oncecast pages`: what is wrong, and what to do.

use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::fixture::cli::{Terminal, oncecast, run, run_with};
use crate::fixture::other_api;
use crate::fixture::up::UpProcess;

const WELL: &str = "  ✓ token         Messenger takes the access token
  ✓ permissions   the app may read the Page's conversations
  ✓ webhook       Messenger sends the Page's events
";

/// Changes something in the sandbox.
async fn sandbox(up: &UpProcess, method: &str, path: &str, body: &serde_json::Value) {
    let url = format!("{}{path}", up.address("/sandbox/summary").trim_end_matches("/summary"));
    let call = reqwest::Client::new().request(method.parse().unwrap(), url);
    assert!(call.json(body).send().await.unwrap().status().is_success());
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tells_what_is_wrong_and_what_to_do() {
    let up = UpProcess::start(&[], &[]);
    let csv = "contact_id,page_id\n6001,page-1\n6002,page-2\n6003,page-without-token\n";
    assert_eq!(run_with(up.url(), &["contacts", "import", "-"], csv).status, 0);
    let whole = run(up.url(), &["doctor", "--page", "page-1"]);
    assert_eq!(whole.status, 0, "{}{}", whole.stdout, whole.stderr);
    assert!(
        whole
            .stdout
            .starts_with(&format!("  ✓ API           {} answers in ", up.url())),
        "{}",
        whole.stdout
    );
    for line in [
        "  ✓ clock         that of this machine agrees with that of the API\n",
        "  ✓ database      the database answers\n",
        "  ✓ sending       sending is switched on\n",
        "  ✓ queue         the queue of wake-ups answers\n",
    ] {
        assert!(whole.stdout.contains(line), "{}", whole.stdout);
    }
    assert!(
        whole.stdout.ends_with(&format!("Page page-1\n{WELL}")),
        "{}",
        whole.stdout
    );

    sandbox(&up, "DELETE", "/tokens/page-1", &json!({})).await;
    let refused = json!({"faults": [{"on": "list", "pages": ["page-2"], "times": 2, "answer": {"error": {"code": 200, "message": "no"}}}]});
    sandbox(&up, "PUT", "/faults", &refused).await;
    sandbox(&up, "DELETE", "/subscription", &json!({})).await;
    let off = json!({"state": "off", "reason": "wrong text"});
    up.send("PUT", "/v1/sending", None, &off).await;

    let wrong = run(up.url(), &["doctor"]);

    assert_eq!(
        (wrong.status, wrong.stderr.as_str()),
        (1, "error: 5 things wrong\n"),
        "{}",
        wrong.stdout
    );
    for line in [
        "  ✗ sending       sending is switched off: wrong text\n                  → Switch it on when the cause is repaired.\n",
        "Page page-1\n  ✗ token         Messenger does not take the access token, with the code 190/460\n                  → Give the Page a new access token.\n",
        "  ✓ token         Messenger takes the access token\n  ✗ permissions   Messenger does not list the Page's conversations, with the code 200\n                  → Grant the app pages_messaging",
        "  ✗ webhook       no app gets message_echoes, messages, messaging_postbacks\n                  → Subscribe the webhook",
        "Page page-without-token\n  ✗ token         no access token for this Page",
    ] {
        assert!(wrong.stdout.contains(line), "{line}\n\n{}", wrong.stdout);
    }
    let json = run(up.url(), &["doctor", "--json"]);
    assert_eq!(json.status, 1, "{}", json.stderr);
    let checks = json.objects();
    assert_eq!(checks.len(), 4);
    assert_eq!(checks[1]["checks"][0]["state"], "wrong");
}

#[tokio::test(flavor = "multi_thread")]
async fn clock_that_is_off_is_told_by_how_much() {
    let api = other_api::start(|head, _| {
        let time = Timestamp::now() - SignedDuration::from_secs(100);
        let checks = json!({"time": time, "page_id": null, "checks": []});
        let pages = json!({"items": [], "next_cursor": null});
        let body = if head.uri.path() == "/v1/checks" { checks } else { pages };
        Some(other_api::json(StatusCode::OK.as_u16(), &body))
    })
    .await;
    let ended = run(&api, &["doctor"]);
    assert_eq!(ended.status, 1, "{}", ended.stderr);
    let line = ended.stdout.lines().find(|line| line.contains("clock")).unwrap();
    assert!(
        line.starts_with("  ✗ clock         this machine is ") && line.ends_with(" s ahead of the API"),
        "{line}"
    );
    assert!(ended.stderr.contains("no Page has contacts yet"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_who_wrote_to_a_page_is_imported_and_followed() {
    let up = UpProcess::start(&[], &[]);
    sandbox(&up, "PUT", "/people/page-1", &json!({"count": 250})).await;
    let followed = run(up.url(), &["pages", "import", "page-1", "--follow"]);
    assert_eq!(
        (followed.status, followed.stderr.as_str()),
        (0, ""),
        "{}",
        followed.stdout
    );
    assert_eq!(
        followed.stdout,
        "completed: 250 conversations · 250 new contacts · 0 known\n"
    );
    let pages = run(up.url(), &["pages"]);
    assert_eq!(
        (pages.status, pages.stdout.as_str()),
        (0, "page-1  has a token  30/s  webhook never heard\n"),
        "{}",
        pages.stderr
    );
    let off = json!({"state": "off", "reason": "wrong \u{1b}text", "page_id": "page-1"});
    up.call("PUT", "/v1/sending", &off).await;
    let pages = run(up.url(), &["pages"]).stdout;
    assert!(
        pages.contains("30/s  switched off: wrong \\u{1b}text · webhook"),
        "{pages}"
    );
    let shown = run(up.url(), &["pages", "--json"]).objects();
    assert_eq!(
        (&shown[0]["page_id"], &shown[0]["token"], &shown[0]["switch"]["state"]),
        (&json!("page-1"), &json!("ok"), &json!("off"))
    );

    let over = run(up.url(), &["pages", "import", "page-1", "--cancel"]);
    assert_eq!(over.status, 5, "{}", over.stderr);
    let none = run(up.url(), &["pages", "import", "page-2", "--show"]);
    assert_eq!(
        (none.status, none.stderr.as_str()),
        (5, "error: There was no import of this Page.\n")
    );
    sandbox(&up, "PUT", "/people/page-2", &json!({"count": 100_000})).await;
    let terminal = Terminal::start(oncecast(up.url(), &["pages", "import", "page-2", "--follow"]), 80);
    terminal.wait_for("reading: ");
    terminal.signal("INT");
    let (status, shown) = terminal.end();
    assert_eq!(status, 130, "{shown}");
    assert!(
        shown.contains("the import goes on by itself; oncecast pages import page-2 --cancel ends it"),
        "{shown}"
    );
    let cancelled = run(up.url(), &["pages", "import", "page-2", "--cancel"]);
    assert_eq!(cancelled.status, 0, "{}", cancelled.stderr);
    let end = run(up.url(), &["pages", "import", "page-2", "--show", "--follow"]);
    assert_eq!(end.status, 6, "{}", end.stderr);
    assert!(end.stdout.starts_with("cancelled: "), "{}", end.stdout);
}
