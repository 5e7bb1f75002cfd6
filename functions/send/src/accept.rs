//! Accepting a broadcast: known requests are recognised, and what is new is committed in one transaction. Every step may be
//! repeated; nothing is sent from here.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::join_all;
use jiff::Timestamp;
use shared::app::App;
use shared::breakers::Breakers;
use shared::ids::{BroadcastId, ContactId, PageId, Pages, first_ten, token};
use shared::job::{Broadcast, ContactCounts, Job, JobStatus, Outcomes, Report};
use shared::line::{Segment, cut};
use shared::metrics::Layer;
use shared::store::broadcasts::Committed;
use shared::store::jobs::WAKE_AFTER_HINT;
use shared::store::requests::{Answered, RequestKey};
use shared::work::work_inline;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::caller::Caller;
use crate::new_broadcast::NewBroadcast;
use crate::problem::Problem;

/// Pages in one request: each is a job, and a transaction takes 100 items.
const MAX_PAGES: usize = 90;
/// Unknown ids that an answer lists.
const MAX_UNKNOWN_IDS: usize = 100;

/// How long a request may be worked off inline; API Gateway waits 29 s.
pub const INLINE_TIME: Duration = Duration::from_secs(20);

/// The answer to a request that was accepted, now or before.
#[derive(Debug)]
pub struct Accepted {
    /// The broadcast as it stands.
    pub report: Report,
    /// The request was a repetition.
    pub replayed: bool,
}

/// Accepts a broadcast once, however often it is asked for.
pub async fn accept(
    app: &App,
    caller: &Caller,
    new: NewBroadcast,
    idempotency_key: Option<&str>,
    received: Timestamp,
) -> Result<Accepted, Problem> {
    let key = new.key(caller.name.as_deref(), idempotency_key);
    if let Some(answered) = app.store.answered(&key, received).await? {
        return replay(app, caller, &key, &answered).await;
    }
    new.check_time(received)?;
    let asked = sort_out(app, &caller.pages, &new.contact_ids).await?;
    let (broadcast, jobs) = plan(app, new, &asked, received);
    let writes = jobs.iter().map(|(job, segments)| {
        app.store
            .write_segments(&job.snapshot, segments, job.retained_until)
    });
    for written in join_all(writes).await {
        written?;
    }
    let jobs: Vec<_> = jobs.into_iter().map(|(job, _)| job).collect();
    if let Committed::Taken(answered) = app.store.commit(&key, received, &broadcast, &jobs).await? {
        return replay(app, caller, &key, &answered).await;
    }
    asked.log(app, &broadcast.broadcast_id);
    for job in &jobs {
        info!(job.id = %job.id(), job.status = %job.status, job.contacts = job.contacts, "job accepted");
    }
    let queued: Vec<_> = jobs
        .iter()
        .filter(|job| job.status == JobStatus::Queued)
        .collect();
    if broadcast.contacts.accepted <= app.config.inline_limit && !queued.is_empty() {
        return work_off(app, broadcast, &jobs).await;
    }
    join_all(queued.into_iter().map(|job| hint(app, job))).await;
    Ok(Accepted {
        report: Report::new(broadcast, &jobs),
        replayed: false,
    })
}

async fn hint(app: &App, job: &Job) {
    if let Some(wake_at) = job.wake_at {
        app.queue.hint(&job.id(), job.epoch, wake_at).await;
    }
}

/// Works a small broadcast off at once, under the same claims and reservations as everybody. Whatever goes wrong from here
/// on, it is accepted, and its jobs come back by themselves.
async fn work_off(app: &App, broadcast: Broadcast, jobs: &[Job]) -> Result<Accepted, Problem> {
    let ends = Instant::now() + INLINE_TIME;
    for worked in join_all(jobs.iter().map(|job| work_inline(app, job, ends))).await {
        if let Err(error) = worked {
            let error: &dyn std::error::Error = &error;
            error!(broadcast.id = %broadcast.broadcast_id, error, "job not worked off inline");
        }
    }
    let found = app.store.report(&broadcast.broadcast_id).await;
    let mut report = match found {
        Ok(Some(report)) => report,
        _ => Report::new(broadcast, jobs),
    };
    if report.summary.status == JobStatus::Completed {
        let noted = app
            .store
            .note_done_inline(&report.summary.broadcast_id)
            .await;
        report.done_inline = noted.is_ok();
    }
    Ok(Accepted {
        report,
        replayed: false,
    })
}

async fn replay(
    app: &App,
    caller: &Caller,
    key: &RequestKey,
    answered: &Answered,
) -> Result<Accepted, Problem> {
    if answered.fingerprint != key.fingerprint {
        let detail = "This Idempotency-Key was used for another request.";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    let broadcast_id = &answered.broadcast_id;
    app.metrics.prevented(Layer::Replay, 1);
    warn!(duplicates.layer = "replay", duplicates.prevented = 1, broadcast.id = %broadcast_id, "duplicates prevented: request repeated");
    if let Err(error) = app.store.count_replay(broadcast_id).await {
        let error: &dyn std::error::Error = &error;
        warn!(broadcast.id = %broadcast_id, error, "repetition not counted");
    }
    let report = app.store.report(broadcast_id).await?;
    let report = report.filter(|report| caller.may_see(report));
    let report = report
        .ok_or_else(|| Problem::not_found("The broadcast of this request is no longer kept."))?;
    Ok(Accepted {
        report,
        replayed: true,
    })
}

/// The ids of a request, sorted out.
struct Asked {
    counts: ContactCounts,
    by_page: BTreeMap<PageId, Vec<ContactId>>,
    repeated: Vec<ContactId>,
}

impl Asked {
    fn log(&self, app: &App, broadcast_id: &BroadcastId) {
        if self.counts.duplicates_removed > 0 {
            let (count, ids) = (self.counts.duplicates_removed, first_ten(&self.repeated));
            app.metrics.prevented(Layer::Request, count);
            warn!(duplicates.layer = "request", duplicates.prevented = count, broadcast.id = %broadcast_id, contact.ids = ids, "duplicates prevented: ids repeated in the request");
        }
    }
}

/// Removes repetitions, finds each contact's Page, and counts whom nothing will be sent to. To this caller, contacts of other
/// Pages than these are unknown.
async fn sort_out(app: &App, pages: &Pages, ids: &[ContactId]) -> Result<Asked, Problem> {
    let mut seen = HashSet::with_capacity(ids.len());
    let (unique, repeated): (Vec<_>, Vec<_>) =
        ids.iter().cloned().partition(|id| seen.insert(id.clone()));
    let contacts = app.store.find_contacts(&unique).await?;
    let mut counts = ContactCounts {
        requested: ids.len() as u64,
        duplicates_removed: repeated.len() as u64,
        ..ContactCounts::default()
    };
    let mut by_page = BTreeMap::<_, Vec<_>>::new();
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
                by_page.entry(contact.page_id.clone()).or_default().push(id);
            }
        }
    }
    if by_page.is_empty() {
        let ContactCounts {
            unknown, opted_out, ..
        } = counts;
        let detail = format!("No contact accepted: {unknown} unknown, {opted_out} opted out.");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    if by_page.len() > MAX_PAGES {
        let message = format!("are on {} Pages, more than {MAX_PAGES}", by_page.len());
        return Err(Problem::fault("/contact_ids", message));
    }
    Ok(Asked {
        counts,
        by_page,
        repeated,
    })
}

/// The broadcast, and its jobs with their segments under snapshots that nothing refers to yet.
fn plan(
    app: &App,
    new: NewBroadcast,
    asked: &Asked,
    received: Timestamp,
) -> (Broadcast, Vec<(Job, Vec<Segment>)>) {
    let broadcast = Broadcast {
        broadcast_id: BroadcastId::random(),
        message: new.message,
        envelope: new.envelope,
        created_at: received,
        scheduled_at: new.scheduled_at,
        contacts: asked.counts.clone(),
        replays: 0,
        done_inline: false,
    };
    let due = new.scheduled_at.unwrap_or(received);
    let (status, wake_at) = match new.scheduled_at {
        Some(at) => (JobStatus::Scheduled, at),
        None => (JobStatus::Queued, app.clock.now() + WAKE_AFTER_HINT),
    };
    let jobs = asked.by_page.iter().map(|(page_id, contacts)| {
        let segments = cut(contacts);
        let number = segments.len().try_into().unwrap_or(u32::MAX);
        let job = Job {
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
            due_at: new.scheduled_at,
            wake_at: Some(wake_at),
            created_at: received,
            retained_until: due + app.config.retention,
            outcomes: Outcomes::default(),
            prevented_reservation: 0,
            prevented_claim: 0,
            breakers: Breakers::default(),
            resend_wish: false,
        };
        (job, segments)
    });
    let jobs = jobs.collect();
    (broadcast, jobs)
}
