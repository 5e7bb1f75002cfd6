//! What the end of a send means for the contact, the Page and the job: Messenger's error codes, classified once.
//!
//! The classes are those of Meta's error reference and of experience with it; an unknown code is *in doubt*, since Messenger
//! is known to answer errors for messages that it delivered (code 1, subcode 1357046).

use std::time::Duration;

use crate::breakers::Sign;

/// Why Messenger did not say that it accepted a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No connection was made: nothing was sent.
    #[error("no connection")]
    NotConnected,
    /// The request may have left, and no readable answer came.
    #[error("{0}")]
    NoAnswer(&'static str),
    /// Messenger answered with an error.
    #[error("{0}")]
    Refused(Refusal),
}

/// Messenger's own error. Its message is not kept: it may quote the token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// `error.code`.
    pub code: i64,
    /// `error.error_subcode`.
    pub subcode: Option<i64>,
    /// `error.message` says that there is no such contact; the code alone does not tell.
    pub no_matching_user: bool,
    /// When calls will succeed again, from the usage headers.
    pub regain_after: Option<Duration>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Messenger error {}", self.code)?;
        self.subcode
            .map_or(Ok(()), |subcode| write!(f, "/{subcode}"))
    }
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was sent: again later, at the cost of an attempt.
    Later,
    /// Nothing was sent, and nothing should be for a while: the Page slows down, at no cost to the contact.
    RateLimited(Option<Duration>),
    /// Never to this contact.
    Never,
    /// Not to anybody: the job halts, the contact goes back in line.
    Stop,
    /// It may have been sent.
    InDoubt,
}

impl SendError {
    /// What to do about it. What cannot be known to be unsent is in doubt.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::NotConnected => Verdict::Later,
            Self::NoAnswer(_) => Verdict::InDoubt,
            Self::Refused(refusal) => refusal.verdict(),
        }
    }

    /// Whether Messenger does not take the Page's access token any more.
    pub fn is_of_token(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.code == 190)
    }

    /// What it tells about the sends to come.
    pub fn sign(&self) -> Sign {
        match self {
            Self::NotConnected | Self::NoAnswer(_) => Sign::Lost,
            Self::Refused(refusal) => match refusal.verdict() {
                Verdict::InDoubt => Sign::Lost,
                Verdict::Never if refusal.may_concern_everybody() => {
                    Sign::RefusedSuspiciously(refusal.code)
                }
                Verdict::Later | Verdict::RateLimited(_) | Verdict::Never | Verdict::Stop => {
                    Sign::Answered
                }
            },
        }
    }
}

impl Refusal {
    fn verdict(&self) -> Verdict {
        match (self.code, self.subcode) {
            // The message was too soon, or asked too much, for this contact alone.
            (4, Some(2_018_354)) | (9, Some(2_018_352)) | (613, Some(1_893_016)) => Verdict::Never,
            (613, Some(2_018_338)) => Verdict::Stop,
            (4 | 17 | 32 | 341 | 613 | 80_001 | 80_006, _) => {
                Verdict::RateLimited(self.regain_after)
            }

            (10, None | Some(1_893_063 | 1_404_170)) => Verdict::Stop,
            // Outside of the window, blocked, unsubscribed.
            (10, Some(_)) => Verdict::Never,

            (100, Some(33 | 2_018_164)) => Verdict::Stop,
            (
                100,
                Some(
                    2_018_008 | 2_018_047 | 2_018_074 | 2_018_109 | 2_018_294 | 2_018_320
                    | 2_534_015,
                ),
            ) => Verdict::Stop,
            (100, _) => Verdict::Never,

            (200 | 551, Some(1_545_041)) | (551, _) => Verdict::Never,
            (3 | 102 | 190 | 200..=299 | 368 | 2_022, _) => Verdict::Stop,
            (2_018_300 | 2_018_321 | 2_300_052, _) => Verdict::Never,

            // 1, 2 and 1200 are known to follow messages that were sent; others may.
            _ => Verdict::InDoubt,
        }
    }

    /// A refusal that is put to the contact's account although its cause may lie with the Page or the message.
    fn may_concern_everybody(&self) -> bool {
        match (self.code, self.subcode) {
            (100, Some(2_018_001)) => false,
            (100, _) => !self.no_matching_user,
            (10, Some(2_018_278 | 2_534_022 | 2_018_065 | 2_018_108 | 1_893_015 | 2_018_336)) => {
                false
            }
            (10, _) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: i64, subcode: Option<i64>) -> SendError {
        SendError::Refused(Refusal {
            code,
            subcode,
            ..Refusal::default()
        })
    }

    /// Every row of Meta's table, and what no table has.
    #[test]
    fn every_code_has_its_verdict() {
        use Verdict::{InDoubt, Never, RateLimited, Stop};
        let limited = RateLimited(None);
        for (code, subcodes, verdict) in [
            (1, &[None, Some(99), Some(1_357_046)][..], &InDoubt),
            (2, &[None, Some(2_018_344)], &InDoubt),
            (3, &[None], &Stop),
            (4, &[None, Some(7)], &limited),
            (4, &[Some(2_018_354)], &Never),
            (9, &[Some(2_018_352)], &Never),
            (9, &[None], &InDoubt),
            (10, &[None, Some(1_893_063), Some(1_404_170)], &Stop),
            (
                10,
                &[
                    Some(2_018_278),
                    Some(2_534_022),
                    Some(2_018_065),
                    Some(2_018_108),
                    Some(1_893_015),
                    Some(2_018_336),
                    Some(7),
                ],
                &Never,
            ),
            (17, &[None], &limited),
            (32, &[None], &limited),
            (100, &[None, Some(2_018_001), Some(7)], &Never),
            (
                100,
                &[
                    Some(33),
                    Some(2_018_164),
                    Some(2_018_008),
                    Some(2_018_047),
                    Some(2_018_074),
                    Some(2_018_109),
                    Some(2_018_294),
                    Some(2_018_320),
                    Some(2_534_015),
                ],
                &Stop,
            ),
            (102, &[None], &Stop),
            (190, &[None, Some(458), Some(463), Some(467)], &Stop),
            (200, &[None, Some(2_018_028), Some(2_018_027)], &Stop),
            (200, &[Some(1_545_041)], &Never),
            (230, &[None], &Stop),
            (299, &[None], &Stop),
            (300, &[None], &InDoubt),
            (341, &[None], &limited),
            (368, &[None], &Stop),
            (551, &[None, Some(1_545_041)], &Never),
            (613, &[None, Some(2_534_040), Some(1_996)], &limited),
            (613, &[Some(2_018_338)], &Stop),
            (613, &[Some(1_893_016)], &Never),
            (1_200, &[None, Some(2_018_024)], &InDoubt),
            (2_022, &[None], &Stop),
            (2_018_300, &[None], &Never),
            (2_018_321, &[None], &Never),
            (80_001, &[None], &limited),
            (80_006, &[None], &limited),
            (2_300_052, &[None], &Never),
            (0, &[None], &InDoubt),
            (-1, &[None], &InDoubt),
            (987_654, &[None, Some(1)], &InDoubt),
        ] {
            for subcode in subcodes {
                assert_eq!(
                    &refused(code, *subcode).verdict(),
                    verdict,
                    "{code}/{subcode:?}"
                );
            }
        }
        assert_eq!(SendError::NotConnected.verdict(), Verdict::Later);
        assert_eq!(SendError::NoAnswer("timed out").verdict(), InDoubt);
    }

    #[test]
    fn a_rate_limit_passes_on_when_calls_will_succeed_again() {
        let regain_after = Some(Duration::from_secs(1_140));
        let refusal = Refusal {
            code: 80_006,
            regain_after,
            ..Refusal::default()
        };
        assert_eq!(refusal.verdict(), Verdict::RateLimited(regain_after));
    }

    #[test]
    fn only_codes_that_may_concern_everybody_are_suspicious() {
        for (code, subcode, sign) in [
            (100, None, Sign::RefusedSuspiciously(100)),
            (100, Some(7), Sign::RefusedSuspiciously(100)),
            (100, Some(2_018_001), Sign::Answered),
            (10, Some(7), Sign::RefusedSuspiciously(10)),
            (10, Some(2_018_278), Sign::Answered),
            (551, None, Sign::Answered),
            (613, None, Sign::Answered),
            (1, None, Sign::Lost),
            (987_654, None, Sign::Lost),
        ] {
            assert_eq!(refused(code, subcode).sign(), sign, "{code}/{subcode:?}");
        }
        let unknown_user = SendError::Refused(Refusal {
            code: 100,
            no_matching_user: true,
            ..Refusal::default()
        });
        assert_eq!(unknown_user.sign(), Sign::Answered);
        assert_eq!(SendError::NotConnected.sign(), Sign::Lost);
        assert_eq!(SendError::NoAnswer("timed out").sign(), Sign::Lost);
    }
}
