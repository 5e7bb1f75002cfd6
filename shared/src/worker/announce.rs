//! Announcing the end of a job, after the write that ended it and before its worker is done. The job keeps its wake-up until
//! then, so that whoever it wakes announces the end if this worker has died.

use futures_util::future::BoxFuture;
use tracing::info;

use crate::app::App;
use crate::domain::event::BroadcastEvent;
use crate::domain::job::Job;
use crate::store;

/// Announces the end of a job, unless that is done. An import and a send to testers have no events.
///
/// # Errors
/// If DynamoDB does not answer: the job is woken, and its end is announced then.
pub fn announce<'a>(app: &'a App, job: &'a Job) -> BoxFuture<'a, Result<(), store::Error>> {
    // Boxed before it is awaited: it is nested deep in a run, whose stack is small.
    Box::pin(async move {
        if !job.is_unannounced() {
            return Ok(());
        }
        if job.import.is_none() {
            announce_to_others(app, job).await?;
        }
        app.store.jobs().mark_announced_if_over(job).await
    })
}

/// Reads all jobs, as of now: so of those that end at once, the last one to be written sees the end of the broadcast.
async fn announce_to_others(app: &App, job: &Job) -> Result<(), store::Error> {
    let found = app.store.broadcasts().get_with_jobs(&job.broadcast_id).await?;
    let Some((broadcast, jobs)) = found.filter(|(broadcast, _)| !broadcast.test) else {
        return Ok(());
    };
    let Some(event) = BroadcastEvent::of_end(job, &jobs, app.clock.now()) else {
        return Ok(());
    };
    if app.store.events().put_if_new(&broadcast, &event).await? {
        info!(event.id, event.kind = ?event.kind, "event announced");
    }
    Ok(())
}
