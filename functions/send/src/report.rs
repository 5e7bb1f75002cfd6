//! Reports on broadcasts, made from what is stored.

use std::collections::BTreeMap;

use jiff::Timestamp;
use shared::domain::history::HistoryEntry;
use shared::domain::ids::BroadcastId;
use shared::domain::job::{Broadcast, ContactCounts, Job, JobStatus};
use shared::domain::schedule::Zone;
use shared::store::{self, Store};

use crate::api::broadcasts::{AudienceReport, BroadcastReport, BroadcastSummary, DuplicatesPrevented, JobReport};
use crate::api::history::HistoryReport;
use crate::etag::EntityTag;
use crate::reasons;

impl BroadcastReport {
    /// Reads a broadcast, its jobs and its history, and reports on them.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or an item is unreadable.
    pub async fn read(store: &Store, id: &BroadcastId) -> Result<Option<Self>, store::Error> {
        let found = store.broadcasts().get_with_history(id).await?;
        Ok(found.map(|(broadcast, jobs, history)| Self {
            history: history.entries.into_iter().map(HistoryReport::from).collect(),
            ..Self::new(broadcast, &jobs)
        }))
    }

    /// Reports on a broadcast and all of its jobs, without its history.
    pub fn new(broadcast: Broadcast, jobs: &[Job]) -> Self {
        let (done_inline, rate) = (broadcast.done_inline, broadcast.message.most_per_second());
        let progress = Progress::of(jobs);
        let contacts = contacts(&broadcast, jobs);
        let audience = broadcast.audience.map(|filters| AudienceReport {
            name: broadcast.audience_name,
            resolved: jobs.iter().all(|job| job.resolving.is_none()),
            filters,
        });
        let summary = BroadcastSummary {
            status: jobs.iter().map(|job| job.status).min().unwrap_or(JobStatus::Completed),
            counters: jobs.iter().map(Job::counters).sum(),
            duplicates_prevented: DuplicatesPrevented {
                request: contacts.duplicates_removed,
                replay: broadcast.replays,
                claim: progress.prevented_claim,
                reservation: progress.prevented_reservation,
            },
            broadcast_id: broadcast.broadcast_id,
            name: broadcast.name,
            metadata: broadcast.metadata,
            created_at: broadcast.created_at,
            page_ids: progress.jobs.iter().map(|job| job.page_id.clone()).collect(),
            scheduled_at: broadcast.scheduled_at,
            contacts,
            audience,
            scheduled_local: local_time(broadcast.scheduled_at, broadcast.time_zone.as_ref()),
            quiet_hours: broadcast.quiet_hours,
            expires_at: broadcast.expires_at,
            requires_approval: broadcast.requires_approval,
            approved_at: broadcast.approved_at,
            test: broadcast.test,
        };
        Self {
            summary,
            message: broadcast.message,
            jobs: progress.jobs,
            reasons: reasons::report(jobs),
            stopped: None,
            done_inline,
            history: Vec::new(),
            progress: None,
            rate,
        }
    }

    /// Returns the entity tag of the report: that of its [`Progress`].
    pub fn tag(&self) -> EntityTag {
        let BroadcastSummary {
            broadcast_id,
            duplicates_prevented: prevented,
            ..
        } = &self.summary;
        tag(broadcast_id, &self.jobs, prevented.claim, prevented.reservation)
    }
}

impl From<HistoryEntry> for HistoryReport {
    fn from(entry: HistoryEntry) -> Self {
        let HistoryEntry {
            time,
            caller,
            action,
            page_id,
            jobs,
            contacts,
            details,
        } = entry;
        Self {
            time,
            caller,
            action,
            page_id,
            jobs,
            contacts,
            details,
        }
    }
}

/// The part of a report that changes while the broadcast is worked on. Its entity tag is that of the report, so that a look at
/// the jobs alone tells whether the report has changed. Repetitions of the request, a change of the message before the broadcast
/// begins, and the erasure of an unknown id, which change the broadcast itself, do not count: hence the tag is a weak one.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The jobs, sorted by Page.
    pub jobs: Vec<JobReport>,
    prevented_claim: u64,
    prevented_reservation: u64,
}

impl Progress {
    /// Reads the progress of a broadcast as of a moment ago; `None` if there is no such broadcast.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or an item is unreadable.
    pub async fn read(store: &Store, id: &BroadcastId) -> Result<Option<Self>, store::Error> {
        let jobs = store.broadcasts().jobs_lately(id).await?;
        Ok((!jobs.is_empty()).then(|| Self::of(&jobs)))
    }

    fn of(jobs: &[Job]) -> Self {
        let by_page: BTreeMap<_, _> = jobs.iter().map(|job| (&job.page_id, job)).collect();
        let reports = by_page.into_values().map(|job| JobReport {
            page_id: job.page_id.clone(),
            status: job.status,
            reason: job.reason.clone(),
            contacts: job.contacts,
            resolving: job.resolving.is_some(),
            counters: job.counters(),
            reasons: reasons::report([job]),
            due_at: job.due_at,
            command: job.command(),
            stopped: None,
        });
        Self {
            jobs: reports.collect(),
            prevented_claim: jobs.iter().map(|job| job.prevented_claim).sum(),
            prevented_reservation: jobs.iter().map(|job| job.prevented_reservation).sum(),
        }
    }

    /// Returns the entity tag.
    pub fn tag(&self, id: &BroadcastId) -> EntityTag {
        tag(id, &self.jobs, self.prevented_claim, self.prevented_reservation)
    }
}

/// Returns the contacts of a broadcast by what acceptance found; of an audience those that its jobs have found so far.
fn contacts(broadcast: &Broadcast, jobs: &[Job]) -> ContactCounts {
    match &broadcast.audience {
        None => broadcast.contacts.clone(),
        Some(_) => ContactCounts {
            requested: jobs.iter().map(|job| job.considered).sum(),
            opted_out: jobs.iter().map(|job| job.opted_out).sum(),
            accepted: jobs.iter().map(|job| job.contacts).sum(),
            ..ContactCounts::default()
        },
    }
}

/// Returns a time by the clock of a zone, with the zone; `None` if there is no zone.
pub fn local_time(time: Option<Timestamp>, zone: Option<&Zone>) -> Option<String> {
    Some(zone?.write(time?))
}

fn tag(id: &BroadcastId, jobs: &[JobReport], prevented_claim: u64, prevented_reservation: u64) -> EntityTag {
    EntityTag::of(&(id, jobs, prevented_claim, prevented_reservation))
}
