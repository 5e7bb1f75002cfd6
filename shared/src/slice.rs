//! A slice: the work that one invocation does on a job between its claim and its hand-over.
//!
//! Sends are pipelined in one `FuturesUnordered`, and no task outlives the slice. The job item has one writer: the loop here.

use std::num::NonZeroU32;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};

use crate::app::App;
use crate::breakers::{Breakers, Sign, Trip};
use crate::deliver::{Consequence, Courier, Delivered, End};
use crate::ids::{ContactId, JobId, first_ten};
use crate::line::{Entry, Finish, Line, Next};
use crate::metrics::{Event, Layer};
use crate::pace::Pace;
use crate::retry;
use crate::secrets;
use crate::store;
use crate::store::deliveries::Doubt;
use crate::store::jobs::{Checkpoint, Checkpointed, Claim, DOUBTS_AT_ONCE, HandOver};
use crate::store::pages::PageLease;

/// A checkpoint is made at least so often …
const CHECKPOINT_EVERY: Duration = Duration::from_secs(2);
/// … and after so many contacts.
const CHECKPOINT_AFTER: usize = 200;
/// What an invocation needs after its last send has ended: checkpoints and the hand-over, with their retries.
pub const WIND_UP: Duration = Duration::from_secs(15);

/// How a slice ended.
#[derive(Debug)]
pub enum Ended {
    /// The claim is still ours, and the job is to be left so.
    At(Box<Claim>, HandOver),
    /// Another has claimed the job.
    Overtaken,
}

/// Why nothing more is started; a later one in this list prevails.
#[derive(Debug)]
enum Stop {
    /// The invocation ends, or another sends for the Page.
    Yield,
    /// Nobody sends for the Page before this time.
    Pause(Timestamp),
    /// The Page's access token is refused: it would fail for everybody, unless there is another token.
    TokenRefused(String),
    /// It would fail for everybody.
    Halt(String),
    /// Whether we have the right to go on cannot be known.
    Unsettled(store::Error),
    /// Another has claimed the job.
    Overtaken,
}

impl Stop {
    fn rank(&self) -> u8 {
        match self {
            Self::Yield => 0,
            Self::Pause(_) => 1,
            Self::TokenRefused(_) => 2,
            Self::Halt(_) => 3,
            Self::Unsettled(_) => 4,
            Self::Overtaken => 5,
        }
    }
}

type Sending<'a> = FuturesUnordered<BoxFuture<'a, Delivered>>;

/// A slice under way.
pub struct Slice<'a> {
    courier: &'a Courier<'a>,
    claim: Claim,
    page: &'a mut PageLease,
    line: Line,
    pace: Pace,
    breakers: Breakers,
    /// Begun after a pause: one send at a time until Messenger answers clearly.
    probing: bool,
    last_start: Instant,
    stop: Option<Stop>,
    /// Whether a checkpoint was written cannot be known: the job item is not ours to write any more.
    claim_lost: bool,
    /// Why the line offers nobody.
    rest: Option<Next>,
    /// Ended while something else was awaited.
    arrived: Vec<Delivered>,
    /// Finished since the last checkpoint.
    finished: usize,
    doubts: Vec<(Entry, Doubt)>,
    /// Met settled.
    prevented: Vec<ContactId>,
    /// How many of those are written.
    prevented_written: u64,
}

impl<'a> Slice<'a> {
    /// A slice that starts its last send in time for `ends`.
    pub fn new(
        courier: &'a Courier<'a>,
        claim: Claim,
        page: &'a mut PageLease,
        ends: Instant,
    ) -> Self {
        let (job, config) = (&claim.job, &courier.app.config);
        let most = courier.broadcast.message.most_per_second();
        let rate = most.map_or(config.page_rate, |most| most.min(config.page_rate));
        let begins = Instant::now();
        let whole = ends.saturating_duration_since(begins);
        Self {
            line: Line::new(job.first_segments, job.segments, job.cursor),
            pace: Pace::new(if page.backoffs > 0 { half(rate) } else { rate }),
            breakers: job.breakers.clone(),
            probing: page.backoffs > 0,
            last_start: begins
                + whole
                    .saturating_sub(config.messenger_timeout + WIND_UP)
                    .max(whole / 4),
            stop: None,
            claim_lost: false,
            rest: None,
            arrived: Vec::new(),
            finished: 0,
            doubts: Vec::new(),
            prevented: Vec::new(),
            prevented_written: 0,
            courier,
            claim,
            page,
        }
    }

    /// Works until nothing is left to do now, or until something stops it. All sends in flight are seen to their end.
    pub async fn work(mut self) -> Result<Ended, store::Error> {
        let to = self.run().await;
        self.report_prevented();
        Ok(match to? {
            Some(to) => Ended::At(Box::new(self.claim), to),
            None => Ended::Overtaken,
        })
    }

    /// How to leave the job, or nothing if another has it.
    async fn run(&mut self) -> Result<Option<HandOver>, store::Error> {
        let mut sending = FuturesUnordered::new();
        loop {
            self.send(&mut sending).await;
            self.checkpoint(&mut sending).await;
            self.keep_page(&mut sending).await;
            let under_way = !sending.is_empty() || !self.arrived.is_empty();
            if under_way || (self.may_checkpoint() && self.has_unwritten()) {
                continue;
            }
            let rest = self.rest.take();
            let Some(stop) = self.stop.take() else {
                match rest {
                    Some(Next::Nothing) => return Ok(Some(HandOver::Completed)),
                    Some(Next::NotBefore(due)) => return Ok(Some(HandOver::Waiting(due))),
                    // New segments may have joined the line meanwhile.
                    Some(Next::AfterTheRest | Next::Load(_) | Next::Contact(_)) | None => continue,
                }
            };
            return match stop {
                Stop::Unsettled(error) => Err(error),
                Stop::Overtaken => Ok(None),
                Stop::Yield | Stop::Pause(_) | Stop::TokenRefused(_) | Stop::Halt(_)
                    if self.line.is_finished() =>
                {
                    Ok(Some(HandOver::Completed))
                }
                Stop::Yield => Ok(Some(HandOver::Queued)),
                Stop::Pause(until) => Ok(Some(HandOver::Waiting(until))),
                Stop::TokenRefused(reason) => Ok(Some(self.with_another_token(reason).await)),
                Stop::Halt(reason) => Ok(Some(HandOver::Halted(reason))),
            };
        }
    }

    /// How to leave the job when its Page's token is refused: to the next slice if there is another token by now, for all
    /// who got nothing stand in line again.
    async fn with_another_token(&self, reason: String) -> HandOver {
        let Courier { app, messenger, .. } = self.courier;
        let renewed = app
            .secrets
            .is_renewed(&messenger.page_id, &messenger.access.token);
        match renewed.await {
            Ok(true) => HandOver::Queued,
            Ok(false) => HandOver::Halted(reason),
            Err(error) => without(app, &self.claim.job.id(), &error),
        }
    }

    /// Starts sends and takes in what they come to, until it is time for a checkpoint or nothing is under way.
    async fn send(&mut self, sending: &mut Sending<'a>) {
        let until = Instant::now() + CHECKPOINT_EVERY;
        loop {
            for delivered in std::mem::take(&mut self.arrived) {
                self.take_in(delivered);
            }
            let much_to_write =
                self.finished >= CHECKPOINT_AFTER || self.doubts.len() >= DOUBTS_AT_ONCE;
            let in_flight = if self.probing {
                1
            } else {
                self.pace.max_in_flight()
            };
            let may_start = self.stop.is_none() && self.rest.is_none() && sending.len() < in_flight;
            let nothing_under_way = sending.is_empty() && !may_start;
            if nothing_under_way || (much_to_write && self.may_checkpoint()) {
                return;
            }
            tokio::select! {
                biased;
                () = sleep_until(until) => return,
                () = sleep_until(self.last_start), if self.stop.is_none() => self.stop_for(Stop::Yield),
                Some(delivered) = sending.next() => self.take_in(delivered),
                () = self.pace.ready(), if may_start => self.start_next(sending).await,
            }
        }
    }

    /// Starts on the next contact, if the line offers one.
    async fn start_next(&mut self, sending: &mut Sending<'a>) {
        loop {
            let app = self.courier.app;
            match self.line.next(app.clock.now()) {
                Next::Contact(entry) => return sending.push(Box::pin(self.courier.deliver(entry))),
                Next::Load(number) => {
                    let load = app.store.segment(&self.claim.job.snapshot, number);
                    match meanwhile(sending, &mut self.arrived, load).await {
                        Ok(Some(segment)) => self.line.load(segment),
                        Ok(None) => {
                            return self.stop_for(Stop::Halt(format!(
                                "expired: segment {number} is gone"
                            )));
                        }
                        Err(error) => return self.stop_for(Stop::Unsettled(error)),
                    }
                }
                rest @ (Next::AfterTheRest | Next::NotBefore(_) | Next::Nothing) => {
                    self.rest = Some(rest);
                    return;
                }
            }
        }
    }

    /// Notes what came of one contact.
    fn take_in(&mut self, delivered: Delivered) {
        let Delivered { entry, outcome } = delivered;
        self.finished += 1;
        self.note(entry, outcome.end);
        if let Some(sign) = outcome.sign {
            self.heed(sign);
        }
        match outcome.consequence {
            Some(Consequence::RateLimited(regain_after)) => {
                if self.page.not_before.is_none() {
                    self.courier.app.metrics.count(Event::RateLimitWaits, 1);
                }
                self.pause(regain_after);
            }
            Some(Consequence::Stop(reason)) => self.stop_for(Stop::Halt(reason)),
            Some(Consequence::TokenRefused(reason)) => self.stop_for(Stop::TokenRefused(reason)),
            None => {}
        }
    }

    fn note(&mut self, entry: Entry, end: End) {
        match end {
            End::Finished(finish) => self.line.finish(entry.place, finish),
            End::Prevented(finish) => {
                self.line.finish(entry.place, finish);
                self.prevented.push(entry.contact_id);
            }
            End::Doubt(doubt) => self.doubts.push((entry, doubt)),
            End::Stale => self.stop_for(Stop::Overtaken),
            End::Unsettled(error) => self.stop_for(Stop::Unsettled(error)),
        }
    }

    /// Watches for what concerns more than one contact. What was in flight when that was decided tells nothing new.
    fn heed(&mut self, sign: Sign) {
        let decided = |stop: &Stop| (1..=3).contains(&stop.rank());
        if self.stop.as_ref().is_some_and(decided) {
            return;
        }
        let sign = match sign {
            Sign::Lost if self.probing => Sign::LostProbe,
            other => other,
        };
        match sign {
            Sign::Accepted => (self.probing, self.page.backoffs) = (false, 0),
            Sign::Answered | Sign::RefusedSuspiciously(_) => self.probing = false,
            Sign::Lost | Sign::LostProbe => {}
        }
        match self.breakers.observe(sign) {
            Some(Trip::Ill) => self.pause(None),
            Some(Trip::Halt(reason)) => self.stop_for(Stop::Halt(reason)),
            None => {}
        }
    }

    /// Has the Page pause: until Messenger's own time where it gave one, else with a back-off.
    fn pause(&mut self, regain_after: Option<Duration>) {
        let app = self.courier.app;
        let (now, base) = (app.clock.now(), app.config.retry_base);
        if self.page.not_before.is_none() {
            self.page.backoffs = self.page.backoffs.saturating_add(1);
        }
        let until = match regain_after {
            Some(regain_after) => now + regain_after,
            None => retry::due_after(
                now,
                retry::backoff(base, self.page.backoffs, rand::random()),
                base,
            ),
        };
        self.page.not_before = self.page.not_before.max(Some(until));
        self.stop_for(Stop::Pause(until));
    }

    fn stop_for(&mut self, stop: Stop) {
        let prevails = |standing: &Stop| match (standing, &stop) {
            (Stop::Pause(until), Stop::Pause(later)) => later > until,
            _ => stop.rank() > standing.rank(),
        };
        if self.stop.as_ref().is_none_or(prevails) {
            self.stop = Some(stop);
        }
    }

    /// Whether the job item is ours to write, as far as we know.
    fn may_checkpoint(&self) -> bool {
        !self.claim_lost && !matches!(self.stop, Some(Stop::Overtaken))
    }

    fn has_unwritten(&self) -> bool {
        !self.doubts.is_empty() || self.line.progress().cursor != self.line.cursor()
    }

    /// Writes what has been done since the last checkpoint.
    async fn checkpoint(&mut self, sending: &mut Sending<'a>) {
        if !self.may_checkpoint() {
            return;
        }
        let app = self.courier.app;
        let doubts: Vec<_> = self.doubts.iter().take(DOUBTS_AT_ONCE).cloned().collect();
        let what = Checkpoint {
            progress: self.line.progress(),
            doubts: &doubts,
            prevented: self.prevented.len() as u64 - self.prevented_written,
            breakers: self.breakers.clone(),
        };
        let written = app
            .store
            .checkpoint(&mut self.claim, &what, app.clock.now());
        match meanwhile(sending, &mut self.arrived, written).await {
            Ok(Checkpointed::Written(appended)) => {
                if let Some(segment) = appended {
                    self.line.append(segment);
                }
                self.line.advance(&what.progress);
                for (entry, _) in self.doubts.drain(..doubts.len()) {
                    self.line.finish(entry.place, Finish::Counted);
                }
                self.prevented_written += what.prevented;
                self.finished = 0;
            }
            Ok(Checkpointed::Changed(rows)) => {
                for (index, row) in rows.into_iter().rev() {
                    let (entry, doubt) = self.doubts.remove(index);
                    let ours = doubt.ours && doubt.token == row.token;
                    let found = self.courier.found(row, ours);
                    let found = meanwhile(sending, &mut self.arrived, found).await;
                    self.note(entry, found.unwrap_or_else(End::Unsettled));
                }
            }
            Ok(Checkpointed::Stale) => self.stop_for(Stop::Overtaken),
            Err(error) => {
                self.claim_lost = true;
                self.stop_for(Stop::Unsettled(error));
            }
        }
    }

    /// Keeps the Page as long as the job, and gives way if another has it: two must not pace one Page.
    async fn keep_page(&mut self, sending: &mut Sending<'a>) {
        let app = self.courier.app;
        let (now, lease) = (app.clock.now(), app.config.job_lease);
        if now + lease / 2 < self.page.until {
            return;
        }
        let extended = app.store.extend_page(self.page, lease, now);
        match meanwhile(sending, &mut self.arrived, extended).await {
            Ok(true) => {}
            Ok(false) => self.stop_for(Stop::Yield),
            Err(error) => self.stop_for(Stop::Unsettled(error)),
        }
    }

    fn report_prevented(&self) {
        if !self.prevented.is_empty() {
            let (job, ids) = (self.courier.job.id(), first_ten(&self.prevented));
            let metrics = &self.courier.app.metrics;
            metrics.prevented(Layer::Reservation, self.prevented.len() as u64);
            warn!(duplicates.layer = "reservation", duplicates.prevented = self.prevented.len(), job.id = %job, contact.ids = ids, "duplicates prevented: contacts were settled before");
        }
    }
}

/// How to leave a job that cannot be sent for want of a secret: it comes back by itself if the secret may, too.
pub fn without(app: &App, job: &JobId, error: &secrets::Error) -> HandOver {
    if !error.may_pass() {
        return HandOver::Halted(error.to_string());
    }
    error!(job.id = %job, error = error as &dyn std::error::Error, "secret not read; the job waits");
    HandOver::Waiting(app.clock.now() + app.config.retry_base)
}

/// The rate of the first slice after a pause: a limit that was reached is approached more slowly.
fn half(rate: NonZeroU32) -> NonZeroU32 {
    NonZeroU32::new(rate.get() / 2).unwrap_or(NonZeroU32::MIN)
}

/// Lets the sends in flight go on while something else is awaited, and keeps what they come to.
async fn meanwhile<T>(
    sending: &mut Sending<'_>,
    arrived: &mut Vec<Delivered>,
    other: impl Future<Output = T>,
) -> T {
    let mut other = pin!(other);
    loop {
        tokio::select! {
            biased;
            out = &mut other => return out,
            Some(delivered) = sending.next() => arrived.push(delivered),
        }
    }
}
