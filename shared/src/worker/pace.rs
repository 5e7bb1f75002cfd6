//! Pacing: the slots of a Page at which one run starts its sends, the number of its sends in flight, and the Page's pauses.
//!
//! A Page has one row of slots, at its rate, and all runs take theirs from it: so their sum keeps the rate, in whatever process
//! they are. A slot that was not used in time is lost, as the slots after it are others'.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::poll;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::app::App;
use crate::domain::ids::PageId;
use crate::domain::job::Job;
use crate::domain::retry;
use crate::domain::sending::PageState;
use crate::store;
use crate::store::page_leases::{Demand, PageLease, Slots, Taken};
use crate::worker::stop::Stop;

/// The most sends in flight, at any rate: a worker that dies leaves no more deliveries in doubt than this.
pub const MAX_IN_FLIGHT: usize = 256;
/// The time after its slot within which a send may start. So the sends of one second have the slots of a second and a quarter.
const SLOT_VALID_FOR: Duration = Duration::from_millis(250);
/// The time before the end of its slots at which a run takes the next: a write takes less.
const PREFETCH: Duration = Duration::from_millis(500);
/// The time within which the first slot of a large job has to be. Large jobs take a second's worth at once, so a small job never
/// waits for more than two seconds of them.
const AHEAD_OF_LARGE: SignedDuration = SignedDuration::from_secs(1);
/// The time within which the first slot of a small job has to be: as many wait for their slots at once as a Page sends in it.
const AHEAD_OF_SMALL: SignedDuration = SignedDuration::from_secs(8);
/// The time after which a large job that gets no slots, since small ones take all, may take them as far ahead as those.
const LARGE_WAITS_FOR: Duration = Duration::from_secs(4);
/// The time between two attempts to take slots, at least, and its jitter.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// The longest time for which an answer with slots is waited for in advance.
const LONGEST_LEAD: Duration = Duration::from_secs(2);
/// The least difference of two pauses that is written.
const PAUSES_DIFFER_BY: SignedDuration = SignedDuration::from_secs(1);

/// Something that the other senders of the Page have to know.
enum News {
    /// The Page pauses until this time, after so many pauses without a success.
    Pauses(Timestamp, u32),
    /// A send succeeded after so many pauses.
    Succeeds(u32),
}

/// The slots that a run has taken and not used.
#[derive(Default)]
struct InHand(VecDeque<Instant>);

impl InHand {
    fn drop_late(&mut self, now: Instant) {
        while self.0.front().is_some_and(|slot| *slot + SLOT_VALID_FOR < now) {
            self.0.pop_front();
        }
    }

    fn count(&self) -> u64 {
        self.0.len().try_into().unwrap_or(u64::MAX)
    }
}

/// The pace of one Page during one run.
pub struct Pace<'a> {
    app: &'a App,
    page_id: PageId,
    /// The lease of the Page, which a large job has.
    lease: Option<&'a mut PageLease>,
    is_small: bool,
    rate: NonZeroU32,
    in_flight: usize,
    slots: InHand,
    /// The first slot that nobody has taken, as far as is known.
    next_slot_at: Option<Timestamp>,
    /// The request for further slots, if one is under way, with the end of the lease that it extends.
    taking: Option<BoxFuture<'a, Result<(Taken, Timestamp), store::Error>>>,
    ask_at: Instant,
    /// The time at which slots were asked for last.
    asked_at: Instant,
    /// The time that the last answer took, if its first slots were too old by then: the next ones are taken so much later.
    lead: Duration,
    /// The time since which the run gets no slots.
    refused_since: Option<Instant>,
    /// Pauses since the Page's last success.
    backoffs: u32,
    /// The end of the pause that this run has found.
    not_before: Option<Timestamp>,
    news: Option<News>,
}

impl<'a> Pace<'a> {
    /// Returns the pace of a job's Page in a state: at most its rate, or what the message allows.
    pub fn new(
        app: &'a App,
        job: &Job,
        most_per_second: Option<NonZeroU32>,
        lease: Option<&'a mut PageLease>,
        page: PageState,
    ) -> Self {
        let whole = app.config.page_rate;
        let whole = most_per_second.map_or(whole, |most| most.min(whole));
        let rate = page.rate(whole);
        Self {
            app,
            page_id: job.page_id.clone(),
            lease,
            is_small: job.is_small(),
            rate,
            in_flight: two_seconds_worth(rate),
            slots: InHand::default(),
            next_slot_at: page.next_slot_at,
            taking: None,
            ask_at: Instant::now(),
            asked_at: Instant::now(),
            lead: Duration::ZERO,
            refused_since: None,
            backoffs: page.backoffs,
            not_before: None,
            news: None,
        }
    }

    /// Returns the number of sends in a second.
    pub fn rate(&self) -> NonZeroU32 {
        self.rate
    }

    /// Returns whether a run begins after a pause: then it has one send in flight until Messenger answers clearly.
    pub fn begins_with_probe(&self) -> bool {
        self.backoffs > 0
    }

    /// Returns the number of sends that may be in flight: two seconds' worth, from 8 to [`MAX_IN_FLIGHT`].
    pub fn max_in_flight(&self) -> usize {
        self.in_flight
    }

    /// Waits until the next of at most `left` sends may start, and counts that send. If the future is dropped before, nothing is
    /// counted. Slots are not taken for later than `last_start`.
    ///
    /// # Errors
    /// If the run is to stop: it gets no slot in time, the Page pauses, or the slots could not be taken.
    pub async fn ready(&mut self, left: u64, last_start: Instant) -> Result<(), Stop> {
        loop {
            // Also while slots are left, since nothing else polls it.
            let taken = match &mut self.taking {
                Some(taking) => poll!(taking),
                None => Poll::Pending,
            };
            if let Poll::Ready(taken) = taken {
                self.end_taking(taken, last_start)?;
            }
            let now = Instant::now();
            self.slots.drop_late(now);
            let wants_slots = self.taking.is_none() && self.is_low(left, now);
            if wants_slots && self.ask_at <= now {
                self.begin_taking(left, last_start, now);
                continue;
            }
            let next = self.slots.0.front().copied();
            // The next free slot is too late for this run.
            if wants_slots && next.is_none() && self.ask_at >= last_start {
                return Err(Stop::Yield);
            }
            if next.is_some_and(|slot| slot <= now) {
                self.slots.0.pop_front();
                return Ok(());
            }
            tokio::select! {
                biased;
                () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
                () = sleep_until(self.ask_at), if wants_slots => {}
                taken = async { self.taking.as_mut()?.await.into() }, if self.taking.is_some() => {
                    if let Some(taken) = taken {
                        self.end_taking(taken, last_start)?;
                    }
                }
                else => return Err(Stop::Yield),
            }
        }
    }

    fn is_low(&self, left: u64, now: Instant) -> bool {
        self.slots.count() < left && self.slots.0.back().is_none_or(|last| *last < now + PREFETCH)
    }

    /// Asks for slots: for a second, or for what is left. For a large job extends the lease of its Page in the same write.
    fn begin_taking(&mut self, left: u64, last_start: Instant, now: Instant) {
        let time_left = last_start.saturating_duration_since(now);
        let rate = u64::from(self.rate.get());
        // Slots of later than the last start would be lost to the next run, too.
        let fitting = u64::try_from(time_left.as_millis())
            .unwrap_or(u64::MAX)
            .saturating_mul(rate)
            / 1_000;
        let count = left.saturating_sub(self.slots.count()).min(fitting).clamp(1, rate);
        let has_waited = |since: Instant| now.duration_since(since) >= LARGE_WAITS_FOR;
        let ahead = match self.is_small || self.refused_since.is_some_and(has_waited) {
            true => AHEAD_OF_SMALL,
            false => AHEAD_OF_LARGE,
        };
        let time_left = SignedDuration::try_from(time_left);
        let count = count.try_into().unwrap_or(u32::MAX);
        let demand = Demand {
            count,
            length: Demand::length_of(count, self.rate),
            lead: SignedDuration::try_from(self.lead).unwrap_or(SignedDuration::ZERO),
            ahead: ahead.min(time_left.unwrap_or(SignedDuration::MAX)),
        };
        let (app, page_id, next_slot_at) = (self.app, self.page_id.clone(), self.next_slot_at);
        self.asked_at = now;
        let time = app.clock.now();
        let until = time + app.config.job_lease;
        let mut lease = self.lease.as_deref().cloned();
        if let Some(lease) = &mut lease {
            lease.until = until;
        }
        self.taking = Some(Box::pin(async move {
            let pages = app.store.page_leases();
            let taken = pages.take_slots(&page_id, lease.as_ref(), demand, next_slot_at, time);
            Ok((taken.await?, until))
        }));
    }

    fn end_taking(&mut self, taken: Result<(Taken, Timestamp), store::Error>, last_start: Instant) -> Result<(), Stop> {
        self.taking = None;
        let (now, time) = (Instant::now(), self.app.clock.now());
        let took = now.duration_since(self.asked_at);
        self.lead = if took > SLOT_VALID_FOR {
            took.min(LONGEST_LEAD)
        } else {
            Duration::ZERO
        };
        let (taken, until) = taken.map_err(Stop::Unsettled)?;
        match taken {
            Taken::Slots(slots) => {
                self.add(slots, now, time);
                if let Some(lease) = self.lease.as_deref_mut() {
                    lease.until = until;
                }
                Ok(())
            }
            Taken::Busy(next) => {
                self.next_slot_at = Some(next);
                self.refused_since.get_or_insert(now);
                let jitter = ASK_AGAIN_AFTER.mul_f64(rand::random());
                self.ask_at = match now + next.duration_since(time).unsigned_abs() >= last_start {
                    true => last_start,
                    false => now + ASK_AGAIN_AFTER + jitter,
                };
                Ok(())
            }
            Taken::Paused(until) => Err(Stop::Pause(until)),
            // Two large jobs must not send for one Page.
            Taken::LeaseLost => Err(Stop::Yield),
        }
    }

    fn add(&mut self, slots: Slots, now: Instant, time: Timestamp) {
        self.refused_since = None;
        self.next_slot_at = Some(slots.end);
        let wait = slots.first.duration_since(time);
        let first = match wait.is_negative() {
            true => now.checked_sub(wait.unsigned_abs()).unwrap_or(now),
            false => now + wait.unsigned_abs(),
        };
        self.slots
            .0
            .extend((0..slots.count).map(|n| first + slots.interval * n));
    }

    /// Returns whether this run has found that the Page pauses.
    pub fn is_pausing(&self) -> bool {
        self.not_before.is_some()
    }

    /// Pauses the Page: until Messenger's own time if it gave one, else with a back-off. Returns the end of the pause.
    pub fn pause(&mut self, regain_after: Option<Duration>) -> Timestamp {
        let (now, base) = (self.app.clock.now(), self.app.config.retry_base);
        if self.not_before.is_none() {
            self.backoffs = self.backoffs.saturating_add(1);
        }
        let until = match (regain_after, self.not_before) {
            (Some(regain_after), _) => now + regain_after,
            (None, Some(standing)) => standing,
            (None, None) => retry::due_after(now, retry::backoff(base, self.backoffs, rand::random()), base),
        };
        if self
            .not_before
            .is_none_or(|standing| standing + PAUSES_DIFFER_BY <= until)
        {
            self.news = Some(News::Pauses(until, self.backoffs));
        }
        self.not_before = self.not_before.max(Some(until));
        until
    }

    /// Ends the back-off of the Page, since Messenger has accepted a message.
    pub fn succeed(&mut self) {
        if self.backoffs > 0 && !self.is_pausing() {
            self.news = Some(News::Succeeds(self.backoffs));
            self.backoffs = 0;
        }
    }

    /// Returns whether [`Pace::tell`] has something to tell.
    pub fn has_news(&self) -> bool {
        self.news.is_some()
    }

    /// Tells the other senders of the Page what this run has found out. A failure is logged and no more: they find it out as
    /// well.
    pub async fn tell(&mut self) {
        let pages = self.app.store.page_leases();
        let told = match self.news.take() {
            None => return,
            Some(News::Pauses(until, backoffs)) => pages.pause_if_longer(&self.page_id, until, backoffs).await,
            Some(News::Succeeds(backoffs)) => pages.end_backoff_if_unchanged(&self.page_id, backoffs).await,
        };
        if let Err(error) = told {
            let error: &dyn std::error::Error = &error;
            warn!(page.id = %self.page_id, error, "state of the Page not written; its other senders find it out themselves");
        }
    }

    /// Extends the lease of the Page, if there is one, together with the job's, unless taking slots has done so. Shortens one that
    /// is too long since the clock has gone back. Returns `false` if it has been lost.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn extend_lease(&mut self) -> Result<bool, store::Error> {
        let (now, time) = (self.app.clock.now(), self.app.config.job_lease);
        match self.lease.as_deref_mut() {
            None => Ok(true),
            Some(lease) if now + time / 2 < lease.until && lease.until <= now + time => Ok(true),
            Some(lease) => self.app.store.page_leases().extend_if_held(lease, time, now).await,
        }
    }
}

fn two_seconds_worth(rate: NonZeroU32) -> usize {
    let rate = usize::try_from(rate.get()).unwrap_or(MAX_IN_FLIGHT);
    (2 * rate.min(MAX_IN_FLIGHT)).clamp(8, MAX_IN_FLIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_seconds_worth_may_be_in_flight_within_bounds() {
        let in_flight = [1, 30, 1_000].map(|rate| two_seconds_worth(NonZeroU32::new(rate).unwrap()));
        assert_eq!(in_flight, [8, 60, 256]);
    }

    #[test]
    fn slot_is_lost_a_quarter_of_a_second_after_its_time() {
        let begun = Instant::now();
        let mut slots = InHand((0..10).map(|n| begun + Duration::from_millis(100 * n)).collect());
        slots.drop_late(begun + Duration::from_millis(240));
        assert_eq!(slots.count(), 10);
        slots.drop_late(begun + Duration::from_millis(560));
        assert_eq!(slots.0.front(), Some(&(begun + Duration::from_millis(400))));
    }
}
