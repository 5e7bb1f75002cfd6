//! The turns of the sends of one run: the distance between them, and the time until which they may start. Slots pace the starts of
//! reservations; a slow database or a busy machine may let many of them end at once, or long after a stop.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until};

/// The time by which a send may come before its distance is over.
const TOLERANCE: Duration = Duration::from_millis(40);

/// The turns of the sends of one run.
pub struct Spacing {
    distance: Duration,
    /// The time from which the next send keeps its distance.
    next: Mutex<Instant>,
    /// The time until which sends may start, as far as is known.
    until: watch::Sender<Instant>,
}

impl Spacing {
    /// Returns the turns at a rate. No send may start before [`allow_until`](Self::allow_until).
    pub fn new(per_second: NonZeroU32) -> Self {
        let slot = Duration::from_secs(1) / per_second.get();
        // Together with the tolerance a second has a quarter more than its slots.
        Self {
            distance: slot * 5 / 6,
            next: Mutex::new(Instant::now()),
            until: watch::Sender::new(Instant::now()),
        }
    }

    /// Allows sends to start until this time.
    pub fn allow_until(&self, until: Instant) {
        self.until.send_replace(until);
    }

    /// Waits until a reserved contact may be sent to, one after the other. Returns `false` if it may not any more.
    pub async fn turn(&self) -> bool {
        let mut next = self.next.lock().await;
        while *next > Instant::now() + TOLERANCE {
            sleep_until(*next - TOLERANCE).await;
        }
        *next = (*next).max(Instant::now()) + self.distance;
        Instant::now() < *self.until.borrow()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn reservations_that_end_at_once_are_sent_at_a_distance() {
        let spacing = Spacing::new(NonZeroU32::new(30).unwrap());
        spacing.allow_until(Instant::now() + Duration::from_secs(60));
        let begun = Instant::now();
        let may_start = join_all((0..40).map(|_| spacing.turn())).await;

        assert_eq!(may_start, [true; 40]);
        // A second has at most 39 sends, so the fortieth is later.
        assert!(begun.elapsed() > Duration::from_secs(1));
    }
}
