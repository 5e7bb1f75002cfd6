//! Reports on broadcasts, as the API shows them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use shared::domain::ids::{BroadcastId, PageId};
use shared::domain::job::{Broadcast, ContactCounts, Counters, Job, JobStatus};
use shared::store::{self, Store};

/// A broadcast with its jobs, as `POST /v1/broadcasts` and `GET /v1/broadcasts/{id}` show it.
#[derive(Clone, Debug, Serialize)]
pub struct BroadcastReport {
    /// The broadcast without its jobs.
    #[serde(flatten)]
    pub summary: BroadcastSummary,
    /// The jobs, sorted by Page.
    pub jobs: Vec<JobReport>,
    /// True if the request itself worked the broadcast off and was answered with 200.
    #[serde(skip)]
    pub done_inline: bool,
}

/// A broadcast as `GET /v1/broadcasts` lists it.
#[derive(Clone, Debug, Serialize)]
pub struct BroadcastSummary {
    /// The identity of the broadcast.
    pub broadcast_id: BroadcastId,
    /// The first of [`JobStatus`] that one of the jobs has.
    pub status: JobStatus,
    /// The time at which API Gateway received the request.
    pub created_at: Timestamp,
    /// The time at which sending begins; `None` if it begins at once.
    pub scheduled_at: Option<Timestamp>,
    /// The ids of the request by what acceptance found.
    pub contacts: ContactCounts,
    /// The sum of the counters of the jobs.
    pub counters: Counters,
    /// The sum of the duplicates that each layer prevented, over all jobs.
    pub duplicates_prevented: DuplicatesPrevented,
}

/// Duplicates that did not happen, by the layer that removed or prevented them.
#[derive(Clone, Debug, Serialize)]
pub struct DuplicatesPrevented {
    /// Ids repeated in the request.
    pub request: u64,
    /// Requests repeated.
    pub replay: u64,
    /// Claims that a live lease refused.
    pub claim: u64,
    /// Contacts that were settled already when a worker tried to reserve them.
    pub reservation: u64,
}

/// A job as the API shows it.
#[derive(Clone, Debug, Serialize)]
pub struct JobReport {
    /// The Page that sends.
    pub page_id: PageId,
    /// The status of the job.
    pub status: JobStatus,
    /// The reason why the job is halted; `None` otherwise.
    pub reason: Option<String>,
    /// Contacts accepted for this Page.
    pub contacts: u64,
    /// Those contacts by state, as of the last checkpoint.
    pub counters: Counters,
}

impl BroadcastReport {
    /// Reads a broadcast and its jobs, and reports on them.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or an item is unreadable.
    pub async fn read(store: &Store, id: &BroadcastId) -> Result<Option<Self>, store::Error> {
        let found = store.broadcasts().get_with_jobs(id).await?;
        Ok(found.map(|(broadcast, jobs)| Self::new(broadcast, &jobs)))
    }

    /// Reports on a broadcast and all of its jobs.
    pub fn new(broadcast: Broadcast, jobs: &[Job]) -> Self {
        let by_page: BTreeMap<_, _> = jobs.iter().map(|job| (&job.page_id, job)).collect();
        let done_inline = broadcast.done_inline;
        let summary = BroadcastSummary {
            status: jobs.iter().map(|job| job.status).min().unwrap_or(JobStatus::Completed),
            counters: jobs.iter().map(Job::counters).sum(),
            duplicates_prevented: DuplicatesPrevented {
                request: broadcast.contacts.duplicates_removed,
                replay: broadcast.replays,
                claim: jobs.iter().map(|job| job.prevented_claim).sum(),
                reservation: jobs.iter().map(|job| job.prevented_reservation).sum(),
            },
            broadcast_id: broadcast.broadcast_id,
            created_at: broadcast.created_at,
            scheduled_at: broadcast.scheduled_at,
            contacts: broadcast.contacts,
        };
        let jobs = by_page.into_values().map(|job| JobReport {
            page_id: job.page_id.clone(),
            status: job.status,
            reason: job.reason.clone(),
            contacts: job.contacts,
            counters: job.counters(),
        });
        Self {
            summary,
            jobs: jobs.collect(),
            done_inline,
        }
    }
}
