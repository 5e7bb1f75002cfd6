//! Reports: the list of broadcasts, the list of deliveries, and both as CSV.

use std::collections::BTreeSet;
use std::slice;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use local::sandbox::{Answer, Fault};
use serde_json::{Value, json};
use shared::domain::ids::BroadcastId;

use crate::fixture::proxy::Reply;
use crate::fixture::{PAGES, TestStack, request};

const COLUMNS: [&str; 8] = [
    "contact_id",
    "page_id",
    "status",
    "message_id",
    "reason",
    "attempts",
    "updated_at",
    "code",
];

/// Returns the rows of a CSV answer.
fn rows(answer: &Response<Bytes>) -> Vec<Vec<String>> {
    assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
    assert_eq!(answer.headers()["content-type"], "text/csv; charset=utf-8");
    let mut reader = csv::Reader::from_reader(&answer.body()[..]);
    assert_eq!(reader.headers().unwrap(), &COLUMNS[..]);
    let rows = reader.records();
    rows.map(|row| row.unwrap().iter().map(str::to_owned).collect())
        .collect()
}

/// Returns all deliveries of a broadcast, read as CSV in answers of at most `limit` rows.
async fn export(stack: &TestStack, id: &BroadcastId, limit: usize) -> Vec<Vec<String>> {
    let (mut exported, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/broadcasts/{id}/deliveries?limit={limit}{cursor}");
        let answer = stack.get_csv(&path).await;
        let rows = rows(&answer);
        assert!(rows.len() <= limit);
        exported.extend(rows);
        let Some(next) = answer.headers().get("x-next-cursor") else {
            return exported;
        };
        cursor = format!("&cursor={}", next.to_str().unwrap());
    }
}

/// Returns all broadcasts, listed in answers of at most `limit` items.
async fn list(stack: &TestStack, limit: usize) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/broadcasts?limit={limit}{cursor}");
        let mut answer = stack.call("GET", &path, None, None).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let part = answer.body["items"].as_array_mut().unwrap();
        assert!(part.len() <= limit);
        items.append(part);
        let Some(next) = answer.body["next_cursor"].as_str() else {
            return items;
        };
        cursor = format!("&cursor={next}");
    }
}

#[tokio::test]
async fn broadcasts_are_listed_newest_first_without_gap_or_repeat() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let first = stack.app.clock.now();
    let mut expected = Vec::new();
    for n in 0..3 {
        let received = first + SignedDuration::from_millis(n / 2);
        let post = async |m: i64| {
            let mut body = request(&ids);
            body["message"]["text"] = json!(format!("Nr {n} {m}"));
            stack.post_at(received, &body).await.broadcast_id()
        };
        let ids = tokio::join!(post(0), post(1), post(2), post(3));
        expected.extend([ids.0, ids.1, ids.2, ids.3]);
    }

    stack.let_reads_catch_up();
    let listed = list(&stack, 100).await;

    assert_eq!(listed.len(), expected.len());
    for id in &expected {
        let mut report = stack.report(id).await;
        for of_report in ["message", "jobs", "reasons", "progress", "history", "stopped"] {
            report.as_object_mut().unwrap().remove(of_report).unwrap();
        }
        assert_eq!(listed.iter().filter(|item| **item == report).count(), 1);
    }
    let times = listed.iter().map(|item| item["created_at"].as_str());
    let times: Vec<Timestamp> = times.map(|time| time.unwrap().parse().unwrap()).collect();
    assert!(times.is_sorted_by(|earlier, later| earlier >= later));
    assert_eq!(times.iter().filter(|time| **time == first).count(), 8);
    for limit in 1..=expected.len() + 1 {
        assert_eq!(list(&stack, limit).await, listed, "limit {limit}");
    }
    let by_default = stack.call("GET", "/v1/broadcasts", None, None).await;
    assert_eq!(by_default.body["items"], json!(listed));
}

#[tokio::test]
async fn broadcast_created_during_listing_repeats_none() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let mut before = Vec::new();
    for contact_id in &ids {
        before.push(stack.broadcast(slice::from_ref(contact_id)).await.to_string());
    }

    stack.let_reads_catch_up();
    let path = "/v1/broadcasts?limit=1";
    let newest = stack.call("GET", path, None, None).await.body;
    stack.broadcast(&ids).await;
    stack.let_reads_catch_up();
    let cursor = newest["next_cursor"].as_str().unwrap();
    let path = format!("/v1/broadcasts?cursor={cursor}");
    let rest = stack.call("GET", &path, None, None).await.body;

    assert_eq!(newest["items"][0]["broadcast_id"], before[2]);
    assert_eq!(rest["items"][0]["broadcast_id"], before[1]);
    assert_eq!(rest["items"][1]["broadcast_id"], before[0]);
    assert_eq!(rest["items"].as_array().unwrap().len(), 2);
    assert_eq!(rest["next_cursor"], Value::Null);
}

#[tokio::test]
async fn invalid_list_parameter_is_rejected_and_named() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let id = stack.broadcast(&ids).await;
    stack.drain_queue().await;
    let deliveries = format!("/v1/broadcasts/{id}/deliveries");
    let first = stack.get_csv(&format!("{deliveries}?limit=1")).await;
    let cursor_of_deliveries = first.headers()["x-next-cursor"].to_str().unwrap().to_owned();
    let cursor_of_deliveries = cursor_of_deliveries.as_str();

    for (path, parameter, value) in [
        ("/v1/broadcasts", "limit", "0"),
        ("/v1/broadcasts", "limit", "101"),
        ("/v1/broadcasts", "limit", "-1"),
        ("/v1/broadcasts", "limit", ""),
        ("/v1/broadcasts", "cursor", ""),
        ("/v1/broadcasts", "cursor", "x"),
        ("/v1/broadcasts", "cursor", cursor_of_deliveries),
        ("/v1/broadcasts", "status", "sent"),
        (&deliveries, "limit", "0"),
        (&deliveries, "limit", "10001"),
        (&deliveries, "limit", "many"),
        (&deliveries, "cursor", "x"),
        (&deliveries, "status", "lost"),
        (&deliveries, "page", "1"),
    ] {
        let path = format!("{path}?{parameter}={value}");
        let mut answers = vec![stack.call("GET", &path, None, None).await.body];
        if path.starts_with(&deliveries) {
            answers.push(serde_json::from_slice(stack.get_csv(&path).await.body()).unwrap());
        }
        for answer in answers {
            assert_eq!(answer["status"], 400, "{path}: {answer}");
            assert_eq!(answer["errors"][0]["field"], parameter, "{path}: {answer}");
        }
    }
    let path = format!("{deliveries}?limit=10000&cursor={cursor_of_deliveries}");
    assert_eq!(stack.get_csv(&path).await.status(), StatusCode::OK);
    let as_json = stack.call("GET", &path, None, None).await;
    assert_eq!(as_json.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn csv_deliveries_equal_json_and_are_safe_in_a_spreadsheet() {
    let stack = TestStack::start().await;
    let ids = ["=1+1", "+2", "-3", "@sum(A1)", "plain", "a,\"b\"", "é"].map(str::to_owned);
    let of_page_2 = ["=2", "6001"].map(str::to_owned);
    stack.import(PAGES[0], &ids).await;
    stack.import(PAGES[1], &of_page_2).await;
    stack
        .sandbox
        .add_fault(Fault::answering(Answer::Reset).to_contacts([&ids[0]]));
    let id = stack.broadcast(&[&ids[..], &of_page_2].concat()).await;
    let none_yet = export(&stack, &id, 10_000).await;
    stack.finish(&id).await;

    let items = stack.deliveries(&id, "").await;
    let expected: Vec<_> = items
        .iter()
        .map(|item| {
            let cell = |column| match &item[column] {
                Value::Null => String::new(),
                Value::String(text) if text.starts_with(['=', '+', '-', '@']) => format!("'{text}"),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            COLUMNS.map(cell).to_vec()
        })
        .collect();

    assert_eq!(none_yet, Vec::<Vec<String>>::new());
    for limit in [1, 2, 9, 10_000] {
        assert_eq!(export(&stack, &id, limit).await, expected, "limit {limit}");
    }
    let contacts: BTreeSet<_> = expected.iter().map(|row| row[0].as_str()).collect();
    let escaped = [
        "'=1+1",
        "'=2",
        "'+2",
        "'-3",
        "'@sum(A1)",
        "plain",
        "a,\"b\"",
        "é",
        "6001",
    ];
    assert_eq!(contacts, BTreeSet::from(escaped));
    let in_doubt = format!("/v1/broadcasts/{id}/deliveries?status=in_doubt");
    assert_eq!(rows(&stack.get_csv(&in_doubt).await)[0][0], "'=1+1");
}

#[tokio::test]
async fn export_of_a_running_broadcast_contains_each_settled_delivery_once() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "100")]).await;
    let mut ids = stack.import_contacts(300).await;
    ids.reverse();
    let id = stack.broadcast(&ids).await;

    let exporting = async {
        let mut sizes = Vec::new();
        loop {
            let completed = stack.report(&id).await["status"] == "completed";
            let settled = stack.deliveries(&id, "&status=sent").await;
            let exported = export(&stack, &id, 23).await;
            let contacts = exported.iter().map(|row| row[0].clone());
            let contacts: BTreeSet<_> = contacts.collect();
            assert_eq!(contacts.len(), exported.len(), "a contact is exported twice");
            for item in settled {
                let contact_id = item["contact_id"].as_str().unwrap();
                assert!(contacts.contains(contact_id), "{contact_id} is missing");
            }
            sizes.push(exported.len());
            if completed {
                return sizes;
            }
        }
    };
    let (_, sizes) = tokio::join!(stack.finish(&id), exporting);

    assert!(sizes.iter().any(|size| (1..300).contains(size)), "{sizes:?}");
    assert_eq!(sizes.last(), Some(&300));
}

#[tokio::test]
async fn largest_responses_stay_below_lambdas_limit() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let job = stack.job(&id).await.id();
    let written: Vec<_> = (0..40).map(|n| format!("large-{n:02}")).collect();
    for contact_id in &written {
        let reason = "\"x".repeat(50_000);
        stack.write_skipped_by_hand(&job, contact_id, &reason).await;
    }

    let (mut exported, mut answers, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let path = format!("/v1/broadcasts/{id}/deliveries?{cursor}");
        let answer = stack.get_csv(&path).await;
        let body = std::str::from_utf8(answer.body()).unwrap();
        assert!(json!(body).to_string().len() < 6_000_000);
        exported.extend(rows(&answer).into_iter().map(|row| row[0].clone()));
        answers += 1;
        let Some(next) = answer.headers().get("x-next-cursor") else {
            break;
        };
        cursor = format!("cursor={}", next.to_str().unwrap());
    }

    assert_eq!(exported, written);
    assert!(answers > 1);
    let as_json = Request::get(format!("/v1/broadcasts/{id}/deliveries?limit=1000"));
    let answer = stack.send_raw(as_json.body(Body::empty()).unwrap()).await;
    let bytes = json!(std::str::from_utf8(answer.body()).unwrap()).to_string().len();
    assert!((3_000_000..6_000_000).contains(&bytes), "{bytes} bytes");
}

/// One long query must not delay concurrent sends in the local database.
#[tokio::test]
async fn export_queries_a_thousand_rows_at_a_time() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let hook = {
        let asked = Arc::clone(&asked);
        move |body: &str| {
            let query: Value = serde_json::from_str(body).unwrap();
            asked.lock().unwrap().extend(query["Limit"].as_u64());
            Reply::Arrives
        }
    };
    let stack = TestStack::start_with_lossy_database(hook, &[]).await;
    let ids = stack.import_contacts(1_001).await;
    let id = stack.broadcast(&ids).await;
    let job = stack.job(&id).await.id();
    for contact_id in &ids {
        stack.write_skipped_by_hand(&job, contact_id, "by hand").await;
    }
    asked.lock().unwrap().clear();

    let exported = rows(&stack.get_csv(&format!("/v1/broadcasts/{id}/deliveries")).await);

    assert_eq!(exported.len(), 1_001);
    assert_eq!(*asked.lock().unwrap(), [1_000, 1_000]);
}

#[tokio::test]
async fn deliveries_are_listed_by_page_and_contact_without_gap_or_repeat() {
    let stack = TestStack::start().await;
    let mut ids = Vec::new();
    for page in PAGES {
        let of_page: Vec<_> = (0..7).map(|n| format!("{page}-{n}")).collect();
        stack.import(page, &of_page).await;
        ids.extend(of_page);
    }
    stack
        .sandbox
        .add_fault(Fault::answering(Answer::Reset).to_contacts([&ids[3]]));
    let id = stack.broadcast(&ids).await;
    stack.finish(&id).await;

    let (mut listed, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/broadcasts/{id}/deliveries?limit=4{cursor}");
        let answer = stack.call("GET", &path, None, None).await;
        let items = answer.body["items"].as_array().unwrap();
        assert!(items.len() <= 4);
        listed.extend(items.iter().map(|item| item["contact_id"].as_str().unwrap().to_owned()));
        let Some(next) = answer.body["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    let in_doubt = stack.deliveries(&id, "&status=in_doubt").await;

    assert_eq!(listed, ids);
    assert_eq!(in_doubt.len(), 1);
    assert_eq!(
        (&in_doubt[0]["contact_id"], &in_doubt[0]["page_id"]),
        (&json!(ids[3]), &json!(PAGES[0]))
    );
    assert_eq!(
        (&in_doubt[0]["status"], &in_doubt[0]["reason"]),
        (&json!("in_doubt"), &json!("connection lost"))
    );
    let sent = &stack.deliveries(&id, "&status=sent").await[0];
    let message = stack
        .sandbox
        .received()
        .into_iter()
        .find(|message| sent["contact_id"] == message.contact_id.as_str());
    assert_eq!(sent["message_id"], message.unwrap().message_id);
}
