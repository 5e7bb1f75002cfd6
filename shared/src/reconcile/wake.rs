//! Waking: sends a wake-up for every job that is due: a scheduled job, a job whose wake-up was lost, or a job whose worker
//! died.

use std::collections::BTreeSet;

use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;
use tracing::{Instrument, info};

use crate::app::App;
use crate::domain::ids::JobId;
use crate::runtime::telemetry::job_span;
use crate::store;
use crate::store::keys::wake_shards;

/// The number of wake-ups that are sent at once.
const WAKE_UPS_AT_ONCE: usize = 8;

/// The jobs that one query of the index found.
#[derive(Default)]
struct Batch {
    /// The number of jobs that were woken.
    woken: u64,
    /// The last error.
    failure: Option<store::Error>,
}

/// Wakes every job whose `wake_at` has come, until `ends` at the latest. Returns the number of jobs that were woken.
///
/// `wake_at` is moved before the wake-up is sent: of two invocations at once, one wakes the job, and a lost wake-up is made
/// good at the next `wake_at`.
///
/// A job is woken at most once: a worker whose clock is behind sets `wake_at` to a time that has passed already by this clock.
///
/// # Errors
/// If a table does not answer. The other jobs are woken all the same, and the last error is returned.
pub async fn wake_jobs(app: &App, ends: Instant) -> Result<u64, store::Error> {
    let (mut all, mut seen) = (Batch::default(), BTreeSet::new());
    for shard in wake_shards() {
        loop {
            let batch = wake_batch(app, shard, &mut seen).await;
            all.woken += batch.woken;
            all.failure = batch.failure.or(all.failure);
            // The index lags behind the jobs: jobs that it still shows without effect are left to the next firing.
            if batch.woken == 0 || Instant::now() >= ends {
                break;
            }
        }
    }
    all.failure.map_or(Ok(all.woken), Err)
}

/// Wakes the first jobs that are due in one partition of the index, without those that were seen before. A job that cannot be
/// woken does not keep back the others.
async fn wake_batch(app: &App, shard: u64, seen: &mut BTreeSet<JobId>) -> Batch {
    let mut batch = Batch::default();
    let mut jobs = match app.store.jobs().due_for_wake_up(shard, app.clock.now()).await {
        Ok(jobs) => jobs,
        Err(error) => {
            batch.failure = Some(error);
            return batch;
        }
    };
    jobs.retain(|job| seen.insert(job.clone()));
    let wake_ups: Vec<_> = jobs
        .iter()
        .map(|job| wake_job(app, job).instrument(job_span(job)))
        .collect();
    let mut wake_ups = stream::iter(wake_ups).buffer_unordered(WAKE_UPS_AT_ONCE);
    while let Some(wake_up) = wake_ups.next().await {
        match wake_up {
            Ok(true) => batch.woken += 1,
            Ok(false) => {}
            Err(error) => batch.failure = Some(error),
        }
    }
    batch
}

/// Wakes a job; `false` if it is not due, or another invocation wakes it.
async fn wake_job(app: &App, job_id: &JobId) -> Result<bool, store::Error> {
    let (jobs, now) = (app.store.jobs(), app.clock.now());
    // The index lags.
    let Some(due) = jobs.get_if_due_for_wake_up(job_id, now).await? else {
        return Ok(false);
    };
    let Some(job) = jobs.postpone_wake_up_if_unchanged(&due, now).await? else {
        return Ok(false);
    };
    let Some(wake_at) = job.wake_at else {
        return Ok(false);
    };
    info!(job.status = %job.status, job.epoch = job.epoch, "job woken");
    app.queue.wake(job_id, job.epoch, wake_at).await;
    Ok(true)
}
