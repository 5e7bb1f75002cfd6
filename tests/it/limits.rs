//! Limits: each holds at its last allowed value, not before and not after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use jiff::Timestamp;
use local::sandbox::{Fault, GraphError, Operation};
use serde_json::{Value, json};
use shared::domain::backlog::Segment;
use shared::domain::ids::{BroadcastId, ContactId};

use crate::fixture::by_hand::LEASE;
use crate::fixture::doubts::FIRST_LOOKUP;
use crate::fixture::invariants::Item;
use crate::fixture::parameter_store::start_stack;
use crate::fixture::proxy::{self, ProxiedCall, Reply};
use crate::fixture::{Endpoints, Services, TEXT, TestStack, request};

/// A body of a request, of a size that the test chooses.
type Sized = fn(usize) -> Value;

fn contact(field: &str, value: Value) -> Value {
    let mut contact = json!({"contact_id": "c", "page_id": "p"});
    contact[field] = value;
    json!({"contacts": [contact]})
}

fn message(part: &str, value: Value) -> Value {
    let mut message = json!({"text": TEXT});
    message[part] = value;
    json!({"contact_ids": ["nobody"], "message": message})
}

fn quick_reply(title: usize, payload: usize) -> Value {
    json!({"content_type": "text", "title": "t".repeat(title), "payload": "p".repeat(payload)})
}

/// The last value is accepted or, where nobody is known, refused for another reason than its form.
#[tokio::test]
async fn each_limit_of_a_request_is_where_the_documents_say() {
    let stack = TestStack::start().await;
    let contacts = "/v1/contacts";
    let broadcasts = "/v1/broadcasts";
    let limits: [(&str, &str, &str, usize, Sized); 13] = [
        ("contacts", "PUT", contacts, 1_000, |n| {
            let contacts = (0..n).map(|n| json!({"contact_id": format!("c{n}"), "page_id": "p"}));
            json!({"contacts": contacts.collect::<Vec<_>>()})
        }),
        ("characters of a name", "PUT", contacts, 1_000, |n| {
            contact("first_name", json!("x".repeat(n)))
        }),
        ("hours ahead of UTC", "PUT", contacts, 24, |n| {
            contact("timezone", json!(n))
        }),
        ("hours behind UTC", "PUT", contacts, 24, |n| {
            contact("timezone", json!(-i64::try_from(n).unwrap()))
        }),
        ("tags", "PUT", contacts, 100, |n| contact("tags", json!(vec!["vip"; n]))),
        ("attributes", "PUT", contacts, 100, |n| {
            let attributes = (0..n).map(|n| (format!("a{n}"), json!(n)));
            contact("attributes", attributes.collect::<serde_json::Map<_, _>>().into())
        }),
        ("bytes of a contact", "PUT", contacts, 32_000, |n| {
            let texts = vec!["x".repeat(997); 31];
            let rest = n - contact("tags", json!([texts.clone(), vec![String::new()]].concat()))["contacts"][0]
                .to_string()
                .len();
            contact("tags", json!([texts, vec!["x".repeat(rest)]].concat()))
        }),
        ("ids", "POST", broadcasts, 100_000, |n| {
            let ids: Vec<_> = (0..n).map(|n| n.to_string()).collect();
            request(&ids)
        }),
        ("quick replies", "POST", broadcasts, 13, |n| {
            message("quick_replies", json!(vec![quick_reply(1, 1); n]))
        }),
        ("characters of a title", "POST", broadcasts, 20, |n| {
            message("quick_replies", json!([quick_reply(n, 1)]))
        }),
        ("characters of a payload", "POST", broadcasts, 1_000, |n| {
            message("quick_replies", json!([quick_reply(1, n)]))
        }),
        ("bytes of a template", "POST", broadcasts, 20_000, |n| {
            let template = |text: String| {
                let payload = json!({"template_type": "button", "more": text});
                json!({"type": "template", "payload": payload})
            };
            let attachment = template("x".repeat(n - template(String::new()).to_string().len()));
            json!({"contact_ids": ["nobody"], "message": {"attachment": attachment}})
        }),
        (
            "characters of a reason",
            "PUT",
            "/v1/sending",
            200,
            |n| json!({"state": "on", "reason": "x".repeat(n)}),
        ),
    ];
    for (what, method, path, most, body) in limits {
        let last = stack.call(method, path, None, Some(&body(most))).await;
        let beyond = stack.call(method, path, None, Some(&body(most + 1))).await;

        assert_ne!(last.status, StatusCode::BAD_REQUEST, "{most} {what}: {last:?}");
        assert_eq!(
            beyond.status,
            StatusCode::BAD_REQUEST,
            "{most} {what} and one: {beyond:?}"
        );
    }
}

/// Returns a template that is nested in so many objects and lists, which has a number.
fn nested_template(levels: usize, number: f64) -> Value {
    // The attachment, its payload and the list of elements are three levels.
    let element = (3..levels).fold(json!(number), |inner, _| json!([inner]));
    let payload = json!({"template_type": "generic", "elements": [element]});
    json!({"attachment": {"type": "template", "payload": payload}})
}

#[tokio::test]
async fn message_at_the_limits_of_the_database_is_stored_and_sent() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let body = |levels, number| json!({"contact_ids": ids, "message": nested_template(levels, number)});
    for (levels, number) in [(28, 0.0), (4, 8.9e125), (4, -1e-130)] {
        let answer = stack
            .call("POST", "/v1/broadcasts", None, Some(&body(levels, number)))
            .await;
        assert_eq!(
            answer.status,
            StatusCode::ACCEPTED,
            "{levels} levels, {number}: {answer:?}"
        );
        let id = BroadcastId::parse(answer.body["broadcast_id"].as_str().unwrap()).unwrap();
        assert_eq!(stack.finish(&id).await["counters"]["sent"], 1);
    }
    for (levels, number) in [(29, 0.0), (4, 9.1e125), (4, -9e-131)] {
        let answer = stack
            .call("POST", "/v1/broadcasts", None, Some(&body(levels, number)))
            .await;
        assert_eq!(
            answer.status,
            StatusCode::BAD_REQUEST,
            "{levels} levels, {number}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn each_limit_of_a_list_is_where_the_documents_say() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let deliveries = format!("/v1/broadcasts/{id}/deliveries");
    for (path, most) in [("/v1/broadcasts", 100), (&*deliveries, 1_000)] {
        let status = async |limit| {
            stack
                .call("GET", &format!("{path}?limit={limit}"), None, None)
                .await
                .status
        };
        assert_eq!(status(most).await, StatusCode::OK, "{path}");
        assert_eq!(status(most + 1).await, StatusCode::BAD_REQUEST, "{path}");
    }
    let erasure = format!("/v1/contacts/{}?erase=true", ids[0]);
    let status = async |limit| {
        stack
            .call("DELETE", &format!("{erasure}&limit={limit}"), None, None)
            .await
            .status
    };
    assert_eq!(status(1_001).await, StatusCode::BAD_REQUEST, "{erasure}");
    assert_eq!(status(1_000).await, StatusCode::OK, "{erasure}");
    let status = async |limit| stack.get_csv(&format!("{deliveries}?limit={limit}")).await.status();
    assert_eq!(status(10_000).await, StatusCode::OK);
    assert_eq!(status(10_001).await, StatusCode::BAD_REQUEST);
    stack.drain_queue().await;
}

/// A list has fifty items unless the request says how many.
#[tokio::test]
async fn list_has_fifty_items_by_default() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(60).await;
    let id = stack.broadcast(&ids).await;
    stack.drain_queue().await;

    let list = stack
        .call("GET", &format!("/v1/broadcasts/{id}/deliveries"), None, None)
        .await;

    assert_eq!(list.body["items"].as_array().unwrap().len(), 50);
}

#[tokio::test]
async fn broadcast_may_be_scheduled_a_year_ahead() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let body = |days: i64| {
        let at = stack.app.clock.now() + Duration::from_secs(86_400) * u32::try_from(days).unwrap();
        json!({"contact_ids": ids, "message": {"text": TEXT}, "scheduled_at": at})
    };

    let beyond = stack.post(&body(367)).await;
    let last = stack.post(&body(365)).await;

    assert_eq!(beyond.status, StatusCode::BAD_REQUEST);
    assert_eq!(last.status, StatusCode::ACCEPTED, "{last:?}");
}

#[tokio::test]
async fn body_of_four_megabytes_is_read() {
    let stack = TestStack::start().await;
    let body = |bytes: usize| {
        let body = json!({"contact_ids": ["nobody"], "message": {"text": TEXT}}).to_string();
        let blanks = bytes - body.len();
        format!("{body}{}", " ".repeat(blanks))
    };
    let status = async |bytes| {
        let request = axum::http::Request::post("/v1/broadcasts").header("content-type", "application/json");
        stack.send_raw(request.body(body(bytes).into()).unwrap()).await.status()
    };

    assert_eq!(
        status(4 << 20).await,
        StatusCode::UNPROCESSABLE_ENTITY,
        "no contact is known"
    );
    assert_eq!(status((4 << 20) + 1).await, StatusCode::PAYLOAD_TOO_LARGE);
}

/// Only the first hundred unknown ids are stored and listed; all are counted.
#[tokio::test]
async fn hundred_unknown_ids_are_listed() {
    let stack = TestStack::start().await;
    let mut ids = stack.import_contacts(1).await;
    ids.extend((0..150).map(|n| format!("unknown{n}")));

    let answer = stack.post(&request(&ids)).await;

    assert_eq!(answer.body["contacts"]["unknown"], 150);
    assert_eq!(answer.body["contacts"]["unknown_ids"].as_array().unwrap().len(), 100);
    stack.drain_queue().await;
}

/// Meta waits five seconds for an answer, and repeats the call after an error.
#[tokio::test]
async fn webhook_is_answered_before_meta_gives_up() {
    let services = Services::start().await;
    let hangs = Arc::new(AtomicBool::new(false));
    let hook = {
        let hangs = Arc::clone(&hangs);
        move |call: ProxiedCall| {
            let hangs = hangs.load(Ordering::Relaxed);
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                call.forward().await
            }
        }
    };
    let endpoints = Endpoints {
        dynamodb: proxy::start(&services.endpoints.dynamodb, hook).await,
        ..services.endpoints.clone()
    };
    let stack = TestStack::start_on(services, &endpoints, &[]).await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    stack.drain_queue().await;

    hangs.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    let status = stack.echo(&id, &ids[0], 1, "m_1").await;

    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "answered after {:?}",
        begun.elapsed()
    );
    hangs.store(false, Ordering::Relaxed);
}

/// A Systems Manager that takes the connection and never answers delays the job, and does not use up its run.
#[tokio::test]
async fn parameter_that_hangs_is_given_up() {
    let (stack, store) = start_stack(&[]).await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    store.hang(true);

    let begun = Instant::now();
    stack.drain_queue().await;

    assert_eq!(stack.report(&id).await["status"], "waiting");
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "given up after {:?}",
        begun.elapsed()
    );
    store.hang(false);
    assert_eq!(stack.finish(&id).await["counters"]["sent"], 1);
}

/// Segments are kept for the retention; the report, 30 days longer.
#[tokio::test]
async fn report_outlives_the_work_by_thirty_days() {
    const DAY: i64 = 86_400;
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let begun = Timestamp::now().as_second();
    let id = stack.broadcast(&ids).await;
    stack.drain_queue().await;

    let items = stack.stored_items().await;
    let days_of = |key: &str, prefix: &str| -> Vec<i64> {
        let is_of_kind = |item: &&Item| item.get(key).is_some_and(|key| key.as_s().unwrap().starts_with(prefix));
        let items = items.iter().filter(is_of_kind);
        let expiries = items.map(|item| item["expires_at"].as_n().unwrap().parse::<i64>().unwrap());
        expiries.map(|at| (at - begun) / DAY).collect()
    };
    assert_eq!(days_of("pk", "segments#"), [90]);
    assert_eq!(days_of("pk", "broadcast#"), [120, 120], "the broadcast and its job");
    assert_eq!(days_of("job", &id.to_string()), [120], "the delivery");
    // Without an Idempotency-Key a request is recognised for five minutes, and its key is kept a day longer.
    assert_eq!(days_of("pk", "request#"), [1]);
}

/// A worker died with more sends in flight than one transaction can put in doubt.
#[tokio::test]
async fn more_doubts_than_fit_into_a_transaction_are_written() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(150).await;
    let id = stack.broadcast(&ids).await;
    let claim = stack.claim(&stack.job(&id).await.id()).await;
    for id in &ids {
        let _in_flight = stack.reserve(&claim, &ContactId::parse(id).unwrap()).await;
    }

    stack.advance(LEASE + Duration::from_secs(1));
    stack.drain_queue().await;

    let report = stack.report(&id).await;
    assert_eq!(
        (&report["status"], &report["counters"]["in_doubt"]),
        (&json!("completed"), &json!(150))
    );
}

/// Each segment of a backlog is stored, although DynamoDB takes 25 of them in a call. The local database takes more.
#[tokio::test]
async fn more_segments_than_fit_into_a_call_are_written() {
    let most = Arc::new(AtomicUsize::new(0));
    let hook = {
        let most = Arc::clone(&most);
        move |call: &str| {
            most.fetch_max(call.matches("PutRequest").count(), Ordering::Relaxed);
            Reply::Arrives
        }
    };
    let stack = TestStack::start_with_lossy_database(hook, &[]).await;
    let contacts = vec![ContactId::parse("6001").unwrap()];
    let segments: Vec<_> = (0..60)
        .map(|number| Segment {
            number,
            contacts: contacts.clone(),
            due_at: None,
        })
        .collect();
    let store = stack.app.store.segments();
    let kept_until = stack.app.clock.now() + Duration::from_secs(86_400);

    store.write("snapshot", &segments, kept_until).await.unwrap();

    for number in 0..60 {
        assert!(
            store.get("snapshot", number).await.unwrap().is_some(),
            "segment {number} is missing"
        );
    }
    assert_eq!(most.load(Ordering::Relaxed), 25);
}

/// A file has a column for each field, and at most a hundred for attributes.
#[tokio::test]
async fn file_of_contacts_has_at_most_a_hundred_attributes() {
    let stack = TestStack::start().await;
    let status = async |attributes: usize| {
        let columns: String = (0..attributes).map(|n| format!(",attributes.a{n}")).collect();
        let file = format!("contact_id,page_id{columns}\n6001,p{}\n", ",x".repeat(attributes));
        stack.import_as("text/csv", file).await.status
    };

    assert_eq!(status(100).await, StatusCode::OK);
    assert_eq!(status(112).await, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn request_without_a_key_is_recognised_for_five_minutes() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let first = stack.post(&request(&ids)).await.broadcast_id();

    stack.advance(Duration::from_secs(290));
    let repeated = stack.post(&request(&ids)).await;
    stack.advance(Duration::from_secs(20));
    let later = stack.post(&request(&ids)).await;

    assert!(repeated.replayed && repeated.broadcast_id() == first, "{repeated:?}");
    assert!(later.broadcast_id() != first, "{later:?}");
    stack.drain_queue().await;
}

/// The last send of a run begins Messenger's time-out and 15 s before the run's end.
#[tokio::test(flavor = "multi_thread")]
async fn run_keeps_fifteen_seconds_for_its_end() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "20"), ("MESSENGER_TIMEOUT_SECONDS", "1")]).await;
    let ids = stack.import_contacts(400).await;
    let id = stack.broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();

    let begun = Instant::now();
    stack.process_job_for(&wake_up, Duration::from_secs(24)).await;
    let took = begun.elapsed();
    stack.delete(&wake_up).await;

    assert_eq!(stack.report(&id).await["status"], "queued");
    // 24 s less 16 s; a quarter of the run is 6 s.
    assert!((7_000..12_000).contains(&took.as_millis()), "sends began for {took:?}");
}

#[tokio::test]
async fn failed_lookup_is_made_again_a_minute_later() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast_with_doubts(&ids, &[0], &[]).await;
    let failing = Fault::answering(GraphError::new(1, "try later")).on(Operation::Lookup);
    stack.sandbox.add_fault(failing.times(1));

    stack.tick_after(FIRST_LOOKUP).await;
    stack.tick_after(Duration::from_secs(50)).await;
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [0, 0, 1]);

    stack.tick_after(Duration::from_secs(11)).await;
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [1, 0, 0]);
}

#[tokio::test]
async fn three_failed_lookups_in_a_row_end_those_of_the_page() {
    let stack = TestStack::start().await;
    // Five in a row would be an outage, by which the Page pauses.
    let ids = stack.import_contacts(4).await;
    stack.broadcast_with_doubts(&ids, &[0, 1], &[2, 3]).await;
    let failing = Fault::answering(GraphError::new(1, "try later")).on(Operation::Lookup);
    stack.sandbox.add_fault(failing);

    stack.tick_after(FIRST_LOOKUP).await;

    assert_eq!(stack.sandbox.conversation_calls(), 3);
}
