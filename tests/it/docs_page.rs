//! The pages below `/docs` in a browser, and the watch that it keeps over every page.

use super::fixture::browser::{Browser, Colours};
use super::fixture::up::UpProcess;

#[tokio::test]
async fn docs_page_lists_the_operations_in_light_and_dark_colours() {
    let up = UpProcess::start(&[], &[]);
    let browser = Browser::start().await;

    for colours in [Colours::Light, Colours::Dark] {
        browser.view(1_200, colours).await;
        browser.open(&format!("{}/docs", up.url())).await;
        browser.sees("List the deliveries of a broadcast").await;
    }
    browser.view(360, Colours::Light).await;
    browser.fits().await;
}

#[tokio::test]
#[should_panic(expected = "a page has logged errors")]
async fn violation_of_the_content_security_policy_fails_the_test() {
    let up = UpProcess::start(&[], &[]);
    let browser = Browser::start().await;

    browser.open(&format!("{}/docs", up.url())).await;
    browser
        .evaluate("document.body.setAttribute('style', 'color: red')")
        .await;
}
