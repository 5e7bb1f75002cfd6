//! Waking: sends a wake-up for every job that is due: a scheduled job, a job whose wake-up was lost, or a job whose worker
//! died.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;
use tracing::{Instrument, info};

use crate::app::App;
use crate::domain::ids::{JobId, PageId};
use crate::domain::sending::SendingState;
use crate::runtime::telemetry::job_span;
use crate::store;
use crate::store::keys::{imports_shard, wake_shards};

/// The number of wake-ups that are sent at once.
const WAKE_UPS_AT_ONCE: usize = 8;

/// The most jobs that one invocation wakes in one partition of the index.
const JOBS_AT_ONCE: usize = 2_000;

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
    let (mut woken, mut failure) = (0, None);
    let mut known = BTreeMap::new();
    for shard in wake_shards() {
        // Each partition is read once: the index lags, and would show the jobs again that have just been woken.
        let jobs = app.store.jobs();
        let mut jobs = match jobs.due_for_wake_up(shard, JOBS_AT_ONCE, app.clock.now()).await {
            Ok(jobs) => jobs,
            Err(error) => {
                failure = Some(error);
                continue;
            }
        };
        let off = pages_off(app, &jobs, &mut known).await?;
        jobs.retain(|job| !off.contains(&job.page_id));
        match wake_all(app, &jobs, ends).await {
            Ok(more) => woken += more,
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(woken), Err)
}

/// Wakes every import whose `wake_at` has come, as [`wake_jobs`] does. An import sends nothing, so that no switch for sending
/// concerns it.
///
/// # Errors
/// As [`wake_jobs`].
pub async fn wake_imports(app: &App, ends: Instant) -> Result<u64, store::Error> {
    let imports = app.store.jobs();
    let imports = imports.due_for_wake_up(imports_shard(), JOBS_AT_ONCE, app.clock.now());
    wake_all(app, &imports.await?, ends).await
}

/// Wakes these jobs. If a table does not answer, the others are woken all the same, and the last error is returned.
async fn wake_all(app: &App, jobs: &[JobId], ends: Instant) -> Result<u64, store::Error> {
    let wake_ups: Vec<_> = jobs
        .iter()
        .map(|job| wake_job(app, job, ends).instrument(job_span(job)))
        .collect();
    let mut wake_ups = stream::iter(wake_ups).buffer_unordered(WAKE_UPS_AT_ONCE);
    let (mut woken, mut failure) = (0, None);
    while let Some(wake_up) = wake_ups.next().await {
        match wake_up {
            Ok(is_woken) => woken += u64::from(is_woken),
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(woken), Err)
}

/// Returns the Pages of these jobs for which sending is switched off: their jobs stay due, and are woken once it is on. Each Page
/// is read once.
async fn pages_off(
    app: &App,
    jobs: &[JobId],
    known: &mut BTreeMap<PageId, bool>,
) -> Result<BTreeSet<PageId>, store::Error> {
    let pages: BTreeSet<_> = jobs.iter().map(|job| job.page_id.clone()).collect();
    let new: Vec<_> = pages.iter().filter(|page| !known.contains_key(page)).cloned().collect();
    if !new.is_empty() {
        let switches = app.store.sending().read_all_now(&new, app.clock.now()).await?;
        for page_id in new {
            let is_off = switches.of(&page_id).switch.state == SendingState::Off;
            known.insert(page_id, is_off);
        }
    }
    Ok(pages
        .into_iter()
        .filter(|page| known.get(page) == Some(&true))
        .collect())
}

/// Wakes a job; `false` if it is not due, another invocation wakes it, or the time is over.
async fn wake_job(app: &App, job_id: &JobId, ends: Instant) -> Result<bool, store::Error> {
    if Instant::now() >= ends {
        return Ok(false);
    }
    let (jobs, now) = (app.store.jobs(), app.clock.now());
    // The index lags.
    let Some(due) = jobs.get_if_due_for_wake_up(job_id, now).await? else {
        return Ok(false);
    };
    let Some(job) = jobs.postpone_wake_up_if_unchanged(&due, now).await? else {
        return Ok(false);
    };
    info!(job.status = %job.status, job.epoch = job.epoch, "job woken");
    app.queue.wake(&job).await;
    Ok(true)
}
