//! The commands to send again, carried out by the claim that finds them: a resend or a retry.

use tokio::time::Instant;
use tracing::info;

use crate::app::App;
use crate::domain::delivery::Delivery;
use crate::store;
use crate::store::jobs::Claim;
use crate::store::transactions::{ROWS_AT_ONCE, Resent};
use crate::worker::drain::last_start;

/// The end of carrying out a command to send again.
pub enum SendAgain {
    /// The command is carried out, and cleared.
    Done,
    /// The time is over, or a command to stop has come; the next claim goes on.
    Unfinished,
    /// Another worker has claimed the job, and carries the command out.
    Overtaken,
}

/// Carries out a command to send again, before anything is sent: requeues the rows that it is for, as many at once as fit into
/// a transaction. A row that was requeued is no such row any more, so that the next claim finds those that are left.
///
/// # Errors
/// If DynamoDB does not answer: the next claim goes on.
pub async fn send_again(app: &App, claim: &mut Claim, ends: Instant) -> Result<SendAgain, store::Error> {
    let (deliveries, job) = (app.store.deliveries(), claim.job.id());
    let (last_start, mut after) = (last_start(ends), None);
    loop {
        let rows = match claim.job.retry.clone() {
            Some(retry) => deliveries.named_by_retry(&job, &retry, after.as_ref()).await?,
            None => deliveries.named_for_resend(&job, after.as_ref()).await?,
        };
        let (rows, last) = rows;
        for rows in rows.chunks(ROWS_AT_ONCE) {
            if claim.job.stop.is_some() || Instant::now() >= last_start {
                return Ok(SendAgain::Unfinished);
            }
            if !requeue(app, claim, rows.to_vec()).await? {
                return Ok(SendAgain::Overtaken);
            }
        }
        after = last;
        if after.is_none() {
            let jobs = app.store.jobs();
            return Ok(match jobs.clear_command_if_claimed(claim, app.clock.now()).await? {
                true => SendAgain::Done,
                false => SendAgain::Overtaken,
            });
        }
    }
}

/// Requeues rows in one transaction, without those that have changed since they were read. Returns `false` if another worker has
/// claimed the job.
async fn requeue(app: &App, claim: &mut Claim, mut rows: Vec<Delivery>) -> Result<bool, store::Error> {
    while !rows.is_empty() {
        match app.store.transactions().resend(claim, &rows, app.clock.now()).await? {
            Resent::Done => {
                info!(deliveries.resent = rows.len(), "deliveries requeued, to be sent again");
                return Ok(true);
            }
            Resent::Changed(indices) if indices.is_empty() => return Ok(false),
            Resent::Changed(indices) => {
                for index in indices.into_iter().rev() {
                    rows.remove(index);
                }
            }
            Resent::Stale => return Ok(false),
        }
    }
    Ok(true)
}
