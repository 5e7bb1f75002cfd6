//! Reports on broadcasts, made from what is stored.

use std::collections::BTreeMap;

use shared::domain::ids::BroadcastId;
use shared::domain::job::{Broadcast, Job, JobStatus};
use shared::store::{self, Store};

use crate::api::broadcasts::{BroadcastReport, BroadcastSummary, DuplicatesPrevented, JobReport};

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
