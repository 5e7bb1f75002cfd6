//! A run: the work that one invocation does on a job between its claim and its hand-over.
//!
//! The job item has one writer: the loop here.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::backlog::{Finish, Next};
use crate::domain::delivery::Delivery;
use crate::domain::sending::SendingState;
use crate::store;
use crate::store::hand_over::HandOver;
use crate::store::jobs::Claim;
use crate::store::transactions::{Checkpoint, Checkpointed, ROWS_AT_ONCE};
use crate::worker::deliver::{AttemptEnd, Sender};
use crate::worker::hand_over::end_for;
use crate::worker::minutes::{CurrentMinute, keep};
use crate::worker::pace::Pace;
use crate::worker::sends::Sends;
use crate::worker::stop::Stop;

/// The longest time between two checkpoints.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(2);
/// The longest time for which the last word about a stop holds, by a command or by the switch: less than the five seconds of the
/// promise.
const TOLD_FOR: Duration = Duration::from_millis(4_500);
/// The time that an invocation needs after its last send has ended: checkpoints and the hand-over, with their retries.
pub const WIND_UP: Duration = Duration::from_secs(15);

/// The end of a run.
#[derive(Debug)]
pub enum RunEnd {
    /// The claim still stands, and the job is to be handed over in this way.
    HandOver(Box<Claim>, HandOver),
    /// Another worker has claimed the job.
    Overtaken,
}

/// A run in progress.
pub struct Run<'a> {
    sender: &'a Sender<'a>,
    claim: Claim,
    sends: Sends<'a>,
    /// The messages that were sent in this minute.
    minute: CurrentMinute,
}

impl<'a> Run<'a> {
    /// Returns a run that starts its last send early enough to be handed over at `ends`.
    pub fn new(sender: &'a Sender<'a>, claim: Claim, pace: Pace<'a>, ends: Instant) -> Self {
        let begins = Instant::now();
        let whole = ends.saturating_duration_since(begins);
        let wind_up = sender.app.config.messenger_timeout + WIND_UP;
        let last_start = begins + whole.saturating_sub(wind_up).max(whole / 4);
        Self {
            sends: Sends::new(sender, &claim.job, pace, last_start),
            minute: CurrentMinute::default(),
            sender,
            claim,
        }
    }

    /// Works until nothing is left to do now, or until there is a reason to stop. Waits for every send in flight to end.
    ///
    /// # Errors
    /// If a table does not answer; the claim then ends with its lease.
    pub async fn work(mut self) -> Result<RunEnd, store::Error> {
        let to = self.work_to_end().await;
        if let Some(rest) = self.minute.rest() {
            keep(self.sender.app, &self.claim.job, rest).await;
        }
        self.sends.prevented.report(&self.sender.app.metrics);
        Ok(match to? {
            Some(to) => RunEnd::HandOver(Box::new(self.claim), to),
            None => RunEnd::Overtaken,
        })
    }

    /// Returns the hand-over at the end of the work, or `None` if another worker has claimed the job.
    async fn work_to_end(&mut self) -> Result<Option<HandOver>, store::Error> {
        loop {
            self.obey_switch().await;
            self.obey_times();
            self.sends.send(Instant::now() + CHECKPOINT_EVERY).await;
            self.tell_page().await;
            self.checkpoint().await;
            self.extend_page_lease().await;
            let is_busy = !self.sends.in_flight.is_empty() || self.sends.in_flight.has_arrived();
            if is_busy || (self.sends.may_checkpoint() && self.has_unwritten()) {
                continue;
            }
            let rest = self.sends.rest.take();
            if self.sends.end_suspicion(rest.as_ref()) {
                continue;
            }
            if let Some(stop) = self.sends.stop.take() {
                return end_for(self.sender, stop, self.sends.backlog.is_finished()).await;
            }
            match rest {
                Some(Next::Exhausted) => return Ok(Some(HandOver::Completed)),
                Some(Next::NotBefore(due)) => return Ok(Some(HandOver::Waiting(due))),
                // New segments may have joined the backlog meanwhile.
                Some(Next::AfterInFlight | Next::Load(_) | Next::Contact(_)) | None => {}
            }
        }
    }

    /// Stops at the end of the broadcast, for the next run to drain the job, and when its quiet hours begin.
    fn obey_times(&mut self) {
        let Sender { app, broadcast, .. } = self.sender;
        let now = app.clock.now();
        if self.claim.job.is_expired(now) {
            self.sends.stop_for(Stop::Yield);
        } else if let Some(until) = broadcast.quiet_until(now) {
            self.sends.stop_for(Stop::Quiet(until));
        }
    }

    /// Reads the switch for sending and the state of the Page, and stops unless sending is on and the Page does not pause: at
    /// least every [`CHECKPOINT_EVERY`].
    async fn obey_switch(&mut self) {
        let app = self.sender.app;
        let (sending, now, asked_at) = (app.store.sending(), app.clock.now(), Instant::now());
        let read = sending.read_for(&self.sender.job.page_id, now);
        let permission = match self.sends.send_while(read).await {
            Ok(permission) => permission,
            Err(error) => return self.sends.stop_for(Stop::Unsettled(error)),
        };
        match permission.switch.state {
            SendingState::On => {}
            SendingState::Off => self.sends.stop_for(Stop::SwitchedOff),
            SendingState::Halt => self.sends.stop_for(Stop::Halt(permission.switch.halt_reason())),
        }
        if let Some(until) = permission.page.paused_until(now) {
            self.sends.stop_for(Stop::Pause(until));
        }
        if self.sends.stop.is_none() {
            self.sends
                .allow_until(asked_at.min(self.claim.told_at.into()) + TOLD_FOR);
        }
    }

    /// Tells the other senders of the Page that it pauses, or that its pauses are over.
    async fn tell_page(&mut self) {
        self.sends.in_flight.poll_while(self.sends.pace.tell()).await;
    }

    fn has_unwritten(&self) -> bool {
        !self.sends.doubts.is_empty() || self.sends.backlog.progress().cursor != self.sends.backlog.cursor()
    }

    /// Writes the work since the last checkpoint.
    async fn checkpoint(&mut self) {
        if !self.sends.may_checkpoint() {
            return;
        }
        let sends = &mut self.sends;
        let doubts: Vec<_> = sends.doubts.iter().take(ROWS_AT_ONCE).cloned().collect();
        let checkpoint = Checkpoint {
            progress: sends.backlog.progress(),
            doubts: &doubts,
            prevented: sends.prevented.unwritten(),
            breakers: sends.breakers.clone(),
        };
        let (app, finished) = (self.sender.app, sends.finished);
        let transactions = app.store.transactions();
        let written = transactions.checkpoint(&mut self.claim, &checkpoint, app.clock.now());
        match sends.send_while(written).await {
            Ok(Checkpointed::Written(appended)) => {
                if let Some(segment) = appended {
                    sends.backlog.append(segment);
                }
                sends.backlog.advance(&checkpoint.progress);
                for (entry, _) in sends.doubts.drain(..doubts.len()) {
                    sends.backlog.finish(entry.position, Finish::Counted);
                }
                sends.prevented.record_written(checkpoint.prevented);
                sends.finished -= finished;
                self.count_minute(checkpoint.progress.sent).await;
            }
            Ok(Checkpointed::Changed(rows)) => self.handle_changed(rows).await,
            Ok(Checkpointed::Stale) => self.sends.stop_for(Stop::Overtaken),
            Err(error) => {
                self.sends.claim_lost = true;
                self.sends.stop_for(Stop::Unsettled(error));
            }
        }
        if self.claim.job.stop.is_some() {
            self.sends.stop_for(Stop::Commanded);
        }
    }

    /// Counts sends, and keeps the count of a minute that is over.
    async fn count_minute(&mut self, sent: u64) {
        let app = self.sender.app;
        if let Some(over) = self.minute.add(sent, app.clock.now()) {
            self.sends.send_while(keep(app, &self.claim.job, over)).await;
        }
    }

    /// Handles rows that changed before a checkpoint could put them in doubt, by their index among the doubts: each as found.
    async fn handle_changed(&mut self, rows: Vec<(usize, Delivery)>) {
        let sender = self.sender;
        for (index, row) in rows.into_iter().rev() {
            let (entry, doubt) = self.sends.doubts.remove(index);
            let ours = doubt.ours && doubt.token == row.token;
            let end = Sender::end_for_row(sender.app, sender.job, row, ours);
            let end = self.sends.send_while(end).await;
            self.sends.record_end(entry, end.unwrap_or_else(AttemptEnd::Unsettled));
        }
    }

    /// Extends the Page lease of a large job together with the job's. Yields if another worker holds the Page.
    async fn extend_page_lease(&mut self) {
        match self.sends.in_flight.poll_while(self.sends.pace.extend_lease()).await {
            Ok(true) => {}
            Ok(false) => self.sends.stop_for(Stop::Yield),
            Err(error) => self.sends.stop_for(Stop::Unsettled(error)),
        }
    }
}
