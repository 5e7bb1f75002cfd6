//! The view of one broadcast, and the list.

use std::time::Duration;

use local::sandbox::{Answer, Fault, GraphError};
use serde_json::json;

use crate::fixture::console::{Page, Visitor};
use crate::fixture::{PAGES, TestStack, request};

/// A name that would run if it were not escaped, and one that is written from the right.
const NAME: &str = "<script>alert(1)</script> & \"مرحبا\"";
/// The same, as it is written in HTML.
const ESCAPED: &str = "&#60;script&#62;alert(1)&#60;/script&#62; &#38; &#34;مرحبا&#34;";

#[tokio::test]
async fn outcome_adds_up_and_leads_to_the_deliveries() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(6).await;
    let gone = Fault::answering(GraphError::new(551, "This person isn't available right now."));
    stack.sandbox.add_fault(gone.to_contacts([&ids[1], &ids[2]]));
    let lost = Fault::answering(Answer::Reset);
    stack.sandbox.add_fault(lost.to_contacts([&ids[3]]));
    let asked = [&ids[..], &ids[..2], &["stranger".to_owned()]].concat();
    let id = stack.broadcast(&asked).await;
    stack.drain_queue().await;
    stack.let_reads_catch_up();
    let visitor = Visitor::of(&stack).await;
    let path = format!("/broadcasts/{id}");

    let page = visitor.page(&path).await;

    assert_eq!(page.status, 200);
    for text in [
        "3 sent, 2 failed, 1 in doubt",
        &format!("href=\"{path}/deliveries?status=failed\" aria-label=\"2 failed: list them\""),
        &format!("href=\"{path}/deliveries?status=failed&#38;reason=551\""),
        "Cannot be reached",
        "Connection lost",
        "One send is in doubt",
        "9 ids, 2 repeated, 1 unknown, 6 accepted",
        "stranger",
        "Repeated in the request",
        &format!("href=\"{path}/deliveries?page_id={}\">3 of 6</a>", PAGES[0]),
    ] {
        assert!(page.has(text), "{text}: {}", page.html);
    }
    // Numbers that add up: the links of the page lead to as many deliveries.
    for (filter, rows) in [
        ("status=sent", 3),
        ("status=failed&reason=551", 2),
        ("status=in_doubt", 1),
    ] {
        let list = visitor.page(&format!("{path}/deliveries?{filter}")).await;
        assert_eq!(list.html.matches("<tr><td>").count(), rows, "{filter}: {}", list.html);
    }
    let lookup = visitor.page(&format!("{path}/lookup")).await;
    assert!(lookup.has("The next lookup is"), "{}", lookup.html);
}

#[tokio::test]
async fn name_is_shown_as_it_is_written() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let mut body = request(&ids);
    body["name"] = json!(NAME);
    body["metadata"] = json!({"<b>owner</b>": NAME});
    body["message"] = json!({"text": "<b>owner</b> of {{ first_name | default('a shop') }}"});
    body["scheduled_at"] = json!((stack.app.clock.now() + Duration::from_secs(7_200)).to_string());
    let id = stack.post(&body).await.broadcast_id();
    stack.let_reads_catch_up();
    let visitor = Visitor::of(&stack).await;

    let views = [
        "",
        "?part=live",
        "/pause",
        "/cancel",
        "/change",
        "/retry",
        "/deliveries",
        "/deliveries/%3Cscript%3E",
    ];
    for view in views
        .map(|view| format!("/broadcasts/{id}{view}"))
        .iter()
        .map(String::as_str)
        .chain(["/"])
    {
        let page = visitor.page(view).await;
        assert!(page.has(ESCAPED), "{view}: {}", page.html);
        for raw in ["<script>", "<b>owner"] {
            assert!(!page.has(raw), "{view}: {}", page.html);
        }
    }
    let page = visitor.page(&format!("/broadcasts/{id}")).await;
    let text = "&#60;b&#62;owner&#60;/b&#62; of {{ first_name | default(&#39;a shop&#39;) }}";
    assert!(page.has(text), "{}", page.html);
}

#[tokio::test]
async fn page_asks_again_only_while_something_may_change() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let id = stack.broadcast(&ids).await;
    stack.let_reads_catch_up();
    let visitor = Visitor::of(&stack).await;
    let path = format!("/broadcasts/{id}");
    let part = format!("{path}?part=live");
    assert!(
        visitor
            .page(&path)
            .await
            .has(&format!("hx-get=\"{part}\" hx-trigger=\"every 2s\""))
    );

    let first = visitor.get(&part).send().await.unwrap();
    let tag = first.headers()["etag"].clone();
    let html = Page::read(first).await.html;
    assert!(html.trim_start().starts_with("<div id=\"live\""), "{html}");
    let ask = || visitor.get(&part).header("if-none-match", tag.clone());
    let same = ask().send().await.unwrap();
    assert_eq!(
        (same.status().as_u16(), same.headers()["etag"].clone()),
        (304, tag.clone())
    );
    assert_eq!(same.text().await.unwrap(), "");
    stack.drain_queue().await;
    stack.let_reads_catch_up();
    let changed = Page::read(ask().send().await.unwrap()).await;

    assert_eq!(changed.status, 200);
    assert!(
        changed.has("completed") && !changed.has("hx-trigger"),
        "{}",
        changed.html
    );
    assert!(
        !visitor.page(&path).await.has("hx-trigger"),
        "an ended broadcast is asked for"
    );
    assert!(
        !visitor.page("/").await.has("hx-trigger"),
        "a list of ended broadcasts is asked for"
    );
}

#[tokio::test]
async fn page_tells_why_a_job_does_not_go_on_and_what_to_do() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    stack.sandbox.revoke_token(PAGES[0]);
    let halted = stack.broadcast(&ids).await;
    stack.drain_queue().await;
    let off = json!({"state": "off", "reason": "wrong <price>", "page_id": PAGES[0]});
    assert!(
        stack
            .call("PUT", "/v1/sending", None, Some(&off))
            .await
            .status
            .is_success()
    );
    stack.let_reads_catch_up();
    let stopped = stack.another_broadcast(&ids).await;
    let visitor = Visitor::of(&stack).await;

    let page = visitor.page(&format!("/broadcasts/{halted}")).await;
    for text in [
        "halted",
        "its token is refused by Messenger",
        "replace the Page&#39;s token, then resume",
        "Resume…",
    ] {
        assert!(page.has(text), "{text}: {}", page.html);
    }
    let page = visitor.page(&format!("/broadcasts/{stopped}")).await;
    for text in [
        "Sending is stopped on page-1",
        "wrong &#60;price&#62;",
        "sending is stopped</bdi>",
    ] {
        assert!(page.has(text), "{text}: {}", page.html);
    }
}

#[tokio::test]
async fn list_names_the_page_or_counts_several() {
    let stack = TestStack::start().await;
    let (first, second) = (["a".to_owned()], ["b".to_owned()]);
    stack.import(PAGES[0], &first).await;
    stack.import(PAGES[1], &second).await;
    stack.broadcast(&first).await;
    let both = stack.broadcast(&[first, second].concat()).await;
    stack.let_reads_catch_up();
    let visitor = Visitor::of(&stack).await;

    let list = visitor.page("/").await;

    assert!(list.has("<small>page-1 · "), "{}", list.html);
    assert!(list.has("<small>2 Pages · "), "{}", list.html);
    assert_eq!(stack.report(&both).await["page_ids"], json!([PAGES[0], PAGES[1]]));
}

#[tokio::test]
async fn broadcast_that_is_not_there_has_a_page_that_says_so() {
    let stack = TestStack::start().await;
    let visitor = Visitor::of(&stack).await;

    let unknown = "019ac2f07d3e7c51a0e0b5c4d3e2f1a0";
    for path in [
        "/broadcasts/x".to_owned(),
        format!("/broadcasts/{unknown}"),
        format!("/broadcasts/{unknown}?part=live"),
        format!("/broadcasts/{unknown}/pause"),
        format!("/broadcasts/{unknown}/retry"),
        format!("/broadcasts/{unknown}/change"),
        format!("/broadcasts/{unknown}/deliveries"),
        format!("/broadcasts/{unknown}/deliveries.csv"),
        format!("/broadcasts/{unknown}/deliveries/6001"),
    ] {
        let page = visitor.page(&path).await;
        assert_eq!(page.status, 404, "{path}");
        assert!(page.has("There is no such broadcast"), "{path}: {}", page.html);
    }
}
