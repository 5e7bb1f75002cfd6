//! Coming back: jobs whose time has come are hinted, be they due, lost or left behind by a worker that died.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::app::App;
use crate::store::{self, Store};

/// Hints under way at once.
const HINTS_AT_ONCE: usize = 8;

/// Hints every job whose `wake_at` has come, until `ends` at the latest; how many were hinted.
///
/// `wake_at` is moved before the hint is sent: of two who look at once one hints, and a hint that is lost is missed at the
/// next time.
pub async fn wake_jobs(app: &App, ends: Instant) -> Result<u64, store::Error> {
    let mut hinted = 0;
    for shard in Store::wake_shards() {
        loop {
            let jobs = app.store.jobs_to_wake(shard, app.clock.now()).await?;
            let hints = stream::iter(&jobs)
                .map(|job| wake_job(app, job))
                .buffer_unordered(HINTS_AT_ONCE);
            let sent: Vec<bool> = hints.try_collect().await?;
            let sent = sent.into_iter().filter(|sent| *sent).count() as u64;
            hinted += sent;
            // The index lags behind the jobs: what it still shows without effect is left to the next time.
            if sent == 0 || Instant::now() >= ends {
                break;
            }
        }
    }
    Ok(hinted)
}

async fn wake_job(app: &App, job_id: &crate::ids::JobId) -> Result<bool, store::Error> {
    let Some(job) = app.store.postpone_wake(job_id, app.clock.now()).await? else {
        return Ok(false);
    };
    let Some(wake_at) = job.wake_at else {
        return Ok(false);
    };
    info!(job.id = %job_id, job.status = ?job.status, job.epoch = job.epoch, "job woken");
    if let Err(error) = app.queue.hint(job_id, job.epoch, wake_at).await {
        warn!(job.id = %job_id, %error, "the job will be looked at when its next wake-up comes");
    }
    Ok(true)
}
