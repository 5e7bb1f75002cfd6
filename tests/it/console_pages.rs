//! The Pages in the console: what keeps them from sending, their switch, and the import of their contacts.

use serde_json::{Value, json};

use crate::fixture::console::Visitor;
use crate::fixture::up::UpProcess;

/// Changes something in the sandbox.
async fn sandbox(up: &UpProcess, method: &str, path: &str, body: &Value) {
    let url = format!("{}{path}", up.address("/sandbox/summary").trim_end_matches("/summary"));
    let call = reqwest::Client::new().request(method.parse().unwrap(), url);
    assert!(call.json(body).send().await.unwrap().status().is_success());
}

/// Stores a contact of each Page.
async fn store(up: &UpProcess, pages: &[&str]) {
    let contact = |page: &&str| json!({"contact_id": format!("of-{page}"), "page_id": page});
    let contacts: Vec<_> = pages.iter().map(contact).collect();
    up.call("PUT", "/v1/contacts", &json!({"contacts": contacts})).await;
}

#[tokio::test]
async fn pages_are_listed_with_what_keeps_them_from_sending() {
    let up = UpProcess::start(&[], &[]);
    let visitor = Visitor::open(up.url()).await;
    let empty = visitor.page("/pages").await;
    assert!(empty.has("No Page has contacts yet."), "{}", empty.html);
    store(&up, &["page-1", "page-2", "page-without-token"]).await;
    let off = json!({"state": "off", "reason": "wrong <text>", "page_id": "page-2"});
    up.call("PUT", "/v1/sending", &off).await;

    let list = visitor.sees("/pages", "page-without-token</a>").await;

    let rows: Vec<_> = list.html.split("<tr>").skip(2).collect();
    for (row, state) in rows.iter().zip(["ready", "switched off", "no access token"]) {
        assert!(row.contains(state), "{state}: {row}");
    }
    assert!(rows[0].contains("30/s") && rows[0].contains("never"), "{}", rows[0]);
    assert!(rows[1].contains("wrong &#60;text&#62;"), "{}", rows[1]);
    let opened = visitor.page("/pages?open=page-4").await;
    assert_eq!(
        (opened.status, opened.location.as_deref()),
        (303, Some("/pages/page-4"))
    );
    let refused = visitor.page("/pages?open=a+%22b").await;
    assert_eq!(refused.status, 422);
    assert!(refused.has("value=\"a &#34;b\""), "{}", refused.html);
    assert_eq!(visitor.page("/pages/a%20b").await.status, 404);
}

#[tokio::test]
async fn page_is_checked_by_a_request_of_its_own() {
    let up = UpProcess::start(&[], &[]);
    let visitor = Visitor::open(up.url()).await;
    sandbox(&up, "DELETE", "/tokens/page-1", &json!({})).await;

    let page = visitor.page("/pages/page-1").await;

    assert!(
        page.has("hx-get=\"/pages/page-1/checks?part=live\" hx-trigger=\"load\""),
        "{}",
        page.html
    );
    assert!(
        !page.has("Messenger does not take"),
        "Messenger is not asked for the page itself"
    );
    let checks = visitor.page("/pages/page-1/checks?part=live").await;
    assert!(
        checks.html.trim_start().starts_with("<div id=\"checks\""),
        "{}",
        checks.html
    );
    for shown in [
        "chip failed\">wrong",
        "Access token",
        "Give the Page a new access token.",
    ] {
        assert!(checks.has(shown), "{shown}: {}", checks.html);
    }
    let whole = visitor.page("/pages/page-2/checks").await;
    assert!(
        whole.has("<h1>Checks of page-2</h1>") && whole.has("chip completed\">ok"),
        "{}",
        whole.html
    );
}

#[tokio::test]
async fn page_is_switched_off_with_a_reason_and_on_again() {
    let up = UpProcess::start(&[], &[]);
    let visitor = Visitor::open(up.url()).await;
    let switch = async || up.call("GET", "/v1/sending?page_id=page-1", &Value::Null).await;
    let long = "é".repeat(201);
    let refused = visitor
        .submit("/pages/page-1/sending", &[("state", "off"), ("reason", &long)])
        .await;
    assert_eq!(refused.status, 422);
    assert!(refused.has(&format!("value=\"{long}\"")), "what was typed is kept");
    assert_eq!(switch().await["state"], "on");
    let misspelt = visitor.submit("/pages/page-7/sending", &[("state", "off")]).await;
    assert_eq!(misspelt.status, 422);
    assert!(
        misspelt.has("There is no access token of Page page-7"),
        "{}",
        misspelt.html
    );

    let off = visitor
        .submit(
            "/pages/page-1/sending",
            &[("state", "off"), ("reason", "under <review>")],
        )
        .await;

    assert_eq!((off.status, off.location.as_deref()), (303, Some("/pages/page-1")));
    let shown = switch().await;
    assert_eq!((&shown["state"], &shown["all_pages"]), (&json!("off"), &json!("on")));
    let page = visitor.page("/pages/page-1").await;
    assert!(
        page.has("Sending is switched off: <bdi>under &#60;review&#62;</bdi>"),
        "{}",
        page.html
    );
    assert!(!page.has("Sending is stopped."), "the other Pages send");
    visitor.submit("/pages/page-1/sending", &[("state", "on")]).await;
    assert_eq!(switch().await["state"], "on");
    let page = visitor.page("/pages/page-1").await;
    assert!(
        page.has("Sending is switched on") && page.has("Switched off"),
        "{}",
        page.html
    );
}

#[tokio::test]
async fn import_of_a_page_is_watched_cancelled_and_explained() {
    let up = UpProcess::start(&[], &[]);
    let visitor = Visitor::open(up.url()).await;
    sandbox(&up, "PUT", "/people/page-1", &json!({"count": 250})).await;
    sandbox(&up, "PUT", "/people/page-2", &json!({"count": 100_000})).await;

    let begun = visitor.submit("/pages/page-1/import", &[]).await;
    assert_eq!((begun.status, begun.location.as_deref()), (303, Some("/pages/page-1")));
    let done = visitor.sees("/pages/page-1?part=live", ">completed</span>").await;
    assert!(done.has("<dd>250</dd>") && done.has("Import again"), "{}", done.html);
    assert!(!done.has("hx-get"), "nothing changes any more");
    assert!(
        done.html
            .trim_start()
            .starts_with("<section class=\"panel\" id=\"live\""),
        "{}",
        done.html
    );

    visitor.submit("/pages/page-2/import", &[]).await;
    let running = visitor.page("/pages/page-2").await;
    assert!(
        running.has("hx-get=\"/pages/page-2?part=live\" hx-trigger=\"every 2s\""),
        "{}",
        running.html
    );
    let cancelled = visitor.submit("/pages/page-2/import/cancel", &[]).await;
    assert_eq!(cancelled.status, 303);
    let ended = visitor.sees("/pages/page-2?part=live", ">cancelled</span>").await;
    assert!(ended.has("Begin again") && !ended.has("hx-get"), "{}", ended.html);

    let over = visitor.submit("/pages/page-1/import/cancel", &[]).await;
    assert_eq!(over.status, 422);
    assert!(over.has("Nothing is left to cancel"), "{}", over.html);
    sandbox(&up, "DELETE", "/tokens/page-3", &json!({})).await;
    let refused = visitor.submit("/pages/page-3/import", &[]).await;
    assert_eq!(refused.status, 422);
    assert!(
        refused.has("Messenger refuses to list the conversations of Page page-3"),
        "{}",
        refused.html
    );
}
