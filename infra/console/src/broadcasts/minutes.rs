//! The messages of a broadcast in each minute: the table that the page's script draws, and that a screen reader reads.

use client::api::progress::ProgressReport;
use jiff::{SignedDuration, Timestamp};

/// The length of a minute.
const MINUTE: SignedDuration = SignedDuration::from_mins(1);
/// The most minutes that are shown: those of the hour that a report tells of, and the one that has begun.
const MOST: usize = 61;

/// A minute and its messages.
#[derive(Debug, PartialEq, Eq)]
pub struct Minute {
    /// The beginning.
    pub at: Timestamp,
    /// The seconds of the epoch at its beginning.
    pub second: i64,
    /// The number of messages.
    pub sent: u64,
}

/// Returns the minutes from the first with a message to the last, or to the present one if the broadcast goes on, without gaps.
pub fn minutes(progress: Option<&ProgressReport>, until: Option<Timestamp>) -> Vec<Minute> {
    let counted = progress
        .map(|progress| progress.sent_per_minute.as_slice())
        .unwrap_or_default();
    let (Some(first), Some(last)) = (counted.first(), counted.last()) else {
        return Vec::new();
    };
    let end = until.map_or(last.minute, |until| until.max(last.minute));
    let (mut minutes, mut at) = (Vec::new(), first.minute);
    while at <= end && minutes.len() < MOST {
        let sent = counted.iter().find(|minute| minute.minute == at);
        minutes.push(Minute {
            at,
            second: at.as_second(),
            sent: sent.map_or(0, |minute| minute.sent),
        });
        at += MINUTE;
    }
    minutes
}

#[cfg(test)]
mod tests {
    use client::api::progress::MinuteReport;

    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_764_550_800 + 60 * minute).unwrap()
    }

    fn progress(sent: &[(i64, u64)]) -> ProgressReport {
        let minute = |(minute, sent): &(i64, u64)| MinuteReport {
            minute: at(*minute),
            sent: *sent,
        };
        ProgressReport {
            sent_per_minute: sent.iter().map(minute).collect(),
            expected_end: None,
            pages: Vec::new(),
        }
    }

    #[test]
    fn minute_without_messages_is_shown_between_others() {
        let progress = progress(&[(0, 10), (2, 30)]);
        let sent = |until| -> Vec<_> {
            minutes(Some(&progress), until)
                .iter()
                .map(|minute| minute.sent)
                .collect()
        };

        assert_eq!(sent(None), [10, 0, 30]);
        assert_eq!(sent(Some(at(4) + SignedDuration::from_secs(30))), [10, 0, 30, 0, 0]);
        assert_eq!(sent(Some(at(500))).len(), 61);
        assert_eq!(minutes(None, Some(at(4))), []);
    }
}
