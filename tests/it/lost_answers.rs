//! A lost answer is not a refusal: every conditional write of a broadcast, carried out but not answered, and asked for again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use local::sandbox::{Answer, Fault, GraphError};
use serde_json::json;

use crate::metrics::{counted_in, of};
use crate::proxy::Fate;
use crate::stack::Stack;

/// A stack whose database loses its answer to the first call that holds this text, and whether it has.
async fn losing_once(write: &'static str, variables: &[(&str, &str)]) -> (Stack, Arc<AtomicBool>) {
    let lost = Arc::new(AtomicBool::new(false));
    let hook = {
        let lost = Arc::clone(&lost);
        move |call: &str| match call.contains(write) && !lost.swap(true, Ordering::SeqCst) {
            true => Fate::IsLost,
            false => Fate::Arrives,
        }
    };
    (Stack::over_a_bad_way(hook, variables).await, lost)
}

/// CHECKED 1.
#[tokio::test]
async fn a_lost_answer_is_not_a_refusal() {
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
        let (stack, lost) = losing_once(write, &[]).await;
        let ids = stack.contacts(6).await;
        // One is refused for a while, and one is never answered: so that every kind of write is made.
        let busy = GraphError::new(613, "too fast");
        stack
            .sandbox
            .add_fault(Fault::answering(busy).to_contacts([&ids[2]]).times(1));
        stack
            .sandbox
            .add_fault(Fault::answering(Answer::Reset).to_contacts([&ids[4]]));

        let id = stack.broadcast(&ids).await;
        let report = stack.finish(&id).await;

        assert!(lost.load(Ordering::SeqCst), "no call holds {write:?}");
        let counters = json!({"pending": 0, "waiting": 0, "sent": 5, "failed": 0, "skipped": 0, "in_doubt": 1});
        assert_eq!(report["counters"], counters, "{write}");
        // Nobody took their own write for another's.
        let prevented = json!({"request": 0, "replay": 0, "claim": 0, "reservation": 0});
        assert_eq!(report["duplicates_prevented"], prevented, "{write}");
        assert_eq!(stack.job(&id).await.epoch, 2, "{write}");
        assert_eq!(stack.received(&id).len(), 5, "{write}");
        let counted = [
            ("InDoubt", 1),
            ("JobsCompleted", 1),
            ("RateLimitWaits", 1),
            ("Sent", 5),
        ];
        assert_eq!(counted_in(&stack), of(counted), "{write}");
    }
}

/// Without doubts and retries it is one update, which no request token protects.
#[tokio::test]
async fn a_lost_answer_to_a_checkpoint_does_not_end_the_slice() {
    let (stack, lost) = losing_once("SET #cursor = :cursor", &[]).await;
    let ids = stack.contacts(300).await;

    let id = stack.broadcast(&ids).await;
    let hint = stack.receive().await.unwrap();
    stack.process_job(&hint).await;

    assert!(lost.load(Ordering::SeqCst));
    let report = stack.report(&id).await;
    assert_eq!(
        (&report["status"], &report["counters"]["sent"]),
        (&json!("completed"), &json!(300))
    );
}

#[tokio::test]
async fn a_lost_answer_to_a_hand_over_does_not_lose_the_next_slices_hint() {
    let (stack, lost) = losing_once("stalls = :none, wake_at = :wake_at, checkpoint_id", &[]).await;
    let ids = stack.contacts(1_500).await;
    let id = stack.broadcast(&ids).await;
    let hint = stack.receive().await.unwrap();

    stack.process_job_for(&hint, Duration::from_secs(1)).await;
    stack.delete(&hint).await;

    assert!(lost.load(Ordering::SeqCst));
    assert_eq!(stack.report(&id).await["status"], "queued");
    assert!(
        stack.receive().await.is_some(),
        "nobody will look at the job for three minutes"
    );
}

#[tokio::test]
async fn a_lost_answer_to_waking_a_job_does_not_lose_its_hint() {
    let (stack, lost) = losing_once("SET wake_at = :wake_at", &[]).await;
    let ids = stack.contacts(1).await;
    stack.broadcast(&ids).await;
    let hint = stack.receive().await.unwrap();
    stack.delete(&hint).await;

    stack.advance(Duration::from_secs(181));
    stack.scheduled().await;

    assert!(lost.load(Ordering::SeqCst));
    assert!(
        stack.receive().await.is_some(),
        "nobody will look at the job for three minutes"
    );
}

/// What cannot be known is left to the next claim, which finds it in the rows.
#[tokio::test]
async fn a_database_that_does_not_answer_ends_the_slice_and_loses_nobody() {
    for (write, in_doubt) in [
        ("SET #status = :processing", 0),
        // A contact who is read to be sent to.
        ("\"ConsistentRead\":false", 0),
        ("SET #cursor = :cursor", 0),
        ("SET #status = :reserved", 20),
        ("message_id = :message_id", 0),
        ("SET #status = :status, stalls = :none", 0),
    ] {
        let answers = Arc::new(AtomicBool::new(true));
        let hook = {
            let answers = Arc::clone(&answers);
            move |call: &str| match call.contains(write) && !answers.load(Ordering::SeqCst) {
                true => Fate::IsLost,
                false => Fate::Arrives,
            }
        };
        let stack = Stack::over_a_bad_way(hook, &[]).await;
        let ids = stack.contacts(20).await;
        let id = stack.broadcast(&ids).await;

        let hint = stack.receive().await.unwrap();
        answers.store(false, Ordering::SeqCst);
        let answer = stack.process_job(&hint).await;
        stack.delete(&hint).await;
        answers.store(true, Ordering::SeqCst);
        let report = stack.finish(&id).await;

        assert_eq!(answer.batch_item_failures.len(), 1, "{write}");
        let counters = &report["counters"];
        let expected = (json!(20 - in_doubt), json!(in_doubt));
        assert_eq!(
            (&counters["sent"], &counters["in_doubt"]),
            (&expected.0, &expected.1),
            "{write}"
        );
    }
}

/// CHECKED 18, and the writes that settle: an answer that is lost is asked for again, and nobody is counted, or sent to,
/// twice.
#[tokio::test]
async fn a_lost_answer_to_settling_or_resending_is_not_a_refusal() {
    for (write, arrives, claims) in [
        ("in_doubt = in_doubt - :one, sent = sent + :one", true, 1),
        ("SET look_at = :look_at", false, 2),
        ("SET resend = :yes", false, 2),
        ("in_doubt = in_doubt - :rows", false, 2),
        ("REMOVE resend_wish", false, 2),
    ] {
        let (stack, lost) = losing_once(write, &[("IN_DOUBT_POLICY", "resend")]).await;
        let ids = stack.contacts(4).await;
        let fault = Fault::answering(Answer::Reset).to_contacts(&ids[..2]);
        let fault = if arrives { fault.but_arriving() } else { fault };
        stack.sandbox.add_fault(fault);
        let id = stack.broadcast(&ids).await;
        stack.work_off().await;
        stack.sandbox.clear_faults();

        for age in [150, 450] {
            stack.advance(Duration::from_secs(age));
            stack.sandbox.forget_conversation_calls();
            stack.scheduled().await;
        }
        let report = stack.finish(&id).await;

        assert!(lost.load(Ordering::SeqCst), "no call holds {write:?}");
        assert_eq!(report["counters"]["sent"], 4, "{write}: {report:#}");
        assert_eq!(stack.received(&id).len(), 4, "{write}");
        // Nobody took their own write for another's, and left the job to the next claim.
        assert_eq!(stack.job(&id).await.epoch, claims, "{write}");
    }
}
