//! The sends of a run: which contact is next, when its send starts, and what its result means for the run.
//!
//! Sends are pipelined, and none outlives the run.

use std::iter;
use std::time::Duration;

use futures_util::future::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until};

use crate::domain::backlog::{Backlog, Entry, Finish, Next};
use crate::domain::breakers::{BreakerTrip, Breakers, Signal};
use crate::domain::delivery::Doubt;
use crate::domain::job::Job;
use crate::runtime::metrics::Event;
use crate::store::transactions::ROWS_AT_ONCE;
use crate::worker::deliver::{AttemptEnd, Consequence, Delivered, Sender};
use crate::worker::in_flight::InFlight;
use crate::worker::pace::Pace;
use crate::worker::prevented::Prevented;
use crate::worker::read_ahead::ReadAhead;
use crate::worker::segment_ahead::{Loaded, SegmentAhead};
use crate::worker::stop::Stop;
use crate::worker::suspects::Suspects;

/// The number of finished contacts after which a checkpoint is made.
const CHECKPOINT_AFTER: usize = 200;

/// The sends of a run, and what they have found out.
pub struct Sends<'a> {
    sender: &'a Sender<'a>,
    pub backlog: Backlog,
    pub pace: Pace<'a>,
    /// The contacts that are left to send to, as far as is known.
    left: u64,
    pub breakers: Breakers,
    /// `true` after a pause: one send at a time, until Messenger answers clearly.
    probing: bool,
    last_start: Instant,
    /// The time until which sends may start, by the last word about a stop.
    told_until: Instant,
    pub stop: Option<Stop>,
    /// `true` if a checkpoint was not answered: it may be written, so this claim must not write the job item any more.
    pub claim_lost: bool,
    /// The reason why the backlog offers no contact.
    pub rest: Option<Next>,
    pub in_flight: InFlight<'a>,
    /// The contacts that come next.
    contacts: ReadAhead<'a>,
    /// The segment of contacts that comes next.
    segment: SegmentAhead<'a>,
    /// `true` if a segment that was to be loaded ahead does not exist.
    is_segment_gone: bool,
    /// The contacts that were refused with an error that may concern every contact.
    suspects: Suspects,
    /// The number of contacts finished since the last checkpoint.
    pub finished: usize,
    /// The rows that the next checkpoints put in doubt.
    pub doubts: Vec<(Entry, Doubt)>,
    /// The contacts that were settled before this run came to them.
    pub prevented: Prevented,
}

impl<'a> Sends<'a> {
    /// Returns no sends to the contacts of a claimed job's backlog. The last one may start at `last_start`.
    pub fn new(sender: &'a Sender<'a>, job: &Job, pace: Pace<'a>, last_start: Instant) -> Self {
        let counters = job.counters();
        Self {
            sender,
            backlog: Backlog::new(job.first_segments, job.segments, job.cursor),
            left: counters.pending + counters.outcomes.waiting,
            breakers: job.breakers.clone(),
            probing: pace.begins_with_probe(),
            pace,
            last_start,
            told_until: Instant::now(),
            stop: None,
            claim_lost: false,
            rest: None,
            in_flight: InFlight::default(),
            contacts: ReadAhead::new(sender.app),
            segment: SegmentAhead::default(),
            is_segment_gone: false,
            suspects: Suspects::default(),
            finished: 0,
            doubts: Vec::new(),
            prevented: Prevented::default(),
        }
    }

    /// Allows sends to start until this time.
    pub fn allow_until(&mut self, until: Instant) {
        self.told_until = until;
        self.sender.spacing.allow_until(until);
    }

    /// Starts sends and records their results, until this time, or until there is enough for a checkpoint or nothing in flight.
    pub async fn send(&mut self, until: Instant) {
        loop {
            for delivered in self.in_flight.take_arrived() {
                self.record_delivered(delivered);
            }
            if self.stop.is_none() && Instant::now() >= self.told_until {
                return;
            }
            let much_to_write = self.finished >= CHECKPOINT_AFTER || self.doubts.len() >= ROWS_AT_ONCE;
            let waits_for_segment = self.stop.is_none() && self.segment.is_loading();
            let is_idle = self.in_flight.is_empty() && !waits_for_segment && !self.may_start();
            if is_idle || self.pace.has_news() || (much_to_write && self.may_checkpoint()) {
                return;
            }
            if self.step(sleep_until(until).map(Some)).await.is_some() {
                return;
            }
        }
    }

    /// Starts sends and records their results while awaiting `other`, behind which no send has to wait.
    pub async fn send_while<T>(&mut self, other: impl Future<Output = T>) -> T {
        // So it is polled when it can go on, and not for each send.
        let mut other = FuturesUnordered::from_iter([other]);
        loop {
            if let Some(out) = self.step(other.next()).await {
                return out;
            }
        }
    }

    /// Returns `true` if the backlog may offer another contact, and the number of sends in flight allows it.
    fn may_start(&self) -> bool {
        let most = if self.probing { 1 } else { self.pace.max_in_flight() };
        self.stop.is_none() && self.rest.is_none() && self.in_flight.len() < most
    }

    /// Starts a send or records a result, whatever comes first, unless `other` is done, whose output is returned.
    async fn step<T>(&mut self, other: impl Future<Output = Option<T>>) -> Option<T> {
        let now = Instant::now();
        if self.stop.is_none() && now >= self.last_start {
            self.stop_for(Stop::Yield);
            return None;
        }
        let until = self.told_until.min(self.last_start);
        let is_allowed = self.stop.is_none() && now < until;
        let ahead = if self.is_segment_gone {
            0
        } else {
            self.pace.max_in_flight()
        };
        if is_allowed && let Some(number) = self.backlog.not_loaded(ahead) {
            self.segment.load(self.sender.app, &self.sender.job.snapshot, number);
        }
        let may_start = is_allowed && self.may_start() && self.backlog.not_loaded(0).is_none();
        let left = if self.probing { 1 } else { self.left.max(1) };
        tokio::select! {
            biased;
            out = other => return out,
            () = sleep_until(until), if is_allowed => {}
            Some(loaded) = self.segment.loaded() => self.record_loaded(loaded),
            Some(delivered) = self.in_flight.next() => self.record_delivered(delivered),
            ready = self.pace.ready(left, self.last_start), if may_start => match ready {
                Ok(()) => self.start_next(),
                Err(stop) => self.stop_for(stop),
            },
        }
        None
    }

    /// Starts the send to the next contact, if the backlog offers one.
    fn start_next(&mut self) {
        self.left = self.left.saturating_sub(1);
        let suspect = self.suspects.next_alone();
        let is_alone = suspect.is_some();
        let Some(entry) = suspect.or_else(|| self.next_entry()) else {
            return;
        };
        if !self.contacts.has(&entry.contact_id) {
            // At most a second's worth: what is not sent to soon is read again.
            let most = if self.probing { 1 } else { self.pace.max_in_flight() / 2 };
            let next = self.backlog.upcoming(self.sender.app.clock.now());
            self.contacts
                .begin(iter::once(&entry.contact_id).chain(next).take(most));
        }
        let read = self.contacts.take(&entry.contact_id);
        self.in_flight.push(self.sender.deliver(entry, read, is_alone));
    }

    /// Returns the next entry of the backlog, if it offers one now.
    fn next_entry(&mut self) -> Option<Entry> {
        let app = self.sender.app;
        let rest = match self.backlog.next(app.clock.now()) {
            Next::Contact(entry) => return Some(entry),
            rest => rest,
        };
        if let Next::Load(number) = rest {
            self.segment.load(app, &self.sender.job.snapshot, number);
        }
        self.rest = Some(rest);
        None
    }

    /// Records a segment that was loaded. One that is gone stops the run when its first contact comes.
    fn record_loaded(&mut self, (number, loaded): Loaded) {
        let asked_for = self.rest.take_if(|rest| matches!(rest, Next::Load(_)));
        match loaded {
            Ok(Some(segment)) => self.backlog.load(segment),
            Ok(None) if asked_for.is_none() && self.backlog.not_loaded(0).is_none() => self.is_segment_gone = true,
            Ok(None) => self.stop_for(Stop::Halt(format!("expired: segment {number} is gone"))),
            Err(error) => self.stop_for(Stop::Unsettled(error)),
        }
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

    pub fn record_end(&mut self, entry: Entry, end: AttemptEnd) {
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
    pub fn end_suspicion(&mut self, rest: Option<&Next>) -> bool {
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

    pub fn stop_for(&mut self, stop: Stop) {
        if self.stop.as_ref().is_none_or(|standing| stop.prevails_over(standing)) {
            self.stop = Some(stop);
        }
    }

    /// Returns `true` if this claim may write the job item, as far as is known.
    pub fn may_checkpoint(&self) -> bool {
        !self.claim_lost && !matches!(self.stop, Some(Stop::Overtaken))
    }
}
