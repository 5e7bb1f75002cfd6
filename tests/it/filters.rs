//! Lists: filters, cursors that belong to one list, and the number of calls that a part takes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use axum::http::StatusCode;
use local::clients;
use serde_json::{Value, json};

use crate::fixture::proxy::{self, ProxiedCall};
use crate::fixture::{Endpoints, PAGES, Services, TestStack, request};

/// Requests a broadcast with this name to these contacts; returns the time of the request.
async fn broadcast(stack: &TestStack, name: &str, ids: &[String]) -> String {
    let mut new = request(ids);
    new["name"] = json!(name);
    let answer = stack.post(&new).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    answer.body["created_at"].as_str().unwrap().to_owned()
}

/// Returns the names of the broadcasts that a list has, read by parts of this size, and the number of parts.
async fn names(stack: &TestStack, filter: &str, limit: usize) -> (Vec<String>, usize) {
    let (mut names, mut parts, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let path = format!("/v1/broadcasts?limit={limit}{filter}{cursor}");
        let answer = stack.call("GET", &path, None, None).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let items = answer.body["items"].as_array().unwrap().iter();
        names.extend(items.map(|item| item["name"].as_str().unwrap().to_owned()));
        parts += 1;
        let Some(next) = answer.body["next_cursor"].as_str() else {
            return (names, parts);
        };
        cursor = format!("&cursor={next}");
    }
}

/// Makes five broadcasts: `a` to `c` are completed, `d` and `e` are queued; `b`, `c` and `e` are of the second Page, too.
async fn five_broadcasts(stack: &TestStack) -> Vec<String> {
    let ids = stack.import_contacts(2).await;
    let of_page_2 = vec!["of-page-2".to_owned()];
    stack.import(PAGES[1], &of_page_2).await;
    let mut times = Vec::new();
    for (n, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        let contacts = match name {
            "a" | "d" => ids.clone(),
            "b" => of_page_2.clone(),
            _ => [&ids[..], &of_page_2].concat(),
        };
        times.push(broadcast(stack, name, &contacts).await);
        if n == 2 {
            stack.drain_queue().await;
        }
        stack.advance(Duration::from_secs(10));
    }
    times
}

#[tokio::test]
async fn broadcasts_are_filtered_by_status_page_and_time() {
    let stack = TestStack::start().await;
    let times = five_broadcasts(&stack).await;
    let after = |n: usize| format!("&created_after={}", times[n]);
    let page = format!("&page_id={}", PAGES[1]);
    for (filter, expected) in [
        (String::new(), &["e", "d", "c", "b", "a"][..]),
        ("&status=completed".to_owned(), &["c", "b", "a"]),
        ("&status=queued".to_owned(), &["e", "d"]),
        ("&status=halted".to_owned(), &[]),
        (page.clone(), &["e", "c", "b"]),
        ("&page_id=page-9".to_owned(), &[]),
        (after(1), &["e", "d", "c"]),
        (after(4), &[]),
        (format!("{page}{}", after(1)), &["e", "c"]),
        (format!("{page}&status=completed"), &["c", "b"]),
        (format!("{page}&status=completed{}", after(1)), &["c"]),
        ("&sort=-created_at".to_owned(), &["e", "d", "c", "b", "a"]),
        ("&sort=created_at".to_owned(), &["a", "b", "c", "d", "e"]),
        (format!("{page}&sort=created_at"), &["b", "c", "e"]),
        (format!("{page}&sort=created_at{}", after(1)), &["c", "e"]),
    ] {
        for limit in [1, 2, 3, 100] {
            let (names, _) = names(&stack, &filter, limit).await;
            assert_eq!(names, expected, "{filter}, {limit} at a time");
        }
    }
    stack.drain_queue().await;
}

#[tokio::test]
async fn wrong_filter_is_refused_and_named() {
    let stack = TestStack::start().await;
    for (query, fields) in [
        ("status=sent", &["status"][..]),
        ("status=", &["status"]),
        ("page_id=a%20b", &["page_id"]),
        ("created_after=yesterday", &["created_after"]),
        ("created_after=2026-01-01T00:00:00", &["created_after"]),
        ("status=queued&status=queued", &["status"]),
        ("sort=name", &["sort"]),
        (
            "limit=0&status=x&page=1&cursor=x",
            &["cursor", "limit", "page", "status"],
        ),
    ] {
        let answer = stack.call("GET", &format!("/v1/broadcasts?{query}"), None, None).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        let errors = answer.body["errors"].as_array().unwrap().iter();
        let named: BTreeSet<_> = errors.map(|fault| fault["field"].as_str().unwrap()).collect();
        assert_eq!(named, fields.iter().copied().collect(), "{query}");
    }
}

/// A cursor goes on with the list that gave it, and with no other.
#[tokio::test]
async fn cursor_of_another_list_or_a_changed_one_is_refused() {
    let stack = TestStack::start().await;
    five_broadcasts(&stack).await;
    stack.drain_queue().await;
    stack.let_reads_catch_up();
    let cursor = async |path: &str| {
        let answer = stack.call("GET", path, None, None).await;
        let next = answer.body["next_cursor"].as_str();
        next.unwrap_or_else(|| panic!("{path}: {answer:?}")).to_owned()
    };
    let newest = stack.call("GET", "/v1/broadcasts?limit=2", None, None).await.body;
    let id = |n: usize| newest["items"][n]["broadcast_id"].as_str().unwrap();
    let lists = [
        "/v1/broadcasts?limit=1".to_owned(),
        "/v1/broadcasts?limit=1&status=completed".to_owned(),
        format!("/v1/broadcasts?limit=1&page_id={}", PAGES[0]),
        format!("/v1/broadcasts?limit=1&page_id={}", PAGES[1]),
        format!("/v1/broadcasts/{}/deliveries?limit=1", id(0)),
        format!("/v1/broadcasts/{}/deliveries?limit=1&status=sent", id(0)),
        format!("/v1/broadcasts/{}/deliveries?limit=1", id(1)),
        "/v1/contacts/c00000/deliveries?limit=1".to_owned(),
        "/v1/contacts/c00001/deliveries?limit=1".to_owned(),
    ];
    for of in &lists {
        let cursor = cursor(of).await;
        for given_to in &lists {
            let answer = stack
                .call("GET", &format!("{given_to}&cursor={cursor}"), None, None)
                .await;
            match of == given_to {
                true => assert_eq!(answer.status, StatusCode::OK, "{of}: {answer:?}"),
                false => {
                    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{of} given to {given_to}");
                    assert_eq!(answer.body["errors"][0]["field"], "cursor");
                }
            }
        }
        for n in 0..cursor.len() {
            let mut changed = cursor.clone().into_bytes();
            changed[n] = if changed[n] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            let answer = stack.call("GET", &format!("{of}&cursor={changed}"), None, None).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{of}: {changed}");
        }
        let answer = stack
            .call("GET", &format!("{of}&cursor={}", &cursor[1..]), None, None)
            .await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    }
}

/// Starts a stack that records the operations of its calls to the database.
async fn recording_stack() -> (TestStack, Arc<Mutex<Vec<String>>>) {
    let services = Services::start().await;
    let calls = Arc::<Mutex<Vec<String>>>::default();
    let hook = {
        let calls = Arc::clone(&calls);
        move |call: ProxiedCall| {
            let name = call.name();
            calls.lock().unwrap().push(name.rsplit('.').next().unwrap().to_owned());
            call.forward()
        }
    };
    let endpoints = Endpoints {
        dynamodb: proxy::start(&services.endpoints.dynamodb, hook).await,
        ..services.endpoints.clone()
    };
    (TestStack::start_on(services, &endpoints, &[]).await, calls)
}

#[tokio::test]
async fn part_of_a_hundred_broadcasts_takes_one_query() {
    let (stack, calls) = recording_stack().await;
    let ids = stack.import_contacts(1).await;
    for n in 0..101 {
        broadcast(&stack, &n.to_string(), &ids).await;
    }
    stack.let_reads_catch_up();
    for filter in ["", "&status=queued", &format!("&page_id={}", PAGES[0])] {
        calls.lock().unwrap().clear();
        let path = format!("/v1/broadcasts?limit=100{filter}");
        let answer = stack.call("GET", &path, None, None).await;
        assert_eq!(answer.body["items"].as_array().unwrap().len(), 100);
        let made = calls.lock().unwrap().clone();
        assert_eq!(made, ["Query", "BatchGetItem", "BatchGetItem"], "{filter}");
    }
    stack.drain_queue().await;
}

/// Earlier versions did not store the Pages of a broadcast with it.
#[tokio::test]
async fn broadcast_of_an_earlier_version_is_listed_with_its_status() {
    let stack = TestStack::start().await;
    let times = five_broadcasts(&stack).await;
    let dynamodb = clients::dynamodb(&stack.endpoints().dynamodb);
    for item in stack.stored_items().await {
        if item.get("sk") == Some(&AttributeValue::S("broadcast".to_owned())) {
            let update = dynamodb.update_item().table_name(&stack.app.config.broadcasts_table);
            let update = update.key("pk", item["pk"].clone()).key("sk", item["sk"].clone());
            update.update_expression("REMOVE page_ids").send().await.unwrap();
        }
    }
    stack.let_reads_catch_up();
    let (all, _) = names(&stack, "", 2).await;
    let (completed, _) = names(&stack, "&status=completed", 2).await;
    assert_eq!((all.len(), completed.len(), times.len()), (5, 3, 5));
    stack.drain_queue().await;
}

/// A replica may have the broadcast before one of its jobs.
#[tokio::test]
async fn broadcast_is_never_listed_without_one_of_its_jobs() {
    let stack = TestStack::start().await;
    let mut ids = stack.import_contacts(1).await;
    let of_page_2 = vec!["of-page-2".to_owned()];
    stack.import(PAGES[1], &of_page_2).await;
    ids.extend(of_page_2);
    broadcast(&stack, "new", &ids).await;
    stack.let_reads_catch_up();
    let dynamodb = clients::dynamodb(&stack.endpoints().dynamodb);
    let items = stack.stored_items().await;
    let is_job = |item: &&_| is_job(item);
    let job = items.iter().find(is_job).unwrap();
    let table = &stack.app.config.broadcasts_table;
    let delete = dynamodb.delete_item().table_name(table);
    let delete = delete.key("pk", job["pk"].clone()).key("sk", job["sk"].clone());
    delete.send().await.unwrap();
    stack.let_reads_catch_up();
    // The job comes: reads that lag do not show it yet.
    dynamodb
        .put_item()
        .table_name(table)
        .set_item(Some(job.clone()))
        .send()
        .await
        .unwrap();

    let list = stack.call("GET", "/v1/broadcasts", None, None).await.body;

    assert_eq!(list["items"][0]["status"], "queued", "{list}");
    assert_eq!(list["items"][0]["counters"]["pending"], 2);
    stack.drain_queue().await;
}

fn is_job(item: &std::collections::HashMap<String, AttributeValue>) -> bool {
    let key = item.get("sk").and_then(|sk| sk.as_s().ok());
    key.is_some_and(|key| key.starts_with("job#"))
}

/// The value of a report that a list leaves out.
#[tokio::test]
async fn listed_broadcast_equals_its_report_without_jobs() {
    let stack = TestStack::start().await;
    five_broadcasts(&stack).await;
    stack.drain_queue().await;
    stack.let_reads_catch_up();
    let list = stack.call("GET", "/v1/broadcasts", None, None).await.body;
    for item in list["items"].as_array().unwrap() {
        let path = format!("/v1/broadcasts/{}", item["broadcast_id"].as_str().unwrap());
        let mut report: Value = stack.call("GET", &path, None, None).await.body;
        for of_report in ["message", "jobs", "reasons", "progress", "history", "stopped"] {
            report.as_object_mut().unwrap().remove(of_report);
        }
        assert_eq!(*item, report);
    }
}
