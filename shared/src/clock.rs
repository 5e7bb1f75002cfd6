//! The wall clock, read once per step. It decides when somebody tries, never who may send.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

/// The time, as all parts of one process see it.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    ahead_ms: Arc<AtomicI64>,
}

impl Clock {
    /// The time now, in whole milliseconds: what is stored is what was compared.
    pub fn now(&self) -> Timestamp {
        let ahead = self.ahead_ms.load(Ordering::Relaxed);
        let now = Timestamp::now().as_millisecond().saturating_add(ahead);
        Timestamp::from_millisecond(now).unwrap_or(Timestamp::MAX)
    }

    /// Sets this clock and its clones ahead, so that a test need not wait for a lease to expire.
    pub fn advance(&self, by: SignedDuration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.ahead_ms.fetch_add(by, Ordering::Relaxed);
    }
}
