//! Retrying: a completed broadcast sends again to contacts that got no message, never to those that did.

use std::time::Duration;

use axum::http::StatusCode;
use local::sandbox::{Answer, Fault, GraphError};
use serde_json::{Value, json};
use shared::domain::command::RetryCommand;
use shared::domain::ids::BroadcastId;
use shared::domain::reasons::NotSent;
use shared::store::transactions::Resent;

use crate::fixture::by_hand::LEASE;
use crate::fixture::{PAGES, TestStack, request};
use crate::pausing::{scheduled, wait_a_day};

/// Completes a broadcast to these contacts: the first fails with 551, the second with 10/2018278, the third is skipped, the fourth
/// is in doubt, the others are sent to.
async fn completed(stack: &TestStack, ids: &[String]) -> BroadcastId {
    let fault = |answer: Fault, n: usize| stack.sandbox.add_fault(answer.to_contacts([&ids[n]]));
    fault(Fault::answering(GraphError::new(551, "not available")), 0);
    let outside = GraphError {
        subcode: Some(2_018_278),
        ..GraphError::new(10, "outside the window")
    };
    fault(Fault::answering(outside), 1);
    fault(Fault::answering(Answer::Reset), 3);
    let id = stack.another_broadcast(ids).await;
    opt_out(stack, &ids[2], true).await;
    stack.drain_queue().await;
    stack.sandbox.clear_faults();
    assert_eq!(ends(&stack.report(&id).await), [ids.len() as u64 - 4, 2, 1, 1]);
    id
}

async fn opt_out(stack: &TestStack, id: &str, opted_out: bool) {
    let contact = json!({"contact_id": id, "page_id": PAGES[0], "opted_out": opted_out});
    let answer = stack
        .call("PUT", "/v1/contacts", None, Some(&json!({"contacts": [contact]})))
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    stack.let_reads_catch_up();
}

/// Returns four counters: `sent`, `failed`, `skipped` and `in_doubt`; the others must be 0.
fn ends(report: &Value) -> [u64; 4] {
    let of = |name| report["counters"][name].as_u64().unwrap();
    assert_eq!((of("pending"), of("waiting")), (0, 0), "{report:#}");
    ["sent", "failed", "skipped", "in_doubt"].map(of)
}

/// Orders a retry, which must be accepted; returns the numbers of contacts that are reopened, and that may get it twice.
async fn retry(stack: &TestStack, id: &BroadcastId, body: Value) -> (u64, u64) {
    let answer = stack.try_control("retry", id, &body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{body}: {answer:?}");
    let of = |name: &str| answer.body[name].as_u64().unwrap();
    (of("reopened"), of("may_get_it_twice"))
}

#[tokio::test]
async fn failed_contacts_are_sent_to_again_unless_others_are_named() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(6).await;
    let id = completed(&stack, &ids).await;

    assert_eq!(retry(&stack, &id, json!({})).await, (2, 0));
    assert_eq!(stack.report(&id).await["jobs"][0]["command"], "retry");
    let report = stack.finish(&id).await;

    assert_eq!(ends(&report), [4, 0, 1, 1], "{report:#}");
    assert_eq!(report["jobs"][0]["command"], Value::Null);
    assert_eq!(report["history"][0]["action"], "retry");
    assert_eq!(
        (&report["history"][0]["contacts"], &report["history"][0]["details"]),
        (&json!(2), &json!("failed"))
    );
    assert_eq!(stack.received(&id).values().max(), Some(&1));
    // A retry begins with fresh attempts.
    assert_eq!(stack.delivery(&id, &ids[0]).await["attempts"], 1);
}

#[tokio::test]
async fn contacts_are_named_by_status_and_reason() {
    for (body, reopened, end) in [
        (json!({"reasons": ["551"]}), 1, [3, 1, 1, 1]),
        (json!({"reasons": ["10"]}), 1, [3, 1, 1, 1]),
        (json!({"reasons": ["10/2018278", "551"]}), 2, [4, 0, 1, 1]),
        (json!({"statuses": ["skipped"]}), 1, [3, 2, 0, 1]),
        (
            json!({"statuses": ["skipped", "failed"], "reasons": ["opted_out", "551"]}),
            2,
            [4, 1, 0, 1],
        ),
        (
            json!({"statuses": ["failed"], "reasons": ["opted_out"]}),
            0,
            [2, 2, 1, 1],
        ),
    ] {
        let stack = TestStack::start().await;
        let ids = stack.import_contacts(6).await;
        let id = completed(&stack, &ids).await;
        opt_out(&stack, &ids[2], false).await;

        assert_eq!(retry(&stack, &id, body.clone()).await, (reopened, 0), "{body}");
        let report = stack.finish(&id).await;

        assert_eq!(ends(&report), end, "{body}");
    }
}

/// The operator orders a second message to a contact that may have got the first.
#[tokio::test]
async fn contact_in_doubt_is_sent_to_again_if_it_is_named_and_never_fails() {
    for (refused, end) in [(false, [3, 2, 1, 0]), (true, [2, 2, 1, 1])] {
        let stack = TestStack::start().await;
        let ids = stack.import_contacts(6).await;
        let id = completed(&stack, &ids).await;
        if refused {
            stack
                .sandbox
                .add_fault(Fault::answering(GraphError::new(551, "not available")));
        }

        assert_eq!(retry(&stack, &id, json!({"statuses": ["in_doubt"]})).await, (1, 1));
        let report = stack.finish(&id).await;

        assert_eq!(ends(&report), end, "refused: {refused}");
    }
}

#[tokio::test]
async fn retry_with_nothing_to_reopen_changes_nothing() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let id = stack.another_broadcast(&ids).await;
    stack.drain_queue().await;

    let every = json!({"statuses": ["failed", "skipped", "in_doubt"]});
    assert_eq!(retry(&stack, &id, every).await, (0, 0));

    let report = stack.report(&id).await;
    assert_eq!(
        (&report["status"], &report["history"]),
        (&json!("completed"), &json!([]))
    );
    assert_eq!(stack.sandbox.received_count(), 2);
}

#[tokio::test]
async fn dry_run_of_a_retry_counts_and_changes_nothing() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(6).await;
    let id = completed(&stack, &ids).await;
    let before = stack.report(&id).await;

    let body = json!({"statuses": ["failed", "in_doubt"]});
    let answer = stack.try_control("retry?dry_run=true", &id, &body).await;
    stack.drain_queue().await;

    let jobs = json!([{"page_id": PAGES[0], "reopened": 3}]);
    let counts = ["reopened", "may_get_it_twice", "jobs", "dry_run"].map(|name| answer.body[name].clone());
    assert_eq!(counts, [json!(3), json!(1), jobs, json!(true)], "{answer:?}");
    assert_eq!(stack.report(&id).await, before);
}

/// The request is repeated, because its answer was lost: before the command is carried out, and after the contact has failed
/// again.
#[tokio::test]
async fn repeated_retry_is_one_retry_until_it_is_carried_out() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(6).await;
    let id = completed(&stack, &ids).await;
    let refusal = || Fault::answering(GraphError::new(551, "not available")).to_contacts([&ids[0]]);
    stack.sandbox.add_fault(refusal());

    assert_eq!(retry(&stack, &id, json!({})).await, (2, 0));
    assert_eq!(retry(&stack, &id, json!({})).await, (2, 0));
    let other = stack.try_control("retry", &id, &json!({"statuses": ["skipped"]})).await;
    assert_eq!(other.status, StatusCode::CONFLICT, "{other:?}");
    let report = stack.finish(&id).await;

    assert_eq!(ends(&report), [3, 1, 1, 1]);
    assert_eq!(report["history"].as_array().unwrap().len(), 1);
    stack.sandbox.clear_faults();
    assert_eq!(retry(&stack, &id, json!({})).await, (1, 0));
    assert_eq!(ends(&stack.finish(&id).await), [4, 0, 1, 1]);
}

#[tokio::test]
async fn only_completed_jobs_are_retried() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(6).await;
    let (scheduled, queued) = (scheduled(&stack, &ids).await, stack.another_broadcast(&ids).await);
    let (paused, processing) = (stack.another_broadcast(&ids).await, stack.another_broadcast(&ids).await);
    stack.control("pause", &paused).await;
    stack.claim(&stack.job(&processing).await.id()).await;
    let cancelled = stack.another_broadcast(&ids).await;
    stack.control("cancel", &cancelled).await;
    stack.process_job(&stack.wake_up_for(&cancelled).await).await;

    for (id, named) in [
        (&scheduled, "is scheduled"),
        (&queued, "is queued"),
        (&paused, "is paused"),
        (&processing, "is processing"),
        (&cancelled, "is cancelled"),
    ] {
        let answer = stack.try_control("retry", id, &json!({})).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{named}: {answer:?}");
        assert_eq!(answer.body["type"], "/v1/problems/not-completed");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains(named) && detail.contains(PAGES[0]), "{detail}");
    }
}

/// One Page is completed, and the other is not: it is named, unless the request names the first.
#[tokio::test]
async fn one_page_is_retried_while_another_is_not_completed() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    stack.import(PAGES[1], &["other".to_owned()]).await;
    let refusal = Fault::answering(GraphError::new(551, "not available"));
    stack.sandbox.add_fault(refusal.to_contacts([&ids[0]]));
    let all = [&ids[..], &["other".to_owned()]].concat();
    let id = stack.post(&request(&all)).await.broadcast_id();
    let pause = stack.try_control("pause", &id, &json!({"page_id": PAGES[1]})).await;
    assert_eq!(pause.status, StatusCode::ACCEPTED);
    stack.drain_queue().await;
    stack.sandbox.clear_faults();

    let refused = stack.try_control("retry", &id, &json!({})).await;
    let retried = retry(&stack, &id, json!({"page_id": PAGES[0]})).await;
    stack.drain_queue().await;

    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert!(
        refused.body["detail"].as_str().unwrap().contains(PAGES[1]),
        "{refused:?}"
    );
    assert_eq!(retried, (1, 0));
    assert_eq!(stack.received(&id).len(), 2);
    // A cancelled Page does not keep the other from being retried.
    stack.try_control("cancel", &id, &json!({"page_id": PAGES[1]})).await;
    stack.drain_queue().await;
    assert_eq!(retry(&stack, &id, json!({})).await, (0, 0));
}

/// Messenger refused the message, and its echo came later all the same.
#[tokio::test]
async fn contact_whose_message_arrived_after_a_refusal_is_left_out() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(6).await;
    let id = completed(&stack, &ids).await;
    let message_id = stack.deliver_by_hand(&id, &ids[0]).await;
    stack.echo(&id, &ids[0], 1, &message_id).await;

    assert_eq!(retry(&stack, &id, json!({})).await, (1, 0));
    let report = stack.finish(&id).await;

    assert_eq!(ends(&report), [3, 1, 1, 1], "{report:#}");
    assert_eq!(
        stack.received(&id)[&ids[0]],
        1,
        "a second message to a contact that has got the first"
    );
}

/// The echo comes between the worker's read and its transaction.
#[tokio::test]
async fn contact_whose_message_arrives_meanwhile_is_not_reopened() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(6).await;
    let id = completed(&stack, &ids).await;
    retry(&stack, &id, json!({})).await;
    let mut claim = stack.claim(&stack.job(&id).await.id()).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let command = claim.job.retry.clone().unwrap();
    let (rows, _) = store
        .deliveries()
        .named_by_retry(&claim.job.id(), &command, None)
        .await
        .unwrap();
    assert_eq!(rows.len(), 2);

    let message_id = stack.deliver_by_hand(&id, &ids[0]).await;
    stack.echo(&id, &ids[0], 1, &message_id).await;
    let resent = store.transactions().resend(&mut claim, &rows, now).await.unwrap();

    assert!(matches!(&resent, Resent::Changed(which) if *which == [0]), "{resent:?}");
    stack.advance(LEASE + Duration::from_secs(90));
    let report = stack.finish(&id).await;
    assert_eq!(ends(&report), [3, 1, 1, 1], "{report:#}");
}

/// The worker dies in the middle of a retry, and the next claim finds the rest; the dead one turns out to have been frozen.
#[tokio::test]
async fn interrupted_retry_is_completed_by_the_next_claim() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(6).await;
    let id = completed(&stack, &ids).await;
    retry(&stack, &id, json!({})).await;
    let mut dead = stack.claim(&stack.job(&id).await.id()).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let command = dead.job.retry.clone().unwrap();
    let (rows, _) = store
        .deliveries()
        .named_by_retry(&dead.job.id(), &command, None)
        .await
        .unwrap();
    store.transactions().resend(&mut dead, &rows[..1], now).await.unwrap();
    stack.advance(LEASE + Duration::from_secs(90));

    let report = stack.finish(&id).await;
    let late = store.transactions().resend(&mut dead, &rows[1..], now).await.unwrap();

    assert!(matches!(late, Resent::Stale | Resent::Changed(_)), "{late:?}");
    assert_eq!(ends(&report), [4, 0, 1, 1], "{report:#}");
    assert_eq!(stack.received(&id).values().max(), Some(&1));
}

/// More contacts than fit into a transaction.
#[tokio::test]
async fn hundreds_of_contacts_are_retried() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(300).await;
    let refusal = Fault::answering(GraphError::new(551, "not available"));
    stack.sandbox.add_fault(refusal);
    let id = stack.another_broadcast(&ids).await;
    stack.drain_queue().await;
    stack.sandbox.clear_faults();
    assert_eq!(ends(&stack.report(&id).await), [0, 300, 0, 0]);

    assert_eq!(retry(&stack, &id, json!({})).await, (300, 0));
    let report = stack.finish(&id).await;

    assert_eq!(ends(&report), [300, 0, 0, 0]);
}

/// The stop comes while a worker carries the retry out, before it sends anything.
#[tokio::test]
async fn retry_that_is_paused_or_cancelled_before_its_first_send_sends_nothing() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(6).await;
    for verb in ["pause", "cancel"] {
        let id = completed(&stack, &ids).await;
        opt_out(&stack, &ids[2], false).await;
        retry(&stack, &id, json!({})).await;
        let mut claim = stack.claim(&stack.job(&id).await.id()).await;
        let (store, now) = (&stack.app.store, stack.app.clock.now());
        stack.control(verb, &id).await;

        assert!(store.jobs().clear_command_if_claimed(&mut claim, now).await.unwrap());
        assert!(
            claim.job.stop.is_some(),
            "{verb}: the worker does not know it before its first send"
        );
        stack.skip_promise_check();
    }
}

#[tokio::test]
async fn retry_is_carried_out_after_a_pause_and_dropped_by_a_cancel() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(6).await;
    let (resumed, cancelled) = (completed(&stack, &ids).await, {
        opt_out(&stack, &ids[2], false).await;
        completed(&stack, &ids).await
    });
    for id in [&resumed, &cancelled] {
        retry(&stack, id, json!({})).await;
        stack.control("pause", id).await;
    }
    wait_a_day(&stack).await;
    assert_eq!(stack.received(&resumed).len(), 2, "sent while paused");

    stack.control("resume", &resumed).await;
    stack.control("cancel", &cancelled).await;
    stack.drain_queue().await;

    let report = stack.report(&resumed).await;
    assert_eq!((&report["status"], ends(&report)), (&json!("completed"), [4, 0, 1, 1]));
    let report = stack.report(&cancelled).await;
    assert_eq!((&report["status"], ends(&report)), (&json!("cancelled"), [2, 2, 1, 1]));
    assert_eq!(stack.job(&cancelled).await.retry, None);
}

/// The segments of the job may be gone.
#[tokio::test]
async fn job_is_not_retried_after_its_time_of_retention() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(6).await;
    let id = completed(&stack, &ids).await;
    stack.advance(Duration::from_secs(91 * 86_400));

    let answer = stack.try_control("retry", &id, &json!({})).await;

    assert_eq!(answer.status, StatusCode::CONFLICT, "{answer:?}");
    assert!(
        answer.body["detail"].as_str().unwrap().contains("retention"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn wrong_retry_is_refused_with_the_nearest_right_words() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(6).await;
    let id = completed(&stack, &ids).await;
    let many: Vec<_> = (0..31).map(|n| n.to_string()).collect();
    for (body, field, message) in [
        (json!({"statuses": ["sent"]}), "/statuses/0", "have got the message"),
        (
            json!({"statuses": ["failed", "failed-"]}),
            "/statuses/1",
            "\"failed\" is one",
        ),
        (
            json!({"statuses": ["waiting"]}),
            "/statuses/0",
            "must be failed, skipped or in_doubt",
        ),
        (json!({"statuses": []}), "/statuses", "1 to 30"),
        (json!({"statuses": "failed"}), "/statuses", "must be a list"),
        (json!({"statuses": [1]}), "/statuses/0", "must be a string"),
        (json!({"reasons": ["opted-out"]}), "/reasons/0", "\"opted_out\" is one"),
        (json!({"reasons": many}), "/reasons", "1 to 30"),
        (
            json!({"page_id": PAGES[1]}),
            "/page_id",
            "must be a Page of the broadcast",
        ),
        (json!({"status": "failed"}), "/status", "is not a known field"),
        (json!(["failed"]), "", "must be an object"),
    ] {
        let answer = stack.try_control("retry", &id, &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}: {answer:?}");
        let error = &answer.body["errors"][0];
        assert_eq!(error["field"], field, "{body}");
        assert!(error["message"].as_str().unwrap().contains(message), "{body}: {error}");
    }
    assert_eq!(stack.report(&id).await["status"], "completed");
}

#[test]
fn retry_is_for_the_named_statuses_and_codes() {
    let retry = RetryCommand {
        statuses: vec![NotSent::Failed],
        reasons: vec!["551".to_owned()],
    };
    assert!(retry.is_for(NotSent::Failed, "551/1545041") && !retry.is_for(NotSent::Failed, "5510"));
    assert!(!retry.is_for(NotSent::Skipped, "551"));
    assert_eq!(retry.to_string(), "failed; reasons: 551");
}
