//! A run: the work that one invocation does on a job between its claim and its hand-over.
//!
//! Sends are pipelined, and none outlives the run. The job item has one writer: the loop here.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::domain::backlog::{Backlog, Entry, Finish, Next};
use crate::domain::breakers::{BreakerTrip, Breakers, Signal};
use crate::domain::delivery::{Delivery, Doubt};
use crate::domain::sending::SendingState;
use crate::runtime::metrics::Event;
use crate::store;
use crate::store::hand_over::HandOver;
use crate::store::jobs::Claim;
use crate::store::transactions::{Checkpoint, Checkpointed, ROWS_AT_ONCE};
use crate::worker::deliver::{AttemptEnd, Consequence, Delivered, Sender};
use crate::worker::hand_over::end_for;
use crate::worker::in_flight::InFlight;
use crate::worker::minutes::{CurrentMinute, keep};
use crate::worker::pace::Pace;
use crate::worker::prevented::Prevented;
use crate::worker::read_ahead::ReadAhead;
use crate::worker::stop::Stop;
use crate::worker::suspects::Suspects;

/// The longest time between two checkpoints.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(2);
/// The longest time for which the last word about a stop holds, by a command or by the switch: less than the five seconds of the
/// promise.
const TOLD_FOR: Duration = Duration::from_millis(4_500);
/// The number of finished contacts after which a checkpoint is made.
const CHECKPOINT_AFTER: usize = 200;
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
    backlog: Backlog,
    pace: Pace<'a>,
    /// The contacts that are left to send to, as far as is known.
    left: u64,
    breakers: Breakers,
    /// `true` after a pause: one send at a time, until Messenger answers clearly.
    probing: bool,
    last_start: Instant,
    /// The instant before the last reading of the switch for sending.
    switch_read_at: Instant,
    stop: Option<Stop>,
    /// `true` if a checkpoint was not answered: it may be written, so this claim must not write the job item any more.
    claim_lost: bool,
    /// The reason why the backlog offers no contact.
    rest: Option<Next>,
    in_flight: InFlight<'a>,
    /// The contacts that come next.
    contacts: ReadAhead,
    /// The contacts that were refused with an error that may concern every contact.
    suspects: Suspects,
    /// The number of contacts finished since the last checkpoint.
    finished: usize,
    /// The rows that the next checkpoints put in doubt.
    doubts: Vec<(Entry, Doubt)>,
    /// The contacts that were settled before this run came to them.
    prevented: Prevented,
    /// The messages that were sent in this minute.
    minute: CurrentMinute,
}

impl<'a> Run<'a> {
    /// Returns a run that starts its last send early enough to be handed over at `ends`.
    pub fn new(sender: &'a Sender<'a>, claim: Claim, pace: Pace<'a>, ends: Instant) -> Self {
        let (job, config) = (&claim.job, &sender.app.config);
        let counters = job.counters();
        let begins = Instant::now();
        let whole = ends.saturating_duration_since(begins);
        Self {
            backlog: Backlog::new(job.first_segments, job.segments, job.cursor),
            left: counters.pending + counters.outcomes.waiting,
            breakers: job.breakers.clone(),
            probing: pace.begins_with_probe(),
            pace,
            last_start: begins + whole.saturating_sub(config.messenger_timeout + WIND_UP).max(whole / 4),
            switch_read_at: begins,
            stop: None,
            claim_lost: false,
            rest: None,
            in_flight: InFlight::default(),
            contacts: ReadAhead::new(sender.app),
            suspects: Suspects::default(),
            finished: 0,
            doubts: Vec::new(),
            prevented: Prevented::default(),
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
        self.prevented.report(&self.sender.app.metrics);
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
            self.send().await;
            self.tell_page().await;
            self.checkpoint().await;
            self.extend_page_lease().await;
            let is_busy = !self.in_flight.is_empty() || self.in_flight.has_arrived();
            if is_busy || (self.may_checkpoint() && self.has_unwritten()) {
                continue;
            }
            let rest = self.rest.take();
            if self.end_suspicion(rest.as_ref()) {
                continue;
            }
            if let Some(stop) = self.stop.take() {
                return end_for(self.sender, stop, self.backlog.is_finished()).await;
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
            self.stop_for(Stop::Yield);
        } else if let Some(until) = broadcast.quiet_until(now) {
            self.stop_for(Stop::Quiet(until));
        }
    }

    /// Reads the switch for sending and the state of the Page, and stops unless sending is on and the Page does not pause: at
    /// least every [`CHECKPOINT_EVERY`].
    async fn obey_switch(&mut self) {
        let app = self.sender.app;
        let (sending, now, asked_at) = (app.store.sending(), app.clock.now(), Instant::now());
        let read = sending.read_for(&self.claim.job.page_id, now);
        let permission = match self.in_flight.poll_while(read).await {
            Ok(permission) => permission,
            Err(error) => return self.stop_for(Stop::Unsettled(error)),
        };
        self.switch_read_at = asked_at;
        match permission.switch.state {
            SendingState::On => {}
            SendingState::Off => self.stop_for(Stop::SwitchedOff),
            SendingState::Halt => self.stop_for(Stop::Halt(permission.switch.halt_reason())),
        }
        if let Some(until) = permission.page.paused_until(now) {
            self.stop_for(Stop::Pause(until));
        }
    }

    /// Tells the other senders of the Page that it pauses, or that its pauses are over.
    async fn tell_page(&mut self) {
        self.in_flight.poll_while(self.pace.tell()).await;
    }

    /// Starts sends and records their results, until a checkpoint is due or nothing is in flight.
    async fn send(&mut self) {
        let told_at = self.switch_read_at.min(self.claim.told_at.into());
        let (until, told_until) = (Instant::now() + CHECKPOINT_EVERY, told_at + TOLD_FOR);
        if self.stop.is_none() {
            self.sender.spacing.allow_until(told_until);
        }
        loop {
            for delivered in self.in_flight.take_arrived() {
                self.record_delivered(delivered);
            }
            if self.stop.is_none() && Instant::now() >= told_until {
                return;
            }
            let much_to_write = self.finished >= CHECKPOINT_AFTER || self.doubts.len() >= ROWS_AT_ONCE;
            let most = if self.probing { 1 } else { self.pace.max_in_flight() };
            let may_start = self.stop.is_none() && self.rest.is_none() && self.in_flight.len() < most;
            let is_idle = self.in_flight.is_empty() && !may_start;
            if is_idle || self.pace.has_news() || (much_to_write && self.may_checkpoint()) {
                return;
            }
            let left = if self.probing { 1 } else { self.left.max(1) };
            tokio::select! {
                biased;
                () = sleep_until(until) => return,
                () = sleep_until(told_until), if self.stop.is_none() => {}
                () = sleep_until(self.last_start), if self.stop.is_none() => self.stop_for(Stop::Yield),
                Some(delivered) = self.in_flight.next() => self.record_delivered(delivered),
                ready = self.pace.ready(left, self.last_start), if may_start => match ready {
                    Ok(()) => self.start_next().await,
                    Err(stop) => self.stop_for(stop),
                },
            }
        }
    }

    /// Starts the send to the next contact, if the backlog offers one.
    async fn start_next(&mut self) {
        let sender = self.sender;
        self.left = self.left.saturating_sub(1);
        let suspect = self.suspects.next_alone();
        let is_alone = suspect.is_some();
        let entry = if is_alone { suspect } else { self.next_entry().await };
        let Some(entry) = entry else { return };
        // At most a second's worth: what is not sent to soon is read again.
        let most = if self.probing { 1 } else { self.pace.max_in_flight() / 2 };
        let next = self.backlog.upcoming(sender.app.clock.now()).take(most - 1);
        let read = self.contacts.get(sender.app, &entry.contact_id, next);
        match self.in_flight.poll_while(read).await {
            Ok(contact) => self.in_flight.push(sender.deliver(entry, contact, is_alone)),
            Err(error) => self.stop_for(Stop::Unsettled(error)),
        }
    }

    /// Returns the next entry of the backlog, if it offers one.
    async fn next_entry(&mut self) -> Option<Entry> {
        let app = self.sender.app;
        while self.stop.is_none() {
            match self.backlog.next(app.clock.now()) {
                Next::Contact(entry) => return Some(entry),
                Next::Load(number) => {
                    let segments = app.store.segments();
                    let load = segments.get(&self.claim.job.snapshot, number);
                    match self.in_flight.poll_while(load).await {
                        Ok(Some(segment)) => self.backlog.load(segment),
                        Ok(None) => self.stop_for(Stop::Halt(format!("expired: segment {number} is gone"))),
                        Err(error) => self.stop_for(Stop::Unsettled(error)),
                    }
                }
                rest @ (Next::AfterInFlight | Next::NotBefore(_) | Next::Exhausted) => {
                    self.rest = Some(rest);
                    return None;
                }
            }
        }
        None
    }

    /// Records the result of one delivery.
    fn record_delivered(&mut self, delivered: Delivered) {
        let Delivered { entry, attempt } = delivered;
        self.finished += 1;
        match (attempt.signal, &attempt.end) {
            (Some(Signal::Suspected(_)), AttemptEnd::Finished(Finish::Requeued(_))) => self.suspects.add(entry),
            _ => self.record_end(entry, attempt.end),
        }
        if let Some(signal) = attempt.signal {
            self.on_signal(signal);
        }
        match attempt.consequence {
            Some(Consequence::RateLimited(regain_after)) => {
                if !self.pace.is_pausing() {
                    self.sender.app.metrics.count(Event::RateLimitWaits, 1);
                }
                self.pause(regain_after);
            }
            Some(Consequence::Stop(reason)) => self.stop_for(Stop::Halt(reason)),
            Some(Consequence::TokenRefused(reason)) => self.stop_for(Stop::TokenRefused(reason)),
            None => {}
        }
    }

    fn record_end(&mut self, entry: Entry, end: AttemptEnd) {
        match end {
            AttemptEnd::Finished(finish) => self.backlog.finish(entry.position, finish),
            AttemptEnd::Prevented(finish) => {
                self.backlog.finish(entry.position, finish);
                self.prevented.add(entry.contact_id);
            }
            AttemptEnd::Doubt(doubt) => self.doubts.push((entry, doubt)),
            AttemptEnd::Stale => self.stop_for(Stop::Overtaken),
            AttemptEnd::Unsettled(error) => self.stop_for(Stop::Unsettled(error)),
        }
    }

    /// Feeds the breakers. A signal of a send that was in flight when sends stopped the run is ignored: it tells nothing new.
    fn on_signal(&mut self, signal: Signal) {
        if self.stop.as_ref().is_some_and(Stop::is_due_to_sends) {
            return;
        }
        let signal = match signal {
            Signal::Lost if self.probing => Signal::LostProbe,
            other => other,
        };
        match signal {
            Signal::Accepted => {
                self.probing = false;
                self.pace.succeed();
                self.suspects.find_alone();
            }
            Signal::Answered | Signal::RefusedSuspiciously(_) | Signal::Suspected(_) => self.probing = false,
            Signal::Unknown(_) | Signal::Lost | Signal::LostProbe => {}
        }
        match self.breakers.observe(signal) {
            Some(BreakerTrip::Outage) => self.pause(None),
            Some(BreakerTrip::Halt(reason)) => self.stop_for(Stop::Halt(reason)),
            None => {}
        }
    }

    /// Decides on the contacts that were refused with an error that may concern every contact, if no send is left that could
    /// decide. They are requeued if the run stops, or if none but them is left and none was accepted, which halts the job.
    /// Returns `true` if there is something to send or to write now.
    fn end_suspicion(&mut self, rest: Option<&Next>) -> bool {
        let none_is_left = matches!(rest, Some(Next::AfterInFlight));
        if self.suspects.is_empty() || !self.may_checkpoint() || (self.stop.is_none() && !none_is_left) {
            return false;
        }
        if self.stop.is_none() {
            match self.breakers.end_suspicion() {
                Some(reason) => self.stop_for(Stop::Halt(reason)),
                None => {
                    self.suspects.find_alone();
                    return true;
                }
            }
        }
        let now = self.sender.app.clock.now();
        for entry in self.suspects.take() {
            self.backlog.finish(entry.position, Finish::Requeued(now));
        }
        true
    }

    /// Pauses the Page: until Messenger's own time if it gave one, else with a back-off.
    fn pause(&mut self, regain_after: Option<Duration>) {
        let until = self.pace.pause(regain_after);
        self.stop_for(Stop::Pause(until));
    }

    fn stop_for(&mut self, stop: Stop) {
        if self.stop.as_ref().is_none_or(|standing| stop.prevails_over(standing)) {
            self.stop = Some(stop);
        }
    }

    /// Returns `true` if this claim may write the job item, as far as is known.
    fn may_checkpoint(&self) -> bool {
        !self.claim_lost && !matches!(self.stop, Some(Stop::Overtaken))
    }

    fn has_unwritten(&self) -> bool {
        !self.doubts.is_empty() || self.backlog.progress().cursor != self.backlog.cursor()
    }

    /// Writes the work since the last checkpoint.
    async fn checkpoint(&mut self) {
        if !self.may_checkpoint() {
            return;
        }
        let app = self.sender.app;
        let doubts: Vec<_> = self.doubts.iter().take(ROWS_AT_ONCE).cloned().collect();
        let checkpoint = Checkpoint {
            progress: self.backlog.progress(),
            doubts: &doubts,
            prevented: self.prevented.unwritten(),
            breakers: self.breakers.clone(),
        };
        let transactions = app.store.transactions();
        let written = transactions.checkpoint(&mut self.claim, &checkpoint, app.clock.now());
        match self.in_flight.poll_while(written).await {
            Ok(Checkpointed::Written(appended)) => {
                if let Some(segment) = appended {
                    self.backlog.append(segment);
                }
                self.backlog.advance(&checkpoint.progress);
                for (entry, _) in self.doubts.drain(..doubts.len()) {
                    self.backlog.finish(entry.position, Finish::Counted);
                }
                self.prevented.record_written(checkpoint.prevented);
                self.finished = 0;
                self.count_minute(checkpoint.progress.sent).await;
            }
            Ok(Checkpointed::Changed(rows)) => self.handle_changed(rows).await,
            Ok(Checkpointed::Stale) => self.stop_for(Stop::Overtaken),
            Err(error) => {
                self.claim_lost = true;
                self.stop_for(Stop::Unsettled(error));
            }
        }
        if self.claim.job.stop.is_some() {
            self.stop_for(Stop::Commanded);
        }
    }

    /// Counts sends, and keeps the count of a minute that is over.
    async fn count_minute(&mut self, sent: u64) {
        let app = self.sender.app;
        if let Some(over) = self.minute.add(sent, app.clock.now()) {
            self.in_flight.poll_while(keep(app, &self.claim.job, over)).await;
        }
    }

    /// Handles rows that changed before a checkpoint could put them in doubt, by their index among the doubts: each as found.
    async fn handle_changed(&mut self, rows: Vec<(usize, Delivery)>) {
        let sender = self.sender;
        for (index, row) in rows.into_iter().rev() {
            let (entry, doubt) = self.doubts.remove(index);
            let ours = doubt.ours && doubt.token == row.token;
            let end = self
                .in_flight
                .poll_while(Sender::end_for_row(sender.app, sender.job, row, ours))
                .await;
            self.record_end(entry, end.unwrap_or_else(AttemptEnd::Unsettled));
        }
    }

    /// Extends the Page lease of a large job together with the job's. Yields if another worker holds the Page.
    async fn extend_page_lease(&mut self) {
        match self.in_flight.poll_while(self.pace.extend_lease()).await {
            Ok(true) => {}
            Ok(false) => self.stop_for(Stop::Yield),
            Err(error) => self.stop_for(Stop::Unsettled(error)),
        }
    }
}
