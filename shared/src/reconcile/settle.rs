//! Settling: a delivery in doubt becomes `sent` by Messenger's own word, or stays in doubt. Nothing is guessed.
//!
//! There are two kinds of evidence: the echo of a message, which carries the delivery's key and attempt, and the
//! Conversations API, which shows the messages that a contact got.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;
use tracing::{Instrument, debug, warn};

use crate::app::App;
use crate::domain::delivery::{Metadata, State};
use crate::domain::ids::{ContactId, JobId, PageId};
use crate::reconcile::lookup::Reconciler;
use crate::runtime::telemetry::{delivery_span, job_span};
use crate::store;
use crate::store::deliveries::RowChange;
use crate::store::keys::doubt_shards;
use crate::store::page_leases::Acquired;
use crate::store::transactions::Settled;

/// The number of Pages whose deliveries are looked up at once.
const PAGES_AT_ONCE: usize = 16;
/// The most deliveries that one invocation takes from one partition of the index.
const DOUBTS_AT_ONCE: usize = 2_000;
/// The number of attempts to settle a row by its echo: the sender of the message, or a repeated echo, may move the row on
/// between the read and the write.
const MAX_ATTEMPTS: usize = 5;

/// The result of an echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EchoResult {
    /// The echo settled the delivery.
    Settled,
    /// The message was known to have arrived.
    Known,
    /// The delivery is recorded as `failed` or `skipped` and stays so; the row now shows the message that arrived.
    Contradicted,
    /// There is no such delivery.
    Nothing,
}

/// Marks the delivery of an echo `sent`, as the echo proves that this attempt arrived under this message id. A delivery that
/// is recorded as `failed` or `skipped` stays so, since its job may count it at any moment, and keeps the message id as
/// evidence. Idempotent; the order of echoes does not matter.
///
/// # Errors
/// If a table does not answer.
pub async fn settle_by_echo(app: &App, metadata: &Metadata, message_id: &str) -> Result<EchoResult, store::Error> {
    let Metadata { job, contact_id, .. } = metadata;
    let settling = mark_sent(app, job, contact_id, message_id).instrument(delivery_span(contact_id));
    settling.instrument(job_span(job)).await
}

async fn mark_sent(
    app: &App,
    job: &JobId,
    contact_id: &ContactId,
    message_id: &str,
) -> Result<EchoResult, store::Error> {
    let sent = State::Sent {
        message_id: message_id.to_owned(),
    };
    let (transactions, deliveries) = (app.store.transactions(), app.store.deliveries());
    let Some(mut row) = deliveries.get(job, contact_id).await? else {
        return Ok(EchoResult::Nothing);
    };
    for _ in 0..MAX_ATTEMPTS {
        let now = app.clock.now();
        let settled = match &row.state {
            State::Sent { .. } => return Ok(EchoResult::Known),
            State::Failed { .. } | State::Skipped { .. } if row.arrived_as.is_some() => return Ok(EchoResult::Known),
            State::Failed { reason } | State::Skipped { reason } => {
                app.store.jobs().note_late_echo(job).await?;
                match deliveries.keep_late_echo(job, &row, message_id, now).await? {
                    RowChange::Written => {
                        warn!(
                            reason,
                            message.id = message_id,
                            "echo of a message that was recorded as not sent: the contact has got it; do not send it again"
                        );
                        return Ok(EchoResult::Contradicted);
                    }
                    RowChange::Refused(found) => Settled::Otherwise(found),
                }
            }
            State::InDoubt { .. } => transactions.settle(job, &row, &sent, None, now).await?,
            State::Reserved | State::Waiting { .. } => {
                match deliveries.mark_sent_if_unchanged(job, &row, &sent, now).await? {
                    RowChange::Written => Settled::Now,
                    RowChange::Refused(found) => Settled::Otherwise(found),
                }
            }
        };
        match settled {
            Settled::Now => {
                debug!(was = %row.state.status(), "delivery settled by its echo");
                return Ok(EchoResult::Settled);
            }
            Settled::Otherwise(found) => row = *found,
            Settled::MessageTaken | Settled::JobGone => return Ok(EchoResult::Nothing),
        }
    }
    Ok(EchoResult::Nothing)
}

/// Looks up every delivery in doubt that is due for a lookup, until `ends` at the latest. Returns the number of deliveries
/// that were settled.
///
/// # Errors
/// If a table does not answer. The other Pages are looked up all the same, and the last error is returned.
pub async fn settle_doubts(app: &App, ends: Instant) -> Result<u64, store::Error> {
    let mut by_page = BTreeMap::<PageId, Vec<_>>::new();
    for shard in doubt_shards() {
        let doubts = app.store.doubts();
        let doubts = doubts.due_for_lookup(shard, DOUBTS_AT_ONCE, app.clock.now());
        for (job, contact_id) in doubts.await? {
            let page_id = job.page_id.clone();
            by_page.entry(page_id).or_default().push((job, contact_id));
        }
    }
    let pages: Vec<_> = by_page
        .into_iter()
        .map(|(page_id, doubts)| reconcile_page(app, page_id, doubts, ends))
        .collect();
    let mut pages = stream::iter(pages).buffer_unordered(PAGES_AT_ONCE);
    let (mut settled, mut failure) = (0, None);
    while let Some(page) = pages.next().await {
        match page {
            Ok(more) => settled += more,
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(settled), Err)
}

/// Looks up the deliveries of one Page, unless another invocation does: it would look up the same ones.
async fn reconcile_page(
    app: &App,
    page_id: PageId,
    doubts: Vec<(JobId, ContactId)>,
    ends: Instant,
) -> Result<u64, store::Error> {
    // A lookup that begins at the end is two calls.
    let deadline = ends + 2 * app.config.messenger_timeout;
    let (pages, lease) = (
        app.store.page_leases(),
        deadline.saturating_duration_since(Instant::now()),
    );
    let lease = match pages.acquire_lookups(&page_id, lease, app.clock.now()).await? {
        Acquired::Lease(lease) => lease,
        Acquired::SameJob(_) | Acquired::Held(_) | Acquired::Paused(_) => return Ok(0),
    };
    let settled = match Reconciler::new(app, &page_id).await {
        Some(mut reconciler) => reconciler.look_up_all(doubts, ends, deadline).await,
        None => Ok(0),
    };
    pages.release_if_held(&lease).await?;
    settled
}
