//! Acceptance of broadcasts: a request that is known is answered as before, a new one is committed in one transaction.
//!
//! Every step may be repeated. After the commit the broadcast is accepted, whatever goes wrong: a small one is worked off
//! within the request, by the same claims and reservations as everywhere; for others, wake-ups are sent.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use shared::app::App;
use shared::domain::backlog::{Segment, split_into_segments};
use shared::domain::breakers::Breakers;
use shared::domain::ids::{BroadcastId, PageId, token};
use shared::domain::job::{Broadcast, ContactCounts, Job, JobStatus, OutcomeCounts, Resolving};
use shared::domain::reasons::Reasons;
use shared::runtime::metrics::Layer;
use shared::store::jobs::WAKE_AGAIN_AFTER;
use shared::store::requests::{Answered, RequestKey};
use shared::store::transactions::Committed;
use shared::worker::claim::work_inline;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::api::broadcasts::{BroadcastReport, NewBroadcast};
use crate::api::problems::Kind;
use crate::caller::Caller;
use crate::invocation::record_broadcast;
use crate::problem::Problem;
use crate::recipients::Recipients;

/// The time for which a request may be worked off inline; API Gateway waits 29 s.
pub const INLINE_TIME: Duration = Duration::from_secs(20);

/// The answer to a request that was accepted, now or before.
#[derive(Debug)]
pub struct Accepted {
    /// The report on the broadcast as of now.
    pub report: BroadcastReport,
    /// True if the request is a repetition.
    pub replayed: bool,
}

/// Accepts a broadcast once, however often it is requested.
///
/// A request is looked up by its key before its time and its contacts are checked: both may have changed since it was
/// accepted.
///
/// # Errors
/// If the time of sending is out of range or there are too many Pages (400), no contact is accepted or the key was used for
/// another request (422), the broadcast of a repetition is gone (404), or DynamoDB does not answer (503). In the last case
/// the request may have been accepted, so the caller is to repeat it.
pub async fn accept(
    app: &App,
    caller: &Caller,
    new: NewBroadcast,
    idempotency_key: Option<&str>,
    received: Timestamp,
) -> Result<Accepted, Problem> {
    let key = new.key(caller.name.as_deref(), idempotency_key);
    accept_under_key(app, caller, new, &key, received, false).await
}

/// Accepts a send to testers as a small broadcast of its own.
///
/// # Errors
/// As [`accept`].
pub async fn accept_test(
    app: &App,
    caller: &Caller,
    new: NewBroadcast,
    idempotency_key: Option<&str>,
    received: Timestamp,
) -> Result<Accepted, Problem> {
    let key = new.test_key(caller.name.as_deref(), idempotency_key);
    accept_under_key(app, caller, new, &key, received, true).await
}

async fn accept_under_key(
    app: &App,
    caller: &Caller,
    new: NewBroadcast,
    key: &RequestKey,
    received: Timestamp,
    is_test: bool,
) -> Result<Accepted, Problem> {
    if let Some(answered) = app.store.requests().get_if_valid(key, received).await? {
        return replay(app, caller, key, &answered).await;
    }
    new.check_time(received)?;
    let mut recipients = Recipients::find(app, caller, &new, received).await?;
    let broadcast = Broadcast {
        requires_approval: !is_test && (new.requires_approval || app.config.require_approval),
        created_by: caller.name.clone(),
        test: is_test,
        ..broadcast(new, &recipients, received)
    };
    let jobs = plan(app, &broadcast, &mut recipients);
    let segments = app.store.segments();
    let writes = jobs
        .iter()
        .map(|planned| segments.write(&planned.job.snapshot, &planned.segments, planned.job.retained_until));
    for written in join_all(writes).await {
        written?;
    }
    let jobs: Vec<_> = jobs.into_iter().map(|planned| planned.job).collect();
    let committed = app
        .store
        .transactions()
        .commit(key, received, &broadcast, &jobs)
        .await?;
    if let Committed::Taken(answered) = committed {
        return replay(app, caller, key, &answered).await;
    }
    record_broadcast(&broadcast.broadcast_id);
    recipients.log_repeated(app);
    for job in &jobs {
        info!(job.id = %job.id(), job.status = %job.status, job.contacts = job.contacts, "job accepted");
    }
    Ok(Accepted {
        report: start(app, broadcast, &jobs).await,
        replayed: false,
    })
}

/// Has the jobs of a new broadcast worked on: within the request if it is small, else through wake-ups. Scheduled jobs are
/// woken when they are due.
async fn start(app: &App, broadcast: Broadcast, jobs: &[Job]) -> BroadcastReport {
    let queued: Vec<_> = jobs.iter().filter(|job| job.status == JobStatus::Queued).collect();
    let is_small = broadcast.test || broadcast.contacts.accepted <= app.config.inline_limit;
    let is_small = is_small && broadcast.audience.is_none();
    if is_small && !queued.is_empty() {
        return work_off(app, broadcast, jobs).await;
    }
    join_all(queued.into_iter().map(|job| app.queue.wake(job))).await;
    BroadcastReport::new(broadcast, jobs)
}

/// Works a small broadcast off within the request, by the same claims and reservations as any other worker. A failure is
/// logged and no more: the broadcast is accepted, and its jobs come back at their wake-ups.
async fn work_off(app: &App, broadcast: Broadcast, jobs: &[Job]) -> BroadcastReport {
    let ends = Instant::now() + INLINE_TIME;
    let worked = join_all(jobs.iter().map(|job| work_inline(app, job, ends))).await;
    for (job, worked) in jobs.iter().zip(worked) {
        if let Err(error) = worked {
            let error: &dyn std::error::Error = &error;
            error!(job.id = %job.id(), error, "job not worked off inline; it comes back at its wake-up");
        }
    }
    let found = BroadcastReport::read(&app.store, &broadcast.broadcast_id).await;
    let mut report = match found {
        Ok(Some(report)) => report,
        _ => BroadcastReport::new(broadcast, jobs),
    };
    if report.summary.status == JobStatus::Completed {
        let broadcasts = app.store.broadcasts();
        let marked = broadcasts.mark_done_inline(&report.summary.broadcast_id).await;
        report.done_inline = marked.is_ok();
    }
    report
}

/// Answers a repetition with the broadcast that the first request created.
async fn replay(app: &App, caller: &Caller, key: &RequestKey, answered: &Answered) -> Result<Accepted, Problem> {
    if !answered.has_body_of(key) {
        let detail = "This Idempotency-Key was used for another request.";
        return Err(Problem::new(Kind::IdempotencyKeyReused, detail));
    }
    let broadcast_id = &answered.broadcast_id;
    record_broadcast(broadcast_id);
    app.metrics.prevented(Layer::Replay, 1);
    warn!(
        duplicates.layer = "replay",
        duplicates.prevented = 1,
        "duplicates prevented: request repeated"
    );
    if let Err(error) = app.store.broadcasts().count_replay(broadcast_id).await {
        let error: &dyn std::error::Error = &error;
        warn!(error, "repetition of the request not counted in the report");
    }
    let report = BroadcastReport::read(&app.store, broadcast_id).await?;
    let report = report.filter(|report| caller.may_see(&report.jobs));
    let report = report.ok_or_else(|| Problem::not_found("The broadcast of this request is no longer kept."))?;
    Ok(Accepted { report, replayed: true })
}

/// A job that is not committed yet, and its segments, under a snapshot that nothing refers to yet.
struct PlannedJob {
    job: Job,
    segments: Vec<Segment>,
}

/// Makes the broadcast.
fn broadcast(new: NewBroadcast, recipients: &Recipients, received: Timestamp) -> Broadcast {
    let (contacts, audience, audience_name) = match recipients {
        Recipients::Named(ids) => (ids.counts.clone(), None, None),
        Recipients::Audience(found) => {
            let none_yet = ContactCounts::default();
            (none_yet, Some(found.audience.clone()), found.name.clone())
        }
    };
    Broadcast {
        broadcast_id: BroadcastId::random(),
        envelope: new.envelope(),
        outside_window: new.outside_window,
        name: new.name,
        metadata: new.metadata,
        page_ids: recipients.pages(),
        message: new.message,
        created_at: received,
        scheduled_at: new.scheduled_at,
        contacts,
        audience,
        audience_name,
        replays: 0,
        priority: new.priority,
        done_inline: false,
        time_zone: new.time_zone,
        quiet_hours: new.quiet_hours,
        expires_at: new.expires_at,
        requires_approval: false,
        approved_at: None,
        created_by: None,
        changed_by: None,
        change_id: None,
        test: false,
    }
}

/// Makes the jobs of a broadcast, one for each Page. Those of an audience have no contacts yet, and a segment that is to come.
/// Named contacts are taken out of the recipients: a large request has no room for them twice.
fn plan(app: &App, broadcast: &Broadcast, recipients: &mut Recipients) -> Vec<PlannedJob> {
    match recipients {
        Recipients::Named(ids) => {
            let jobs = std::mem::take(&mut ids.accepted)
                .into_iter()
                .map(|(page_id, contacts)| {
                    let count = contacts.len() as u64;
                    let segments = split_into_segments(contacts, 0);
                    let number = segments.len().try_into().unwrap_or(u32::MAX);
                    let job = Job {
                        contacts: count,
                        segments: number,
                        first_segments: number,
                        ..empty_job(app, broadcast, &page_id)
                    };
                    PlannedJob { job, segments }
                });
            jobs.collect()
        }
        Recipients::Audience(found) => {
            let jobs = found.pages.iter().map(|page_id| PlannedJob {
                job: Job {
                    segments: 1,
                    resolving: Some(Resolving::default()),
                    ..empty_job(app, broadcast, page_id)
                },
                segments: Vec::new(),
            });
            jobs.collect()
        }
    }
}

/// Makes a job of a broadcast, without contacts.
fn empty_job(app: &App, broadcast: &Broadcast, page_id: &PageId) -> Job {
    let (received, scheduled_at) = (broadcast.created_at, broadcast.scheduled_at);
    let due = scheduled_at.unwrap_or(received);
    let (status, wake_at) = match scheduled_at {
        _ if broadcast.requires_approval => (JobStatus::AwaitingApproval, None),
        Some(at) => (JobStatus::Scheduled, Some(at)),
        None => (JobStatus::Queued, Some(app.clock.now() + WAKE_AGAIN_AFTER)),
    };
    Job {
        wake_ups: 0,
        broadcast_id: broadcast.broadcast_id.clone(),
        page_id: page_id.clone(),
        status,
        reason: None,
        contacts: 0,
        resolving: None,
        considered: 0,
        opted_out: 0,
        snapshot: token(),
        segments: 0,
        first_segments: 0,
        cursor: 0,
        epoch: 0,
        stalls: 0,
        claim_id: None,
        lease_until: None,
        due_at: scheduled_at,
        wake_at,
        created_at: received,
        retained_until: due + app.config.retention,
        may_send_until: None,
        outcomes: OutcomeCounts::default(),
        reasons: Reasons::default(),
        prevented_reservation: 0,
        prevented_claim: 0,
        breakers: Breakers::default(),
        priority: broadcast.priority,
        resend_command: false,
        expires_at: broadcast.expires_at,
        stop: None,
        retry: None,
        has_late_echoes: false,
        import: None,
    }
}
