//! Cancelling: nothing new is sent within seconds, and every contact that is left ends counted.

use std::time::Duration;

use axum::http::StatusCode;
use local::sandbox::{Answer, Fault, GraphError};
use serde_json::{Value, json};
use shared::domain::ids::{BroadcastId, ContactId};
use shared::domain::job::JobStatus;
use shared::store::deliveries::Reserve;
use shared::store::hand_over::HandOver;
use shared::store::skips::Skip;

use crate::fixture::by_hand::LEASE;
use crate::fixture::controls::OBEYED_WITHIN;
use crate::fixture::doubts::RESEND;
use crate::fixture::{PAGE_WITHOUT_TOKEN, PAGES, TestStack, request};
use crate::pausing::{scheduled, wait_a_day, waiting};

/// Returns three counters of a broadcast: `sent`, `skipped` and `in_doubt`; the others must be 0.
async fn ends(stack: &TestStack, id: &BroadcastId) -> [u64; 3] {
    let report = stack.report(id).await;
    assert_eq!(report["status"], "cancelled", "{report:#}");
    let of = |name| report["counters"][name].as_u64().unwrap();
    assert_eq!((of("pending"), of("waiting"), of("failed")), (0, 0, 0), "{report:#}");
    ["sent", "skipped", "in_doubt"].map(of)
}

#[tokio::test(flavor = "multi_thread")]
async fn run_under_way_is_stopped_within_seconds_and_the_rest_is_skipped() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "30")]).await;
    let ids = stack.import_contacts(300).await;
    let id = stack.another_broadcast(&ids).await;
    let wake_up = stack.receive().await.unwrap();

    let (answer, took) = stack.control_during_run("cancel", &id, &wake_up).await;
    stack.delete(&wake_up).await;

    assert_eq!(answer["jobs"][0]["command"], "cancel", "{answer:#}");
    assert!(took < OBEYED_WITHIN, "the run went on for {took:?}");
    stack.drain_queue().await;
    let sent = stack.sandbox.received_count() as u64;
    assert!(sent < 300, "the run sent to everybody");
    assert_eq!(ends(&stack, &id).await, [sent, 300 - sent, 0]);
    for row in stack.deliveries(&id, "&status=skipped").await {
        assert_eq!(row["reason"], "cancelled", "{row:#}");
    }
    wait_a_day(&stack).await;
    assert_eq!(stack.sandbox.received_count() as u64, sent, "sent after the cancel");
}

#[tokio::test]
async fn broadcast_is_cancelled_in_every_state_that_it_can_be_in() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(5).await;
    stack.import(PAGE_WITHOUT_TOKEN, &["lonely".to_owned()]).await;
    let halted = stack.another_broadcast(&["lonely".to_owned()]).await;
    stack.drain_queue().await;
    let waiting = waiting(&stack, &ids).await;
    let scheduled = scheduled(&stack, &ids).await;
    let paused = stack.another_broadcast(&ids).await;
    stack.control("pause", &paused).await;
    let queued = stack.another_broadcast(&ids).await;
    let sent = stack.sandbox.received_count() as u64;

    for (id, status, ended) in [
        (&halted, "halted", [0, 1, 0]),
        (&waiting, "waiting", [sent, 5 - sent, 0]),
        (&scheduled, "scheduled", [0, 5, 0]),
        (&paused, "paused", [0, 5, 0]),
        (&queued, "queued", [0, 5, 0]),
    ] {
        assert_eq!(stack.status(id).await, status);
        let answer = stack.control("cancel", id).await;
        assert_eq!(answer["affected"]["contacts"], ended[1], "{status}: {answer:#}");
        assert_eq!(answer["jobs"][0]["command"], "cancel", "{status}");
        stack.drain_queue().await;
        assert_eq!(ends(&stack, id).await, ended, "{status}");
        assert_eq!(stack.report(id).await["jobs"][0]["reason"], Value::Null, "{status}");
    }
    wait_a_day(&stack).await;
    assert_eq!(stack.sandbox.received_count() as u64, sent, "sent after the cancel");
}

/// The drain needs neither the Page, which another job holds, nor its token, nor the switch for sending.
#[tokio::test]
async fn cancelled_job_is_drained_while_its_page_is_busy_and_sending_is_off() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let (busy, id) = (
        stack.another_broadcast(&ids).await,
        stack.another_broadcast(&ids[..2]).await,
    );
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let busy = stack.job(&busy).await.id();
    store.page_leases().acquire(&busy, LEASE, now).await.unwrap();
    stack
        .call("PUT", "/v1/sending", None, Some(&json!({"state": "off"})))
        .await;

    stack.control("cancel", &id).await;
    stack.process_job(&stack.wake_up_for(&id).await).await;

    assert_eq!(ends(&stack, &id).await, [0, 2, 0]);
}

/// The wake-up of a drain has a group of its own, so that it does not wait for a run of the Page.
#[tokio::test]
async fn drain_does_not_wait_for_the_wake_ups_of_its_page() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(27).await;
    stack.another_broadcast(&ids).await;
    let running = stack.receive().await.unwrap();
    let id = stack.another_broadcast(&ids[..26]).await;
    assert!(
        stack.receive().await.is_none(),
        "two wake-ups of large jobs of one Page at once"
    );

    stack.control("cancel", &id).await;

    let drain = stack.receive().await.unwrap();
    stack.process_job(&drain).await;
    assert_eq!(ends(&stack, &id).await, [0, 26, 0]);
    stack.delete(&drain).await;
    stack.process_job(&running).await;
    stack.delete(&running).await;
}

/// A contact of which an earlier attempt may have arrived is not known to be skipped.
#[tokio::test]
async fn contact_that_was_in_doubt_before_its_resend_is_in_doubt_after_a_cancel() {
    let stack = TestStack::start_with(&[RESEND]).await;
    let ids = stack.import_contacts(4).await;
    let id = stack.broadcast_with_doubts(&ids, &[], &[0, 1]).await;
    stack.tick_at_both_lookups().await;
    // The resend is requeued, and Messenger limits the Page before the first contact.
    let busy = Fault::answering(GraphError::new(613, "too fast"));
    stack.sandbox.add_fault(busy.times(2));
    stack.let_reads_catch_up();
    stack.tick().await;
    stack.drain_queue().await;
    let report = stack.report(&id).await;
    assert_eq!(report["counters"]["waiting"], 2, "{report:#}");

    stack.control("cancel", &id).await;
    stack.drain_queue().await;

    assert_eq!(ends(&stack, &id).await, [2, 0, 2]);
    let row = stack.delivery(&id, &ids[0]).await;
    assert_eq!(
        (&row["status"], &row["reason"]),
        (
            &json!("in_doubt"),
            &json!("cancelled; an earlier attempt may have arrived")
        )
    );
    // A late proof that the first attempt arrived still counts.
    stack.sandbox.clear_faults();
    let message_id = stack.deliver_by_hand(&id, &ids[0]).await;
    stack.echo(&id, &ids[0], 1, &message_id).await;
    assert_eq!(ends(&stack, &id).await, [3, 0, 1]);
}

/// The job takes no resend any more, and the delivery is not looked up for ever.
#[tokio::test]
async fn delivery_in_doubt_of_a_cancelled_job_is_left_in_doubt_by_the_resend_policy() {
    let stack = TestStack::start_with(&[RESEND]).await;
    let ids = stack.import_contacts(3).await;
    let lost = Fault::answering(Answer::Reset).to_contacts([&ids[0]]);
    stack.sandbox.add_fault(lost);
    let id = waiting(&stack, &ids).await;
    stack.sandbox.clear_faults();
    stack.control("cancel", &id).await;
    stack.drain_queue().await;
    assert_eq!(ends(&stack, &id).await, [1, 1, 1]);

    stack.tick_at_both_lookups().await;
    wait_a_day(&stack).await;

    assert_eq!(ends(&stack, &id).await, [1, 1, 1]);
    let rows = stack.deliveries(&id, "&status=in_doubt").await;
    assert_eq!(
        rows[0]["reason"], "connection lost; not found in Messenger",
        "{rows:#?}"
    );
    assert_eq!(stack.received(&id).len(), 1);
}

/// A worker that died in the middle of a send may have sent.
#[tokio::test]
async fn reserved_contact_of_a_dead_worker_is_in_doubt_after_a_cancel() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let id = stack.another_broadcast(&ids).await;
    let dead = stack.claim(&stack.job(&id).await.id()).await;
    let _lost = stack.reserve(&dead, &ContactId::parse(&ids[1]).unwrap()).await;
    stack.control("cancel", &id).await;

    stack.drain_queue().await;
    assert_eq!(stack.status(&id).await, "processing");
    stack.advance(LEASE + Duration::from_secs(90));
    stack.tick().await;
    stack.drain_queue().await;

    assert_eq!(ends(&stack, &id).await, [0, 2, 1]);
}

/// A worker that was frozen before its claim was taken over thaws after the drain.
#[tokio::test]
async fn overtaken_worker_cannot_reserve_a_contact_of_a_cancelled_job() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let id = stack.another_broadcast(&ids).await;
    let frozen = stack.claim(&stack.job(&id).await.id()).await;
    stack.control("cancel", &id).await;
    stack.advance(LEASE + Duration::from_secs(1));
    stack.process_job(&stack.wake_up_for(&id).await).await;
    assert_eq!(ends(&stack, &id).await, [0, 3, 0]);

    let (store, now) = (&stack.app.store, stack.app.clock.now());
    for contact in &ids {
        let contact = ContactId::parse(contact).unwrap();
        let reserved = store.deliveries().reserve(&frozen.job, &contact, None, now).await;
        assert!(
            matches!(reserved.unwrap(), Reserve::Refused(_)),
            "{contact} could be sent to"
        );
    }
}

/// A drain that was frozen thaws after a newer claim has taken up the job. The contact waits to be sent to by that claim.
#[tokio::test]
async fn overtaken_drain_cannot_skip_a_contact_of_a_newer_claim() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(3).await;
    let id = stack.another_broadcast(&ids).await;
    let frozen = stack.claim(&stack.job(&id).await.id()).await;
    stack.advance(LEASE + Duration::from_secs(1));
    let busy = Fault::answering(GraphError::new(613, "too fast")).to_contacts([&ids[0]]);
    stack.sandbox.add_fault(busy.times(1));
    stack.process_job(&stack.wake_up_for(&id).await).await;
    assert_eq!(stack.delivery(&id, &ids[0]).await["status"], "waiting");

    let (deliveries, contact) = (stack.app.store.deliveries(), ContactId::parse(&ids[0]).unwrap());
    let now = stack.app.clock.now();
    let skipped = deliveries
        .skip_if_free(&frozen.job, &contact, "cancelled", now)
        .await
        .unwrap();

    assert!(matches!(skipped, Skip::Refused(_)), "{skipped:?}");
    assert_eq!(stack.finish(&id).await["counters"]["sent"], 3);
}

#[tokio::test]
async fn delivery_of_a_cancelled_job_is_erased() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let id = stack.another_broadcast(&ids).await;
    stack.control("cancel", &id).await;
    stack.drain_queue().await;
    stack.advance(Duration::from_secs(3_600));

    let path = format!("/v1/contacts/{}?erase=true", ids[0]);
    let erased = stack.call("DELETE", &path, None, None).await.body;

    assert_eq!(
        (&erased["erased"]["deliveries"], &erased["kept"]),
        (&json!(1), &json!([])),
        "{erased:#}"
    );
    stack.skip_promise_check();
}

/// The cancel comes after the last checkpoint of a worker, which leaves the job in another way.
#[tokio::test]
async fn hand_over_obeys_a_cancel_that_the_worker_has_not_seen() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let later = HandOver::Waiting(stack.app.clock.now() + Duration::from_secs(3_600));
    for to in [HandOver::Queued, later, HandOver::Halted("no token".to_owned())] {
        let id = stack.another_broadcast(&ids).await;
        let claim = stack.claim(&stack.job(&id).await.id()).await;
        stack.control("cancel", &id).await;

        let handed_over = stack
            .app
            .store
            .jobs()
            .hand_over(claim, &to, stack.app.clock.now())
            .await;

        assert_eq!(handed_over.unwrap().unwrap().to, HandOver::Queued, "{to:?}");
        stack.finish_cancelled(&id).await;
        assert_eq!(ends(&stack, &id).await, [0, 2, 0], "{to:?}");
    }
}

/// Cancel and completion come in the same instant: the cancel was answered, and nothing is left to skip.
#[tokio::test]
async fn job_with_nothing_left_is_cancelled_if_the_cancel_was_answered_first() {
    let stack = TestStack::start_with(&[("PAGE_RATE_PER_SECOND", "1")]).await;
    let ids = stack.import_contacts(1).await;
    let id = stack.another_broadcast(&ids).await;
    let claim = stack.claim(&stack.job(&id).await.id()).await;
    stack.control("cancel", &id).await;

    let now = stack.app.clock.now();
    let handed_over = stack.app.store.jobs().hand_over(claim, &HandOver::Completed, now).await;

    assert_eq!(handed_over.unwrap().unwrap().to, HandOver::Cancelled(None));
    let job = stack.job(&id).await;
    assert_eq!((job.status, job.stop), (JobStatus::Cancelled, None));
    // The claim was not worked off.
    stack.skip_promise_check();
}

/// The invocation ends in the middle of a drain, and a later one goes on.
#[tokio::test]
async fn drain_goes_on_in_the_next_invocation() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(400).await;
    let id = stack.another_broadcast(&ids).await;
    stack.control("cancel", &id).await;

    let mut invocations = 0;
    while stack.status(&id).await != "cancelled" {
        let wake_up = stack.wake_up_for(&id).await;
        stack.process_job_for(&wake_up, Duration::from_millis(120)).await;
        invocations += 1;
        assert!(invocations < 200, "the drain does not end");
    }

    assert!(invocations > 1, "one invocation was enough");
    assert_eq!(ends(&stack, &id).await, [0, 400, 0]);
}

/// A drain that died has written rows that no checkpoint has counted.
#[tokio::test]
async fn drain_of_a_dead_worker_is_continued() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(4).await;
    let id = stack.another_broadcast(&ids).await;
    stack.control("cancel", &id).await;
    let dead = stack.claim(&stack.job(&id).await.id()).await;
    let (deliveries, now) = (stack.app.store.deliveries(), stack.app.clock.now());
    for contact in &ids[..2] {
        let contact = ContactId::parse(contact).unwrap();
        deliveries
            .skip_if_free(&dead.job, &contact, "cancelled", now)
            .await
            .unwrap();
    }

    stack.advance(LEASE + Duration::from_secs(1));
    stack.process_job(&stack.wake_up_for(&id).await).await;

    assert_eq!(ends(&stack, &id).await, [0, 4, 0]);
    assert_eq!(stack.report(&id).await["duplicates_prevented"]["reservation"], 0);
}

/// The contacts of a segment that time to live has taken are not known any more.
#[tokio::test]
async fn cancelled_job_with_a_missing_segment_is_cancelled_with_the_reason() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let id = stack.another_broadcast(&ids).await;
    let snapshot = stack.job(&id).await.snapshot;
    stack.delete_segment_by_hand(&snapshot, 0).await;

    stack.control("cancel", &id).await;
    stack.drain_queue().await;

    let report = stack.report(&id).await;
    assert_eq!(
        (
            &report["status"],
            &report["jobs"][0]["reason"],
            &report["counters"]["pending"]
        ),
        (&json!("cancelled"), &json!("expired: segment 0 is gone"), &json!(2))
    );
    stack.skip_promise_check();
}

#[tokio::test]
async fn cancel_twice_changes_nothing_and_a_completed_broadcast_cannot_be_cancelled() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let completed = stack.another_broadcast(&ids).await;
    stack.drain_queue().await;
    let id = stack.another_broadcast(&ids[..1]).await;

    stack.control("cancel", &id).await;
    let while_draining = stack.control("cancel", &id).await;
    stack.drain_queue().await;
    let afterwards = stack.control("cancel", &id).await;

    for again in [&while_draining, &afterwards] {
        assert_eq!(again["affected"], json!({"jobs": 0, "contacts": 0, "resolving": false}));
        assert_eq!(again["history"].as_array().unwrap().len(), 1);
    }
    assert_eq!(ends(&stack, &id).await, [0, 1, 0]);
    let refused = stack.try_control("cancel", &completed, &json!({})).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{refused:?}");
    assert_eq!(refused.body["type"], "/v1/problems/nothing-to-cancel");
}

/// A cancel replaces a pause that no worker has obeyed yet, and is not taken back by a resume.
#[tokio::test]
async fn cancel_prevails_over_a_pause() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let id = stack.another_broadcast(&ids).await;
    let claim = stack.claim(&stack.job(&id).await.id()).await;

    stack.control("pause", &id).await;
    let cancelled = stack.control("cancel", &id).await;
    let resumed = stack.try_control("resume", &id, &json!({})).await;
    let now = stack.app.clock.now();
    stack
        .app
        .store
        .jobs()
        .hand_over(claim, &HandOver::Queued, now)
        .await
        .unwrap();
    stack.finish_cancelled(&id).await;

    assert_eq!(cancelled["jobs"][0]["command"], "cancel");
    assert_eq!(resumed.status, StatusCode::CONFLICT, "{resumed:?}");
    assert_eq!(ends(&stack, &id).await, [0, 2, 0]);
}

/// One Page of two is cancelled; the other sends.
#[tokio::test]
async fn cancel_of_one_page_leaves_the_others_alone() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    stack.import(PAGES[1], &["other".to_owned()]).await;
    let id = stack.post(&request(&[&ids[..], &["other".to_owned()]].concat())).await;
    let id = id.broadcast_id();

    let answer = stack.try_control("cancel", &id, &json!({"page_id": PAGES[0]})).await;
    stack.drain_queue().await;

    assert_eq!(
        answer.body["affected"],
        json!({"jobs": 1, "contacts": 2, "resolving": false})
    );
    let report = stack.report(&id).await;
    let of = |page: usize| {
        (
            &report["jobs"][page]["status"],
            &report["jobs"][page]["counters"]["sent"],
        )
    };
    assert_eq!(of(0), (&json!("cancelled"), &json!(0)));
    assert_eq!(of(1), (&json!("completed"), &json!(1)));
}

impl TestStack {
    /// Works until a broadcast is cancelled.
    async fn finish_cancelled(&self, id: &BroadcastId) {
        for _ in 0..20 {
            self.drain_queue().await;
            if self.status(id).await == "cancelled" {
                return;
            }
            self.advance(Duration::from_secs(200));
            self.tick().await;
        }
        panic!("not cancelled: {:#}", self.report(id).await)
    }
}
