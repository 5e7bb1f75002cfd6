//! What a hint sets off: the Page is taken, the job is claimed, a slice of it is worked, and it is handed over.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::app::App;
use crate::deliver::Courier;
use crate::ids::JobId;
use crate::job::{Job, MAX_STALLS};
use crate::message::Template;
use crate::messenger::Messenger;
use crate::metrics::{Event, Layer};
use crate::slice::{self, Ended, Slice};
use crate::store;
use crate::store::doubts::Resent;
use crate::store::jobs::{Claim, Claimed, DOUBTS_AT_ONCE, HandOver};
use crate::store::pages::{Acquired, PageLease};

/// How long a worker waits for a Page that another sends for.
const WAIT_FOR_PAGE: Duration = Duration::from_secs(25);
/// How often it looks whether the Page is free.
const LOOK_FOR_PAGE: Duration = Duration::from_millis(500);

/// Why an invocation could not finish what it began. The rows hold the truth, and the next claim finds it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A table gave no answer that settles the matter.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The HTTP client could not be made.
    #[error("the Messenger client could not be made")]
    Client(#[source] reqwest::Error),
}

/// What an invocation did with a hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Worked {
    /// Worked a slice of the job, and left it so.
    HandedOver(HandOver),
    /// Nothing: another works on the job.
    Refused,
    /// Nothing now: the Page is not free. The job will be looked at again.
    PageNotFree,
    /// Nothing: the job is not one to work on now, or there is none.
    NotReady,
    /// Part of a slice, until another claimed the job.
    Overtaken,
}

/// Looks at a job, as a hint asks, until `ends` at the latest.
pub async fn work_on(app: &App, job: &JobId, ends: Instant) -> Result<Worked, Error> {
    match acquire_page(app, job, ends).await? {
        Acquired::Lease(page) => work_for_page(app, job, page, ends).await,
        Acquired::SameJob => Ok(refused(app, job).await),
        Acquired::Held(until) | Acquired::Paused(until) => {
            app.store
                .wake_when_page_is_free(job, until, app.clock.now())
                .await?;
            debug!(job.id = %job, page.free_at = %until, "Page not free");
            Ok(Worked::PageNotFree)
        }
    }
}

/// Works a job off within the request that made it, until `ends` at the latest. If its Page is not free at once, the queue
/// has it, and what is left at the end has the queue in any case.
pub async fn work_inline(app: &App, job: &Job, ends: Instant) -> Result<Worked, Error> {
    let (id, lease) = (job.id(), app.config.job_lease);
    match app.store.acquire_page(&id, lease, app.clock.now()).await? {
        Acquired::Lease(page) => work_for_page(app, &id, page, ends).await,
        Acquired::SameJob | Acquired::Held(_) | Acquired::Paused(_) => {
            if let Some(wake_at) = job.wake_at {
                app.queue.hint(&id, job.epoch, wake_at).await;
            }
            Ok(Worked::PageNotFree)
        }
    }
}

async fn work_for_page(
    app: &App,
    job: &JobId,
    mut page: PageLease,
    ends: Instant,
) -> Result<Worked, Error> {
    let worked = claim_and_work(app, job, &mut page, ends).await;
    // Before the hint: whom it sets off must find the Page free.
    if let Err(error) = app.store.release_page(&page).await {
        let error: &dyn std::error::Error = &error;
        warn!(page.id = %job.page_id, error, "Page not released; its lease will end");
    }
    let (worked, next) = worked?;
    if let Some(next) = next {
        app.queue.hint(job, next.epoch, next.wake_at).await;
    }
    Ok(worked)
}

/// Waits a little for a Page that another job has: it may be given back at any moment.
async fn acquire_page(app: &App, job: &JobId, ends: Instant) -> Result<Acquired, Error> {
    let patience = ends.saturating_duration_since(Instant::now()) / 4;
    let give_up = Instant::now() + WAIT_FOR_PAGE.min(patience);
    loop {
        let (now, lease) = (app.clock.now(), app.config.job_lease);
        let acquired = app.store.acquire_page(job, lease, now).await?;
        let Acquired::Held(until) = acquired else {
            return Ok(acquired);
        };
        let wait = LOOK_FOR_PAGE.min(until.duration_since(now).unsigned_abs());
        if Instant::now() + wait >= give_up {
            return Ok(acquired);
        }
        tokio::time::sleep(wait).await;
    }
}

async fn refused(app: &App, job: &JobId) -> Worked {
    if let Err(error) = app.store.count_refused_claim(job).await {
        let error: &dyn std::error::Error = &error;
        warn!(job.id = %job, error, "refused claim not counted");
    }
    app.metrics.count(Event::ClaimsRefused, 1);
    app.metrics.prevented(Layer::Claim, 1);
    warn!(duplicates.layer = "claim", duplicates.prevented = 1, job.id = %job, "duplicates prevented: another works on the job");
    Worked::Refused
}

/// The hint that a hand-over asks for.
struct NextHint {
    epoch: u64,
    wake_at: Timestamp,
}

async fn claim_and_work(
    app: &App,
    job: &JobId,
    page: &mut PageLease,
    ends: Instant,
) -> Result<(Worked, Option<NextHint>), Error> {
    let claim = match app
        .store
        .claim(job, app.config.job_lease, app.clock.now())
        .await?
    {
        Claimed::Won(claim) => *claim,
        Claimed::HeldByAnother => return Ok((refused(app, job).await, None)),
        Claimed::NotReady(status) => {
            debug!(job.id = %job, job.status = %status, "job not ready");
            return Ok((Worked::NotReady, None));
        }
        Claimed::Unknown => {
            warn!(job.id = %job, "hint for a job that does not exist");
            return Ok((Worked::NotReady, None));
        }
    };
    info!(job.id = %job, job.status = "processing", job.epoch = claim.job.epoch, job.cursor = claim.job.cursor, "job claimed");
    match work_a_slice(app, claim, page, ends).await? {
        Ended::Overtaken => {
            info!(job.id = %job, "job overtaken by another worker");
            Ok((Worked::Overtaken, None))
        }
        Ended::At(claim, to) => hand_over(app, *claim, to).await,
    }
}

async fn work_a_slice(
    app: &App,
    mut claim: Claim,
    page: &mut PageLease,
    ends: Instant,
) -> Result<Ended, Error> {
    let halted = |claim, reason: String| Ok(Ended::At(Box::new(claim), HandOver::Halted(reason)));
    if let Some(reason) = unworkable(&claim.job, app.clock.now()) {
        return halted(claim, reason);
    }
    if claim.job.resend_wish && !put_back_in_line(app, &mut claim).await? {
        return Ok(Ended::Overtaken);
    }
    let job = claim.job.clone();
    let access = match app.secrets.access(&job.page_id).await {
        Ok(access) => access,
        Err(error) => {
            let to = slice::without(app, &job.id(), &error);
            return Ok(Ended::At(Box::new(claim), to));
        }
    };
    let Some(broadcast) = app.store.broadcast(&job.broadcast_id).await? else {
        return halted(claim, "expired: its message is gone".to_owned());
    };
    let template = broadcast.message.text.as_deref().map(Template::compile);
    let template = match template.transpose() {
        Ok(template) => template,
        Err(error) => return halted(claim, error.to_string()),
    };
    let courier = Courier {
        app,
        job: &job,
        broadcast: &broadcast,
        template,
        messenger: Messenger::new(&app.config, &job.page_id, access).map_err(Error::Client)?,
    };
    Slice::new(&courier, claim, page, ends)
        .work()
        .await
        .map_err(Error::Store)
}

/// Carries out the wish to send again what is in doubt, before anything is sent: the rows that bear it go back in line, as
/// many at once as fit into a transaction. False if another has claimed the job; then it is theirs to carry out.
async fn put_back_in_line(app: &App, claim: &mut Claim) -> Result<bool, store::Error> {
    let (job, mut after) = (claim.job.id(), None);
    loop {
        let (rows, last) = app.store.rows_to_resend(&job, after.as_ref()).await?;
        for rows in rows.chunks(DOUBTS_AT_ONCE) {
            let mut rows = rows.to_vec();
            while !rows.is_empty() {
                match app.store.resend(claim, &rows, app.clock.now()).await? {
                    Resent::Done => {
                        info!(job.id = %job, deliveries.resent = rows.len(), "deliveries in doubt back in line");
                        break;
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
        }
        after = last;
        if after.is_none() {
            return app.store.fulfil_resend_wish(claim, app.clock.now()).await;
        }
    }
}

/// Why nobody should work on a job any more.
fn unworkable(job: &Job, now: Timestamp) -> Option<String> {
    if job.stalls > MAX_STALLS {
        return Some(format!(
            "stalled: {MAX_STALLS} workers in a row ended without moving on from this point"
        ));
    }
    (now > job.retained_until).then(|| "expired: its time of retention is over".to_owned())
}

async fn hand_over(
    app: &App,
    claim: Claim,
    to: HandOver,
) -> Result<(Worked, Option<NextHint>), Error> {
    let (job, epoch) = (claim.job.id(), claim.job.epoch);
    let Some(wake_at) = app.store.hand_over(claim, &to, app.clock.now()).await? else {
        info!(job.id = %job, "job overtaken by another worker");
        return Ok((Worked::Overtaken, None));
    };
    match &to {
        HandOver::Queued => info!(job.id = %job, job.status = "queued", "job handed over"),
        HandOver::Waiting(until) => {
            info!(job.id = %job, job.status = "waiting", job.due_at = %until, "job waits")
        }
        HandOver::Halted(reason) => {
            info!(job.id = %job, job.status = "halted", job.reason = reason, "job halted")
        }
        HandOver::Completed => info!(job.id = %job, job.status = "completed", "job completed"),
    }
    let next = (to == HandOver::Queued).then_some(NextHint { epoch, wake_at });
    Ok((Worked::HandedOver(to), next))
}
