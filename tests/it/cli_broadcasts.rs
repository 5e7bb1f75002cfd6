//! The commands that list, follow, stop and export broadcasts, against the whole stack.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fixture::cli::{self, Ended, Terminal, oncecast};
use crate::fixture::up::UpProcess;

const PAGES: [&str; 2] = ["page-1", "page-2"];

/// The stack, with contacts on two Pages, to each of which a message a second is sent unless it is told otherwise.
struct Stack {
    up: UpProcess,
}

impl Stack {
    async fn start(contacts: usize, rate: &str) -> Self {
        let up = UpProcess::start(&[], &[("INLINE_LIMIT", "0"), ("PAGE_RATE_PER_SECOND", rate)]);
        for page in PAGES {
            let contact = |number| json!({"contact_id": format!("{page}-{number}"), "page_id": page});
            let contacts: Vec<_> = (0..contacts).map(contact).collect();
            for part in contacts.chunks(1_000) {
                up.call("PUT", "/v1/contacts", &json!({"contacts": part})).await;
            }
        }
        Self { up }
    }

    /// Requests a broadcast to the contacts, and returns its id.
    async fn broadcast(&self, contacts: usize, fields: Value) -> String {
        let ids = |page: &str| {
            (0..contacts)
                .map(|number| format!("{page}-{number}"))
                .collect::<Vec<_>>()
        };
        let mut body = json!({"contact_ids": PAGES.map(ids).concat(), "message": {"text": "Hi, we open at nine."}});
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let key = fields.to_string();
        let answer = self.up.send("POST", "/v1/broadcasts", Some(&key), &body).await;
        let report: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        report["broadcast_id"]
            .as_str()
            .unwrap_or_else(|| panic!("{report}"))
            .to_owned()
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        cli::run(self.up.url(), arguments)
    }

    async fn report(&self, id: &str) -> Value {
        self.up.call("GET", &format!("/v1/broadcasts/{id}"), &Value::Null).await
    }

    /// Waits until the broadcast has this status; returns its report.
    async fn has_status(&self, id: &str, status: &str) -> Value {
        loop {
            let report = self.report(id).await;
            if report["status"] == status {
                return report;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the list, which lags, shows this.
    fn is_listed(&self, text: &str) {
        while !self.run(&["list"]).stdout.contains(text) {}
    }

    /// Calls the sandbox's own API.
    async fn sandbox(&self, method: &str, path: &str, body: &Value) {
        let sandbox = self.up.address("summary").replace("/summary", "");
        let call = reqwest::Client::new().request(method.parse().unwrap(), format!("{sandbox}{path}"));
        let call = call.header("content-type", "application/json").body(body.to_string());
        let answer = call.send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }
}

/// Returns a time at which no test runs any more.
fn next_month() -> Value {
    json!((jiff::Timestamp::now() + Duration::from_secs(30 * 86_400)).to_string())
}

#[tokio::test]
async fn orders_show_their_extent_and_are_carried_out() {
    let stack = Stack::start(300, "1").await;
    let id = stack.broadcast(300, json!({"name": "Open"})).await;
    stack.has_status(&id, "processing").await;

    let look = stack.run(&["pause", &id, "--page", "page-2", "--dry-run"]);
    assert!(look.stdout.starts_with("pauses 1 Page with "), "{look:?}");
    assert_eq!(stack.report(&id).await["history"], json!([]));
    let paused = stack.run(&["pause", &id, "--page", "page-2"]);
    assert_eq!(paused.status, 0, "{paused:?}");
    assert!(paused.stderr.contains("  pauses 1 Page with "), "{paused:?}");
    assert!(
        paused.stdout.starts_with(&format!("paused {id}: 1 Page with ")),
        "{paused:?}"
    );
    let paused = &stack.run(&["pause", &id, "--json"]).objects()[0];
    assert_eq!(
        (&paused["affected"]["jobs"], &paused["dry_run"]),
        (&json!(1), &json!(false))
    );
    stack.has_status(&id, "paused").await;
    let status = stack.run(&["status", &id]);
    assert!(status.stdout.contains("  page-2  "), "{status:?}");
    assert_eq!(status.stdout.matches("paused").count(), 3, "{status:?}");

    let resumed = stack.run(&["resume", &id, "--page", "page-1"]);
    assert_eq!(resumed.status, 0, "{resumed:?}");
    let no_terminal = stack.run(&["cancel", &id]);
    assert_eq!(no_terminal.status, 2, "{no_terminal:?}");
    let mut asked = Terminal::start(oncecast(stack.up.url(), &["cancel", &id, "--page", "page-2"]), 80);
    asked.wait_for("Type the number of contacts to cancel them: ");
    let left = stack.report(&id).await["jobs"][1]["counters"]["pending"].to_string();
    asked.type_line(&left);
    let (status, shown) = asked.end();
    assert_eq!(status, 0, "{shown}");
    let cancelled = stack.run(&["cancel", &id, "--yes"]);
    assert_eq!(cancelled.status, 0, "{cancelled:?}");
    let report = stack.has_status(&id, "cancelled").await;
    let actions: Vec<_> = report["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["action"])
        .collect();
    assert_eq!(actions, ["pause", "pause", "resume", "cancel", "cancel"]);

    let refused = stack.run(&["resume", &id]);
    assert_eq!(refused.status, 5, "{refused:?}");
    assert!(
        refused.stderr.starts_with("error: Nothing is left to resume: "),
        "{refused:?}"
    );
    let followed = stack.run(&["status", &id, "--follow"]);
    assert_eq!(followed.status, 6, "{followed:?}");
    assert_eq!(followed.stderr, "error: the broadcast was cancelled\n");
}

#[tokio::test]
async fn failed_contacts_are_listed_and_sent_to_again() {
    let stack = Stack::start(30, "1000").await;
    let faults = json!([
        {"contacts": ["page-1-1", "page-2-1"], "answer": {"error": {"code": 551, "message": "not available"}}},
        {"contacts": ["page-1-2"], "answer": "reset"},
    ]);
    stack.sandbox("PUT", "/faults", &json!({"faults": faults})).await;
    let id = stack.broadcast(30, json!({})).await;
    let followed = stack.run(&["status", &id, "--follow"]);
    assert_eq!(followed.status, 6, "{followed:?}");
    assert!(
        followed.stderr.contains("error: 2 messages failed, 1 in doubt\n"),
        "{followed:?}"
    );
    let last = followed.stdout.lines().last().unwrap();
    assert!(
        last.ends_with("completed   sent 57   failed 2   in doubt 1"),
        "{followed:?}"
    );
    let status = stack.run(&["status", &id]);
    assert!(
        status
            .stdout
            .contains("not sent     2 cannot be reached (551) · 1 in doubt: connection lost"),
        "{status:?}"
    );

    let report = stack.run(&[
        "report", &id, "--status", "failed", "--reason", "551", "--page", "page-2",
    ]);
    assert!(report.stdout.starts_with("contact_id,page_id,status,"), "{report:?}");
    assert_eq!(
        report.stdout.lines().nth(1).unwrap().split(',').next(),
        Some("page-2-1"),
        "{report:?}"
    );
    assert_eq!(report.stdout.lines().count(), 2, "{report:?}");

    stack.sandbox("PUT", "/faults", &json!({"faults": []})).await;
    let look = stack.run(&["retry", &id, "--status", "failed", "--status", "in-doubt", "--dry-run"]);
    let expected = "sends again to 3 contacts on 2 Pages, 1 of which may get the message twice\n";
    assert_eq!((look.status, look.stdout.as_str()), (0, expected), "{look:?}");
    let none = stack.run(&["retry", &id, "--reason", "100", "--yes"]);
    assert_eq!((none.status, none.stdout.as_str()), (0, ""), "{none:?}");
    assert_eq!(stack.run(&["retry", &id]).status, 2);
    let retried = stack.run(&["retry", &id, "--reason", "551", "--yes", "--json"]);
    assert_eq!(retried.objects()[0]["reopened"], 2, "{retried:?}");
    loop {
        let report = stack.has_status(&id, "completed").await;
        if report["counters"]["sent"] == 59 {
            break;
        }
    }
}

#[tokio::test]
async fn refused_token_is_told_with_its_remedy_until_it_is_replaced() {
    let stack = Stack::start(40, "1000").await;
    stack.sandbox("DELETE", "/tokens/page-2", &Value::Null).await;
    let id = stack.broadcast(40, json!({})).await;
    let followed = stack.run(&["status", &id, "--follow"]);
    assert_eq!(followed.status, 6, "{followed:?}");
    let refused = "page-2: its token is refused by Messenger (190/460, password changed)";
    assert!(
        followed.stderr.contains(&format!(
            "error: the broadcast is halted\n  {refused}\n  give it a new token: "
        )),
        "{followed:?}"
    );
    let status = stack.run(&["status", &id]);
    assert!(
        status
            .stdout
            .contains("its token is refused by Messenger (190/460, password changed)"),
        "{status:?}"
    );

    let resumed = stack.run(&["resume", &id]);
    assert_eq!(resumed.status, 6, "{resumed:?}");
    assert!(
        resumed
            .stderr
            .contains("error: page-2 is halted again: its token is refused by Messenger"),
        "{resumed:?}"
    );
    stack.sandbox("PUT", "/tokens/page-2", &json!({})).await;
    let resumed = stack.run(&["resume", &id]);
    assert_eq!(resumed.status, 0, "{resumed:?}");
    let followed = stack.run(&["status", &id, "--follow"]);
    assert_eq!(followed.status, 0, "{followed:?}");
    assert!(followed.stdout.ends_with("completed   sent 80\n"), "{followed:?}");
}

#[tokio::test]
async fn objects_of_the_api_are_printed_one_in_a_line() {
    let stack = Stack::start(3, "1000").await;
    let first = stack.broadcast(3, json!({"name": "first"})).await;
    let second = stack
        .broadcast(3, json!({"name": "second", "scheduled_at": next_month()}))
        .await;
    stack.has_status(&first, "completed").await;
    stack.is_listed(&second);
    stack.is_listed("completed");

    let listed = stack.run(&["list", "--json"]).objects();
    let list = stack.up.call("GET", "/v1/broadcasts", &Value::Null).await;
    assert_eq!(json!(listed), list["items"]);
    let limited = stack.run(&["list", "--json", "--limit", "1"]).objects();
    assert_eq!(json!(limited), json!([list["items"][0]]));
    let scheduled = stack
        .run(&["list", "--json", "--status", "scheduled", "--page", "page-1"])
        .objects();
    assert_eq!(scheduled[0]["name"], "second");
    assert_eq!(scheduled.len(), 1);
    let table = stack.run(&["list"]).stdout;
    assert!(table.lines().next().unwrap().starts_with(&second), "{table}");
    assert!(
        table.lines().nth(1).unwrap().ends_with("completed  6  of 6  first"),
        "{table}"
    );

    let mut shown = stack.run(&["status", &first, "--json"]).objects()[0].clone();
    let mut report = stack.report(&first).await;
    // These follow the clock.
    for report in [&mut shown, &mut report] {
        report.as_object_mut().unwrap().remove("progress");
    }
    assert_eq!(shown, report);
    assert_eq!(
        stack.run(&["status", "--json"]).objects()[0]["broadcast_id"],
        second,
        "the newest"
    );
    let deliveries = stack.run(&["report", &first, "--json"]).objects();
    let list = stack
        .up
        .call("GET", &format!("/v1/broadcasts/{first}/deliveries"), &Value::Null)
        .await;
    assert_eq!(json!(deliveries), list["items"]);
    let planned = stack.run(&["cancel", &second, "--dry-run", "--json"]).objects();
    assert_eq!(
        (&planned[0]["dry_run"], &planned[0]["affected"]["contacts"]),
        (&json!(true), &json!(6))
    );
    let planned = stack
        .run(&["retry", &first, "--status", "skipped", "--dry-run", "--json"])
        .objects();
    assert_eq!(
        (&planned[0]["dry_run"], &planned[0]["reopened"]),
        (&json!(true), &json!(0))
    );

    let stopped = stack.run(&["stop-all", "--reason", "wrong text", "--json"]).objects();
    assert_eq!(
        (&stopped[0]["state"], &stopped[0]["reason"]),
        (&json!("off"), &json!("wrong text"))
    );
    assert_eq!(stack.run(&["sending", "--json"]).objects(), stopped);
    assert!(
        stack
            .run(&["sending"])
            .stdout
            .starts_with("sending off for all Pages: wrong text, since ")
    );
    let third = stack.broadcast(3, json!({"name": "third"})).await;
    let status = loop {
        let status = stack.run(&["status", &third]).stdout;
        if status.contains("switched off") {
            break status;
        }
    };
    assert!(
        status.contains("sending is switched off: wrong text\n  go on with: oncecast sending on"),
        "{status}"
    );
    assert_eq!(stack.run(&["sending", "on"]).status, 0);
    let of_page = stack.run(&["sending", "halt", "--page", "page-1"]);
    assert!(
        of_page.stdout.starts_with("sending halt for page-1, since "),
        "{of_page:?}"
    );
    let health = stack.up.call("GET", "/v1/health", &Value::Null).await;
    assert_eq!(health["sending"], "on");
}

#[tokio::test]
async fn broadcast_is_named_by_the_beginning_of_its_id() {
    let stack = Stack::start(1, "1000").await;
    let ids = [
        stack.broadcast(1, json!({"name": "one"})).await,
        stack.broadcast(1, json!({"name": "two"})).await,
    ];
    ids.iter().for_each(|id| stack.is_listed(id));
    let unique = &ids[0][..20].to_uppercase();
    let shown = stack.run(&["status", unique, "--json"]);
    assert_eq!(shown.objects()[0]["broadcast_id"], ids[0]);
    // Both ids begin with the same hour.
    let several = stack.run(&["cancel", &ids[0][..6], "--yes"]);
    assert_eq!(several.status, 5, "{several:?}");
    assert!(several.stderr.contains(&format!("  {}  one\n", ids[0])), "{several:?}");
    let none = stack.run(&["status", "ffffff"]);
    assert_eq!(none.status, 5, "{none:?}");
    assert!(
        none.stderr
            .contains("there is no broadcast whose id begins with ffffff"),
        "{none:?}"
    );
    for wrong in ["01a2", "no-id-at-all", &"0".repeat(33)] {
        assert_eq!(stack.run(&["status", wrong]).status, 2, "{wrong}");
    }
}

#[tokio::test]
async fn report_of_several_parts_is_one_file() {
    // A cancelled broadcast has a row for each contact, too; an answer has at most 10,000.
    let stack = Stack::start(5_050, "1000").await;
    let id = stack.broadcast(5_050, json!({"scheduled_at": next_month()})).await;
    let unfinished = stack.run(&["report", &id]);
    assert!(
        unfinished
            .stderr
            .contains("10,100 contacts not reached yet: they are no part of the report"),
        "{unfinished:?}"
    );
    assert_eq!(stack.run(&["cancel", &id, "--yes"]).status, 0);
    stack.has_status(&id, "cancelled").await;

    let report = stack.run(&["report", &id]);
    assert_eq!(report.status, 0, "{}", report.stderr);
    let mut rows = csv::Reader::from_reader(report.stdout.as_bytes());
    let ids: std::collections::BTreeSet<_> = rows.records().map(|row| row.unwrap()[0].to_owned()).collect();
    assert_eq!((report.stdout.lines().count(), ids.len()), (10_101, 10_100));
    assert!(!ids.contains("contact_id"));
    assert_eq!(stack.run(&["report", &id, "--json"]).objects().len(), 10_100);
}
