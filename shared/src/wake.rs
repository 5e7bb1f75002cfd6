//! Coming back: jobs whose time has come are hinted, be they due, lost or left behind by a worker that died.

use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;
use tracing::info;

use crate::app::App;
use crate::ids::JobId;
use crate::store::{self, Store};

/// Hints under way at once.
const HINTS_AT_ONCE: usize = 8;

/// Hints every job whose `wake_at` has come, until `ends` at the latest; how many were hinted. An error
/// is the last of those that kept some from it.
///
/// `wake_at` is moved before the hint is sent: of two who look at once one hints, and a hint that is lost is missed at the
/// next time.
pub async fn wake_jobs(app: &App, ends: Instant) -> Result<u64, store::Error> {
    let (mut hinted, mut failure) = (0, None);
    for shard in Store::wake_shards() {
        loop {
            let jobs = match app.store.jobs_to_wake(shard, app.clock.now()).await {
                Ok(jobs) => jobs,
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            };
            let hints: Vec<_> = jobs.iter().map(|job| wake_job(app, job)).collect();
            let mut hints = stream::iter(hints).buffer_unordered(HINTS_AT_ONCE);
            let mut sent = 0;
            // One job that cannot be woken does not keep the others from it.
            while let Some(hint) = hints.next().await {
                match hint {
                    Ok(true) => sent += 1,
                    Ok(false) => {}
                    Err(error) => failure = Some(error),
                }
            }
            hinted += sent;
            // The index lags behind the jobs: what it still shows without effect is left to the next time.
            if sent == 0 || Instant::now() >= ends {
                break;
            }
        }
    }
    failure.map_or(Ok(hinted), Err)
}

async fn wake_job(app: &App, job_id: &JobId) -> Result<bool, store::Error> {
    let Some(job) = app.store.postpone_wake(job_id, app.clock.now()).await? else {
        return Ok(false);
    };
    let Some(wake_at) = job.wake_at else {
        return Ok(false);
    };
    info!(job.id = %job_id, job.status = %job.status, job.epoch = job.epoch, "job woken");
    app.queue.hint(job_id, job.epoch, wake_at).await;
    Ok(true)
}
