//! Going on where an earlier stack ended: its queue was in memory, so its hints are gone, and every unfinished job is
//! hinted anew. Without this `wake_at` would bring them back all the same, only later.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use shared::job::{Job, JobStatus};
use shared::queue::Queue;
use shared::store::{self, Store};
use tokio::time;

/// A worker may have extended its lease of the Page up to a checkpoint later than that of the job. A hint that finds the
/// Page still held by the job's own dead worker is dropped, and the next comes a minute later.
const PAGE_AFTER_JOB: Duration = Duration::from_secs(3);

/// The unfinished jobs, as an earlier stack left them.
pub async fn unfinished(store: &Store) -> Result<Vec<Job>, store::Error> {
    let jobs = store.unfinished_jobs().await?.into_iter();
    let broadcasts: BTreeSet<_> = jobs.map(|job| job.broadcast_id).collect();
    let mut unfinished = Vec::new();
    for broadcast_id in broadcasts {
        let found = store.broadcast_and_jobs(&broadcast_id).await?;
        unfinished.extend(found.into_iter().flat_map(|(_, jobs)| jobs));
    }
    unfinished.retain(|job| job.wake_at.is_some());
    Ok(unfinished)
}

/// Hints each job as soon as it can be claimed: at once, or when its dead worker's lease has ended. What is not due yet
/// is left to the schedule.
pub async fn hint(queue: Queue, jobs: Vec<Job>) {
    let started = Timestamp::now();
    let mut jobs: Vec<_> = jobs
        .iter()
        .filter_map(|job| Some((claimable_at(job, started)?, job)))
        .collect();
    jobs.sort_by_key(|(at, _)| *at);
    for (at, job) in jobs {
        let wait = at.duration_since(Timestamp::now());
        time::sleep(wait.try_into().unwrap_or_default()).await;
        let id = job.id();
        tracing::info!(job.id = %id, job.status = %job.status, job.epoch = job.epoch, "job taken up again");
        queue.hint(&id, job.epoch, job.wake_at.unwrap_or(at)).await;
    }
}

/// From when on a claim of the job can be won; none if the schedule knows it better.
fn claimable_at(job: &Job, now: Timestamp) -> Option<Timestamp> {
    match job.status {
        JobStatus::Queued => Some(now),
        JobStatus::Scheduled | JobStatus::Waiting => job.due_at.filter(|due_at| *due_at <= now),
        JobStatus::Processing => job.lease_until.map(|until| now.max(until + PAGE_AFTER_JOB)),
        JobStatus::Paused | JobStatus::Halted | JobStatus::Cancelled | JobStatus::Completed => None,
    }
}
