//! The distance between the sends of one run. Slots pace their starts; a slow database or a busy machine may still let the
//! reservations of many end at once.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// The time by which a send may come before its distance is over.
const TOLERANCE: Duration = Duration::from_millis(40);

/// The turns of the sends of one run.
pub struct Spacing {
    distance: Duration,
    /// The time from which the next send keeps its distance.
    next: Mutex<Instant>,
}

impl Spacing {
    /// Returns the distance for a rate.
    pub fn new(per_second: NonZeroU32) -> Self {
        let slot = Duration::from_secs(1) / per_second.get();
        // Together with the tolerance a second has a quarter more than its slots.
        Self {
            distance: slot * 5 / 6,
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits until a reserved contact may be sent to, one after the other.
    pub async fn turn(&self) {
        let mut next = self.next.lock().await;
        while *next > Instant::now() + TOLERANCE {
            sleep_until(*next - TOLERANCE).await;
        }
        *next = (*next).max(Instant::now()) + self.distance;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn reservations_that_end_at_once_are_sent_at_a_distance() {
        let spacing = Spacing::new(NonZeroU32::new(30).unwrap());
        let begun = Instant::now();
        join_all((0..40).map(|_| spacing.turn())).await;

        // A second has at most 39 sends, so the fortieth is later.
        assert!(begun.elapsed() > Duration::from_secs(1));
    }
}
