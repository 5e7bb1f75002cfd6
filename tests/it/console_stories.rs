//! An operator's day with the console, in Chromium: a broadcast from its text to its export, a pause, a retry, a file of contacts.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::fixture::browser::Browser;
use crate::fixture::up::UpProcess;

/// Waits until a list of the API, which lags, has this text.
async fn until_listed(up: &UpProcess, path: &str, text: &str) {
    while !up.call("GET", path, &Value::Null).await.to_string().contains(text) {
        sleep(Duration::from_millis(50)).await;
    }
}

/// Stores contacts of page-1; returns their ids.
async fn contacts(up: &UpProcess, count: usize) -> Vec<String> {
    let ids: Vec<_> = (6001..6001 + count).map(|id| id.to_string()).collect();
    let contact = |id| json!({"contact_id": id, "page_id": "page-1"});
    let contacts: Vec<_> = ids.iter().map(contact).collect();
    up.call("PUT", "/v1/contacts", &json!({ "contacts": contacts })).await;
    ids
}

/// Requests a broadcast, and opens its page.
async fn opened(up: &UpProcess, browser: &Browser, ids: &[String]) {
    let body = json!({"contact_ids": ids, "name": "Opening hours", "message": {"text": "We open at nine."}});
    let accepted = up.call("POST", "/v1/broadcasts", &body).await;
    let id = accepted["broadcast_id"].as_str().unwrap();
    browser.open(&format!("{}/broadcasts/{id}", up.url())).await;
}

/// Returns the lines of the CSV file to which the link with this name leads.
async fn exported(browser: &Browser, name: &str) -> Vec<String> {
    let script = format!(
        "fetch([...document.querySelectorAll('a[href]')].find(link => link.innerText.trim() === '{name}').href)
            .then(answer => answer.text())"
    );
    let csv = browser.evaluate(&script).await;
    csv.as_str().unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn newcomer_writes_sends_watches_finds_and_exports() {
    let up = UpProcess::start(&[], &[]);
    let mut browser = Browser::start().await;
    // A form that is refused.
    browser.expect_error("422");
    browser.open(up.url()).await;
    browser.press("Make 100 contacts and write to them").await;
    browser.sees("New broadcast").await;
    browser
        .fill("Text", "Hi {{ first_name | default('there') }}, we open at nine.")
        .await;
    // The list of contacts lags; the page shows the text as the first of them read it.
    browser.sees("Hi Ana, we open at nine.").await;
    browser.sees("Draft kept in this browser").await;
    browser.reload().await;
    browser.sees("Hi Ana, we open at nine.").await;
    browser.fill("Name of the broadcast", "Opening hours").await;
    browser.press("Check").await;
    browser.sees("100, to confirm").await;
    // What was typed survives a refusal and a reload.
    browser.fill("Type the number of contacts", "99").await;
    browser.press("Send to 100 contacts").await;
    browser.sees("99").await;
    browser.fill("Type the number of contacts", "100").await;
    browser.press("Send to 100 contacts").await;

    browser.sees("Opening hours").await;
    browser.sees("completed").await;
    browser
        .sees_that("100 sent", |shown| {
            shown.contains("100\n=") || shown.contains("100 = the sum")
        })
        .await;
    assert_eq!(exported(&browser, "CSV").await.len(), 101);
    browser.press("Deliveries").await;
    browser.fill("Contact id", "6001").await;
    browser.press("Find").await;
    browser.sees("6001").await;
    browser.sees("sent").await;

    browser.press("Sandbox").await;
    browser.sees("Nobody got a broadcast twice.").await;
    browser.fill("Contact", "6001").await;
    browser.press("Open the inbox").await;
    browser.sees("Hi Ana, we open at nine.").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_pauses_a_broadcast_in_the_middle_and_resumes_it() {
    let up = UpProcess::start(&[], &[("PAGE_RATE_PER_SECOND", "4"), ("INLINE_LIMIT", "0")]);
    let ids = contacts(&up, 60).await;
    let browser = Browser::start().await;
    opened(&up, &browser, &ids).await;
    // The page changes without being loaded anew.
    browser
        .sees_that("some sent", |shown| !shown.contains("\n0 of 60"))
        .await;
    browser.press("Pause…").await;
    browser.sees("wait.").await;
    browser.press("Pause").await;
    browser.sees("paused").await;
    let sandbox = format!("{}/sandbox", up.url());
    let report = async || {
        let place = browser.place().await;
        up.call("GET", &format!("/v1{place}"), &Value::Null).await
    };
    while report().await["status"] != "paused" {
        sleep(Duration::from_millis(50)).await;
    }
    let sent = report().await["counters"]["sent"].as_u64().unwrap();
    assert!((1..60).contains(&sent), "{sent} were sent before the pause");

    browser.press("Resume…").await;
    browser.press("Resume").await;
    browser.sees("completed").await;

    assert_eq!(report().await["counters"]["sent"], 60);
    browser.open(&sandbox).await;
    browser.sees("Nobody got a broadcast twice.").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_sends_again_to_those_that_failed() {
    let up = UpProcess::start(&[], &[]);
    let ids = contacts(&up, 5).await;
    let browser = Browser::start().await;
    browser.open(&format!("{}/sandbox/faults", up.url())).await;
    browser.tick("Contacts have blocked the Page").await;
    browser.fill("Contact", "6002").await;
    browser.press("Switch on").await;
    browser.sees("all Pages · contact 6002").await;
    opened(&up, &browser, &ids).await;
    browser.sees("completed").await;
    browser.sees("551").await;
    let broadcast = browser.place().await;
    browser.open(&format!("{}/sandbox/faults", up.url())).await;
    browser.press("Switch off Contacts have blocked the Page").await;
    browser.sees("None: every message is accepted").await;

    browser.open(&format!("{}{broadcast}/retry", up.url())).await;
    browser.sees("1 contact is sent to again").await;
    browser.press("Send again to 1 contact").await;

    browser.sees_that("5 sent", |shown| shown.contains("5 of 5")).await;
    browser.sees("completed").await;
    browser.open(&format!("{}/sandbox", up.url())).await;
    browser.sees("Nobody got a broadcast twice.").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_from_a_file_are_shown_as_text_in_every_view() {
    const SCRIPT: &str = "<script>alert(1)</script>";
    const ARABIC: &str = "محمد الأمين";
    let up = UpProcess::start(&[], &[]);
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("contacts.csv");
    let rows = format!("contact_id,page_id,first_name\n6001,page-1,{SCRIPT}\n6002,page-1,{ARABIC}\n,page-1,nobody\n");
    std::fs::write(&file, rows).unwrap();
    let browser = Browser::start().await;
    browser.open(&format!("{}/import", up.url())).await;
    browser.attach("CSV", &file).await;
    browser.press("Import").await;
    browser
        .sees_that("2 stored and 1 refused", |shown| {
            shown.contains("contacts.csv") && shown.contains('2')
        })
        .await;
    until_listed(&up, "/v1/contacts?q=6002", "6002").await;

    for (id, name) in [("6001", SCRIPT), ("6002", ARABIC)] {
        browser.open(&format!("{}/contacts", up.url())).await;
        browser.fill("Name or id", id).await;
        browser.press("Search").await;
        browser.press(name).await;
        browser.sees("What is known").await;
        browser.sees(name).await;
        browser
            .open(&format!("{}/sandbox/inbox?page_id=page-1&contact_id={id}", up.url()))
            .await;
        browser.sees(&format!("Inbox of {name}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filter_is_in_the_address_and_times_are_those_of_the_viewer() {
    let up = UpProcess::start(&[], &[]);
    let ids = contacts(&up, 1).await;
    let tomorrow = Timestamp::now() + SignedDuration::from_hours(24);
    let message = json!({"text": "We open at nine."});
    let body = json!({"contact_ids": ids, "name": "Opening hours", "message": message, "scheduled_at": tomorrow});
    up.call("POST", "/v1/broadcasts", &body).await;
    until_listed(&up, "/v1/broadcasts", "Opening hours").await;
    let browser = Browser::start().await;
    browser.time_zone("Asia/Manila").await;
    browser.open(up.url()).await;
    let there = tomorrow.in_tz("Asia/Manila").unwrap().strftime("%I:%M %p").to_string();
    browser.sees(&there).await;

    browser.choose("State", "paused").await;
    browser.press("Filter").await;
    browser.sees("No broadcast matches.").await;
    browser.reload().await;
    browser.sees("No broadcast matches.").await;
    assert!(
        browser.place().await.contains("status=paused"),
        "{}",
        browser.place().await
    );
    browser.back().await;
    browser.sees("Opening hours").await;
}
