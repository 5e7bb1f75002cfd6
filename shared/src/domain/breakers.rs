//! Circuit breakers: several bad results in a row mean an outage of Messenger, or a job that would fail for every contact.
//! Pure, no I/O.

use std::fmt;

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};

/// The number of sends in a row that end in doubt or find no connection, from which on Messenger counts as down.
const LOST_IN_A_ROW: u32 = 5;
/// The number of outages without an accepted message between them that halts the job.
const OUTAGES: u32 = 6;
/// The number of refusals in a row, with one code that may concern every contact, that halts the job.
const REFUSED_IN_A_ROW: u32 = 10;
/// The number of unknown codes without an accepted message between them that halts the job.
const UNKNOWN_IN_A_ROW: u32 = 10;

/// The counts of bad results in a row in one job; stored in the job, since a run may end in the middle of such a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Breakers {
    refused_code: i64,
    refused_in_a_row: u32,
    unknown_in_a_row: u32,
    lost_in_a_row: u32,
    #[serde(rename = "illnesses")]
    outages: u32,
    /// The time of the operator's last resume: a contact that was refused before it, and is refused again after it, fails.
    #[serde(with = "millisecond::optional", skip_serializing_if = "Option::is_none")]
    pub resumed_at: Option<Timestamp>,
    /// The refusal that no other contact's send has confirmed or refuted yet. It ends with the run: the next run asks the
    /// contact again.
    #[serde(skip)]
    suspected: Option<ErrorCode>,
    /// `true` once Messenger has accepted a message in this run.
    #[serde(skip)]
    accepted: bool,
}

/// Messenger's code of an error, and its subcode if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode {
    /// `error.code`.
    pub code: i64,
    /// `error.error_subcode`.
    pub subcode: Option<i64>,
}

/// Writes the form in which reasons name an error: `Messenger error 200/2018028`.
impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Messenger error {}", self.code)?;
        self.subcode.map_or(Ok(()), |subcode| write!(f, "/{subcode}"))
    }
}

/// The result of one send, as far as it predicts the sends to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Messenger accepted the message.
    Accepted,
    /// Messenger refused the message with this code, which may concern every contact; the contact has failed.
    RefusedSuspiciously(i64),
    /// Messenger refused the message with this error, which concerns every contact if it is given to another one, too. The
    /// contact has not failed.
    Suspected(ErrorCode),
    /// Messenger gave another clear answer.
    Answered,
    /// Messenger answered with this error, which is not known: the send ended in doubt.
    Unknown(ErrorCode),
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
    /// Returns the breakers of a job that the operator resumes.
    pub fn resumed(now: Timestamp) -> Self {
        Self {
            resumed_at: Some(now),
            ..Self::default()
        }
    }

    /// Counts one signal, and returns the trip of a breaker if it causes one.
    pub fn observe(&mut self, signal: Signal) -> Option<BreakerTrip> {
        match signal {
            Signal::Accepted => {
                *self = Self {
                    resumed_at: self.resumed_at,
                    accepted: true,
                    ..Self::default()
                }
            }
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
            Signal::Suspected(error) => return self.suspect(error),
            Signal::Unknown(error) => return self.count_unknown(error),
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

    /// Suspects that an error concerns every contact; the same error for a second contact, with no message accepted between
    /// the two, confirms it.
    fn suspect(&mut self, error: ErrorCode) -> Option<BreakerTrip> {
        (self.lost_in_a_row, self.refused_in_a_row) = (0, 0);
        let before = self.suspected.replace(error);
        (before == Some(error)).then(|| {
            self.suspected = None;
            BreakerTrip::Halt(format!("{error}, for two contacts in a row"))
        })
    }

    /// Counts a code that is not known. It is an answer, so that it is no outage, and it leaves the count of lost sends as
    /// it is, since the send ended in doubt.
    fn count_unknown(&mut self, error: ErrorCode) -> Option<BreakerTrip> {
        self.unknown_in_a_row += 1;
        (self.unknown_in_a_row >= UNKNOWN_IN_A_ROW).then(|| {
            self.unknown_in_a_row = 0;
            BreakerTrip::Halt(format!(
                "{error}, which is not known; {UNKNOWN_IN_A_ROW} sends ended in doubt with such errors, and none was accepted"
            ))
        })
    }

    /// Ends the suspicion when no contact is left that could confirm it. Returns the reason to halt the job, or
    /// `None` if Messenger has accepted a message in this run, so that only the suspected contacts are concerned.
    pub fn end_suspicion(&mut self) -> Option<String> {
        let error = self.suspected.take().filter(|_| !self.accepted)?;
        Some(format!(
            "{error}, and no other contact is left that shows whether it concerns all"
        ))
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

    const NOT_PERMITTED: ErrorCode = ErrorCode {
        code: 200,
        subcode: None,
    };

    #[test]
    fn suspicion_is_confirmed_by_a_second_contact_and_refuted_by_an_acceptance() {
        let suspected = Signal::Suspected(NOT_PERMITTED);
        let confirmed = trips([suspected, Signal::Answered, Signal::Lost, suspected]);
        assert_eq!(confirmed[..3], [None, None, None]);
        let reason = "Messenger error 200, for two contacts in a row".to_owned();
        assert_eq!(confirmed[3], Some(BreakerTrip::Halt(reason)));

        let other = Signal::Suspected(ErrorCode {
            subcode: Some(2_018_028),
            ..NOT_PERMITTED
        });
        for between in [Signal::Accepted, other] {
            let trips = trips([suspected, between, suspected]);
            assert!(trips.iter().all(Option::is_none), "{between:?}");
        }
    }

    #[test]
    fn suspicion_without_another_contact_halts_unless_a_message_was_accepted() {
        let mut breakers = Breakers::default();
        breakers.observe(Signal::Suspected(NOT_PERMITTED));
        assert!(
            breakers
                .end_suspicion()
                .is_some_and(|reason| reason.starts_with("Messenger error 200,"))
        );

        breakers.observe(Signal::Accepted);
        breakers.observe(Signal::Suspected(NOT_PERMITTED));
        assert_eq!(breakers.end_suspicion(), None);
    }

    #[test]
    fn suspicion_ends_with_the_run_and_the_resume_is_remembered() {
        let mut breakers = Breakers::resumed(Timestamp::UNIX_EPOCH);
        breakers.observe(Signal::Accepted);
        breakers.observe(Signal::Suspected(NOT_PERMITTED));

        let stored = serde_json::to_value(&breakers).unwrap();
        let mut next: Breakers = serde_json::from_value(stored).unwrap();

        assert_eq!(next, Breakers::resumed(Timestamp::UNIX_EPOCH));
        assert_eq!(next.observe(Signal::Suspected(NOT_PERMITTED)), None);
    }

    #[test]
    fn ten_unknown_codes_without_success_halt_and_are_no_outage() {
        let unknown = |code| Signal::Unknown(ErrorCode { code, subcode: None });
        let nine = || (0..9).map(unknown);
        let halted = trips(nine().chain([Signal::Answered, unknown(987_654)]));
        assert!(halted[..10].iter().all(Option::is_none), "{halted:?}");
        let Some(BreakerTrip::Halt(reason)) = &halted[10] else {
            panic!("{halted:?}");
        };
        assert!(reason.contains("987654"), "{reason}");

        let accepted = trips(nine().chain([Signal::Accepted]).chain(nine()));
        assert!(accepted.iter().all(Option::is_none), "{accepted:?}");
    }
}
