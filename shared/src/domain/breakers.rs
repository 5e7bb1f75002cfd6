//! Circuit breakers: several bad results in a row mean an outage of Messenger, or a job that would fail for every contact.
//! Pure, no I/O.

use serde::{Deserialize, Serialize};

/// The number of sends in a row that end in doubt or find no connection, from which on Messenger counts as down.
const LOST_IN_A_ROW: u32 = 5;
/// The number of outages without an accepted message between them that halts the job.
const OUTAGES: u32 = 6;
/// The number of refusals in a row, with one code that may concern every contact, that halts the job.
const REFUSED_IN_A_ROW: u32 = 10;

/// The counts of bad results in a row in one job; stored in the job, since a run may end in the middle of such a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Breakers {
    refused_code: i64,
    refused_in_a_row: u32,
    lost_in_a_row: u32,
    #[serde(rename = "illnesses")]
    outages: u32,
}

/// The result of one send, as far as it predicts the sends to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Messenger accepted the message.
    Accepted,
    /// Messenger refused the message with this code, which may concern every contact.
    RefusedSuspiciously(i64),
    /// Messenger gave another clear answer.
    Answered,
    /// The send ended in doubt, or found no connection.
    Lost,
    /// As [`Signal::Lost`], for the single send that probes whether an outage is over.
    LostProbe,
}

/// The consequence of the signals so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BreakerTrip {
    /// Messenger is down: the Page pauses, then begins again with one probe.
    Outage,
    /// The job would go on failing for every contact: it halts, with this reason.
    Halt(String),
}

impl Breakers {
    /// Counts one signal, and returns the trip of a breaker if it causes one.
    pub fn observe(&mut self, signal: Signal) -> Option<BreakerTrip> {
        match signal {
            Signal::Accepted => *self = Self::default(),
            Signal::Answered => (self.lost_in_a_row, self.refused_in_a_row) = (0, 0),
            Signal::RefusedSuspiciously(code) => {
                self.lost_in_a_row = 0;
                let row = if code == self.refused_code {
                    self.refused_in_a_row
                } else {
                    0
                };
                (self.refused_code, self.refused_in_a_row) = (code, row + 1);
            }
            Signal::Lost => self.lost_in_a_row = self.lost_in_a_row.saturating_add(1),
            Signal::LostProbe => self.lost_in_a_row = LOST_IN_A_ROW,
        }
        if self.refused_in_a_row >= REFUSED_IN_A_ROW {
            let reason = format!(
                "Messenger refused {REFUSED_IN_A_ROW} contacts in a row with code {}",
                self.refused_code
            );
            self.refused_in_a_row = 0;
            return Some(BreakerTrip::Halt(reason));
        }
        if self.lost_in_a_row < LOST_IN_A_ROW {
            return None;
        }
        self.lost_in_a_row = 0;
        self.outages += 1;
        if self.outages < OUTAGES {
            return Some(BreakerTrip::Outage);
        }
        self.outages = 0;
        Some(BreakerTrip::Halt(format!(
            "Messenger could not be reached, or gave no clear answer, {OUTAGES} times in a row"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trips(signals: impl IntoIterator<Item = Signal>) -> Vec<Option<BreakerTrip>> {
        let mut breakers = Breakers::default();
        signals.into_iter().map(|signal| breakers.observe(signal)).collect()
    }

    #[test]
    fn five_lost_in_a_row_or_one_lost_probe_are_an_outage() {
        let trips = trips([Signal::Lost; 5].into_iter().chain([Signal::LostProbe, Signal::Lost]));
        assert_eq!(trips[..4], [None, None, None, None]);
        assert_eq!(trips[4..], [Some(BreakerTrip::Outage), Some(BreakerTrip::Outage), None]);
    }

    #[test]
    fn sixth_outage_without_success_halts() {
        let trips = trips([Signal::Lost; 5].into_iter().chain([Signal::LostProbe; 5]));
        assert!(matches!(trips[9], Some(BreakerTrip::Halt(_))), "{trips:?}");
    }

    #[test]
    fn clear_answer_ends_the_row_and_success_resets_all() {
        let four = [Signal::Lost; 4];
        assert!(
            trips(four.into_iter().chain([Signal::Answered]).chain(four))
                .iter()
                .all(Option::is_none)
        );

        let outage_then_success = [Signal::LostProbe; 5].into_iter().chain([Signal::Accepted]);
        let trips = trips(outage_then_success.chain([Signal::LostProbe; 5]));
        assert!(!trips.iter().any(|trip| matches!(trip, Some(BreakerTrip::Halt(_)))));
    }

    #[test]
    fn ten_refusals_in_a_row_with_one_suspicious_code_halt() {
        let suspicious = |code| [Signal::RefusedSuspiciously(code); 9];
        assert!(matches!(
            trips(suspicious(100).into_iter().chain([Signal::RefusedSuspiciously(100)]))[9],
            Some(BreakerTrip::Halt(_))
        ));
        for between in [Signal::Accepted, Signal::Answered, Signal::RefusedSuspiciously(10)] {
            let row = suspicious(100).into_iter().chain([between]).chain(suspicious(100));
            assert!(trips(row).iter().all(Option::is_none), "{between:?}");
        }
    }
}
