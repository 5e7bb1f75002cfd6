//! Pacing: the rate of one Page's sends, and the number of sends in flight.

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use std::num::NonZeroU32;

/// The most sends in flight, at any rate: a worker that dies leaves no more deliveries in doubt than this.
pub const MAX_IN_FLIGHT: usize = 256;

/// The pace of one Page during one run.
pub struct Pace {
    limiter: DefaultDirectRateLimiter,
    clock: DefaultClock,
    in_flight: usize,
}

impl Pace {
    /// Returns a pace of at most `per_second` sends per second, evenly: a burst is never more than a tenth of them.
    pub fn new(per_second: NonZeroU32) -> Self {
        let burst = NonZeroU32::new(per_second.get() / 10).unwrap_or(NonZeroU32::MIN);
        let rate = usize::try_from(per_second.get()).unwrap_or(MAX_IN_FLIGHT);
        let rate = rate.min(MAX_IN_FLIGHT);
        let clock = DefaultClock::default();
        Self {
            limiter: RateLimiter::direct(Quota::per_second(per_second).allow_burst(burst)),
            clock,
            in_flight: (2 * rate).clamp(8, MAX_IN_FLIGHT),
        }
    }

    /// Returns the number of sends that may be in flight: two seconds' worth, from 8 to [`MAX_IN_FLIGHT`].
    pub fn max_in_flight(&self) -> usize {
        self.in_flight
    }

    /// Waits until the next send may start, and counts that send. If the future is dropped before, nothing is counted.
    pub async fn ready(&self) {
        while let Err(not_until) = self.limiter.check() {
            tokio::time::sleep(not_until.wait_time_from(self.clock.now())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_seconds_worth_may_be_in_flight_within_bounds() {
        let in_flight = [1, 30, 1_000].map(|rate| {
            let rate = NonZeroU32::new(rate).unwrap();
            Pace::new(rate).max_in_flight()
        });
        assert_eq!(in_flight, [8, 60, 256]);
    }
}
