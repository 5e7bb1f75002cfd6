//! Lost answers: each conditional write of a broadcast is carried out once without an answer, and is not taken to be refused
//! when it is repeated.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use local::sandbox::{Answer, Fault, GraphError};
use serde_json::json;

use crate::fixture::TestStack;
use crate::fixture::by_hand::LEASE;
use crate::fixture::proxy::Reply;
use crate::metrics::{count_events, counts};

/// Starts a stack whose database loses its answer to the first call that contains `write`; returns the stack with a flag that
/// tells that the answer was lost.
async fn start_losing_once(write: &'static str, variables: &[(&str, &str)]) -> (TestStack, Arc<AtomicBool>) {
    let lost = Arc::new(AtomicBool::new(false));
    let hook = {
        let lost = Arc::clone(&lost);
        move |call: &str| match call.contains(write) && !lost.swap(true, Ordering::SeqCst) {
            true => Reply::IsLost,
            false => Reply::Arrives,
        }
    };
    (TestStack::start_with_lossy_database(hook, variables).await, lost)
}

/// A refusal that shows the random value of the write itself is a win.
#[tokio::test]
async fn lost_answer_is_not_a_refusal() {
    for write in [
        "attribute_not_exists(pk) OR valid_until",
        "SET holder = :holder",
        "SET #status = :processing",
        "SET #status = :reserved",
        "message_id = :message_id",
        "not_before = :not_before, attempts",
        "SET #status = :in_doubt",
        "due_at = :wake_at",
        "SET wake_at = :wake_at",
        "SET #status = :status, stalls = :none, checkpoint_id",
        "REMOVE holder",
    ] {
        let (stack, lost) = start_losing_once(write, &[]).await;
        let ids = stack.import_contacts(6).await;
        // One contact is rate-limited once and one never gets an answer, so that every kind of write is made.
        let busy = GraphError::new(613, "too fast");
        stack
            .sandbox
            .add_fault(Fault::answering(busy).to_contacts([&ids[2]]).times(1));
        stack
            .sandbox
            .add_fault(Fault::answering(Answer::Reset).to_contacts([&ids[4]]));

        let id = stack.broadcast(&ids).await;
        let report = stack.finish(&id).await;

        assert!(lost.load(Ordering::SeqCst), "no call contains {write:?}");
        let counters = json!({"pending": 0, "waiting": 0, "sent": 5, "failed": 0, "skipped": 0, "in_doubt": 1});
        assert_eq!(report["counters"], counters, "{write}");
        // No worker took its own write for another worker's.
        let prevented = json!({"request": 0, "replay": 0, "claim": 0, "reservation": 0});
        assert_eq!(report["duplicates_prevented"], prevented, "{write}");
        assert_eq!(stack.job(&id).await.epoch, 2, "{write}");
        assert_eq!(stack.received(&id).len(), 5, "{write}");
        let counted = [("InDoubt", 1), ("JobsCompleted", 1), ("RateLimitWaits", 1), ("Sent", 5)];
        assert_eq!(count_events(&stack), counts(counted), "{write}");
    }
}

/// A large job takes its Page first; the lease is its own.
#[tokio::test]
async fn lost_answer_to_the_lease_of_a_page_is_not_a_refusal() {
    let (stack, lost) = start_losing_once("SET holder = :holder", &[]).await;
    let ids = stack.import_contacts(26).await;

    let id = stack.broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();
    stack.process_job(&wake_up).await;

    assert!(lost.load(Ordering::SeqCst));
    let report = stack.report(&id).await;
    assert_eq!(
        (&report["status"], &report["counters"]["sent"]),
        (&json!("completed"), &json!(26))
    );
    assert_eq!(report["duplicates_prevented"]["claim"], 0);
}

/// A checkpoint without doubts and retries is a single update, which no request token protects.
#[tokio::test]
async fn lost_checkpoint_answer_does_not_end_the_run() {
    let (stack, lost) = start_losing_once("SET #cursor = :cursor", &[]).await;
    let ids = stack.import_contacts(300).await;

    let id = stack.broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();
    stack.process_job(&wake_up).await;

    assert!(lost.load(Ordering::SeqCst));
    let report = stack.report(&id).await;
    assert_eq!(
        (&report["status"], &report["counters"]["sent"]),
        (&json!("completed"), &json!(300))
    );
}

/// The last write of a resolution that finds nobody any more is a single update, too.
#[tokio::test]
async fn lost_answer_of_a_resolution_does_not_end_the_run() {
    let (stack, lost) = start_losing_once("REMOVE #resolving", &[]).await;
    let ids = stack.import_contacts(3).await;
    stack.let_reads_catch_up();
    let id = stack.broadcast_to(&json!({"everybody": true})).await;
    let mut claim = stack.claim(&stack.job(&id).await.id()).await;
    assert!(stack.resolve(&mut claim, &ids).await);
    stack.advance(LEASE + Duration::from_secs(1));

    stack.process_job(&stack.wake_up_for(&id).await).await;
    assert!(lost.load(Ordering::SeqCst));
    stack.drain_queue().await;

    let report = stack.report(&id).await;
    assert_eq!(
        (&report["status"], &report["counters"]["sent"]),
        (&json!("completed"), &json!(3)),
        "the contacts would wait for three minutes"
    );
    assert_eq!(report["contacts"]["accepted"], 3);
}

#[tokio::test]
async fn lost_hand_over_answer_keeps_the_next_wake_up() {
    let (stack, lost) = start_losing_once("stalls = :none, wake_at = :wake_at, checkpoint_id", &[]).await;
    let ids = stack.import_contacts(1_500).await;
    let id = stack.broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();

    stack.process_job_for(&wake_up, Duration::from_secs(1)).await;
    stack.delete(&wake_up).await;

    assert!(lost.load(Ordering::SeqCst));
    assert_eq!(stack.report(&id).await["status"], "queued");
    assert!(
        stack.receive().await.is_some(),
        "the job would not be woken for three minutes"
    );
}

#[tokio::test]
async fn lost_postponement_answer_keeps_the_wake_up() {
    let (stack, lost) = start_losing_once("SET wake_at = :wake_at", &[]).await;
    let ids = stack.import_contacts(1).await;
    stack.broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();
    stack.delete(&wake_up).await;

    stack.advance(Duration::from_secs(181));
    stack.tick().await;

    assert!(lost.load(Ordering::SeqCst));
    assert!(
        stack.receive().await.is_some(),
        "the job would not be woken for three minutes"
    );
}

/// An outcome that the worker cannot know is left to the next claim, which finds it in the rows.
#[tokio::test]
async fn unresponsive_database_ends_the_run_and_loses_no_contact() {
    for (write, leaves_doubts) in [
        ("SET #status = :processing", false),
        // The read of a contact before its send.
        ("-contacts\"", false),
        ("SET #cursor = :cursor", false),
        ("SET #status = :reserved", true),
        ("message_id = :message_id", false),
        ("SET #status = :status, stalls = :none", false),
    ] {
        let answers = Arc::new(AtomicBool::new(true));
        let hook = {
            let answers = Arc::clone(&answers);
            move |call: &str| match call.contains(write) && !answers.load(Ordering::SeqCst) {
                true => Reply::IsLost,
                false => Reply::Arrives,
            }
        };
        let stack = TestStack::start_with_lossy_database(hook, &[]).await;
        let ids = stack.import_contacts(20).await;
        let id = stack.broadcast(&ids).await;

        let wake_up = stack.receive().await.unwrap();
        answers.store(false, Ordering::SeqCst);
        let answer = stack.process_job(&wake_up).await;
        stack.delete(&wake_up).await;
        answers.store(true, Ordering::SeqCst);
        let report = stack.finish(&id).await;

        assert_eq!(answer.batch_item_failures.len(), 1, "{write}");
        let [sent, in_doubt] = ["sent", "in_doubt"].map(|name| report["counters"][name].as_u64().unwrap());
        assert_eq!(sent + in_doubt, 20, "{write}: {report:#}");
        // A contact whose reservation was not begun before the first failed is none of them.
        assert_eq!(in_doubt > 0, leaves_doubts, "{write}: {report:#}");
    }
}

/// A repeated write neither counts a contact twice nor sends to it twice.
#[tokio::test]
async fn lost_settle_or_resend_answer_is_not_a_refusal() {
    for (write, arrives, claims) in [
        ("in_doubt = in_doubt - :one, sent = sent + :one", true, 1),
        ("SET look_at = :look_at", false, 2),
        ("SET resend = :yes", false, 2),
        ("in_doubt = in_doubt - :in_doubt", false, 2),
        ("REMOVE resend_wish", false, 2),
    ] {
        let (stack, lost) = start_losing_once(write, &[("IN_DOUBT_POLICY", "resend")]).await;
        let ids = stack.import_contacts(4).await;
        let fault = Fault::answering(Answer::Reset).to_contacts(&ids[..2]);
        let fault = if arrives { fault.but_arriving() } else { fault };
        stack.sandbox.add_fault(fault);
        let id = stack.broadcast(&ids).await;
        stack.drain_queue().await;
        stack.sandbox.clear_faults();

        for age in [150, 450] {
            stack.advance(Duration::from_secs(age));
            stack.sandbox.forget_conversation_calls();
            stack.tick().await;
        }
        let report = stack.finish(&id).await;

        assert!(lost.load(Ordering::SeqCst), "no call contains {write:?}");
        assert_eq!(report["counters"]["sent"], 4, "{write}: {report:#}");
        assert_eq!(stack.received(&id).len(), 4, "{write}");
        // No worker took its own write for another worker's, and left the job to the next claim.
        assert_eq!(stack.job(&id).await.epoch, claims, "{write}");
    }
}
