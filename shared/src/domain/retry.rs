//! Back-off: the time of the next attempt. Pure, no I/O.

use std::time::Duration;

use jiff::Timestamp;

/// The longest back-off, before jitter.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Returns the wait after the given attempt (counted from 1): `base`, doubled with each attempt up to an hour, and up to a
/// quarter longer by `jitter` (from 0 to 1), in whole milliseconds, as times are stored.
pub fn backoff(base: Duration, attempt: u32, jitter: f64) -> Duration {
    let doubled = base.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
    let wait = doubled.min(LONGEST).mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 4.0);
    Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}

/// Returns the end of a wait, rounded up to a multiple of half the base: contacts that failed together become due together,
/// so that the job is woken once for all of them instead of once for each.
pub fn due_after(now: Timestamp, wait: Duration, base: Duration) -> Timestamp {
    let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    let grid = i64::try_from(base.as_millis() / 2).unwrap_or(i64::MAX).max(1);
    let due = now.as_millisecond().saturating_add(wait);
    let rounded = due.saturating_add(grid - 1) / grid * grid;
    Timestamp::from_millisecond(rounded).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_an_hour() {
        let base = Duration::from_secs(30);
        let seconds = [1, 2, 3, 4, 40].map(|attempt| backoff(base, attempt, 0.0).as_secs());
        assert_eq!(seconds, [30, 60, 120, 240, 3_600]);
        assert_eq!(backoff(base, 1, 1.0).as_millis(), 37_500);
    }

    #[test]
    fn due_time_is_rounded_up_and_never_early() {
        let now = Timestamp::from_millisecond(1_000_001).unwrap();
        let due = due_after(now, Duration::from_secs(30), Duration::from_secs(30));
        assert_eq!(due.as_millisecond(), 1_035_000);
    }
}
