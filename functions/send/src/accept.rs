//! Acceptance of broadcasts: a request that is known is answered as before, a new one is committed in one transaction.
//!
//! Every step may be repeated. After the commit the broadcast is accepted, whatever goes wrong: a small one is worked off
//! within the request, by the same claims and reservations as everywhere; for others, wake-ups are sent.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use shared::app::App;
use shared::domain::backlog::{Segment, split_into_segments};
use shared::domain::breakers::Breakers;
use shared::domain::ids::{BroadcastId, ContactId, PageId, Pages, first_ten, token};
use shared::domain::job::{Broadcast, ContactCounts, Job, JobStatus, OutcomeCounts};
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

/// The maximum number of Pages in one request: each is a job, and a transaction has at most 100 items.
const MAX_PAGES: usize = 90;
/// The maximum number of unknown ids that an answer lists.
const MAX_UNKNOWN_IDS: usize = 100;

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
    let sorted = sort_ids(app, &caller.pages, &new.contact_ids).await?;
    let broadcast = Broadcast {
        requires_approval: !is_test && (new.requires_approval || app.config.require_approval),
        created_by: caller.name.clone(),
        test: is_test,
        ..broadcast(new, &sorted, received)
    };
    let jobs = plan(app, &broadcast, &sorted);
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
    sorted.log_repeated(app);
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

/// The ids of a request, sorted by what acceptance does with them.
pub struct SortedIds {
    /// The ids by what becomes of them.
    pub counts: ContactCounts,
    /// The contacts that are sent to, by Page.
    pub accepted: BTreeMap<PageId, Vec<ContactId>>,
    repeated: Vec<ContactId>,
}

impl SortedIds {
    /// Logs and counts the repetitions that were removed.
    fn log_repeated(&self, app: &App) {
        if self.counts.duplicates_removed > 0 {
            let (count, ids) = (self.counts.duplicates_removed, first_ten(&self.repeated));
            app.metrics.prevented(Layer::Request, count);
            warn!(
                duplicates.layer = "request",
                duplicates.prevented = count,
                contact.ids = ids,
                "duplicates prevented: ids repeated in the request"
            );
        }
    }
}

/// Removes repetitions, finds the Page of each contact, and counts the ids to which nothing will be sent. Contacts of Pages
/// that the caller may not use are unknown to it.
///
/// # Errors
/// If none is accepted (422), or they are on too many Pages (400).
pub async fn sort_ids(app: &App, pages: &Pages, ids: &[ContactId]) -> Result<SortedIds, Problem> {
    let mut seen = HashSet::with_capacity(ids.len());
    let (unique, repeated): (Vec<_>, Vec<_>) = ids.iter().cloned().partition(|id| seen.insert(id.clone()));
    let contacts = app.store.contacts().find(&unique, pages).await?;
    let mut counts = ContactCounts {
        requested: ids.len() as u64,
        duplicates_removed: repeated.len() as u64,
        ..ContactCounts::default()
    };
    let mut accepted = BTreeMap::<_, Vec<_>>::new();
    for id in unique {
        let contact = contacts.get(&id);
        match contact.filter(|contact| pages.allow(&contact.page_id)) {
            None => {
                counts.unknown += 1;
                if counts.unknown_ids.len() < MAX_UNKNOWN_IDS {
                    counts.unknown_ids.push(id.to_string());
                }
            }
            Some(contact) if contact.opted_out => counts.opted_out += 1,
            Some(contact) => {
                counts.accepted += 1;
                accepted.entry(contact.page_id.clone()).or_default().push(id);
            }
        }
    }
    if accepted.is_empty() {
        let ContactCounts { unknown, opted_out, .. } = counts;
        let detail = format!("No contact accepted: {unknown} unknown, {opted_out} opted out.");
        return Err(Problem::new(Kind::NoContactAccepted, detail));
    }
    if accepted.len() > MAX_PAGES {
        let message = format!("are on {} Pages, more than {MAX_PAGES}", accepted.len());
        return Err(Problem::fault("/contact_ids", message));
    }
    Ok(SortedIds {
        counts,
        accepted,
        repeated,
    })
}

/// A job that is not committed yet, and its segments, under a snapshot that nothing refers to yet.
struct PlannedJob {
    job: Job,
    segments: Vec<Segment>,
}

/// Makes the broadcast.
fn broadcast(new: NewBroadcast, ids: &SortedIds, received: Timestamp) -> Broadcast {
    Broadcast {
        broadcast_id: BroadcastId::random(),
        envelope: new.envelope(),
        outside_window: new.outside_window,
        name: new.name,
        metadata: new.metadata,
        page_ids: ids.accepted.keys().cloned().collect(),
        message: new.message,
        created_at: received,
        scheduled_at: new.scheduled_at,
        contacts: ids.counts.clone(),
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

/// Makes the jobs of a broadcast, one for each Page.
fn plan(app: &App, broadcast: &Broadcast, ids: &SortedIds) -> Vec<PlannedJob> {
    let (received, scheduled_at) = (broadcast.created_at, broadcast.scheduled_at);
    let due = scheduled_at.unwrap_or(received);
    let (status, wake_at) = match scheduled_at {
        _ if broadcast.requires_approval => (JobStatus::AwaitingApproval, None),
        Some(at) => (JobStatus::Scheduled, Some(at)),
        None => (JobStatus::Queued, Some(app.clock.now() + WAKE_AGAIN_AFTER)),
    };
    let jobs = ids.accepted.iter().map(|(page_id, contacts)| {
        let segments = split_into_segments(contacts);
        let number = segments.len().try_into().unwrap_or(u32::MAX);
        let job = Job {
            wake_ups: 0,
            broadcast_id: broadcast.broadcast_id.clone(),
            page_id: page_id.clone(),
            status,
            reason: None,
            contacts: contacts.len() as u64,
            snapshot: token(),
            segments: number,
            first_segments: number,
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
        };
        PlannedJob { job, segments }
    });
    jobs.collect()
}
