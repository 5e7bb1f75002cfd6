//! A drain: settles every contact that is left in a job's backlog, without sending. It needs neither the Page nor its token, nor
//! the message.
//!
//! Counting the rest of the backlog as skipped would not do: a worker that was overtaken may still reserve a contact that has no
//! row. So each contact gets its row, under the conditions of a reservation.

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use crate::app::App;
use crate::domain::backlog::{Backlog, Entry, Finish, Next};
use crate::domain::command::StopCommand;
use crate::domain::delivery::{Doubt, State};
use crate::domain::job::{Job, Resolving};
use crate::runtime::telemetry::delivery_span;
use crate::store;
use crate::store::hand_over::HandOver;
use crate::store::jobs::Claim;
use crate::store::skips::Skip;
use crate::store::transactions::{Checkpoint, Checkpointed, ROWS_AT_ONCE, Resolution};
use crate::worker::deliver::{AttemptEnd, Delivered, Sender, finish_for};
use crate::worker::in_flight::InFlight;
use crate::worker::run::{CHECKPOINT_EVERY, RunEnd, WIND_UP};

/// The number of contacts that are settled at once.
const SKIPS_AT_ONCE: usize = 64;

/// A drain in progress.
struct Drain<'a> {
    app: &'a App,
    job: &'a Job,
    /// The reason of the skipped contacts.
    reason: &'a str,
    claim: Claim,
    backlog: Backlog,
    in_flight: InFlight<'a>,
    /// The rows that the next checkpoints put in doubt.
    doubts: Vec<(Entry, Doubt)>,
    /// The hand-over, once nothing more is started.
    stop: Option<HandOver>,
    /// True once another worker is known to have claimed the job.
    overtaken: bool,
}

/// Ends the resolution of a job's audience, of which not all contacts are known then. Returns `false` if another worker has claimed
/// the job.
async fn give_up_resolution(app: &App, claim: &mut Claim) -> Result<bool, store::Error> {
    let rest = Resolving {
        given_up: true,
        ..claim.job.resolving.clone().unwrap_or_default()
    };
    let nobody_more = Resolution {
        rest: Some(rest),
        ..Resolution::default()
    };
    let (transactions, now) = (app.store.transactions(), app.clock.now());
    transactions.resolve(claim, &nobody_more, now).await
}

/// Settles the contacts that are left as `skipped` for this reason, or as in doubt where an earlier attempt may have arrived,
/// until `ends` at the latest. Nothing is left if the hand-over is `Completed`.
///
/// # Errors
/// If a table does not answer; the claim then ends with its lease, and the next one goes on.
pub async fn drain(app: &App, mut claim: Claim, reason: &str, ends: Instant) -> Result<RunEnd, store::Error> {
    if claim.job.is_resolving() && !give_up_resolution(app, &mut claim).await? {
        return Ok(RunEnd::Overtaken);
    }
    let job = &claim.job.clone();
    let drain = Drain {
        app,
        job,
        reason,
        backlog: Backlog::new(job.first_segments, job.segments, job.cursor),
        claim,
        in_flight: InFlight::default(),
        doubts: Vec::new(),
        stop: None,
        overtaken: false,
    };
    drain.work(last_start(ends)).await
}

impl<'a> Drain<'a> {
    async fn work(mut self, last_start: Instant) -> Result<RunEnd, store::Error> {
        loop {
            self.skip_until(Instant::now() + CHECKPOINT_EVERY, last_start).await?;
            self.checkpoint().await?;
            if self.overtaken {
                return Ok(RunEnd::Overtaken);
            }
            let is_busy = !self.in_flight.is_empty() || self.in_flight.has_arrived() || !self.doubts.is_empty();
            if is_busy || self.backlog.progress().cursor != self.backlog.cursor() {
                continue;
            }
            if self.backlog.is_finished() {
                return Ok(RunEnd::HandOver(Box::new(self.claim), HandOver::Completed));
            }
            if let Some(to) = self.stop {
                return Ok(RunEnd::HandOver(Box::new(self.claim), to));
            }
        }
    }

    /// Settles contacts until a checkpoint is due, or nothing is in flight and none is left to begin with.
    async fn skip_until(&mut self, checkpoint_at: Instant, last_start: Instant) -> Result<(), store::Error> {
        let mut none_left = false;
        loop {
            for delivered in self.in_flight.take_arrived() {
                self.record(delivered)?;
            }
            if self.overtaken || self.doubts.len() >= ROWS_AT_ONCE || Instant::now() >= checkpoint_at {
                return Ok(());
            }
            if self.stop.is_none() && Instant::now() >= last_start {
                self.stop = Some(HandOver::Queued);
            }
            if self.stop.is_none() && !none_left && self.in_flight.len() < SKIPS_AT_ONCE {
                none_left = !self.start_next().await?;
                continue;
            }
            match timeout_at(checkpoint_at, self.in_flight.next()).await {
                Ok(Some(delivered)) => self.record(delivered)?,
                Ok(None) | Err(_) => return Ok(()),
            }
        }
    }

    /// Begins with the next contact; `false` if there is none. Contacts that are not due are settled, too.
    async fn start_next(&mut self) -> Result<bool, store::Error> {
        match self.backlog.next(Timestamp::MAX) {
            Next::Contact(entry) => self.start(entry),
            Next::Load(number) => {
                let segments = self.app.store.segments();
                let load = segments.get(&self.job.snapshot, number);
                match self.in_flight.poll_while(load).await? {
                    Some(segment) => self.backlog.load(segment),
                    None => self.stop = Some(self.without_segment(number)),
                }
            }
            Next::AfterInFlight | Next::NotBefore(_) | Next::Exhausted => return Ok(false),
        }
        Ok(true)
    }

    /// Returns the hand-over of a job of which a segment is gone, so that its contacts are not known any more.
    fn without_segment(&self, number: u32) -> HandOver {
        let reason = format!("expired: segment {number} is gone");
        match self.claim.job.stop {
            Some(StopCommand::Cancel) => HandOver::Cancelled(Some(reason)),
            Some(StopCommand::Pause) | None => HandOver::Halted(reason),
        }
    }

    fn start(&mut self, entry: Entry) {
        let (app, job, reason) = (self.app, self.job, self.reason);
        let span = delivery_span(&entry.contact_id);
        let settle = async move {
            let end = skip(app, job, &entry, reason).await;
            let attempt = end.unwrap_or_else(AttemptEnd::Unsettled).into();
            Delivered { entry, attempt }
        };
        self.in_flight.push(settle.instrument(span));
    }

    fn record(&mut self, Delivered { entry, attempt }: Delivered) -> Result<(), store::Error> {
        match attempt.end {
            AttemptEnd::Finished(finish) | AttemptEnd::Prevented(finish) => self.backlog.finish(entry.position, finish),
            AttemptEnd::Doubt(doubt) => self.doubts.push((entry, doubt)),
            AttemptEnd::Stale => self.overtaken = true,
            AttemptEnd::Unsettled(error) => return Err(error),
        }
        Ok(())
    }

    /// Writes the work since the last checkpoint.
    async fn checkpoint(&mut self) -> Result<(), store::Error> {
        if self.overtaken {
            return Ok(());
        }
        let doubts: Vec<_> = self.doubts.iter().take(ROWS_AT_ONCE).cloned().collect();
        let checkpoint = Checkpoint {
            progress: self.backlog.progress(),
            doubts: &doubts,
            prevented: 0,
            breakers: self.job.breakers.clone(),
        };
        let (transactions, now) = (self.app.store.transactions(), self.app.clock.now());
        let written = transactions.checkpoint(&mut self.claim, &checkpoint, now);
        match self.in_flight.poll_while(written).await? {
            Checkpointed::Written(_) => {
                self.backlog.advance(&checkpoint.progress);
                for (entry, _) in self.doubts.drain(..doubts.len()) {
                    self.backlog.finish(entry.position, Finish::Counted);
                }
            }
            Checkpointed::Changed(rows) => {
                for (index, _) in rows.into_iter().rev() {
                    let (entry, _) = self.doubts.remove(index);
                    self.start(entry);
                }
            }
            Checkpointed::Stale => self.overtaken = true,
        }
        Ok(())
    }
}

/// Returns the last time at which an invocation that ends at this time begins with something that takes a moment.
pub fn last_start(ends: Instant) -> Instant {
    let begins = Instant::now();
    let whole = ends.saturating_duration_since(begins);
    begins + whole.saturating_sub(WIND_UP).max(whole / 4)
}

/// Settles one contact without sending.
async fn skip(app: &App, job: &Job, entry: &Entry, reason: &str) -> Result<AttemptEnd, store::Error> {
    let deliveries = app.store.deliveries();
    let skip = deliveries.skip_if_free(job, &entry.contact_id, reason, app.clock.now());
    let row = match skip.await? {
        Skip::Written(skipped) => {
            return Ok(finish_for(&skipped).map_or(AttemptEnd::Stale, AttemptEnd::Finished));
        }
        Skip::Refused(row) => *row,
    };
    if matches!(row.state, State::Waiting { .. }) && row.epoch <= job.epoch {
        return Ok(AttemptEnd::Doubt(Doubt {
            token: row.token,
            reserved_at: row.reserved_at,
            reason: format!("{reason}; an earlier attempt may have arrived"),
            ours: false,
            was: row.state.status(),
        }));
    }
    Sender::end_for_row(app, job, row, true).await
}
