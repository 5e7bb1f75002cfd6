//! Under pressure: what AWS and Messenger do on their bad days ends in a state that the operator can understand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use local::sandbox::{Answer, Fault};
use serde_json::{Value, json};

use crate::proxy::{self, Call};
use crate::stack::{Endpoints, Services, Stack};

/// An error as DynamoDB words it.
fn refusal(kind: &str, more: Value) -> Response {
    let mut error = json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{kind}")});
    let more = more.as_object().cloned().unwrap_or_default();
    error.as_object_mut().unwrap().extend(more);
    (StatusCode::BAD_REQUEST, error.to_string()).into_response()
}

/// A stack whose database refuses each of these calls so often before it does anything, and how many refusals there were.
async fn refusing(
    operation: &'static str,
    times: usize,
    answer: impl Fn() -> Response + Clone + Send + Sync + 'static,
) -> (Stack, Arc<AtomicUsize>) {
    let services = Services::start().await;
    let refusals = Arc::new(AtomicUsize::new(0));
    let refused_before = Arc::new(Mutex::new(HashMap::<String, usize>::new()));
    let count = Arc::clone(&refusals);
    let hook = move |call: Call| {
        let mut refused_before = refused_before.lock().unwrap();
        let before = refused_before.entry(call.body().into_owned()).or_default();
        let refused = (call.name().ends_with(operation) && *before < times).then(|| {
            *before += 1;
            count.fetch_add(1, Ordering::SeqCst);
            answer()
        });
        async move {
            match refused {
                Some(answer) => answer,
                None => call.carry_out().await,
            }
        }
    };
    let endpoints = Endpoints {
        dynamodb: proxy::between(&services.endpoints.dynamodb, hook).await,
        ..services.endpoints.clone()
    };
    let stack = Stack::over(services, &endpoints, &[]).await;
    (stack, refusals)
}

/// Of six contacts one is never answered; the others get their message.
async fn five_of_six_are_sent(stack: &Stack) {
    let ids = stack.contacts(6).await;
    let unanswered = Fault::answering(Answer::Reset).to_contacts([&ids[4]]);
    stack.sandbox.add_fault(unanswered);

    let id = stack.broadcast(&ids).await;
    let report = stack.finish(&id).await;

    let counters =
        json!({"pending": 0, "waiting": 0, "sent": 5, "failed": 0, "skipped": 0, "in_doubt": 1});
    assert_eq!(report["counters"], counters);
    // One slice: nobody had to come back.
    assert_eq!(stack.job(&id).await.epoch, 1);
    assert_eq!(report["duplicates_prevented"]["reservation"], 0);
}

#[tokio::test]
async fn a_throttled_database_is_asked_again_and_refuses_nobody() {
    // Every call, and more often than the SDK tries by itself.
    let throttled = || refusal("ProvisionedThroughputExceededException", json!({}));
    let (stack, refusals) = refusing("", 4, throttled).await;

    five_of_six_are_sent(&stack).await;

    let refusals = refusals.load(Ordering::SeqCst);
    assert!(refusals >= 4 * 20, "{refusals}");
}

/// Two writes at once on one item: neither is refused by its condition.
#[tokio::test]
async fn a_transaction_that_collides_is_tried_again() {
    let (stack, refusals) = refusing("TransactWriteItems", 2, || {
        let reasons = json!([{"Code": "None"}, {"Code": "TransactionConflict"}]);
        let more = json!({"CancellationReasons": reasons, "Message": "cancelled"});
        refusal("TransactionCanceledException", more)
    })
    .await;

    five_of_six_are_sent(&stack).await;

    // The commit, and the checkpoint with the doubt.
    assert_eq!(refusals.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn an_update_that_collides_with_a_transaction_is_tried_again() {
    let collision = || refusal("TransactionConflictException", json!({}));
    let (stack, refusals) = refusing("UpdateItem", 4, collision).await;

    five_of_six_are_sent(&stack).await;

    assert!(refusals.load(Ordering::SeqCst) >= 4 * 15);
}

/// The queue is never the only memory of anything.
#[tokio::test]
async fn a_queue_that_does_not_answer_delays_a_broadcast_and_loses_nothing() {
    let services = Services::start().await;
    let answers = Arc::new(AtomicBool::new(false));
    let hook = {
        let answers = Arc::clone(&answers);
        move |call: Call| {
            let answers = answers.load(Ordering::SeqCst);
            async move {
                match answers {
                    true => call.carry_out().await,
                    false => proxy::no_answer(),
                }
            }
        }
    };
    let endpoints = Endpoints {
        sqs: proxy::between(&services.endpoints.sqs, hook).await,
        ..services.endpoints.clone()
    };
    let stack = Stack::over(services, &endpoints, &[("PAGE_RATE_PER_SECOND", "100")]).await;
    let ids = stack.contacts(100).await;

    // Neither the request's hint arrives, nor the schedule's, nor that of a slice that is handed over.
    let id = stack.broadcast(&ids).await;
    stack.advance(Duration::from_secs(200));
    stack.scheduled().await;
    assert!(stack.receive().await.is_none());
    let hint = stack.hint_for(&id).await;
    stack.process_job_for(&hint, Duration::from_secs(2)).await;
    let report = stack.report(&id).await;
    assert_eq!(report["status"], "queued");
    assert!(report["counters"]["pending"].as_u64().unwrap() > 0);
    assert!(stack.receive().await.is_none());

    answers.store(true, Ordering::SeqCst);
    let report = stack.finish(&id).await;

    assert_eq!(report["counters"]["sent"], 100);
    assert_eq!(report["duplicates_prevented"]["reservation"], 0);
}

#[tokio::test]
async fn ten_minutes_without_messenger_cost_nobody_their_message() {
    let stack = Stack::start().await;
    let ids = stack.contacts(200).await;
    stack.sandbox.unreachable().await;
    let id = stack.broadcast(&ids).await;

    for _ in 0..20 {
        stack.work_off().await;
        let report = stack.report(&id).await;
        assert_eq!(report["status"], "waiting", "{report:#}");
        assert_eq!(report["counters"]["failed"], 0);
        stack.advance(Duration::from_secs(30));
        stack.scheduled().await;
    }
    stack.sandbox.reachable().await.unwrap();
    let report = stack.finish(&id).await;

    assert_eq!(report["status"], "completed");
    assert_eq!(report["counters"]["sent"], 200, "{report:#}");
}

/// One after the other, whoever is first, and none of them is forgotten or halted for having to wait.
#[tokio::test]
async fn fifty_jobs_on_one_page_all_come_to_their_end() {
    const JOBS: usize = 50;
    let stack = Stack::with(&[("PAGE_RATE_PER_SECOND", "200")]).await;
    stack.sandbox.set_latency_ms(20);
    let ids = stack.contacts(2 * JOBS).await;
    let mut broadcasts = Vec::new();
    for ids in ids.chunks(2) {
        broadcasts.push(stack.broadcast(ids).await);
    }

    // Two workers at once, each on a job of its own: the queue would keep them apart.
    let hint = async |id| {
        let hint = stack.hint_for(id).await;
        stack.process_job_for(&hint, Duration::from_secs(4)).await
    };
    for pair in broadcasts.chunks(2) {
        tokio::join!(hint(&pair[0]), hint(&pair[1]));
    }
    for id in &broadcasts {
        let report = stack.finish(id).await;
        assert_eq!(
            (&report["status"], &report["counters"]["sent"]),
            (&json!("completed"), &json!(2))
        );
    }

    assert_eq!(stack.sandbox.received_count(), 2 * JOBS);
}
