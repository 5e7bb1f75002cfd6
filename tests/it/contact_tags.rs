//! Tags of many contacts at once: each contact is changed on top of what it has, whatever else changes at the moment.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures_util::future::join_all;
use serde_json::{Value, json};
use shared::app::App;
use shared::domain::ids::{ContactId, Pages};
use tower::ServiceExt;

use crate::callers::{PAGES_CLAIM, limited_to};
use crate::fixture::proxy::{self, ProxiedCall, no_answer};
use crate::fixture::{ApiResponse, Endpoints, PAGES, Services, TestStack};

const PATH: &str = "/v1/contacts/tags";

async fn change(stack: &TestStack, body: Value) -> ApiResponse {
    stack.call("POST", PATH, None, Some(&body)).await
}

/// Returns the answer to a change of all contacts.
fn counts(changed: u64, unchanged: u64, unknown: u64) -> Value {
    json!({"changed": changed, "unchanged": unchanged, "unknown": unknown, "too_many": 0, "next_cursor": null})
}

async fn import(stack: &TestStack, contacts: Value) {
    let answer = stack
        .call("PUT", "/v1/contacts", None, Some(&json!({ "contacts": contacts })))
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

async fn contact(stack: &TestStack, id: &str) -> Value {
    stack.call("GET", &format!("/v1/contacts/{id}"), None, None).await.body
}

async fn tags(stack: &TestStack, id: &str) -> Vec<String> {
    let tags = contact(stack, id).await["tags"].as_array().unwrap().clone();
    tags.iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

/// Starts a stack whose calls to the database `hook` answers in their place, if it does.
async fn start_with_hook<F>(hook: impl Fn(String, String) -> F + Clone + Send + Sync + 'static) -> TestStack
where
    F: Future<Output = bool> + Send + 'static,
{
    let services = Services::start().await;
    let answers = move |call: ProxiedCall| {
        let arrives = hook(call.name(), call.body().into_owned());
        async move {
            match arrives.await {
                true => call.forward().await,
                false => no_answer(),
            }
        }
    };
    let endpoints = Endpoints {
        dynamodb: proxy::start(&services.endpoints.dynamodb, answers).await,
        ..services.endpoints.clone()
    };
    TestStack::start_on(services, &endpoints, &[PAGES_CLAIM]).await
}

fn changes_tags(name: &str, body: &str) -> bool {
    name.ends_with("UpdateItem") && body.contains("SET tags = :tags")
}

#[tokio::test]
async fn tags_are_added_and_removed_and_the_others_stay() {
    let stack = TestStack::start().await;
    let contacts = json!([
        {"contact_id": "ana", "page_id": PAGES[0], "tags": ["old", "b", "vip"], "first_name": "Ana"},
        {"contact_id": "ben", "page_id": PAGES[1], "tags": ["vip", "a;b"]},
        {"contact_id": "eve", "page_id": PAGES[1], "opted_out": true},
    ]);
    import(&stack, contacts).await;
    let ana = contact(&stack, "ana").await;

    let body = json!({
        "add": ["vip", "a;b", " vip "], "remove": ["old", "none"], "contact_ids": ["ana", "ben", "eve", "ana", "nobody"],
    });
    let first = change(&stack, body.clone()).await;
    let again = change(&stack, body).await;

    assert_eq!(first.body, counts(2, 1, 1), "{first:?}");
    assert_eq!(again.body, counts(0, 3, 1));
    assert_eq!(tags(&stack, "ana").await, ["b", "vip", "a;b"]);
    assert_eq!(tags(&stack, "ben").await, ["vip", "a;b"]);
    assert_eq!(tags(&stack, "eve").await, ["vip", "a;b"]);
    let mut after = contact(&stack, "ana").await;
    after["tags"] = ana["tags"].clone();
    assert_eq!(after, ana);
    assert_eq!(contact(&stack, "eve").await["opted_out"], true);
    let removed = change(&stack, json!({"remove": ["vip", "a;b"], "contact_ids": ["ben", "eve"]})).await;
    assert_eq!(removed.body, counts(2, 0, 0));
    assert_eq!(tags(&stack, "ben").await, [] as [&str; 0]);
    let more = change(&stack, json!({"add": ["new"], "contact_ids": ["ben"]})).await;
    assert_eq!(more.body, counts(1, 0, 0));
}

#[tokio::test]
async fn change_of_tags_is_refused_with_every_fault() {
    let stack = TestStack::start().await;
    stack.import(PAGES[0], &["ana".to_owned()]).await;
    let many: Vec<_> = (0..1_001).map(|n| n.to_string()).collect();
    for (body, expected) in [
        (json!({}), &["/contact_ids", ""][..]),
        (json!({"contact_ids": ["ana"]}), &[""]),
        (json!({"add": [" "], "contact_ids": ["ana"]}), &[""]),
        (json!({"add": [], "remove": null, "contact_ids": ["ana"]}), &[""]),
        (
            json!({"add": "vip", "remove": [5], "contact_ids": "ana"}),
            &["/add", "/remove", "/contact_ids"],
        ),
        (
            json!({"add": ["a", "b"], "remove": ["b"], "contact_ids": ["ana"]}),
            &["/add", "/remove"],
        ),
        (
            json!({"add": ["a"], "contact_ids": ["ana", "a b", 5]}),
            &["/contact_ids/1", "/contact_ids/2"],
        ),
        (json!({"add": ["a"], "contact_ids": []}), &["/contact_ids"]),
        (json!({"add": ["a"], "contact_ids": many}), &["/contact_ids"]),
        (json!({"add": ["x".repeat(1_001)], "contact_ids": ["ana"]}), &["/add"]),
        (json!({"add": ["a"], "contact_ids": ["ana"], "tags": []}), &["/tags"]),
        (
            json!({"add": ["a"], "contact_ids": ["ana"], "limit": 5, "cursor": "x"}),
            &["/limit", "/cursor"],
        ),
        (
            json!({"add": ["a"], "contact_ids": ["ana"], "audience": {"everybody": true}}),
            &["/contact_ids"],
        ),
        (json!({"add": ["a"], "audience": {}}), &["/audience"]),
        (
            json!({"add": ["a"], "audience": {"name": "nobody"}}),
            &["/audience/name"],
        ),
        (
            json!({"add": ["a"], "audience": {"everybody": true}, "limit": 0, "cursor": 5}),
            &["/limit", "/cursor"],
        ),
        (
            json!({"add": ["a"], "audience": {"everybody": true}, "limit": 1_000_001}),
            &["/limit"],
        ),
        (
            json!({"add": ["a"], "audience": {"everybody": true}, "cursor": "x"}),
            &["/cursor"],
        ),
    ] {
        let answer = change(&stack, body.clone()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}: {answer:?}");
        let errors = answer.body["errors"].as_array().unwrap().iter();
        let fields: Vec<_> = errors.map(|error| error["field"].as_str().unwrap()).collect();
        assert_eq!(fields, expected, "{body}");
    }
    assert_eq!(tags(&stack, "ana").await, [] as [&str; 0]);
    let most = json!({"add": ["a"], "contact_ids": many[..1_000]});
    assert_eq!(change(&stack, most).await.body, counts(0, 0, 1_000));
}

#[tokio::test]
async fn contact_has_at_most_a_hundred_tags() {
    let stack = TestStack::start().await;
    let all: Vec<_> = (0..100).map(|n| format!("t{n}")).collect();
    import(
        &stack,
        json!([
            {"contact_id": "full", "page_id": PAGES[0], "tags": all},
            {"contact_id": "free", "page_id": PAGES[0], "tags": all[1..]},
        ]),
    )
    .await;

    let body = json!({"add": ["new"], "contact_ids": ["full", "free"]});
    let answer = change(&stack, body).await;
    let exchange = json!({"add": ["new"], "remove": ["t0"], "contact_ids": ["full"]});
    let exchanged = change(&stack, exchange).await;

    assert_eq!(
        answer.body,
        json!({"changed": 1, "unchanged": 0, "unknown": 0, "too_many": 1, "next_cursor": null})
    );
    assert_eq!(exchanged.body, counts(1, 0, 0));
    assert_eq!(tags(&stack, "full").await.len(), 100);
    assert_eq!(tags(&stack, "free").await.len(), 100);
}

/// Eight callers tag the same contacts at once, while an import, a webhook and a broadcast's mark change them, too.
#[tokio::test(flavor = "multi_thread")]
async fn no_change_is_lost_where_others_change_the_same_contacts() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(20).await;
    let now = stack.app.clock.now().as_millisecond();
    let events: Vec<_> = ids
        .iter()
        .map(|id| {
            json!({
                "sender": {"id": id}, "recipient": {"id": PAGES[0]}, "timestamp": now,
                "message": {"mid": "m", "text": "stop"},
            })
        })
        .collect();

    let tagging = join_all((0..8).map(|n| change(&stack, json!({"add": [format!("t{n}")], "contact_ids": ids}))));
    let naming = ids
        .iter()
        .map(|id| json!({"contact_id": id, "page_id": PAGES[0], "last_name": "Sá"}));
    let (answers, (), status) = tokio::join!(
        tagging,
        import(&stack, naming.collect()),
        stack.webhook(PAGES[0], &events)
    );

    assert_eq!(status, StatusCode::OK);
    for answer in answers {
        assert_eq!(answer.body, counts(20, 0, 0));
    }
    let all: BTreeSet<_> = (0..8).map(|n| format!("t{n}")).collect();
    for id in &ids {
        let contact = contact(&stack, id).await;
        assert_eq!(tags(&stack, id).await.into_iter().collect::<BTreeSet<_>>(), all);
        assert_eq!(
            (&contact["opted_out"], &contact["last_name"]),
            (&json!(true), &json!("Sá"))
        );
    }
}

/// A contact that is deleted between the read and the write is not created anew without a Page.
#[tokio::test]
async fn contact_deleted_meanwhile_stays_deleted() {
    let app = Arc::new(Mutex::new(None::<App>));
    let hook = {
        let app = Arc::clone(&app);
        move |name: String, body: String| {
            let app = app.lock().unwrap().clone().filter(|_| changes_tags(&name, &body));
            async move {
                if let Some(app) = app {
                    let ana = ContactId::parse("ana").unwrap();
                    app.store.contacts().delete_if_allowed(&ana, &Pages::All).await.unwrap();
                }
                true
            }
        }
    };
    let stack = start_with_hook(hook).await;
    import(
        &stack,
        json!([{"contact_id": "ana", "page_id": PAGES[0], "tags": ["a"]}]),
    )
    .await;
    *app.lock().unwrap() = Some(stack.another_app(stack.endpoints()));

    let answer = change(&stack, json!({"add": ["vip"], "contact_ids": ["ana"]})).await;

    assert_eq!(answer.body, counts(0, 0, 1));
    let shown = stack.call("GET", "/v1/contacts/ana", None, None).await;
    assert_eq!(shown.status, StatusCode::NOT_FOUND, "{shown:?}");
}

/// A contact that is deleted and created anew on another Page between the read and the write is another contact: a caller that
/// may not use that Page does not change it, and one that may changes it there.
#[tokio::test]
async fn contact_moved_meanwhile_is_changed_only_by_a_caller_of_its_new_page() {
    for (caller, expected) in [(Some(limited_to(PAGES[0])), counts(0, 0, 1)), (None, counts(1, 0, 0))] {
        let app = Arc::new(Mutex::new(None::<App>));
        let hook = {
            let app = Arc::clone(&app);
            move |name: String, body: String| {
                let app = if changes_tags(&name, &body) {
                    app.lock().unwrap().take()
                } else {
                    None
                };
                async move {
                    if let Some(app) = app {
                        let ana = ContactId::parse("ana").unwrap();
                        app.store.contacts().delete_if_allowed(&ana, &Pages::All).await.unwrap();
                        let contact = json!({"contacts": [{"contact_id": "ana", "page_id": PAGES[1], "tags": ["a"]}]});
                        let put = Request::put("/v1/contacts").header("content-type", "application/json");
                        let put = put.body(Body::from(contact.to_string())).unwrap();
                        let answer = send::router(Arc::new(app)).oneshot(put).await.unwrap();
                        assert_eq!(answer.status(), StatusCode::OK);
                    }
                    true
                }
            }
        };
        let stack = start_with_hook(hook).await;
        import(
            &stack,
            json!([{"contact_id": "ana", "page_id": PAGES[0], "tags": ["a"]}]),
        )
        .await;
        *app.lock().unwrap() = Some(stack.another_app(stack.endpoints()));

        let body = json!({"add": ["vip"], "contact_ids": ["ana"]});
        let caller = caller.unwrap_or(Value::Null);
        let answer = stack.call_as(&caller, ("POST", PATH), None, Some(&body)).await;

        assert_eq!(answer.body, expected);
        let expected = if expected["changed"] == 1 {
            vec!["a", "vip"]
        } else {
            vec!["a"]
        };
        assert_eq!(tags(&stack, "ana").await, expected);
        stack.let_reads_catch_up();
        let of_page = async |page: &str| {
            let path = format!("/v1/contacts?page_id={page}");
            stack.call("GET", &path, None, None).await.body["items"]
                .as_array()
                .unwrap()
                .len()
        };
        assert_eq!((of_page(PAGES[0]).await, of_page(PAGES[1]).await), (0, 1));
    }
}

/// The request ends in the middle, with writes whose answers are lost and others that were never made; it is repeated.
#[tokio::test]
async fn change_of_tags_that_ends_in_the_middle_is_repeated() {
    let (dies, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let hook = {
        let (dies, writes) = (Arc::clone(&dies), Arc::clone(&writes));
        move |name: String, body: String| {
            let is_lost = dies.load(Ordering::Relaxed)
                && changes_tags(&name, &body)
                && writes.fetch_add(1, Ordering::Relaxed) >= 30;
            async move { !is_lost }
        }
    };
    let stack = start_with_hook(hook).await;
    let ids = stack.import_contacts(120).await;
    let body = json!({"add": ["vip"], "contact_ids": ids});

    dies.store(true, Ordering::Relaxed);
    let died = change(&stack, body.clone()).await;
    dies.store(false, Ordering::Relaxed);
    let repeated = change(&stack, body).await;

    assert_eq!(died.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(repeated.status, StatusCode::OK);
    let number = |name: &str| repeated.body[name].as_u64().unwrap();
    assert_eq!(number("changed") + number("unchanged"), 120, "{repeated:?}");
    assert!(number("changed") > 0 && number("unchanged") >= 30, "{repeated:?}");
    for id in &ids {
        assert_eq!(tags(&stack, id).await, ["vip"], "{id}");
    }
}

#[tokio::test]
async fn audience_is_tagged_part_by_part() {
    let stack = TestStack::start().await;
    let of_page = |page: usize, n: usize| -> Vec<_> { (0..n).map(|n| format!("{page}-{n:04}")).collect() };
    for (page, n) in [(0, 2_500), (1, 10)] {
        for ids in of_page(page, n).chunks(1_000) {
            let contact = |id| json!({"contact_id": id, "page_id": PAGES[page], "tags": ["new"]});
            import(&stack, ids.iter().map(contact).collect()).await;
        }
    }
    let others = json!([
        {"contact_id": "other", "page_id": PAGES[0], "tags": ["old"]},
        {"contact_id": "out", "page_id": PAGES[0], "tags": ["new"], "opted_out": true},
    ]);
    import(&stack, others).await;
    stack.let_reads_catch_up();

    let mut body = json!({"add": ["vip"], "remove": ["new"], "audience": {"tags_any": ["new"]}, "limit": 800});
    let (mut changed, mut parts) = (0, 0);
    loop {
        let answer = change(&stack, body.clone()).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(answer.body["unchanged"], 0);
        changed += answer.body["changed"].as_u64().unwrap();
        parts += 1;
        // A part leaves the audience as it is tagged.
        stack.let_reads_catch_up();
        match answer.body["next_cursor"].as_str() {
            Some(next) => body["cursor"] = json!(next),
            None => break,
        }
    }
    assert_eq!((changed, parts), (2_510, 3));
    for (id, expected) in [
        ("0-0000", "vip"),
        ("0-2499", "vip"),
        ("1-0009", "vip"),
        ("other", "old"),
        ("out", "new"),
    ] {
        assert_eq!(tags(&stack, id).await, [expected], "{id}");
    }
    // A cursor is of one change and one audience.
    for (field, value) in [("add", json!(["other"])), ("audience", json!({"everybody": true}))] {
        let mut other = body.clone();
        other[field] = value;
        let answer = change(&stack, other).await;
        assert_eq!(answer.body["errors"][0]["field"], "/cursor", "{answer:?}");
    }
    let saved = json!({"page_id": PAGES[1], "tags_any": ["vip"]});
    let saved = stack.call("PUT", "/v1/audiences/vips", None, Some(&saved)).await;
    assert_eq!(saved.status, StatusCode::OK, "{saved:?}");
    let by_name = change(
        &stack,
        json!({"add": ["x"], "audience": {"name": "vips"}, "limit": 1_000_000}),
    )
    .await;
    assert_eq!(by_name.body, counts(10, 0, 0));
}

#[tokio::test]
async fn caller_tags_the_contacts_of_its_own_pages_alone() {
    let stack = TestStack::start_with(&[PAGES_CLAIM]).await;
    let contacts = json!([
        {"contact_id": "mine", "page_id": PAGES[0], "tags": ["a"]},
        {"contact_id": "theirs", "page_id": PAGES[1], "tags": ["a"]},
    ]);
    import(&stack, contacts).await;
    stack.let_reads_catch_up();
    let limited = limited_to(PAGES[0]);
    let change = async |body: Value| stack.call_as(&limited, ("POST", PATH), None, Some(&body)).await.body;

    let by_ids = change(json!({"add": ["x"], "contact_ids": ["mine", "theirs"]})).await;
    let everybody = change(json!({"add": ["y"], "audience": {"everybody": true}})).await;
    let page = change(json!({"add": ["z"], "audience": {"page_id": PAGES[1]}})).await;

    assert_eq!((by_ids, everybody), (counts(1, 0, 1), counts(1, 0, 0)));
    assert_eq!(page["errors"][0]["field"], "/audience/page_id");
    assert_eq!(tags(&stack, "mine").await, ["a", "x", "y"]);
    assert_eq!(tags(&stack, "theirs").await, ["a"]);
}

/// The path of the tags is no contact's; one with this id is found by its escaped path.
#[tokio::test]
async fn contact_may_be_called_tags() {
    const ESCAPED: &str = "/v1/contacts/%74ags";
    let stack = TestStack::start().await;
    stack.import(PAGES[0], &["tags".to_owned()]).await;

    let changed = change(&stack, json!({"add": ["vip"], "contact_ids": ["tags"]})).await;
    let shown = stack.call("GET", ESCAPED, None, None).await;
    let deleted = stack.call("DELETE", ESCAPED, None, None).await;

    assert_eq!(changed.body, counts(1, 0, 0));
    assert_eq!(
        (&shown.body["contact_id"], &shown.body["tags"]),
        (&json!("tags"), &json!(["vip"]))
    );
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    assert_eq!(
        stack.call("GET", PATH, None, None).await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
}
