//! What several bad ends in a row mean: a job that would fail for everybody, or a Messenger that is ill. Pure, no I/O.

use serde::{Deserialize, Serialize};

/// Sends in a row, ended in doubt or without a connection, that mean that Messenger is ill.
const LOST_IN_A_ROW: u32 = 5;
/// Illnesses without a success that halt the job.
const ILLNESSES: u32 = 6;
/// Refusals in a row, with one code that may concern everybody, that halt the job.
const REFUSED_IN_A_ROW: u32 = 10;

/// What has gone wrong in a row in one job; kept in the job, since a slice may end in the middle of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Breakers {
    refused_code: i64,
    refused_in_a_row: u32,
    lost_in_a_row: u32,
    illnesses: u32,
}

/// How one send ended, as far as it tells something about the sends to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Messenger accepted the message.
    Accepted,
    /// Messenger refused it with a code that may concern everybody.
    RefusedSuspiciously(i64),
    /// Messenger gave another clear answer.
    Answered,
    /// It ended in doubt, or found no connection.
    Lost,
    /// The same, of the one send that was to find out whether Messenger is well again.
    LostProbe,
}

/// What the signs add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trip {
    /// Messenger is ill: the Page pauses, then begins again with one probe.
    Ill,
    /// What goes on would go on for everybody.
    Halt(String),
}

impl Breakers {
    /// Takes one sign in, and tells when a breaker trips.
    pub fn observe(&mut self, sign: Sign) -> Option<Trip> {
        match sign {
            Sign::Accepted => *self = Self::default(),
            Sign::Answered => (self.lost_in_a_row, self.refused_in_a_row) = (0, 0),
            Sign::RefusedSuspiciously(code) => {
                self.lost_in_a_row = 0;
                let row = if code == self.refused_code {
                    self.refused_in_a_row
                } else {
                    0
                };
                (self.refused_code, self.refused_in_a_row) = (code, row + 1);
            }
            Sign::Lost => self.lost_in_a_row = self.lost_in_a_row.saturating_add(1),
            Sign::LostProbe => self.lost_in_a_row = LOST_IN_A_ROW,
        }
        if self.refused_in_a_row >= REFUSED_IN_A_ROW {
            let reason = format!(
                "Messenger refused {REFUSED_IN_A_ROW} contacts in a row with code {}",
                self.refused_code
            );
            self.refused_in_a_row = 0;
            return Some(Trip::Halt(reason));
        }
        if self.lost_in_a_row < LOST_IN_A_ROW {
            return None;
        }
        self.lost_in_a_row = 0;
        self.illnesses += 1;
        if self.illnesses < ILLNESSES {
            return Some(Trip::Ill);
        }
        self.illnesses = 0;
        Some(Trip::Halt(format!(
            "Messenger could not be reached, or gave no clear answer, {ILLNESSES} times in a row"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trips(signs: impl IntoIterator<Item = Sign>) -> Vec<Option<Trip>> {
        let mut breakers = Breakers::default();
        signs
            .into_iter()
            .map(|sign| breakers.observe(sign))
            .collect()
    }

    #[test]
    fn five_lost_in_a_row_are_an_illness_and_so_is_one_lost_probe() {
        let trips = trips(
            [Sign::Lost; 5]
                .into_iter()
                .chain([Sign::LostProbe, Sign::Lost]),
        );
        assert_eq!(trips[..4], [None, None, None, None]);
        assert_eq!(trips[4..], [Some(Trip::Ill), Some(Trip::Ill), None]);
    }

    #[test]
    fn the_sixth_illness_without_a_success_halts() {
        let trips = trips([Sign::Lost; 5].into_iter().chain([Sign::LostProbe; 5]));
        assert!(matches!(trips[9], Some(Trip::Halt(_))), "{trips:?}");
    }

    #[test]
    fn a_clear_answer_ends_the_row_and_a_success_forgets_all() {
        let four = [Sign::Lost; 4];
        assert!(
            trips(four.into_iter().chain([Sign::Answered]).chain(four))
                .iter()
                .all(Option::is_none)
        );

        let ill_then_well = [Sign::LostProbe; 5].into_iter().chain([Sign::Accepted]);
        let trips = trips(ill_then_well.chain([Sign::LostProbe; 5]));
        assert!(!trips.iter().any(|trip| matches!(trip, Some(Trip::Halt(_)))));
    }

    #[test]
    fn ten_refusals_in_a_row_with_one_suspicious_code_halt() {
        let suspicious = |code| [Sign::RefusedSuspiciously(code); 9];
        assert!(matches!(
            trips(
                suspicious(100)
                    .into_iter()
                    .chain([Sign::RefusedSuspiciously(100)])
            )[9],
            Some(Trip::Halt(_))
        ));
        for between in [
            Sign::Accepted,
            Sign::Answered,
            Sign::RefusedSuspiciously(10),
        ] {
            let row = suspicious(100)
                .into_iter()
                .chain([between])
                .chain(suspicious(100));
            assert!(trips(row).iter().all(Option::is_none), "{between:?}");
        }
    }
}
