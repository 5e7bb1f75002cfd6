//! Clocks that differ by up to five minutes, and a clock that goes back in the middle of a run: no contact gets two messages,
//! none is lost, and the work stays bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use local::sandbox::{Answer, Fault, GraphError};
use serde_json::json;
use shared::app::App;
use shared::domain::ids::{BroadcastId, JobId};
use shared::runtime::clock::Clock;
use shared::store::hand_over::HandOver;
use shared::worker::claim::{Worked, work_on};
use tokio::time::{Instant, sleep, timeout};

use crate::fixture::by_hand::LEASE;
use crate::fixture::doubts::{FIRST_LOOKUP, LAST_LOOKUP, RESEND};
use crate::fixture::{Endpoints, Services, TEXT, TestStack, proxy, request};

/// The interval of the schedule.
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const FIVE_MINUTES: i64 = 300;

/// Returns a process whose clock is ahead of the stack's by these seconds, or behind.
fn process_ahead(stack: &TestStack, seconds: i64) -> App {
    let difference = stack.app.clock.now().duration_since(Clock::default().now());
    let clock = Clock::default();
    clock.advance(difference + SignedDuration::from_secs(seconds));
    App {
        clock,
        ..stack.app.clone()
    }
}

fn ends() -> Instant {
    Instant::now() + Duration::from_secs(120)
}

async fn received(stack: &TestStack, count: usize) {
    let begun = Instant::now();
    while stack.sandbox.received_count() < count {
        assert!(
            begun.elapsed().as_secs() < 60,
            "only {} received",
            stack.sandbox.received_count()
        );
        sleep(Duration::from_millis(5)).await;
    }
}

/// Processes wake-ups until the queue is empty; returns their number.
async fn drain(stack: &TestStack) -> usize {
    let mut wake_ups = 0;
    while let Some(wake_up) = stack.receive().await {
        stack.process_job(&wake_up).await;
        stack.delete(&wake_up).await;
        wake_ups += 1;
    }
    wake_ups
}

/// Lets `minutes` pass, each with a tick of the schedule by `scheduled`, and processes its wake-ups; returns their number and
/// the minute in which the broadcast was completed.
async fn pass(stack: &TestStack, scheduled: &App, id: &BroadcastId, minutes: usize) -> (usize, Option<usize>) {
    let (mut wake_ups, mut completed) = (0, None);
    for minute in 1..=minutes {
        stack.advance(MINUTE);
        if !std::ptr::eq(scheduled, &stack.app) {
            scheduled.clock.advance(MINUTE.try_into().unwrap());
        }
        stack.sandbox.forget_conversation_calls();
        scheduled::handle(scheduled, ends()).await.unwrap();
        wake_ups += drain(stack).await;
        if completed.is_none() && stack.report(id).await["status"] == "completed" {
            completed = Some(minute);
        }
    }
    (wake_ups, completed)
}

/// Each contact of a broadcast has got one message, and is counted as sent.
async fn assert_all_sent(stack: &TestStack, id: &BroadcastId, contacts: usize) {
    let received = stack.received(id);
    assert!(received.values().all(|messages| *messages == 1), "{received:?}");
    assert_eq!(received.len(), contacts);
    let report = stack.report(id).await;
    assert_eq!(report["counters"]["sent"], contacts, "{report:#}");
}

/// The lease of a worker whose clock is behind looks expired to the other, which takes over in the middle of its sends.
#[tokio::test]
async fn worker_ahead_takes_the_job_of_a_worker_behind_and_sends_no_duplicate() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "40")]).await;
    stack.sandbox.set_latency_ms(300);
    let ids = stack.import_contacts(80).await;
    let id = stack.broadcast(&ids).await;
    let job = stack.job(&id).await.id();
    let (behind, ahead) = (
        process_ahead(&stack, -FIVE_MINUTES / 2),
        process_ahead(&stack, FIVE_MINUTES / 2),
    );

    let (first, second) = tokio::join!(work_on(&behind, &job, ends()), async {
        received(&stack, 10).await;
        work_on(&ahead, &job, ends()).await
    });

    assert_eq!(first.unwrap(), Worked::Overtaken);
    assert_eq!(second.unwrap(), Worked::HandedOver(HandOver::Completed));
    assert_all_sent(&stack, &id, 80).await;
}

/// The lease of a worker whose clock is ahead holds for longer, by the difference of the clocks and no more.
#[tokio::test]
async fn job_of_a_dead_worker_ahead_comes_back_after_its_lease_and_the_difference() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "40")]).await;
    stack.sandbox.set_latency_ms(100);
    let ids = stack.import_contacts(60).await;
    let id = stack.broadcast(&ids).await;
    let job = stack.job(&id).await.id();
    let ahead = process_ahead(&stack, FIVE_MINUTES);

    tokio::select! {
        worked = work_on(&ahead, &job, ends()) => panic!("{worked:?}"),
        () = received(&stack, 10) => {}
    }
    assert_eq!(work_on(&stack.app, &job, ends()).await.unwrap(), Worked::Refused);
    // The lease, and the minute until the wake-up.
    let bound = (LEASE + Duration::from_secs(300)).as_secs() / 60 + 3;
    let (wake_ups, completed) = pass(&stack, &stack.app, &id, 15).await;

    assert!(completed.is_some_and(|minute| minute as u64 <= bound), "{completed:?}");
    assert!(wake_ups <= 3, "{wake_ups} wake-ups");
    let received = stack.received(&id);
    assert!(received.values().all(|messages| *messages == 1), "{received:?}");
}

#[tokio::test]
async fn schedule_that_is_ahead_or_behind_delays_a_broadcast_by_a_few_minutes_at_most() {
    const DUE: usize = 10;
    for seconds in [-FIVE_MINUTES, 0, FIVE_MINUTES] {
        let stack = TestStack::start().await;
        let ids = stack.import_contacts(3).await;
        let at = stack.app.clock.now() + MINUTE * u32::try_from(DUE).unwrap();
        let body = json!({"contact_ids": ids, "message": {"text": TEXT}, "scheduled_at": at});
        let id = stack.post(&body).await.broadcast_id();
        let scheduled = process_ahead(&stack, seconds);

        let (before, _) = pass(&stack, &scheduled, &id, DUE - 1).await;
        assert_eq!(stack.sandbox.received_count(), 0);
        let (after, completed) = pass(&stack, &scheduled, &id, 20).await;

        // The difference, three minutes between two wake-ups, and the minute of the schedule.
        assert!(completed.is_some_and(|minute| minute <= 1 + 5 + 3 + 1), "{completed:?}");
        assert!(before + after <= 4, "{seconds} s: {before} + {after} wake-ups");
        assert_all_sent(&stack, &id, 3).await;
    }
}

/// The end of a Page's pause has passed for the schedule but not for the workers, which set it as the job's wake-up again.
#[tokio::test]
async fn schedule_that_is_ahead_wakes_a_job_once_in_a_firing() {
    let stack = TestStack::start_with(&[("RETRY_BASE_SECONDS", "120")]).await;
    let ids = stack.import_contacts(2).await;
    stack.sandbox.add_fault(Fault::answering(GraphError::new(613, "limit")));
    let paused = stack.broadcast(&ids[..1]).await;
    stack.drain_queue().await;
    assert_eq!(stack.report(&paused).await["status"], "waiting");
    let id = stack.broadcast(&ids[1..]).await;
    stack.drain_queue().await;
    stack.sandbox.clear_faults();
    // Each wake-up is carried out before the next query of the schedule.
    let wake_ups = Arc::new(AtomicUsize::new(0));
    let (worker, counter) = (stack.app.clone(), Arc::clone(&wake_ups));
    let job = stack.job(&id).await.id();
    let queue = proxy::start(&stack.endpoints().sqs, move |call| {
        let (worker, counter, job) = (worker.clone(), Arc::clone(&counter), job.clone());
        async move {
            counter.fetch_add(1, Ordering::SeqCst);
            let answer = call.forward().await;
            work_on(&worker, &job, ends()).await.unwrap();
            answer
        }
    });
    let endpoints = Endpoints {
        sqs: queue.await,
        ..stack.endpoints().clone()
    };
    let scheduled = App {
        clock: process_ahead(&stack, FIVE_MINUTES).clock,
        ..stack.another_app(&endpoints)
    };

    stack.let_reads_catch_up();
    scheduled::handle(&scheduled, Instant::now() + Duration::from_secs(4))
        .await
        .unwrap();

    assert_eq!(wake_ups.load(Ordering::SeqCst), 2, "one for each job");
    stack.advance(Duration::from_secs(300));
    stack.finish(&paused).await;
    stack.finish(&id).await;
    assert_eq!(stack.sandbox.received_count(), 2);
}

/// Starts a stack whose Messenger is ahead by these seconds, and puts the only contact of a broadcast in doubt whose message
/// has arrived; then looks it up for the last time, and returns the outcome with the number of messages that it got.
async fn look_up_by_another_clock(seconds: i64, policy: &str) -> (serde_json::Value, usize) {
    let mut services = Services::start().await;
    let messenger = std::mem::take(&mut services.clock);
    messenger.advance(SignedDuration::from_secs(seconds));
    let endpoints = services.endpoints.clone();
    let stack = TestStack::start_on(services, &endpoints, &[(RESEND.0, policy)]).await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast_with_doubts(&ids, &[0], &[]).await;
    for age in [FIRST_LOOKUP, LAST_LOOKUP - FIRST_LOOKUP] {
        messenger.advance(age.try_into().unwrap());
        stack.tick_after(age).await;
        stack.finish(&id).await;
    }
    (stack.delivery(&id, &ids[0]).await, stack.sandbox.received_count())
}

#[tokio::test]
async fn lookup_settles_nothing_and_resends_nothing_by_a_clock_that_differs() {
    for policy in ["hold", "resend"] {
        for seconds in [-FIVE_MINUTES, -20, 20, FIVE_MINUTES] {
            let (row, received) = look_up_by_another_clock(seconds, policy).await;

            assert_eq!(row["status"], "in_doubt", "{seconds} s, {policy}");
            assert_eq!(
                row["reason"],
                "connection lost; Messenger's clock and ours differ by more than 5 s"
            );
            assert_eq!(received, 1);
        }
        for seconds in [-3, 3] {
            let (row, received) = look_up_by_another_clock(seconds, policy).await;

            assert_eq!((&row["status"], received), (&json!("sent"), 1), "{seconds} s, {policy}");
        }
    }
}

/// The clock of the worker that sent was ahead of those of Messenger and of the reconciler, so that the message seems to be
/// older than its reservation.
#[tokio::test]
async fn message_of_a_sender_whose_clock_was_ahead_is_not_resent() {
    let stack = TestStack::start_with(&[RESEND]).await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    stack.sandbox.add_fault(Fault::answering(Answer::Reset).but_arriving());
    let ahead = process_ahead(&stack, FIVE_MINUTES - 10);
    work_on(&ahead, &stack.job(&id).await.id(), ends()).await.unwrap();
    stack.sandbox.clear_faults();
    assert_eq!(stack.sent_failed_in_doubt(&id).await, [0, 0, 1]);

    stack.advance(Duration::from_secs(300));
    stack.tick_at_both_lookups().await;
    stack.finish(&id).await;

    let row = stack.delivery(&id, &ids[0]).await;
    assert_eq!(
        row["reason"],
        "connection lost; a message like it is a little older than the reservation"
    );
    assert_eq!(stack.received(&id)[&ids[0]], 1);
}

/// The clock of the worker that sent for another broadcast was ahead, so that its message seems older than its reservation.
#[tokio::test]
async fn delivery_reserved_by_a_clock_that_is_ahead_is_a_rival() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let lost = stack.broadcast_with_doubts(&ids, &[], &[0]).await;
    stack.sandbox.add_fault(Fault::answering(Answer::Reset).but_arriving());
    let other = stack.post_with_key("other", &request(&ids)).await.broadcast_id();
    let ahead = process_ahead(&stack, FIVE_MINUTES - 10);
    work_on(&ahead, &stack.job(&other).await.id(), ends()).await.unwrap();
    stack.sandbox.clear_faults();

    stack.tick_at_both_lookups().await;

    assert_eq!(stack.sent_failed_in_doubt(&lost).await, [0, 0, 1]);
}

/// Due times from before the correction are an hour ahead afterwards, and the job waits for them.
#[tokio::test]
async fn clock_that_goes_back_in_the_middle_of_a_run_delays_retries_by_as_much() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "100")]).await;
    stack.sandbox.set_latency_ms(20);
    let ids = stack.import_contacts(200).await;
    stack.sandbox.unreachable().await;
    let id = stack.broadcast(&ids).await;
    // Five contacts find no connection and are to be retried; then the Page pauses.
    stack.drain_queue().await;
    stack.sandbox.reachable().await.unwrap();
    // The back-off of 30 s, with its jitter, rounded up.
    stack.advance(MINUTE);
    let job = stack.job(&id).await.id();

    let ((), worked) = tokio::join!(
        async {
            received(&stack, 50).await;
            stack.app.clock.advance(-HOUR);
        },
        work_on(&stack.app, &job, ends())
    );

    assert!(matches!(worked.unwrap(), Worked::HandedOver(_)));
    let (wake_ups, completed) = pass(&stack, &stack.app, &id, 75).await;
    assert!(
        completed.is_some_and(|minute| minute <= 60 + 10),
        "{completed:?}: {:#}",
        stack.report(&id).await
    );
    assert!(wake_ups <= 15, "{wake_ups} wake-ups");
    assert_all_sent(&stack, &id, 200).await;
}

/// A checkpoint after the correction makes the leases and the wake-up right.
#[tokio::test]
async fn worker_that_dies_after_its_clock_went_back_is_replaced_after_its_lease() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "20")]).await;
    let ids = stack.import_contacts(200).await;
    let id = stack.broadcast(&ids).await;
    let lost = stack.receive().await.unwrap();
    stack.delete(&lost).await;
    let job = stack.job(&id).await.id();

    tokio::select! {
        worked = work_on(&stack.app, &job, ends()) => panic!("{worked:?}"),
        () = async {
            received(&stack, 10).await;
            stack.app.clock.advance(-HOUR);
            let after = checkpoint_of(&stack, &job).await;
            while checkpoint_of(&stack, &job).await == after {
                sleep(Duration::from_millis(20)).await;
            }
            // The Page lease is extended after the checkpoint.
            sleep(Duration::from_millis(300)).await;
        } => {}
    }
    stack.advance(LEASE + MINUTE + Duration::from_secs(1));
    stack.tick().await;
    let taken_over = timeout(Duration::from_secs(60), drain(&stack)).await.unwrap();

    assert_eq!(taken_over, 1);
    let report = stack.report(&id).await;
    assert_eq!(report["status"], "completed", "{report:#}");
    assert!(stack.received(&id).values().all(|messages| *messages == 1));
}

async fn checkpoint_of(stack: &TestStack, job: &JobId) -> u64 {
    stack.job(&job.broadcast_id).await.cursor
}

/// The time of the deadline is that of the host; without time left each run would hand its job over without a send.
#[tokio::test]
async fn deadline_that_has_passed_by_the_workers_clock_leaves_time_to_send() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(20).await;
    let id = stack.broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();
    let mut context = lambda_runtime::Context::default();
    let passed = stack.app.clock.now() - Duration::from_secs(300);
    context.deadline = passed.as_millisecond().try_into().unwrap();

    process_job::handle(&stack.app, wake_up.event(), &context).await;

    assert_eq!(stack.report(&id).await["status"], "completed");
    assert_all_sent(&stack, &id, 20).await;
}
