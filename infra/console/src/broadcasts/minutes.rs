//! The messages of a broadcast in each minute: the table that the page's script draws, and that a screen reader reads.

use client::api::progress::ProgressReport;
use jiff::Timestamp;

/// The seconds of a minute.
const MINUTE: i64 = 60;
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

/// Returns the minutes from the first with a message to the last, without gaps; or to the present one, of which the time is given and
/// the messages that are not counted yet.
pub fn minutes(progress: Option<&ProgressReport>, present: Option<(Timestamp, u64)>) -> Vec<Minute> {
    let counted = progress
        .map(|progress| progress.sent_per_minute.as_slice())
        .unwrap_or_default();
    let present = present.map(|(now, sent)| (now.as_second() - now.as_second() % MINUTE, sent));
    let counted = counted.iter().map(|minute| (minute.minute.as_second(), minute.sent));
    let mut known: Vec<_> = counted.chain(present).collect();
    known.sort_unstable();
    let has_any = known.iter().any(|(_, sent)| *sent > 0);
    let (Some((first, _)), Some((last, _)), true) = (known.first(), known.last(), has_any) else {
        return Vec::new();
    };
    let seconds = (*first..=*last).step_by(60).take(MOST);
    let minutes = seconds.map(|second| Minute {
        at: Timestamp::from_second(second).unwrap_or_default(),
        second,
        sent: known.iter().filter(|(at, _)| *at == second).map(|(_, sent)| sent).sum(),
    });
    minutes.collect()
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
        let sent = |present| -> Vec<_> {
            minutes(Some(&progress), present)
                .iter()
                .map(|minute| minute.sent)
                .collect()
        };

        assert_eq!(sent(None), [10, 0, 30]);
        assert_eq!(sent(Some((at(4), 7))), [10, 0, 30, 0, 7]);
        assert_eq!(sent(Some((at(500), 1))).len(), 61);
        assert_eq!(minutes(None, Some((at(4), 7))).len(), 1);
        assert_eq!(minutes(None, Some((at(4), 0))), []);
    }
}
