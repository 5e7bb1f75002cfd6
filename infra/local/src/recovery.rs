//! Resumption of the jobs that an earlier stack left unfinished.
//!
//! The queue is in memory, so the earlier stack's wake-ups are lost, and every unfinished job is woken again. Without
//! this the schedule would wake the jobs all the same, at their `wake_at`, but later.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use shared::domain::ids::JobId;
use shared::domain::job::{Job, JobStatus};
use shared::runtime::queue::Queue;
use shared::store::{self, Store};
use tokio::time;

/// The time by which a Page's lease may outlast that of its job, because a worker may have extended the lease of the
/// Page at a later checkpoint. A wake-up that finds the Page still leased to the job's own dead worker is dropped, and
/// the next one comes a minute later.
const PAGE_LEASE_AFTER_JOB_LEASE: Duration = Duration::from_secs(3);

/// Broadcasts read at once.
const READS_AT_ONCE: usize = 16;

/// Returns the unfinished jobs of an earlier stack.
///
/// # Errors
///
/// Fails if the database cannot be read.
pub async fn unfinished(store: &Store) -> Result<Vec<Job>, store::Error> {
    let jobs = store.jobs().unfinished().await?.into_iter();
    let (imports, jobs): (Vec<_>, Vec<_>) = jobs.partition(JobId::is_import);
    let broadcasts: BTreeSet<_> = jobs.into_iter().map(|job| job.broadcast_id).collect();
    let mut unfinished = Vec::new();
    for import in imports {
        unfinished.extend(store.jobs().get(&import).await?);
    }
    let reads = broadcasts
        .iter()
        .map(|broadcast_id| async move { store.broadcasts().get_with_jobs(broadcast_id).await });
    let found: Vec<_> = stream::iter(reads.collect::<Vec<_>>())
        .buffer_unordered(READS_AT_ONCE)
        .try_collect()
        .await?;
    unfinished.extend(found.into_iter().flatten().flat_map(|(_, jobs)| jobs));
    unfinished.retain(|job| job.wake_at.is_some());
    Ok(unfinished)
}

/// Wakes each job as soon as it can be claimed: at once, or after the lease of its dead worker. Jobs that are not due
/// yet are left to the schedule.
pub async fn wake(queue: Queue, jobs: Vec<Job>) {
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
        tracing::info!(
            job.id = %id,
            job.status = %job.status,
            job.epoch = job.epoch,
            "waking a job that an earlier stack left unfinished"
        );
        queue.wake(job).await;
    }
}

/// Returns the earliest time at which a claim of the job can succeed, or `None` if the schedule is to wake the job.
fn claimable_at(job: &Job, now: Timestamp) -> Option<Timestamp> {
    match job.status {
        JobStatus::Queued => Some(now),
        JobStatus::Scheduled | JobStatus::Waiting => job.due_at.filter(|due_at| *due_at <= now),
        JobStatus::Processing => job.lease_until.map(|until| now.max(until + PAGE_LEASE_AFTER_JOB_LEASE)),
        JobStatus::Paused | JobStatus::AwaitingApproval => None,
        // Its end is to be announced.
        JobStatus::Halted | JobStatus::Cancelled | JobStatus::Completed => Some(now),
    }
}
