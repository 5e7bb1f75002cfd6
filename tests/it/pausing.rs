//! Pausing and resuming: nothing new is sent within seconds, nothing is lost, and the broadcast goes on where it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use local::sandbox::{Fault, GraphError};
use serde_json::{Value, json};
use shared::domain::backlog::Progress;
use shared::domain::command::StopCommand;
use shared::domain::ids::{BroadcastId, ContactId};
use shared::domain::job::JobStatus;
use shared::store::hand_over::HandOver;
use shared::store::transactions::{Checkpoint, Checkpointed};
use shared::worker::claim::{Worked, work_inline};
use tokio::sync::Notify;

use crate::fixture::by_hand::LEASE;
use crate::fixture::controls::OBEYED_WITHIN;
use crate::fixture::proxy::{self, ProxiedCall};
use crate::fixture::{Endpoints, PAGE_WITHOUT_TOKEN, Services, TEXT, TestStack};

const HOUR: Duration = Duration::from_secs(3_600);

/// Requests a broadcast that is due in an hour.
pub async fn scheduled(stack: &TestStack, ids: &[String]) -> BroadcastId {
    let at = stack.app.clock.now() + HOUR;
    let body = json!({"contact_ids": ids, "message": {"text": TEXT}, "scheduled_at": at});
    stack.post(&body).await.broadcast_id()
}

/// Returns a broadcast that waits, since Messenger has limited the Page at the third contact.
pub async fn waiting(stack: &TestStack, ids: &[String]) -> BroadcastId {
    let busy = Fault::answering(GraphError::new(613, "too fast"));
    stack.sandbox.add_fault(busy.to_contacts([&ids[2]]).times(1));
    let id = stack.another_broadcast(ids).await;
    stack.drain_queue().await;
    assert_eq!(stack.status(&id).await, "waiting");
    id
}

/// Has the schedule look for a day, and works on all that it wakes.
pub async fn wait_a_day(stack: &TestStack) {
    for _ in 0..24 {
        stack.advance(HOUR);
        stack.tick().await;
        stack.drain_queue().await;
    }
}

fn counters(report: &Value) -> [u64; 3] {
    ["pending", "waiting", "sent"].map(|name| report["counters"][name].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn run_under_way_is_paused_within_seconds_and_resumed_where_it_was() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "30")]).await;
    let ids = stack.import_contacts(300).await;
    let id = stack.another_broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();

    let (answer, took) = stack.control_during_run("pause", &id, &wake_up).await;
    stack.delete(&wake_up).await;

    assert_eq!(answer["jobs"][0]["command"], "pause", "{answer:#}");
    assert_eq!(answer["affected"]["jobs"], 1);
    assert!(took < OBEYED_WITHIN, "the run went on for {took:?}");
    let report = stack.report(&id).await;
    assert_eq!(
        (&report["status"], &report["jobs"][0]["command"]),
        (&json!("paused"), &Value::Null)
    );
    assert_eq!(report["counters"]["in_doubt"], 0);
    let sent = report["counters"]["sent"].as_u64().unwrap();
    assert_eq!(
        sent,
        stack.sandbox.received_count() as u64,
        "a send in flight was not recorded"
    );
    assert!(sent < 300, "the run sent to everybody");

    wait_a_day(&stack).await;
    assert_eq!(stack.sandbox.received_count() as u64, sent, "sent while paused");

    let resumed = stack.control("resume", &id).await;
    assert_eq!(
        (&resumed["status"], &resumed["affected"]["jobs"]),
        (&json!("queued"), &json!(1))
    );
    let report = stack.finish(&id).await;
    assert_eq!(counters(&report), [0, 0, 300], "{report:#}");
    assert_eq!(report["duplicates_prevented"]["reservation"], 0);
}

#[tokio::test]
async fn queued_broadcast_is_paused_at_once_and_sent_after_its_resume() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(5).await;
    let id = stack.another_broadcast(&ids).await;

    let paused = stack.control("pause", &id).await;
    stack.drain_queue().await;
    wait_a_day(&stack).await;

    assert_eq!((&paused["status"], counters(&paused)), (&json!("paused"), [5, 0, 0]));
    assert_eq!(
        paused["affected"],
        json!({"jobs": 1, "contacts": 5, "resolving": false})
    );
    assert_eq!(
        (stack.status(&id).await.as_str(), stack.sandbox.received_count()),
        ("paused", 0)
    );
    stack.control("resume", &id).await;
    let report = stack.finish(&id).await;
    assert_eq!(counters(&report), [0, 0, 5]);
}

#[tokio::test]
async fn scheduled_broadcast_that_is_resumed_in_time_is_sent_when_due() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let id = scheduled(&stack, &ids).await;

    let paused = stack.control("pause", &id).await;
    stack.advance(HOUR / 2);
    let resumed = stack.control("resume", &id).await;
    stack.tick().await;
    stack.drain_queue().await;

    assert_eq!(
        (&paused["status"], &resumed["status"]),
        (&json!("paused"), &json!("scheduled"))
    );
    assert_eq!(stack.sandbox.received_count(), 0, "sent before its time");
    stack.advance(HOUR / 2);
    stack.let_reads_catch_up();
    stack.tick().await;
    stack.drain_queue().await;
    assert_eq!(stack.sandbox.received_count(), 2);
}

#[tokio::test]
async fn scheduled_broadcast_that_is_paused_at_its_time_is_sent_at_its_resume() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let id = scheduled(&stack, &ids).await;

    stack.control("pause", &id).await;
    wait_a_day(&stack).await;
    assert_eq!(stack.sandbox.received_count(), 0, "sent while paused");
    let resumed = stack.control("resume", &id).await;
    stack.drain_queue().await;

    assert_eq!(resumed["status"], "queued");
    assert_eq!(counters(&stack.report(&id).await), [0, 0, 2]);
}

#[tokio::test]
async fn waiting_broadcast_waits_again_after_its_resume() {
    let stack = TestStack::start_with(&[("RETRY_BASE_SECONDS", "600")]).await;
    let ids = stack.import_contacts(5).await;
    let id = waiting(&stack, &ids).await;

    stack.control("pause", &id).await;
    stack.advance(Duration::from_secs(60));
    let resumed = stack.control("resume", &id).await;
    stack.drain_queue().await;

    assert_eq!(resumed["status"], "waiting");
    assert_eq!(stack.status(&id).await, "waiting", "sent before the Page's limit ended");
    let report = stack.finish(&id).await;
    assert_eq!(counters(&report), [0, 0, 5]);
}

/// The worker has seen the pause by the time when it is taken back.
#[tokio::test]
async fn resume_takes_back_a_pause_that_a_worker_is_about_to_obey() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let id = stack.another_broadcast(&ids).await;
    let mut claim = stack.claim(&stack.job(&id).await.id()).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    stack.control("pause", &id).await;
    let transactions = store.transactions();
    let seen = transactions
        .checkpoint(&mut claim, &Checkpoint::default(), now)
        .await
        .unwrap();
    assert!(matches!(seen, Checkpointed::Written(_)), "{seen:?}");
    assert_eq!(claim.job.stop, Some(StopCommand::Pause));

    let resumed = stack.control("resume", &id).await;
    let handed_over = store.jobs().hand_over(claim, &HandOver::Queued, now).await.unwrap();

    assert_eq!(
        (&resumed["status"], &resumed["jobs"][0]["command"]),
        (&json!("processing"), &Value::Null)
    );
    assert_eq!(handed_over.unwrap().to, HandOver::Queued);
    assert_eq!(counters(&stack.finish(&id).await), [0, 0, 3]);
}

/// The pause comes after the last checkpoint of a worker, which then leaves the job in another way.
#[tokio::test]
async fn hand_over_obeys_a_pause_that_the_worker_has_not_seen() {
    let soon = |stack: &TestStack| HandOver::Waiting(stack.app.clock.now() + HOUR);
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    for (to, status) in [
        (HandOver::Queued, "paused"),
        (soon(&stack), "paused"),
        (HandOver::Halted("no token".to_owned()), "halted"),
    ] {
        let id = stack.another_broadcast(&ids).await;
        let claim = stack.claim(&stack.job(&id).await.id()).await;
        stack.control("pause", &id).await;

        let handed_over = stack
            .app
            .store
            .jobs()
            .hand_over(claim, &to, stack.app.clock.now())
            .await;

        assert!(handed_over.unwrap().is_some());
        let job = stack.job(&id).await;
        assert_eq!((job.status.to_string().as_str(), job.stop), (status, None), "{to:?}");
        // One that is halted is still to be announced.
        assert_eq!(job.wake_at.is_some(), status == "halted", "{to:?}");
        stack.control("resume", &id).await;
        assert_eq!(counters(&stack.finish(&id).await), [0, 0, 3], "{to:?}");
    }
}

/// Pause and completion come in the same instant: nothing is left to pause.
#[tokio::test]
async fn job_with_nothing_left_is_completed_in_spite_of_a_pause() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.another_broadcast(&ids).await;
    let mut claim = stack.claim(&stack.job(&id).await.id()).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let reservation = stack.reserve(&claim, &ContactId::parse(&ids[0]).unwrap()).await;
    let message_id = stack.deliver_by_hand(&id, &ids[0]).await;
    let sent = shared::domain::delivery::State::Sent { message_id };
    store.transactions().record(&reservation, &sent, now).await.unwrap();
    let progress = Progress {
        cursor: 1_000,
        sent: 1,
        ..Progress::default()
    };
    let checkpoint = Checkpoint {
        progress,
        ..Checkpoint::default()
    };
    store
        .transactions()
        .checkpoint(&mut claim, &checkpoint, now)
        .await
        .unwrap();

    let paused = stack.control("pause", &id).await;
    let handed_over = store.jobs().hand_over(claim, &HandOver::Completed, now).await.unwrap();

    assert_eq!(
        paused["affected"],
        json!({"jobs": 1, "contacts": 0, "resolving": false})
    );
    assert_eq!(handed_over.unwrap().to, HandOver::Completed);
    let job = stack.job(&id).await;
    assert_eq!((job.status, job.stop), (JobStatus::Completed, None));
}

/// A checkpoint that requeues a contact is a transaction, which answers with no item.
#[tokio::test]
async fn checkpoint_of_several_items_learns_of_a_pause() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let id = stack.another_broadcast(&ids).await;
    let mut claim = stack.claim(&stack.job(&id).await.id()).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    stack.control("pause", &id).await;

    let progress = Progress {
        cursor: 1,
        waiting: 1,
        requeued: vec![(ContactId::parse(&ids[0]).unwrap(), now)],
        ..Progress::default()
    };
    let checkpoint = Checkpoint {
        progress,
        ..Checkpoint::default()
    };
    let written = store
        .transactions()
        .checkpoint(&mut claim, &checkpoint, now)
        .await
        .unwrap();

    assert!(matches!(written, Checkpointed::Written(Some(_))), "{written:?}");
    assert_eq!(claim.job.stop, Some(StopCommand::Pause));
    store.jobs().hand_over(claim, &HandOver::Queued, now).await.unwrap();
    assert_eq!(stack.status(&id).await, "paused");
    stack.control("resume", &id).await;
    assert_eq!(counters(&stack.finish(&id).await), [0, 0, 2]);
}

/// The next claim obeys the pause; it needs neither the Page nor a token for that.
#[tokio::test]
async fn pause_of_a_job_whose_worker_died_is_obeyed_by_the_next_claim() {
    let stack = TestStack::start().await;
    stack.import(PAGE_WITHOUT_TOKEN, &["lonely".to_owned()]).await;
    let id = stack.another_broadcast(&["lonely".to_owned()]).await;
    stack.claim(&stack.job(&id).await.id()).await;
    let paused = stack.control("pause", &id).await;
    assert_eq!(paused["status"], "processing");

    stack.drain_queue().await;
    stack.advance(LEASE + Duration::from_secs(90));
    stack.tick().await;
    stack.drain_queue().await;

    let job = stack.job(&id).await;
    assert_eq!((job.status, job.stop, job.reason), (JobStatus::Paused, None, None));
}

/// The pause comes between the claim and the first send.
#[tokio::test]
async fn claim_that_finds_a_pause_sends_nothing() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let id = stack.another_broadcast(&ids).await;
    stack.claim(&stack.job(&id).await.id()).await;
    stack.control("pause", &id).await;
    stack.advance(LEASE + Duration::from_secs(1));

    stack.process_job(&stack.wake_up_for(&id).await).await;

    assert_eq!(
        (stack.status(&id).await.as_str(), stack.sandbox.received_count()),
        ("paused", 0)
    );
}

/// The request that made the broadcast is about to work it off.
#[tokio::test]
async fn job_that_is_paused_before_its_inline_work_sends_nothing() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let id = stack.another_broadcast(&ids).await;
    let job = stack.job(&id).await;
    let dead = stack.claim(&job.id()).await;
    stack.control("pause", &id).await;
    stack.advance(
        dead.job
            .lease_until
            .unwrap()
            .duration_since(stack.app.clock.now())
            .unsigned_abs(),
    );
    stack.advance(Duration::from_secs(1));

    let ends = tokio::time::Instant::now() + Duration::from_secs(20);
    let worked = work_inline(&stack.app, &job, ends).await.unwrap();

    assert_eq!(worked, Worked::HandedOver(HandOver::Paused));
    assert_eq!(stack.sandbox.received_count(), 0);
}

/// A broadcast that is paused while its worker is frozen before the nth call of a kind, from 0. The runtime of the test must have one thread, so
/// that a thread that sleeps freezes all of it.
async fn paused_while_frozen(
    contacts: usize,
    nth: usize,
    is_of_kind: fn(&ProxiedCall) -> bool,
) -> (TestStack, BroadcastId) {
    const NOT_COUNTED: usize = 1_000;
    let services = Services::start().await;
    // Counted from the wake-up on; the request makes such calls, too.
    let (calls, paused) = (Arc::new(AtomicUsize::new(NOT_COUNTED)), Arc::new(Notify::new()));
    let reached = Arc::new(Notify::new());
    let hook = {
        let (calls, paused, reached) = (Arc::clone(&calls), Arc::clone(&paused), Arc::clone(&reached));
        move |call: ProxiedCall| {
            let (calls, paused, reached) = (Arc::clone(&calls), Arc::clone(&paused), Arc::clone(&reached));
            async move {
                if is_of_kind(&call) && calls.fetch_add(1, Ordering::SeqCst) == nth {
                    reached.notify_one();
                    paused.notified().await;
                    std::thread::sleep(OBEYED_WITHIN);
                }
                call.forward().await
            }
        }
    };
    let endpoints = Endpoints {
        dynamodb: proxy::start(&services.endpoints.dynamodb, hook).await,
        ..services.endpoints.clone()
    };
    let stack = TestStack::start_on(services, &endpoints, &[("PAGE_RATE_PER_SECOND", "30")]).await;
    let ids = stack.import_contacts(contacts).await;
    let id = stack.another_broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();
    calls.store(0, Ordering::SeqCst);

    let pausing = async {
        reached.notified().await;
        stack.control("pause", &id).await;
        paused.notify_one();
    };
    tokio::join!(stack.process_job(&wake_up), pausing);
    stack.delete(&wake_up).await;
    (stack, id)
}

/// The worker has claimed its job, and is about to read the switch for sending again, before its first send.
#[tokio::test]
async fn worker_that_was_frozen_before_its_first_send_sends_nothing_after_a_pause() {
    let is_reading = |call: &ProxiedCall| call.body().contains(r#""pk":{"S":"sending"}"#);
    // The first reading is before the claim.
    let (stack, id) = paused_while_frozen(100, 1, is_reading).await;

    assert_eq!(
        (stack.status(&id).await.as_str(), stack.sandbox.received_count()),
        ("paused", 0)
    );
}

/// The worker is about to reserve its contact: the reservation is won after the pause, and is young enough for Messenger.
#[tokio::test]
async fn worker_that_was_frozen_before_a_reservation_sends_nothing_after_a_pause() {
    let is_reservation = |call: &ProxiedCall| call.body().contains(r#""S":"reserved""#);
    let (stack, id) = paused_while_frozen(1, 0, is_reservation).await;

    assert_eq!(
        (stack.status(&id).await.as_str(), stack.sandbox.received_count()),
        ("paused", 0)
    );
    let report = stack.report(&id).await;
    assert_eq!(report["counters"]["in_doubt"], 0, "{report:#}");
    stack.control("resume", &id).await;
    stack.drain_queue().await;
    assert_eq!(stack.sandbox.received_count(), 1);
}

#[tokio::test]
async fn pause_and_resume_twice_change_nothing() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let id = stack.another_broadcast(&ids).await;
    let none = json!({"jobs": 0, "contacts": 0, "resolving": false});

    let first = stack.control("pause", &id).await;
    let second = stack.control("pause", &id).await;
    assert_eq!(second["affected"], none);
    assert_eq!(
        (&first["status"], &second["status"]),
        (&json!("paused"), &json!("paused"))
    );
    stack.control("resume", &id).await;
    let second = stack.control("resume", &id).await;

    assert_eq!(second["affected"], none);
    assert_eq!(second["history"].as_array().unwrap().len(), 2, "{second:#}");
    assert_eq!(counters(&stack.finish(&id).await), [0, 0, 3]);
}

#[tokio::test]
async fn broadcast_that_sends_nothing_more_cannot_be_paused_or_resumed() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    stack.import(PAGE_WITHOUT_TOKEN, &["lonely".to_owned()]).await;
    let completed = stack.another_broadcast(&ids).await;
    let halted = stack.another_broadcast(&["lonely".to_owned()]).await;
    stack.drain_queue().await;
    let (cancelled, cancelling) = (stack.another_broadcast(&ids).await, scheduled(&stack, &ids).await);
    stack.control("cancel", &cancelled).await;
    stack.drain_queue().await;
    stack.control("cancel", &cancelling).await;

    for (verb, id, kind, named) in [
        ("pause", &completed, "nothing-to-pause", "completed"),
        ("pause", &halted, "nothing-to-pause", "halted"),
        ("pause", &cancelled, "nothing-to-pause", "cancelled"),
        ("pause", &cancelling, "nothing-to-pause", "a command to cancel"),
        ("resume", &completed, "nothing-to-resume", "completed"),
        ("resume", &cancelled, "nothing-to-resume", "cancelled"),
        ("resume", &cancelling, "nothing-to-resume", "a command to cancel"),
    ] {
        let answer = stack.try_control(verb, id, &json!({})).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{verb} {named}: {answer:?}");
        assert_eq!(answer.body["type"], format!("/v1/problems/{kind}"));
        assert!(answer.body["detail"].as_str().unwrap().contains(named), "{answer:?}");
    }
}
