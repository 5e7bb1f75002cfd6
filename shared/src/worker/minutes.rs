//! The messages that a run has sent, minute by minute.

use jiff::Timestamp;
use tracing::warn;

use crate::app::App;
use crate::domain::job::Job;
use crate::store::progress::Minute;

/// The least messages at the end of a run for which a minute that is not over is kept: for fewer a write would be dear.
const WORTH_A_WRITE: u64 = 100;

/// The messages of the minute that is not over yet.
#[derive(Debug, Default)]
pub struct CurrentMinute {
    number: i64,
    sent: u64,
}

impl CurrentMinute {
    /// Adds messages that were sent just now. Returns the minute before, if that is over and had any.
    pub fn add(&mut self, sent: u64, now: Timestamp) -> Option<Minute> {
        let number = now.as_second().div_euclid(60);
        let before = (self.number != number).then(|| std::mem::replace(self, Self { number, sent: 0 }));
        self.sent += sent;
        before
            .filter(|before| before.sent > 0)
            .map(|before| (before.number, before.sent))
    }

    /// Returns what the end of a run leaves, if it is worth a write.
    pub fn rest(&self) -> Option<Minute> {
        (self.sent >= WORTH_A_WRITE).then_some((self.number, self.sent))
    }
}

/// Keeps the messages of a minute for the report of a job. Without an answer they are missing there, and nowhere else.
pub async fn keep(app: &App, job: &Job, minute: Minute) {
    if let Err(error) = app.store.progress().add(job, minute).await {
        let error: &dyn std::error::Error = &error;
        warn!(error, "speed of the job not kept for its report");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minute_is_returned_once_when_it_is_over() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut minute = CurrentMinute::default();
        assert_eq!(minute.add(40, at(6_001)), None);
        assert_eq!(minute.add(59, at(6_059)), None);
        assert_eq!(minute.rest(), None);
        assert_eq!(minute.add(0, at(6_060)), Some((100, 99)));
        assert_eq!(minute.add(0, at(6_130)), None);
        assert_eq!(minute.add(100, at(6_131)), None);
        assert_eq!(minute.rest(), Some((102, 100)));
    }
}
