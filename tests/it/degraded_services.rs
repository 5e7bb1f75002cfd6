//! Degraded services: throttling, conflicts and outages of AWS and of Messenger.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use local::sandbox::{Answer, Fault};
use serde_json::{Value, json};

use crate::fixture::proxy::{self, ProxiedCall};
use crate::fixture::{Endpoints, Services, TestStack};

/// Returns an error in DynamoDB's format.
fn refusal(kind: &str, more: Value) -> Response {
    let mut error = json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{kind}")});
    let more = more.as_object().cloned().unwrap_or_default();
    error.as_object_mut().unwrap().extend(more);
    (StatusCode::BAD_REQUEST, error.to_string()).into_response()
}

/// Starts a stack whose database refuses each call of an operation this many times before it carries the call out; returns
/// the stack with the number of refusals.
async fn start_refusing(
    operation: &'static str,
    times: usize,
    answer: impl Fn() -> Response + Clone + Send + Sync + 'static,
) -> (TestStack, Arc<AtomicUsize>) {
    let services = Services::start().await;
    let refusals = Arc::new(AtomicUsize::new(0));
    let refused_before = Arc::new(Mutex::new(HashMap::<String, usize>::new()));
    let count = Arc::clone(&refusals);
    let hook = move |call: ProxiedCall| {
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
                None => call.forward().await,
            }
        }
    };
    let endpoints = Endpoints {
        dynamodb: proxy::start(&services.endpoints.dynamodb, hook).await,
        ..services.endpoints.clone()
    };
    let stack = TestStack::start_on(services, &endpoints, &[]).await;
    (stack, refusals)
}

/// Checks that a broadcast to six contacts, one of which never gets an answer, ends with five sent.
async fn check_five_of_six_are_sent(stack: &TestStack) {
    let ids = stack.import_contacts(6).await;
    let unanswered = Fault::answering(Answer::Reset).to_contacts([&ids[4]]);
    stack.sandbox.add_fault(unanswered);

    let id = stack.broadcast(&ids).await;
    let report = stack.finish(&id).await;

    let counters = json!({"pending": 0, "waiting": 0, "sent": 5, "failed": 0, "skipped": 0, "in_doubt": 1});
    assert_eq!(report["counters"], counters);
    // One run: no second claim was needed.
    assert_eq!(stack.job(&id).await.epoch, 1);
    assert_eq!(report["duplicates_prevented"]["reservation"], 0);
}

#[tokio::test]
async fn throttled_call_is_retried_and_no_refusal() {
    // Every call is refused more often than the SDK itself retries.
    let throttled = || refusal("ProvisionedThroughputExceededException", json!({}));
    let (stack, refusals) = start_refusing("", 4, throttled).await;

    check_five_of_six_are_sent(&stack).await;

    let refusals = refusals.load(Ordering::SeqCst);
    assert!(refusals >= 4 * 20, "{refusals}");
}

/// Two concurrent writes of one item conflict: neither is refused by its condition.
#[tokio::test]
async fn conflicting_transaction_is_retried() {
    let (stack, refusals) = start_refusing("TransactWriteItems", 2, || {
        let reasons = json!([{"Code": "None"}, {"Code": "TransactionConflict"}]);
        let more = json!({"CancellationReasons": reasons, "Message": "cancelled"});
        refusal("TransactionCanceledException", more)
    })
    .await;

    check_five_of_six_are_sent(&stack).await;

    // The commit, and the checkpoint with the doubt.
    assert_eq!(refusals.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn update_conflicting_with_a_transaction_is_retried() {
    let collision = || refusal("TransactionConflictException", json!({}));
    let (stack, refusals) = start_refusing("UpdateItem", 4, collision).await;

    check_five_of_six_are_sent(&stack).await;

    assert!(refusals.load(Ordering::SeqCst) >= 4 * 15);
}

/// The queue is never the only memory of anything.
#[tokio::test]
async fn queue_outage_delays_a_broadcast_and_loses_no_contact() {
    let services = Services::start().await;
    let answers = Arc::new(AtomicBool::new(false));
    let hook = {
        let answers = Arc::clone(&answers);
        move |call: ProxiedCall| {
            let answers = answers.load(Ordering::SeqCst);
            async move {
                match answers {
                    true => call.forward().await,
                    false => proxy::no_answer(),
                }
            }
        }
    };
    let endpoints = Endpoints {
        sqs: proxy::start(&services.endpoints.sqs, hook).await,
        ..services.endpoints.clone()
    };
    let stack = TestStack::start_on(services, &endpoints, &[("PAGE_RATE_PER_SECOND", "100")]).await;
    let ids = stack.import_contacts(100).await;

    // No wake-up arrives: not the request's, not the schedule's, and not that of the run that hands over.
    let id = stack.broadcast(&ids).await;
    stack.advance(Duration::from_secs(200));
    stack.tick().await;
    assert!(stack.receive().await.is_none());
    let wake_up = stack.wake_up_for(&id).await;
    stack.process_job_for(&wake_up, Duration::from_secs(2)).await;
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
async fn messenger_outage_of_ten_minutes_loses_no_contact() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(200).await;
    stack.sandbox.unreachable().await;
    let id = stack.broadcast(&ids).await;

    for _ in 0..20 {
        stack.drain_queue().await;
        let report = stack.report(&id).await;
        assert_eq!(report["status"], "waiting", "{report:#}");
        assert_eq!(report["counters"]["failed"], 0);
        stack.advance(Duration::from_secs(30));
        stack.tick().await;
    }
    stack.sandbox.reachable().await.unwrap();
    let report = stack.finish(&id).await;

    assert_eq!(report["status"], "completed");
    assert_eq!(report["counters"]["sent"], 200, "{report:#}");
}

/// The first checkpoint is answered when five more messages have been sent, far more than were in flight when it began.
#[tokio::test]
async fn slow_checkpoint_holds_no_send() {
    const MORE: usize = 5;
    let services = Services::start().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let sent_meanwhile = Arc::new(AtomicUsize::new(0));
    let count = {
        let sent = Arc::clone(&sent);
        move |call: ProxiedCall| {
            sent.fetch_add(usize::from(call.name().contains("/messages?")), Ordering::SeqCst);
            call.forward()
        }
    };
    let hold = {
        let (is_first, sent_meanwhile) = (Arc::new(AtomicBool::new(true)), Arc::clone(&sent_meanwhile));
        move |call: ProxiedCall| {
            let holds = call.body().contains("stalls = :stalls, breakers") && is_first.swap(false, Ordering::SeqCst);
            let (sent, sent_meanwhile) = (Arc::clone(&sent), Arc::clone(&sent_meanwhile));
            async move {
                if holds {
                    let before = sent.load(Ordering::SeqCst);
                    // The call is repeated after two seconds without an answer.
                    for _ in 0..180 {
                        let more = sent.load(Ordering::SeqCst) - before;
                        sent_meanwhile.store(more, Ordering::SeqCst);
                        if more >= MORE {
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
                call.forward().await
            }
        }
    };
    let endpoints = Endpoints {
        dynamodb: proxy::start(&services.endpoints.dynamodb, hold).await,
        graph: proxy::start(&services.endpoints.graph, count).await,
        ..services.endpoints.clone()
    };
    let stack = TestStack::start_on(services, &endpoints, &[("PAGE_RATE_PER_SECOND", "10")]).await;
    let ids = stack.import_contacts(40).await;

    let id = stack.broadcast(&ids).await;
    let report = stack.finish(&id).await;

    assert_eq!(report["counters"]["sent"], 40);
    let meanwhile = sent_meanwhile.load(Ordering::SeqCst);
    assert!(meanwhile >= MORE, "{meanwhile} sent");
}
