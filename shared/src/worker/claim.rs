//! The work that a wake-up causes: acquires the Page if the job is large, claims the job, works one run of it, and hands it
//! over.

use std::ops::ControlFlow;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{Instrument, debug, info, warn};

use crate::app::App;
use crate::domain::command::StopCommand;
use crate::domain::ids::JobId;
use crate::domain::job::{Job, MAX_STALLS};
use crate::domain::schedule::EXPIRED;
use crate::domain::sending::{PageState, SendingState};
use crate::domain::template::Template;
use crate::messenger::MessengerClient;
use crate::runtime::metrics::{Event, Layer};
use crate::runtime::telemetry::job_span;
use crate::store;
use crate::store::hand_over::{HandOver, HandedOver};
use crate::store::jobs::{Claim, Claimed};
use crate::store::page_leases::{Acquired, PageLease};
use crate::worker::announce::announce;
use crate::worker::deliver::Sender;
use crate::worker::drain::drain;
use crate::worker::hand_over::hand_over_without_secret;
use crate::worker::import::Import;
use crate::worker::pace::Pace;
use crate::worker::profiles::Profiles;
use crate::worker::resolve::resolve;
use crate::worker::run::{Run, RunEnd};
use crate::worker::send_again::{SendAgain, send_again};
use crate::worker::spacing::Spacing;

/// The longest time that a worker of a large job waits for a Page that another job holds.
const PAGE_WAIT: Duration = Duration::from_secs(25);
/// The reason of contacts that are skipped because the operator has cancelled their job.
const CANCELLED: &str = "cancelled";
/// The interval at which a waiting worker tries to acquire the Page.
const PAGE_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A failure that ends an invocation in the middle of its work. The rows hold the truth, and the next claim finds it there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A table gave no answer that settles the matter.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The HTTP client could not be built.
    #[error("the Messenger client could not be made")]
    Client(#[source] reqwest::Error),
}

/// The result of an invocation's work on a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Worked {
    /// A run was worked, and the job was left in this way.
    HandedOver(HandOver),
    /// Nothing was done: another worker has the job.
    Refused,
    /// Nothing was done: another large job has the Page, or it pauses. The job's wake-up brings it back.
    PageNotFree,
    /// Nothing was done: sending is switched off. The job's wake-up is due, and comes once sending is on.
    SwitchedOff,
    /// Nothing was sent: the job is not ready to be worked on, or does not exist; or its end was announced.
    NotReady,
    /// A run was worked until another worker claimed the job.
    Overtaken,
}

/// Works on the job that a wake-up names, until `ends` at the latest.
///
/// # Errors
/// If a table does not answer, or the HTTP client cannot be built. The job comes back by itself when its lease has ended.
pub async fn work_on(app: &App, job: &JobId, ends: Instant) -> Result<Worked, Error> {
    let work = async {
        let Some(found) = app.store.jobs().get(job).await? else {
            return Ok(unknown());
        };
        if found.is_unannounced() {
            announce(app, &found).await?;
            return Ok(Worked::NotReady);
        }
        if found.import.is_some() || found.stop.is_some() || found.is_expired(app.clock.now()) {
            return Box::pin(work_without_page(app, &found, ends)).await;
        }
        if found.is_express() || found.is_resolving() {
            return work_and_wake(app, job, None, ends).await;
        }
        match wait_for_page(app, job, ends).await? {
            Acquired::Lease(page) => work_and_wake(app, job, Some(page), ends).await,
            Acquired::SameJob(until) => {
                // That worker may have died before its claim, and then nothing else would bring the job back soon.
                let jobs = app.store.jobs();
                jobs.postpone_wake_up_if_ready(job, until, app.clock.now()).await?;
                Ok(refused(app, job).await)
            }
            Acquired::Held(until) | Acquired::Paused(until) => {
                let jobs = app.store.jobs();
                jobs.postpone_wake_up_if_ready(job, until, app.clock.now()).await?;
                debug!(page.free_at = %until, "Page not free; the job is woken when it is");
                Ok(Worked::PageNotFree)
            }
        }
    };
    work.instrument(job_span(job)).await
}

/// Works on a job within the request that created it, until `ends` at the latest. A large job whose Page is not free at once
/// goes to the queue, and so does a job that is not finished in time.
///
/// # Errors
/// As [`work_on`].
pub async fn work_inline(app: &App, job: &Job, ends: Instant) -> Result<Worked, Error> {
    let (id, lease) = (job.id(), app.config.job_lease);
    let work = async {
        if job.is_express() {
            return work_and_wake(app, &id, None, ends).await;
        }
        match app.store.page_leases().acquire(&id, lease, app.clock.now()).await? {
            Acquired::Lease(page) => work_and_wake(app, &id, Some(page), ends).await,
            Acquired::SameJob(_) | Acquired::Held(_) | Acquired::Paused(_) => {
                app.queue.wake(job).await;
                Ok(Worked::PageNotFree)
            }
        }
    };
    work.instrument(job_span(&id)).await
}

/// Waits a little for a Page that another job holds, since it may be released at any moment.
async fn wait_for_page(app: &App, job: &JobId, ends: Instant) -> Result<Acquired, Error> {
    let patience = ends.saturating_duration_since(Instant::now()) / 4;
    let give_up = Instant::now() + PAGE_WAIT.min(patience);
    loop {
        let (now, lease) = (app.clock.now(), app.config.job_lease);
        let acquired = app.store.page_leases().acquire(job, lease, now).await?;
        let Acquired::Held(until) = acquired else {
            return Ok(acquired);
        };
        let wait = PAGE_POLL_INTERVAL.min(until.duration_since(now).unsigned_abs());
        if Instant::now() + wait >= give_up {
            return Ok(acquired);
        }
        tokio::time::sleep(wait).await;
    }
}

/// Works on a job, then releases its Page if it is held, and wakes the next run.
async fn work_and_wake(app: &App, job: &JobId, mut lease: Option<PageLease>, ends: Instant) -> Result<Worked, Error> {
    // What is boxed here does not add to the stack of those that await it.
    let worked = Box::pin(claim_and_work(app, job, lease.as_mut(), ends)).await;
    // The Page is released before the wake-up is sent, so that the next worker finds it free.
    if let Some(lease) = lease
        && let Err(error) = app.store.page_leases().release_if_held(&lease).await
    {
        let error: &dyn std::error::Error = &error;
        warn!(page.id = %job.page_id, error, "Page not released; it is free when its lease ends");
    }
    let (worked, next) = worked?;
    if let Some(next) = next {
        app.queue.wake(&next).await;
    }
    Ok(worked)
}

/// Claims a job that the operator has stopped, and obeys; or one whose end has come; or an import. A cancelled or expired job is
/// drained. That takes neither the Page nor the switch for sending, since nothing is sent.
async fn work_without_page(app: &App, job: &Job, ends: Instant) -> Result<Worked, Error> {
    let claim = match begin(app, &job.id()).await? {
        Begun::Claimed(claim) => *claim,
        Begun::Not(worked) => return Ok(worked),
    };
    let end = match claim.job.stop {
        _ if claim.job.import.is_some() => import(app, claim, ends).await?,
        Some(StopCommand::Cancel) => drain(app, claim, CANCELLED, ends).await?,
        None if claim.job.is_expired(app.clock.now()) => drain_expired(app, claim, ends).await?,
        // The hand-over obeys a pause, and a resume that has come meanwhile.
        Some(StopCommand::Pause) | None => RunEnd::HandOver(Box::new(claim), HandOver::Queued),
    };
    let (worked, next) = leave(app, end).await?;
    if let Some(job) = next {
        app.queue.wake(&job).await;
    }
    Ok(worked)
}

/// Works a run of a claimed import, unless there is a reason not to.
async fn import(app: &App, claim: Claim, ends: Instant) -> Result<RunEnd, Error> {
    let hand_over = |claim, to| Ok(RunEnd::HandOver(Box::new(claim), to));
    if let Some(reason) = reason_to_halt(&claim.job, app.clock.now()) {
        return hand_over(claim, HandOver::Halted(reason));
    }
    let page_id = claim.job.page_id.clone();
    let access = match app.secrets.access(&page_id).await {
        Ok(access) => access,
        Err(error) => {
            let to = hand_over_without_secret(app, &error);
            return hand_over(claim, to);
        }
    };
    let messenger = MessengerClient::new(&app.config, &page_id, access).map_err(Error::Client)?;
    let run = Import::new(app, &messenger, claim, ends).work();
    Box::pin(run).await.map_err(Error::Store)
}

/// Drains a job whose end has come. A command to send again is carried out before, so that it ends: its rows are drained, too.
async fn drain_expired(app: &App, claim: Claim, ends: Instant) -> Result<RunEnd, Error> {
    Ok(match carry_out_command(app, claim, ends).await? {
        ControlFlow::Continue(claim) => drain(app, claim, EXPIRED, ends).await?,
        ControlFlow::Break(end) => end,
    })
}

/// Carries out the command to send again, if there is one. Breaks if the run ends with that, or a command to stop has come.
async fn carry_out_command(
    app: &App,
    mut claim: Claim,
    ends: Instant,
) -> Result<ControlFlow<RunEnd, Claim>, store::Error> {
    let sent_again = match claim.job.resend_command || claim.job.retry.is_some() {
        true => send_again(app, &mut claim, ends).await?,
        false => SendAgain::Done,
    };
    Ok(match sent_again {
        // A command to stop may have come before the claim, or long ago by now; the hand-over obeys it.
        SendAgain::Done if claim.job.stop.is_none() => ControlFlow::Continue(claim),
        SendAgain::Done | SendAgain::Unfinished => {
            ControlFlow::Break(RunEnd::HandOver(Box::new(claim), HandOver::Queued))
        }
        SendAgain::Overtaken => ControlFlow::Break(RunEnd::Overtaken),
    })
}

/// Counts a claim that a live lease refused.
async fn refused(app: &App, job: &JobId) -> Worked {
    if let Err(error) = app.store.jobs().count_refused_claim(job).await {
        let error: &dyn std::error::Error = &error;
        warn!(error, "refused claim not counted in the report");
    }
    app.metrics.count(Event::ClaimsRefused, 1);
    app.metrics.prevented(Layer::Claim, 1);
    warn!(
        duplicates.layer = "claim",
        duplicates.prevented = 1,
        "duplicates prevented: another worker has the job"
    );
    Worked::Refused
}

fn unknown() -> Worked {
    warn!("wake-up for a job that does not exist");
    Worked::NotReady
}

/// The beginning of the work on a job.
enum Begun {
    /// The job is claimed.
    Claimed(Box<Claim>),
    /// The job is not claimed, and this is the result of the invocation's work.
    Not(Worked),
}

async fn begin(app: &App, job: &JobId) -> Result<Begun, Error> {
    let claim = match app
        .store
        .jobs()
        .claim(job, app.config.job_lease, app.clock.now())
        .await?
    {
        Claimed::Won(claim) => claim,
        Claimed::HeldByAnother => return Ok(Begun::Not(refused(app, job).await)),
        Claimed::NotReady(status) => {
            debug!(job.status = %status, "job not ready");
            return Ok(Begun::Not(Worked::NotReady));
        }
        Claimed::Unknown => return Ok(Begun::Not(unknown())),
    };
    let (epoch, cursor) = (claim.job.epoch, claim.job.cursor);
    info!(
        job.status = "processing",
        job.epoch = epoch,
        job.cursor = cursor,
        "job claimed"
    );
    Ok(Begun::Claimed(claim))
}

/// Claims a job, works a run of it and hands it over. Returns the job if its next run is to be woken at once.
async fn claim_and_work(
    app: &App,
    job: &JobId,
    lease: Option<&mut PageLease>,
    ends: Instant,
) -> Result<(Worked, Option<Job>), Error> {
    let jobs = app.store.jobs();
    let permission = app.store.sending().read_for(&job.page_id, app.clock.now()).await?;
    let (switch, now) = (permission.switch, app.clock.now());
    if switch.state == SendingState::Off {
        jobs.postpone_wake_up_if_ready(job, now, now).await?;
        info!("sending is switched off; the job waits");
        return Ok((Worked::SwitchedOff, None));
    }
    if let Some(until) = permission.page.paused_until(now) {
        jobs.postpone_wake_up_if_ready(job, until, now).await?;
        debug!(page.paused_until = %until, "Page pauses; the job is woken afterwards");
        return Ok((Worked::PageNotFree, None));
    }
    let claim = match begin(app, job).await? {
        Begun::Claimed(claim) => *claim,
        Begun::Not(worked) => return Ok((worked, None)),
    };
    if switch.state == SendingState::Halt {
        return hand_over(app, claim, HandOver::Halted(switch.halt_reason())).await;
    }
    let end = work_claimed(app, claim, lease, permission.page, ends).await?;
    leave(app, end).await
}

/// Works a run of a claimed job, unless there is a reason not to.
async fn work_claimed(
    app: &App,
    claim: Claim,
    lease: Option<&mut PageLease>,
    page: PageState,
    ends: Instant,
) -> Result<RunEnd, Error> {
    let halted = |claim, reason: String| Ok(RunEnd::HandOver(Box::new(claim), HandOver::Halted(reason)));
    if let Some(reason) = reason_to_halt(&claim.job, app.clock.now()) {
        return halted(claim, reason);
    }
    if claim.job.is_resolving() {
        return Box::pin(resolve(app, claim, ends)).await.map_err(Error::Store);
    }
    if lease.is_none() && !claim.job.is_express() {
        // Another worker has resolved its audience meanwhile: the next run takes the Page.
        return Ok(RunEnd::HandOver(Box::new(claim), HandOver::Queued));
    }
    let claim = match Box::pin(carry_out_command(app, claim, ends)).await? {
        ControlFlow::Continue(claim) => claim,
        ControlFlow::Break(end) => return Ok(end),
    };
    let job = claim.job.clone();
    let access = match app.secrets.access(&job.page_id).await {
        Ok(access) => access,
        Err(error) => {
            let to = hand_over_without_secret(app, &error);
            return Ok(RunEnd::HandOver(Box::new(claim), to));
        }
    };
    let Some(broadcast) = app.store.broadcasts().get(&job.broadcast_id).await? else {
        return halted(claim, "expired: the broadcast's message is gone".to_owned());
    };
    let template = broadcast.message.text.as_deref().map(Template::compile);
    let template = match template.transpose() {
        Ok(template) => template,
        Err(error) => return halted(claim, error.to_string()),
    };
    let pace = Pace::new(app, &job, broadcast.message.most_per_second(), lease, page);
    let sender = Sender {
        app,
        job: &job,
        broadcast: &broadcast,
        profiles: Profiles::new(app, template.as_ref()),
        template,
        messenger: MessengerClient::new(&app.config, &job.page_id, access).map_err(Error::Client)?,
        spacing: Spacing::new(pace.rate()),
    };
    let run = Box::pin(Run::new(&sender, claim, pace, ends).work());
    run.await.map_err(Error::Store)
}

/// Returns the reason why no worker should work on a job any more, if there is one.
fn reason_to_halt(job: &Job, now: Timestamp) -> Option<String> {
    if job.stalls > MAX_STALLS {
        return Some(format!(
            "stalled: {MAX_STALLS} workers in a row ended without moving on from this point"
        ));
    }
    (now > job.retained_until).then(|| "expired: the job's time of retention is over".to_owned())
}

/// Leaves a job at the end of a run. Returns the job if its next run is to be woken at once.
async fn leave(app: &App, end: RunEnd) -> Result<(Worked, Option<Job>), Error> {
    match end {
        RunEnd::HandOver(claim, to) => hand_over(app, *claim, to).await,
        RunEnd::Overtaken => Ok(overtaken()),
    }
}

/// Hands a job over. Returns the job if its next run is to be woken at once.
async fn hand_over(app: &App, claim: Claim, to: HandOver) -> Result<(Worked, Option<Job>), Error> {
    let handed_over = app.store.jobs().hand_over(claim, &to, app.clock.now()).await?;
    let Some(HandedOver { to, job }) = handed_over else {
        return Ok(overtaken());
    };
    match &to {
        HandOver::Queued => info!(job.status = "queued", "job handed over to the next run"),
        HandOver::Waiting(until) => info!(job.status = "waiting", job.due_at = %until, "job waits"),
        HandOver::Quiet(until) => {
            info!(job.status = "waiting", job.due_at = %until, "job waits for the end of its quiet hours")
        }
        HandOver::Halted(reason) => info!(job.status = "halted", job.reason = reason, "job halted"),
        HandOver::Paused => info!(job.status = "paused", "job paused by the operator"),
        HandOver::Completed => info!(job.status = "completed", "job completed"),
        HandOver::Cancelled(reason) => info!(job.status = "cancelled", job.reason = reason, "job cancelled"),
    }
    announce(app, &job).await?;
    let next = (to == HandOver::Queued).then_some(job);
    Ok((Worked::HandedOver(to), next))
}

fn overtaken() -> (Worked, Option<Job>) {
    info!("job overtaken: another worker has claimed it");
    (Worked::Overtaken, None)
}
