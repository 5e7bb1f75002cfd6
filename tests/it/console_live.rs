//! The view of a broadcast in a browser: what follows the broadcast, and the choice of a form, without a reload.

use std::time::Duration;

use local::sandbox::{Answer, Fault, GraphError};
use serde_json::json;

use crate::fixture::browser::{Browser, Colours};
use crate::fixture::console::Visitor;
use crate::fixture::{PAGES, TestStack, request};

/// Opens each view wide and narrow, in light and dark colours: everybody can use it, and nothing lies beyond its edge.
async fn look_at(browser: &Browser, visitor: &Visitor, views: &[String]) {
    for view in views {
        for (width, colours) in [(1_280, Colours::Light), (360, Colours::Dark)] {
            browser.view(width, colours).await;
            browser.open(&format!("{}{view}", visitor.url())).await;
            browser.fits().await;
            browser.is_accessible().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn page_follows_the_broadcast_to_its_end_and_then_is_quiet() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(120).await;
    stack
        .sandbox
        .add_fault(Fault::answering(Answer::Reset).to_contacts([&ids[3]]));
    let id = stack.broadcast(&ids).await;
    stack.let_reads_catch_up();
    let visitor = Visitor::of(&stack).await;
    let browser = Browser::start().await;
    browser.open(&format!("{}/broadcasts/{id}", visitor.url())).await;
    browser.sees("Nothing is sent yet.").await;
    assert_eq!(browser.evaluate("document.querySelectorAll('canvas').length").await, 0);

    stack.drain_queue().await;
    stack.let_reads_catch_up();

    browser.sees("completed").await;
    browser.sees("One send is in doubt").await;
    browser.sees("The next lookup is").await;
    let drawn =
        "(() => { const all = document.querySelectorAll('#chart canvas'); return [all.length, all[0].width > 0]; })()";
    assert_eq!(browser.evaluate(drawn).await, json!([1, true]));
    // It waits for evidence about the delivery in doubt, and then for nothing.
    assert_eq!(
        browser
            .evaluate("document.getElementById('live').hasAttribute('hx-get')")
            .await,
        true
    );
    stack.echo(&id, &ids[3], 1, "m_late").await;
    stack.let_reads_catch_up();
    browser.sees_no_more("in doubt: Messenger").await;
    assert_eq!(
        browser
            .evaluate("document.getElementById('live').hasAttribute('hx-get')")
            .await,
        false
    );
    assert_eq!(browser.evaluate(drawn).await, json!([1, true]));
    stack.skip_promise_check();
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_a_retry_follow_the_choice() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(5).await;
    let gone = Fault::answering(GraphError::new(551, "This person isn't available right now."));
    stack.sandbox.add_fault(gone.to_contacts([&ids[1], &ids[2]]));
    stack
        .sandbox
        .add_fault(Fault::answering(Answer::Reset).to_contacts([&ids[3]]));
    let id = stack.broadcast(&ids).await;
    stack.drain_queue().await;
    stack.sandbox.clear_faults();
    let visitor = Visitor::of(&stack).await;
    let browser = Browser::start().await;
    browser.open(&format!("{}/broadcasts/{id}", visitor.url())).await;
    browser.press("Send again…").await;
    browser.sees("2 contacts are sent to again.").await;

    browser.tick("in doubt").await;
    browser.sees("3 contacts are sent to again.").await;
    browser.fill("Type 1 to confirm that", "1").await;
    browser.press("Send again to 3 contacts").await;

    browser.sees("Sent again: 3 contacts").await;
    assert_eq!(stack.report(&id).await["history"][0]["details"], "failed, in_doubt");
    stack.finish(&id).await;
    assert_eq!(stack.report(&id).await["counters"]["sent"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn views_of_a_broadcast_suit_every_viewer() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(60).await;
    let other = "x".repeat(100);
    stack.import(PAGES[1], std::slice::from_ref(&other)).await;
    stack
        .sandbox
        .add_fault(Fault::answering(Answer::Reset).to_contacts([&ids[3]]));
    stack.sandbox.revoke_token(PAGES[1]);
    let halted = stack
        .broadcast(&[&ids[..], std::slice::from_ref(&other)].concat())
        .await;
    stack.drain_queue().await;
    let mut body = request(&ids);
    body["name"] = json!("مرحبا ".repeat(30));
    body["metadata"] = json!({"k".repeat(40): "v".repeat(500)});
    body["scheduled_at"] = json!((stack.app.clock.now() + Duration::from_secs(7_200)).to_string());
    let later = stack.post(&body).await.broadcast_id();
    stack.let_reads_catch_up();
    let visitor = Visitor::of(&stack).await;
    let browser = Browser::start().await;

    let views = [
        "/".to_owned(),
        format!("/broadcasts/{halted}"),
        format!("/broadcasts/{halted}/resume"),
        format!(
            "/broadcasts/{halted}/retry?chosen=1&status=in_doubt&page_id={}",
            PAGES[0]
        ),
        format!("/broadcasts/{halted}/deliveries"),
        format!("/broadcasts/{halted}/deliveries/{}", ids[3]),
        format!("/broadcasts/{later}"),
        format!("/broadcasts/{later}/change"),
        format!("/broadcasts/{later}/deliveries"),
    ];
    look_at(&browser, &visitor, &views).await;
    stack.skip_promise_check();
}
