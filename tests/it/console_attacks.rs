//! The console in a browser against pages of other sites, and at the end of the stack.

use axum::response::{Html, IntoResponse as _};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::browser::Browser;
use crate::fixture::other_api;
use crate::fixture::up::UpProcess;

/// Starts another web site on this machine with a form for the console at this URL; returns its URL.
async fn other_site(console: &str) -> String {
    let page = format!(
        "<!doctype html><title>Prizes</title><form method=post action='{console}/sending'>
        <input name=csrf value=guessed><input name=state value=off><button>Win a prize</button></form>
        <a href='{console}/'>The console</a>"
    );
    other_api::start(move |_, _| Some(Html(page.clone()).into_response())).await
}

/// Two origins on one host count as the same site, so that the browser sends the console's cookie, which is `SameSite=Strict`.
#[tokio::test(flavor = "multi_thread")]
async fn page_of_another_origin_changes_and_reads_nothing() {
    let up = UpProcess::start(&[], &[]);
    let mut browser = Browser::start().await;
    browser.expect_error("403");
    browser.expect_error("CORS");
    browser.expect_error("Failed to load resource");
    browser.open(&format!("{}/sending", up.url())).await;
    browser.sees("Stop all sending?").await;
    let same_host = other_site(up.url()).await;

    for site in [same_host.clone(), same_host.replace("127.0.0.1", "localhost")] {
        browser.open(&site).await;
        browser.press("Win a prize").await;
        browser.sees("another").await;
        browser.open(&site).await;
        let url = up.url();
        let blind = format!("fetch('{url}/sending', {{method: 'POST', mode: 'no-cors', credentials: 'include',");
        let blind = format!("{blind} body: new URLSearchParams({{state: 'off'}})}}).then(answer => answer.type)");
        assert_eq!(browser.evaluate(&blind).await, "opaque");
        let read = format!("fetch('{url}/sending', {{credentials: 'include'}}).then(_ => 'read', _ => 'kept')");
        assert_eq!(browser.evaluate(&read).await, "kept");
    }

    let switch = up.call("GET", "/v1/sending", &Value::Null).await;
    assert_eq!(switch["all_pages"], "on");
}

#[tokio::test(flavor = "multi_thread")]
async fn link_of_another_site_keeps_the_session_of_open_pages() {
    let up = UpProcess::start(&[], &[]);
    let browser = Browser::start().await;
    let token = async || {
        browser.open(&format!("{}/sending", up.url())).await;
        browser.evaluate("document.querySelector('[name=csrf]').value").await
    };
    let before = token().await;
    let other_host = other_site(up.url()).await.replace("127.0.0.1", "localhost");

    browser.open(&other_host).await;
    browser.press("The console").await;
    browser.sees("Nothing has been sent yet.").await;

    assert_eq!(token().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn name_that_an_attacker_gave_this_machine_shows_nothing() {
    let up = UpProcess::start(&[], &[]);
    let mut browser = Browser::start().await;
    browser.expect_error("403");

    browser.open(&up.url().replace("127.0.0.1", "rebound.example")).await;

    browser.sees("The request must have one Host header").await;
    assert!(!browser.text().await.contains("Broadcasts"));
}

#[tokio::test(flavor = "multi_thread")]
async fn open_page_tells_that_the_stack_is_gone_and_goes_on_when_it_is_back() {
    let data = TempDir::new().unwrap();
    let data = ["--data", data.path().to_str().unwrap()];
    let up = UpProcess::start(&data, &[]);
    let (url, port) = (up.url().to_owned(), up.url().rsplit(':').next().unwrap().to_owned());
    let contact = json!({"contact_id": "6001", "page_id": "page-1"});
    up.call("PUT", "/v1/contacts", &json!({ "contacts": [contact] })).await;
    let scheduled = async |up: &UpProcess, name: &str| {
        let tomorrow = Timestamp::now() + SignedDuration::from_hours(24);
        let message = json!({"text": "We open at nine."});
        let body = json!({"contact_ids": ["6001"], "message": message, "name": name, "scheduled_at": tomorrow});
        let accepted = up.call("POST", "/v1/broadcasts", &body).await;
        assert_eq!(accepted["status"], "scheduled", "{accepted:#}");
        // The list lags.
        let list = async || up.call("GET", "/v1/broadcasts", &Value::Null).await.to_string();
        while !list().await.contains(name) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    scheduled(&up, "The first").await;
    let mut browser = Browser::start().await;
    browser.expect_error("net::ERR_");
    browser.expect_error("Failed to fetch");
    browser.open(&url).await;
    browser.sees("The first").await;

    up.kill();
    browser.sees("The connection is lost").await;
    browser.sees("The first").await;

    let up = UpProcess::start(&[data.as_slice(), &["--port", &port]].concat(), &[]);
    browser.sees_no_more("The connection is lost").await;
    scheduled(&up, "The second").await;
    browser.sees("The second").await;
}
