//! The deliveries of a broadcast in the console: the list, one contact, and the file.

use axum::response::IntoResponse as _;
use local::sandbox::{Answer, Fault, GraphError};
use serde_json::json;
use shared::domain::ids::BroadcastId;

use crate::fixture::console::{Page, Visitor};
use crate::fixture::{PAGES, TestStack, other_api};

const BROADCAST: &str = "019ac2f07d3e7c51a0e0b5c4d3e2f1a0";

/// Completes a broadcast to sixty contacts of one Page, of which three failed, and to one of another.
async fn sent(stack: &TestStack) -> (BroadcastId, Vec<String>) {
    let mut ids = stack.import_contacts(60).await;
    let gone = Fault::answering(GraphError::new(551, "This person isn't available right now."));
    stack.sandbox.add_fault(gone.to_contacts([&ids[1], &ids[31], &ids[59]]));
    ids.push("else/where?a=b#c".to_owned());
    stack.import(PAGES[1], &ids[60..]).await;
    let id = stack.broadcast(&ids).await;
    stack.finish(&id).await;
    (id, ids)
}

fn rows(page: &Page) -> usize {
    page.html.matches("<tr><td>").count()
}

#[tokio::test]
async fn deliveries_are_shown_in_parts_and_by_filters_of_the_url() {
    let stack = TestStack::start().await;
    let (id, _) = sent(&stack).await;
    let visitor = Visitor::of(&stack).await;
    let path = format!("/broadcasts/{id}/deliveries");

    let first = visitor.page(&path).await;
    assert_eq!(rows(&first), 50);
    let more = first
        .html
        .split("class=\"button\" href=\"")
        .find(|rest| rest.contains("More →"));
    let more = more
        .and_then(|rest| rest.split('"').next())
        .unwrap()
        .replace("&#38;", "&");
    let second = visitor.page(&more).await;
    assert_eq!(rows(&second), 11);
    assert!(!second.has("More →"), "{}", second.html);
    for (filter, expected) in [
        ("status=failed", 3),
        ("status=failed&reason=551", 3),
        ("reason=551&page_id=page-2", 0),
        ("page_id=page-2", 1),
        ("status=in_doubt", 0),
    ] {
        let page = visitor.page(&format!("{path}?{filter}")).await;
        assert_eq!((page.status, rows(&page)), (200, expected), "{filter}: {}", page.html);
        assert!(page.has("selected"), "{filter}");
        assert!(
            page.has(&format!("{path}.csv?{}", filter.replace('&', "&#38;"))),
            "{filter}: {}",
            page.html
        );
        assert_eq!(page.has("No delivery matches."), expected == 0, "{filter}");
    }
    for (filter, status, words) in [
        ("reason=nonsense", 422, "must be a code of Messenger"),
        ("cursor=nonsense", 422, "cursor"),
        ("status=nonsense", 400, "nonsense is no state of a delivery"),
        ("page_id=%20%21", 400, "The Page must be 1 to 64 characters"),
    ] {
        let page = visitor.page(&format!("{path}?{filter}")).await;
        assert_eq!(page.status, status, "{filter}");
        assert!(page.has(words), "{filter}: {}", page.html);
    }
}

#[tokio::test]
async fn one_contact_is_found_by_its_id() {
    let stack = TestStack::start().await;
    let (id, ids) = sent(&stack).await;
    let visitor = Visitor::of(&stack).await;
    let path = format!("/broadcasts/{id}/deliveries");

    let found = visitor
        .page(&format!("{path}?contact_id=+else%2Fwhere%3Fa%3Db%23c+"))
        .await;
    let there = format!("{path}/else%2Fwhere%3Fa%3Db%23c");
    assert_eq!((found.status, found.location.as_deref()), (303, Some(there.as_str())));
    let page = visitor.page(&there).await;
    assert_eq!(page.status, 200);
    assert!(
        page.has("<h1><bdi>else/where?a=b#c</bdi></h1>") && page.has("Messenger has accepted the message"),
        "{}",
        page.html
    );
    let failed = visitor.page(&format!("{path}/{}", ids[31])).await;
    for text in [
        "Recorded as failed",
        "Cannot be reached",
        "it may have blocked the Page",
    ] {
        assert!(failed.has(text), "{text}: {}", failed.html);
    }
    let nobody = visitor.page(&format!("{path}/nobody")).await;
    assert_eq!(nobody.status, 404);
    assert!(
        nobody.has("There is no delivery to this contact.") && nobody.has("<bdi>nobody</bdi>"),
        "{}",
        nobody.html
    );
}

#[tokio::test]
async fn evidence_is_told_in_words() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    stack
        .sandbox
        .add_fault(Fault::answering(Answer::Reset).to_contacts([&ids[0]]));
    let limited = Fault::answering(GraphError::new(613, "too fast"));
    stack.sandbox.add_fault(limited.to_contacts([&ids[1]]));
    let id = stack.broadcast(&ids).await;
    stack.drain_queue().await;
    let visitor = Visitor::of(&stack).await;
    let page = async |contact: &str| visitor.page(&format!("/broadcasts/{id}/deliveries/{contact}")).await;

    let in_doubt = page(&ids[0]).await;
    assert!(
        in_doubt.has("may or may not have accepted") && in_doubt.has("Messenger is asked whether"),
        "{}",
        in_doubt.html
    );
    let waiting = page(&ids[1]).await;
    assert!(
        waiting.has("Nothing was sent, and it is known") && waiting.has("The next attempt"),
        "{}",
        waiting.html
    );
    stack.tick_at_both_lookups().await;
    let looked_up = page(&ids[0]).await;
    assert!(looked_up.has("No lookup is left."), "{}", looked_up.html);
    stack.echo(&id, &ids[0], 1, "m_late").await;
    let settled = page(&ids[0]).await;
    assert!(
        settled.has("Messenger has accepted the message") && settled.has("m_late"),
        "{}",
        settled.html
    );
    stack.skip_promise_check();
}

#[tokio::test]
async fn file_has_the_deliveries_of_the_filters_under_a_name() {
    let stack = TestStack::start().await;
    let (id, ids) = sent(&stack).await;
    let visitor = Visitor::of(&stack).await;
    let path = format!("/broadcasts/{id}/deliveries.csv");

    let answer = visitor.get(&path).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let name = answer.headers()["content-disposition"].to_str().unwrap().to_owned();
    assert_eq!(name, format!("attachment; filename=\"deliveries-{id}.csv\""));
    assert_eq!(answer.text().await.unwrap().lines().count(), 1 + ids.len());
    let failed = visitor.page(&format!("{path}?status=failed&reason=551")).await.html;
    let contacts: Vec<_> = failed
        .lines()
        .skip(1)
        .map(|row| row.split(',').next().unwrap())
        .collect();
    assert_eq!(contacts, [&ids[1], &ids[31], &ids[59]]);
    assert_eq!(visitor.page(&format!("{path}?reason=nonsense")).await.status, 400);
}

/// Starts an API that has three parts of a file, the last of which may fail; returns a visitor of the console over it.
async fn of_three_parts(last_fails: bool) -> Visitor {
    const HEADER: &str = "contact_id,page_id\r\n";
    let sending = json!({
        "state": "on", "reason": null, "changed_by": null, "changed_at": null, "page_id": null, "all_pages": "on", "history": [],
    });
    let api = other_api::start(move |head, _| {
        let query = head.uri.query().unwrap_or_default();
        let part = |next: &str, rows: &str| {
            let headers = [("content-type", "text/csv"), ("x-next-cursor", next)];
            let mut answer = (headers, format!("{HEADER}{rows}")).into_response();
            if next.is_empty() {
                answer.headers_mut().remove("x-next-cursor");
            }
            answer
        };
        let is_csv = head.uri.path() == format!("/v1/broadcasts/{BROADCAST}/deliveries");
        Some(
            match (is_csv, query.contains("cursor=two"), query.contains("cursor=three")) {
                (false, ..) => other_api::json(200, &sending),
                (_, true, _) => part("three", "\"b\n2\",page-1\r\n"),
                (_, _, true) if last_fails => other_api::json(
                    500,
                    &json!({"type": "about:blank", "title": "", "status": 500, "detail": "broken"}),
                ),
                (_, _, true) => part("", "c,page-1\r\n"),
                _ => part("two", "a,page-1\r\n"),
            },
        )
    });
    Visitor::over(&api.await).await
}

#[tokio::test]
async fn file_is_one_of_all_parts_with_one_header() {
    let visitor = of_three_parts(false).await;

    let file = visitor.page(&format!("/broadcasts/{BROADCAST}/deliveries.csv")).await;

    assert_eq!(
        file.html,
        "contact_id,page_id\r\na,page-1\r\n\"b\n2\",page-1\r\nc,page-1\r\n"
    );
}

#[tokio::test]
async fn file_that_cannot_be_read_to_its_end_does_not_look_whole() {
    let visitor = of_three_parts(true).await;

    let answer = visitor
        .get(&format!("/broadcasts/{BROADCAST}/deliveries.csv"))
        .send()
        .await
        .unwrap();

    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.is_err(), "the answer ends as if it were whole");
}
