//! The resolution of an audience: whole and once, by workers that die or are late, and under the commands of the operator.

use std::time::Duration;

use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use shared::domain::ids::{BroadcastId, JobId, PageId};
use shared::store::hand_over::HandOver;
use shared::worker::claim::work_on;
use shared::worker::run::CHECKPOINT_EVERY;
use tokio::time::{Instant, sleep, timeout};

use crate::fixture::audiences::{resolved, vips};
use crate::fixture::by_hand::LEASE;
use crate::fixture::fault_plan::{FaultPlan, InjectedFault};
use crate::fixture::{PAGES, Services, TestStack, request_to};

impl TestStack {
    /// Requests a broadcast to the audience, of which a worker has resolved these contacts before it died.
    async fn broadcast_resolved_to(&self, ids: &[String]) -> BroadcastId {
        let id = self.broadcast_to_vips().await;
        let mut claim = self.claim(&self.job(&id).await.id()).await;
        assert!(self.resolve(&mut claim, ids).await);
        self.advance(LEASE + Duration::from_secs(1));
        id
    }
}

#[tokio::test]
async fn next_claim_goes_on_where_the_last_write_ended() {
    let stack = TestStack::start().await;
    let ids = stack.import_vips(5).await;
    let id = stack.broadcast_resolved_to(&ids[..2]).await;
    let report = stack.report(&id).await;
    assert_eq!(resolved(&report), (false, vec![("processing".to_owned(), 2, true)]));
    assert_eq!(
        (&report["contacts"]["accepted"], &report["counters"]["pending"]),
        (&json!(2), &json!(2))
    );

    let report = stack.finish(&id).await;

    stack.assert_received(&id, &ids);
    let counts = &report["contacts"];
    assert_eq!((&counts["requested"], &counts["accepted"]), (&json!(5), &json!(5)));
}

#[tokio::test]
async fn stale_worker_adds_no_contact() {
    let stack = TestStack::start().await;
    let ids = stack.import_vips(5).await;
    let id = stack.broadcast_to_vips().await;
    let job = stack.job(&id).await.id();
    let mut old = stack.claim(&job).await;
    assert!(stack.resolve(&mut old, &ids[..1]).await);
    stack.advance(LEASE + Duration::from_secs(1));
    let mut new = stack.claim(&job).await;

    assert!(!stack.resolve(&mut old, &ids[1..3]).await);
    assert!(stack.resolve(&mut new, &ids[1..4]).await);
    assert!(!stack.resolve(&mut old, &ids[1..3]).await);
    stack.advance(LEASE + Duration::from_secs(1));
    let report = stack.finish(&id).await;

    stack.assert_received(&id, &ids);
    assert_eq!(report["contacts"]["accepted"], 5);
}

/// Each claim writes some contacts and dies.
#[tokio::test]
async fn resolution_that_loses_ten_workers_goes_on() {
    let stack = TestStack::start().await;
    let ids = stack.import_vips(11).await;
    let id = stack.broadcast_to_vips().await;
    let job = stack.job(&id).await.id();
    for id in &ids[..10] {
        let mut claim = stack.claim(&job).await;
        assert!(stack.resolve(&mut claim, std::slice::from_ref(id)).await);
        stack.advance(LEASE + Duration::from_secs(1));
    }

    let report = stack.finish(&id).await;

    assert_eq!(report["status"], "completed", "{report:#}");
    stack.assert_received(&id, &ids);
}

/// The contacts have been active for less than a day at the first look, and for longer when the next worker goes on.
#[tokio::test]
async fn hours_count_back_from_the_first_look_whichever_worker_goes_on() {
    let stack = TestStack::start().await;
    let ids = stack.import_vips(3).await;
    let active_at = stack.app.clock.now() - Duration::from_secs(24 * 3_600 - 60);
    for id in &ids {
        let change = json!({"contact_id": id, "page_id": PAGES[0], "last_interaction_at": active_at});
        stack.change_contact(change).await;
    }
    stack.let_reads_catch_up();
    let mut body = request_to(&json!({"active_within_hours": 24}));
    body["outside_window"] = json!("send");
    let id = stack.post(&body).await.broadcast_id();
    stack.advance(Duration::from_secs(3));
    let mut claim = stack.claim(&stack.job(&id).await.id()).await;
    assert!(stack.resolve(&mut claim, &ids[..1]).await);
    stack.advance(LEASE + Duration::from_secs(1));

    stack.finish(&id).await;

    stack.assert_received(&id, &ids);
}

/// The index is behind by a moment, and not by as much as the clock.
#[tokio::test]
async fn resolution_does_not_wait_for_a_clock_that_went_back() {
    let stack = TestStack::start().await;
    let ids = stack.import_vips(2).await;
    stack.advance(Duration::from_secs(7_200));
    let id = stack.post(&request_to(&vips())).await.broadcast_id();
    let wake_up = stack.receive().await.unwrap();
    stack.app.clock.advance(SignedDuration::from_hours(-1));

    let work = stack.process_job(&wake_up);
    let ended = timeout(Duration::from_secs(30), work).await;
    assert!(ended.is_ok(), "the worker waits");

    stack.delete(&wake_up).await;
    stack.finish(&id).await;
    stack.assert_received(&id, &ids);
}

/// A run that goes on is killed at its time-out, and the next one waits for the end of its lease. One without time left does a part.
#[tokio::test]
async fn resolution_is_handed_over_before_the_deadline_of_its_run() {
    let stack = TestStack::start().await;
    stack.import_vips(2_500).await;
    let id = stack.broadcast_to_vips().await;
    let job = stack.job(&id).await.id();

    for contacts in [1_000, 2_000] {
        work_on(&stack.app, &job, Instant::now()).await.unwrap();
        let report = stack.report(&id).await;
        assert_eq!(resolved(&report), (false, vec![("queued".to_owned(), contacts, true)]));
    }
}

/// Contacts before and after the position change while no worker is there.
#[tokio::test]
async fn contact_that_changes_meanwhile_is_in_or_out_and_never_twice() {
    let stack = TestStack::start().await;
    let ids = stack.import_vips(6).await;
    stack
        .import_tagged(PAGES[0], &["v000x".to_owned(), "v003x".to_owned()], &["new"])
        .await;
    let id = stack.broadcast_resolved_to(&ids[..3]).await;
    let contact = |id: &str, tags: &[&str]| json!({"contact_id": id, "page_id": PAGES[0], "tags": tags});
    for changed in [
        contact("v000x", &["vip"]),
        contact("v003x", &["vip"]),
        contact(&ids[1], &[]),
        contact(&ids[4], &[]),
    ] {
        stack.change_contact(changed).await;
    }
    for (id, is_back) in [(&ids[0], true), (&ids[2], false), (&ids[5], false)] {
        let path = format!("/v1/contacts/{id}");
        stack.call("DELETE", &path, None, None).await;
        if is_back {
            stack.change_contact(contact(id, &["vip"])).await;
        }
    }
    stack.let_reads_catch_up();

    let report = stack.finish(&id).await;

    // In the backlog by then, and still a contact; or behind the position, and matching.
    stack.assert_received(&id, [&ids[0], &ids[1], &ids[3], &"v003x".to_owned()]);
    let rows = stack.deliveries(&id, "&status=skipped").await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(
        (&rows[0]["contact_id"], &rows[0]["reason"]),
        (&json!(ids[2]), &json!("contact_deleted"))
    );
    assert_eq!(report["contacts"]["accepted"], 5);
}

/// The contact is deleted and created on another Page after the first Page's job has taken it up, and before that of the second.
#[tokio::test]
async fn contact_that_comes_back_on_another_page_gets_one_message() {
    let stack = TestStack::start().await;
    let ids = stack.import_vips(2).await;
    stack.import_tagged(PAGES[1], &["w000".to_owned()], &["vip"]).await;
    stack.let_reads_catch_up();
    let id = stack.broadcast_to_vips().await;
    let job = |page: &str| JobId {
        broadcast_id: id.clone(),
        page_id: PageId::parse(page).unwrap(),
    };
    let mut claim = stack.claim(&job(PAGES[0])).await;
    assert!(stack.resolve(&mut claim, &ids).await);
    stack
        .call("DELETE", &format!("/v1/contacts/{}", ids[0]), None, None)
        .await;
    stack.import_tagged(PAGES[1], &ids[..1], &["vip"]).await;
    stack.advance(LEASE + Duration::from_secs(1));

    let report = stack.finish(&id).await;

    stack.assert_received(&id, [&ids[0], &ids[1], &"w000".to_owned()]);
    assert_eq!(
        (&report["counters"]["sent"], &report["counters"]["skipped"]),
        (&json!(3), &json!(1))
    );
    let skipped = stack.deliveries(&id, "&status=skipped").await;
    assert_eq!(
        (&skipped[0]["page_id"], &skipped[0]["reason"]),
        (&json!(PAGES[0]), &json!("other_page"))
    );
    // It takes the messages of both jobs together.
    stack.skip_promise_check();
}

#[tokio::test]
async fn paused_resolution_goes_on_where_it_was() {
    let stack = TestStack::start().await;
    let ids = stack.import_vips(4).await;
    let id = stack.broadcast_to_vips().await;
    let job = stack.job(&id).await.id();
    let mut claim = stack.claim(&job).await;
    assert!(stack.resolve(&mut claim, &ids[..1]).await);

    let dry_run = format!("/v1/broadcasts/{id}/pause?dry_run=true");
    let dry_run = stack.call("POST", &dry_run, None, None).await.body;
    assert_eq!(
        dry_run["affected"],
        json!({"jobs": 1, "contacts": 1, "resolving": true})
    );
    stack.control("pause", &id).await;
    // The worker learns of it by the refusal of its write, and the next write is made under it.
    assert!(stack.resolve(&mut claim, &ids[1..2]).await);
    assert!(claim.job.stop.is_some());
    stack.advance(LEASE + Duration::from_secs(1));
    let wake_up = stack.wake_up_for(&id).await;
    stack.process_job(&wake_up).await;
    let report = stack.report(&id).await;
    assert_eq!(resolved(&report), (false, vec![("paused".to_owned(), 2, true)]));

    stack.control("resume", &id).await;
    let report = stack.finish(&id).await;

    stack.assert_received(&id, &ids);
    assert_eq!(resolved(&report), (true, vec![("completed".to_owned(), 4, false)]));
}

/// The worker learns of the pause by a write in the middle of the Page.
#[tokio::test]
async fn pause_is_obeyed_before_the_whole_page_is_looked_at() {
    // At one of the first reads of the index.
    let plan = FaultPlan::new([(10, InjectedFault::FreezesBefore)]);
    let services = Services::start().await;
    let endpoints = plan.start_proxies(&services.endpoints).await;
    let stack = TestStack::start_on(services, &endpoints, &[]).await;
    stack.import_vips(2_500).await;
    let id = stack.broadcast_to_vips().await;
    let wake_up = stack.receive().await.unwrap();

    plan.set_counting(true);
    let mut worker = Box::pin(stack.process_job(&wake_up));
    tokio::select! {
        _ = &mut worker => panic!("the worker makes too few calls"),
        () = plan.stopped() => plan.set_counting(false),
    }
    stack.control("pause", &id).await;
    sleep(CHECKPOINT_EVERY).await;
    plan.thaw();
    worker.await;

    let report = stack.report(&id).await;
    assert_eq!(resolved(&report), (false, vec![("paused".to_owned(), 1_000, true)]));
}

#[tokio::test]
async fn cancel_skips_what_is_resolved_and_the_report_says_that_it_is_not_all() {
    let stack = TestStack::start().await;
    let ids = stack.import_vips(4).await;
    let id = stack.broadcast_resolved_to(&ids[..2]).await;

    stack.control("cancel", &id).await;
    stack.drain_queue().await;
    let wake_up = stack.wake_up_for(&id).await;
    stack.process_job(&wake_up).await;

    let report = stack.report(&id).await;
    assert_eq!(resolved(&report), (false, vec![("cancelled".to_owned(), 2, true)]));
    assert_eq!(report["counters"]["skipped"], 2);
    assert_eq!(stack.sandbox.received_count(), 0);
}

#[tokio::test]
async fn cancel_before_the_first_look_ends_the_broadcast_at_once() {
    let stack = TestStack::start().await;
    stack.import_vips(4).await;
    let id = stack.broadcast_to_vips().await;

    stack.control("cancel", &id).await;
    stack.drain_queue().await;

    let report = stack.report(&id).await;
    assert_eq!(resolved(&report), (false, vec![("cancelled".to_owned(), 0, true)]));
}

#[tokio::test]
async fn broadcast_that_expires_before_it_is_resolved_skips_what_it_has() {
    let stack = TestStack::start().await;
    let ids = stack.import_vips(4).await;
    let mut body = request_to(&vips());
    body["expires_at"] = json!(stack.app.clock.now() + Duration::from_secs(600));
    let id = stack.post(&body).await.broadcast_id();
    let mut claim = stack.claim(&stack.job(&id).await.id()).await;
    assert!(stack.resolve(&mut claim, &ids[..1]).await);

    stack.advance(Duration::from_secs(601));
    let report = stack.finish(&id).await;

    assert_eq!(resolved(&report), (false, vec![("completed".to_owned(), 1, true)]));
    assert_eq!(
        (&report["counters"]["skipped"], stack.sandbox.received_count()),
        (&json!(1), 0)
    );
    // A retry sends nothing either, and resolves nothing.
    let retry = stack.try_control("retry", &id, &json!({"statuses": ["skipped"]})).await;
    assert_eq!(retry.status, StatusCode::ACCEPTED, "{retry:?}");
    let report = stack.finish(&id).await;
    assert_eq!(resolved(&report), (false, vec![("completed".to_owned(), 1, true)]));
    assert_eq!(stack.sandbox.received_count(), 0);
}

/// The clock of the worker that goes on is back before the end, and the segment of the retry is behind the first ones.
#[tokio::test]
async fn retry_of_a_job_that_was_never_resolved_resolves_nothing() {
    let stack = TestStack::start().await;
    let ids = stack.import_vips(3).await;
    let mut body = request_to(&vips());
    let received = stack.app.clock.now();
    body["expires_at"] = json!(received + Duration::from_secs(600));
    let id = stack.post(&body).await.broadcast_id();
    let mut claim = stack.claim(&stack.job(&id).await.id()).await;
    assert!(stack.resolve(&mut claim, &ids[..1]).await);
    stack.advance(Duration::from_secs(601));
    stack.finish(&id).await;
    let skipped = json!({"statuses": ["skipped"]});
    stack.try_control("retry", &id, &skipped).await;
    let (store, now) = (&stack.app.store, stack.app.clock.now());
    let mut claim = stack.claim(&stack.job(&id).await.id()).await;
    let retry = claim.job.retry.clone().unwrap();
    let rows = store
        .deliveries()
        .named_by_retry(&claim.job.id(), &retry, None)
        .await
        .unwrap();
    store.transactions().resend(&mut claim, &rows.0, now).await.unwrap();
    store.jobs().hand_over(claim, &HandOver::Queued, now).await.unwrap();

    let back = received.duration_since(stack.app.clock.now());
    stack.app.clock.advance(back);
    let report = stack.finish(&id).await;

    assert_eq!(resolved(&report), (false, vec![("completed".to_owned(), 1, true)]));
    let counters = json!({"pending": 0, "waiting": 0, "sent": 0, "failed": 0, "skipped": 1, "in_doubt": 0});
    assert_eq!(report["counters"], counters);
}

/// Its deliveries may be gone, so that everybody would seem not to have got it.
#[tokio::test]
async fn audience_that_names_a_broadcast_which_is_gone_by_then_is_not_resolved() {
    let stack = TestStack::start().await;
    let day = Duration::from_secs(86_400);
    let ids = stack.import_vips(2).await;
    let past = stack.broadcast(&ids).await;
    stack.finish(&past).await;
    let mut body = request_to(&json!({"not_sent_in": [past.to_string()]}));
    body["scheduled_at"] = json!(stack.app.clock.now() + 60 * day);
    let answer = stack.post(&body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    let id = answer.broadcast_id();
    stack.control("pause", &id).await;
    stack.advance(121 * day);

    stack.control("resume", &id).await;
    let report = stack.finish(&id).await;

    let reason = format!("expired: the broadcast {past}, which the audience names, is no longer kept");
    assert_eq!(
        (&report["status"], &report["jobs"][0]["reason"]),
        (&json!("halted"), &json!(reason))
    );
    assert_eq!(stack.sandbox.received_count(), 2);
}

#[tokio::test]
async fn nothing_is_resolved_in_quiet_hours() {
    let stack = TestStack::start().await;
    let ids = stack.import_vips(2).await;
    let mut body = request_to(&vips());
    let now = stack.app.clock.now();
    let time = |time: Timestamp| time.strftime("%H:%M").to_string();
    body["quiet_hours"] = json!({
        "from": time(now - Duration::from_secs(3_600)), "to": time(now + Duration::from_secs(3_600)), "time_zone": "UTC",
    });
    let id = stack.post(&body).await.broadcast_id();
    stack.drain_queue().await;
    let report = stack.report(&id).await;
    assert_eq!(resolved(&report), (false, vec![("waiting".to_owned(), 0, true)]));
    assert_eq!(report["jobs"][0]["reason"], "quiet_hours");

    // One leaves the audience meanwhile, and one joins it.
    stack
        .change_contact(json!({"contact_id": ids[0], "page_id": PAGES[0], "tags": []}))
        .await;
    stack.import_tagged(PAGES[0], &["w".to_owned()], &["vip"]).await;
    stack.advance(Duration::from_secs(3_700));
    stack.tick().await;
    let report = stack.finish(&id).await;

    assert_eq!(report["status"], "completed");
    stack.assert_received(&id, [&ids[1], &"w".to_owned()]);
}

#[tokio::test]
async fn nothing_is_resolved_while_sending_is_off_or_halted() {
    let stack = TestStack::start().await;
    let ids = stack.import_vips(2).await;
    let switch = async |state: &str| {
        let body = json!({"state": state});
        let answer = stack.call("PUT", "/v1/sending", None, Some(&body)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    };
    switch("off").await;
    let id = stack.broadcast_to_vips().await;
    stack.drain_queue().await;
    let report = stack.report(&id).await;
    assert_eq!(resolved(&report), (false, vec![("queued".to_owned(), 0, true)]));

    switch("halt").await;
    stack.let_reads_catch_up();
    stack.tick().await;
    stack.drain_queue().await;
    let report = stack.report(&id).await;
    assert_eq!(resolved(&report), (false, vec![("halted".to_owned(), 0, true)]));

    switch("on").await;
    stack.control("resume", &id).await;
    stack.finish(&id).await;
    stack.assert_received(&id, &ids);
}

/// The large job of another broadcast has the Page.
#[tokio::test]
async fn resolution_waits_for_no_large_job_of_its_page_and_the_sends_do() {
    let stack = TestStack::start().await;
    let ids = stack.import_vips(30).await;
    let id = stack.broadcast_resolved_to(&ids[..26]).await;
    let other = JobId {
        broadcast_id: BroadcastId::random(),
        page_id: PageId::parse(PAGES[0]).unwrap(),
    };
    let leases = stack.app.store.page_leases();
    let lease = Duration::from_secs(3_600);
    leases.acquire(&other, lease, stack.app.clock.now()).await.unwrap();

    let wake_up = stack.wake_up_for(&id).await;
    stack.process_job_for(&wake_up, Duration::from_secs(20)).await;
    let report = stack.report(&id).await;
    assert_eq!(resolved(&report), (true, vec![("queued".to_owned(), 30, false)]));
    let wake_up = stack.wake_up_for(&id).await;
    stack.process_job_for(&wake_up, Duration::from_secs(8)).await;
    assert_eq!(stack.sandbox.received_count(), 0, "sent without the Page");

    stack.advance(lease);
    stack.finish(&id).await;
    stack.assert_received(&id, &ids);
}

/// A worker has read the job as unresolved, and claims it when another has resolved it. The job is large by then, and another one has
/// the Page.
#[tokio::test]
async fn job_that_another_worker_has_resolved_is_not_sent_without_the_page() {
    let mut held = 0;
    for call in 0..5 {
        let plan = FaultPlan::new([(call, InjectedFault::FreezesBefore)]);
        let services = Services::start().await;
        let endpoints = plan.start_proxies(&services.endpoints).await;
        let stack = TestStack::start_on(services, &endpoints, &[]).await;
        let ids = stack.import_vips(30).await;
        let id = stack.broadcast_to_vips().await;
        let wake_up = stack.receive().await.unwrap();
        stack.delete(&wake_up).await;

        plan.set_counting(true);
        let mut slow = Box::pin(stack.process_job(&wake_up));
        tokio::select! {
            _ = &mut slow => panic!("the worker makes too few calls"),
            () = plan.stopped() => plan.set_counting(false),
        }
        let other = JobId {
            broadcast_id: BroadcastId::random(),
            page_id: PageId::parse(PAGES[0]).unwrap(),
        };
        let leases = stack.app.store.page_leases();
        let lease = Duration::from_secs(3_600);
        leases.acquire(&other, lease, stack.app.clock.now()).await.unwrap();
        stack.process_job(&stack.wake_up_for(&id).await).await;
        let is_free = stack.job(&id).await.resolving.is_none();
        held += usize::from(is_free);
        plan.thaw();
        slow.await;
        assert_eq!(stack.sandbox.received_count(), 0, "call {call}: sent without the Page");

        stack.advance(lease);
        stack.finish(&id).await;
        stack.assert_received(&id, &ids);
    }
    assert!(held > 1, "the slow worker had the job at each call");
}
