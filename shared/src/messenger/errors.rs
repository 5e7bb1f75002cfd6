//! Classification of Messenger's errors: the consequence of a failed send for the contact, the Page and the job.
//!
//! The classes follow Meta's error reference and experience with the API. An unknown code is *in doubt*, since Messenger is
//! known to answer errors for messages that it delivered (code 1, subcode 1357046).

use std::time::Duration;

use crate::domain::breakers::{ErrorCode, Signal};
use crate::messenger::codes::*;

/// A call without an acceptance from Messenger.
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

/// Messenger's own error. Its message is not kept, since it may quote the token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// `error.code`.
    pub code: i64,
    /// `error.error_subcode`.
    pub subcode: Option<i64>,
    /// `true` if `error.message` says that there is no such contact; the code alone does not tell.
    pub no_matching_user: bool,
    /// `true` if `error.type` or `error.message` says that the call itself is refused, such as its `appsecret_proof`, rather
    /// than one of its values; the code alone does not tell.
    pub refuses_call: bool,
    /// The time until calls will succeed again, from the usage headers.
    pub regain_after: Option<Duration>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error_code().fmt(f)
    }
}

/// The consequence of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was sent: the send is retried later, at the cost of an attempt.
    Later,
    /// Nothing was sent, and nothing should be for a while: the Page slows down, at no cost to the contact.
    RateLimited(Option<Duration>),
    /// Nothing was sent, and this contact cannot get the message.
    Never,
    /// Nothing was sent, and no contact can get the message: the job halts, and the contact is requeued.
    Stop,
    /// Nothing was sent. The error concerns every contact if another contact gets it, too: then as [`Verdict::Stop`]. It
    /// concerns this contact alone if another one is accepted: then as [`Verdict::Never`].
    StopIfConfirmed,
    /// The message may have been sent.
    InDoubt,
}

impl SendError {
    /// Returns the consequence of the error. A send that cannot be known to be unsent is in doubt.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::NotConnected => Verdict::Later,
            Self::NoAnswer(_) => Verdict::InDoubt,
            Self::Refused(refusal) => refusal.verdict(),
        }
    }

    /// Returns `true` if Messenger refuses the Page's access token.
    pub fn refuses_token(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.code == INVALID_ACCESS_TOKEN)
    }

    /// Returns `true` if Messenger refuses a value of the call, which may be the cursor of a list.
    pub fn refuses_value(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.code == BAD_PARAMETER && !refusal.refuses_call)
    }

    /// Returns the signal that the error gives about the sends to come.
    pub fn signal(&self) -> Signal {
        match self {
            Self::NotConnected | Self::NoAnswer(_) => Signal::Lost,
            Self::Refused(refusal) => match refusal.verdict() {
                Verdict::InDoubt if refusal.is_known() => Signal::Lost,
                Verdict::InDoubt => Signal::Unknown(refusal.error_code()),
                Verdict::StopIfConfirmed => Signal::Suspected(refusal.error_code()),
                Verdict::Never if refusal.may_concern_every_contact() => Signal::RefusedSuspiciously(refusal.code),
                Verdict::Later | Verdict::RateLimited(_) | Verdict::Never | Verdict::Stop => Signal::Answered,
            },
        }
    }
}

impl Refusal {
    fn verdict(&self) -> Verdict {
        match (self.code, self.subcode) {
            // The message came too soon, or asked too much, for this contact alone.
            (APP_LIMIT, Some(sub::MARKETING_MESSAGE_TOO_SOON))
            | (TOO_MANY_ACTIONS, Some(sub::OPT_IN_REQUEST_LIMIT))
            | (RATE_LIMIT, Some(sub::OPT_IN_REQUEST_REPEATED)) => Verdict::Never,
            (RATE_LIMIT, Some(sub::ABUSIVE)) => Verdict::Stop,
            (APP_LIMIT | USER_LIMIT | PAGE_LIMIT | APP_LIMIT_TEMPORARY | RATE_LIMIT, _)
            | (PAGES_USE_CASE_LIMIT | MESSENGER_USE_CASE_LIMIT, _) => Verdict::RateLimited(self.regain_after),

            // Messenger restricts the Page itself.
            (PERMISSION_DENIED, Some(sub::PAGE_RESTRICTED | sub::OPT_IN_REQUESTS_RESTRICTED))
            | (BLOCKED_FOR_POLICIES | COMMERCE_MESSAGES_DISABLED, _) => Verdict::Stop,
            (PERMISSION_DENIED, None) => Verdict::StopIfConfirmed,
            // The contact is outside of the window, or does not take messages of the Page.
            (PERMISSION_DENIED, Some(_)) => Verdict::Never,

            (BAD_PARAMETER, Some(sub::NO_MATCHING_USER)) => Verdict::Never,
            (BAD_PARAMETER, Some(sub::NO_SUCH_OBJECT | sub::INCORRECT_APP_ID)) => Verdict::StopIfConfirmed,
            (BAD_PARAMETER, Some(subcode)) if is_of_content(subcode) => Verdict::StopIfConfirmed,
            (BAD_PARAMETER, _) if self.refuses_call && !self.no_matching_user => Verdict::Stop,
            (BAD_PARAMETER, _) => Verdict::Never,

            // The token, the path and the proof of the call are the same for every contact.
            (SESSION | INVALID_ACCESS_TOKEN | INVALID_APP | INCORRECT_SIGNATURE | USER_TOKEN, _)
            | (PAGE_MIGRATED | NO_SUCH_ALIAS | UNKNOWN_PATH | METHOD_DEPRECATED | VERSION_DEPRECATED, _)
            | (UNAUTHORIZED_ADDRESS | HTTPS_REQUIRED | PROOF_REQUIRED, _) => Verdict::Stop,

            (PERMISSION, Some(sub::NOT_AVAILABLE)) | (USER_BLOCK, _) => Verdict::Never,
            // Messenger gives these codes to single contacts, too.
            (CAPABILITY | PERMISSION..=LAST_PERMISSION, _) => Verdict::StopIfConfirmed,
            (THREAD_OF_ANOTHER_APP | THREAD_IN_AUTOMATED_FLOW | CONVERSATION_GAP, _) => Verdict::Never,

            // Codes 1, 2 and 1200 are known to follow messages that were sent; other codes may.
            _ => Verdict::InDoubt,
        }
    }

    fn error_code(&self) -> ErrorCode {
        ErrorCode {
            code: self.code,
            subcode: self.subcode,
        }
    }

    /// Returns `true` for the codes that are known to be ambiguous: they tell of a disturbance that passes.
    fn is_known(&self) -> bool {
        matches!(self.code, UNKNOWN | SERVICE | TEMPORARY_SEND_FAILURE)
    }

    /// Returns `true` for a refusal that counts for this contact alone although the Page or the message may be its cause.
    fn may_concern_every_contact(&self) -> bool {
        match (self.code, self.subcode) {
            (BAD_PARAMETER, Some(sub::NO_MATCHING_USER)) => false,
            (BAD_PARAMETER, _) => !self.no_matching_user,
            (PERMISSION_DENIED, Some(sub::OUTSIDE_WINDOW | sub::OUTSIDE_24_HOURS | sub::OUTSIDE_WINDOW_OF_NEWS))
            | (PERMISSION_DENIED, Some(sub::CANNOT_RECEIVE | sub::TOPIC_STOPPED | sub::THREAD_IMPACTED)) => false,
            (PERMISSION_DENIED, _) => true,
            _ => false,
        }
    }
}

/// Returns `true` for the subcodes of [`BAD_PARAMETER`] that refuse the attachment or content, and so would for every
/// contact.
fn is_of_content(subcode: i64) -> bool {
    matches!(
        subcode,
        sub::FILE_NOT_FETCHED
            | sub::UPLOAD_FAILED
            | sub::INVALID_ATTACHMENT_ID
            | sub::ATTACHMENT_TOO_LARGE
            | sub::VIDEO_NOT_UPLOADED
            | sub::INVALID_PRODUCT_ID
            | sub::INVALID_MESSAGE_DATA
    )
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

    /// Tests the numbers of Meta's tables, not the constants' names, and codes that no table has.
    #[test]
    fn each_code_has_its_verdict() {
        use Verdict::{InDoubt, Never, RateLimited, Stop, StopIfConfirmed};
        let limited = RateLimited(None);
        for (code, subcodes, verdict) in [
            (1, &[None, Some(99), Some(1_357_046)][..], &InDoubt),
            (2, &[None, Some(2_018_344)], &InDoubt),
            (3, &[None], &StopIfConfirmed),
            (4, &[None, Some(7)], &limited),
            (4, &[Some(2_018_354)], &Never),
            (5, &[None], &Stop),
            (8, &[None], &Stop),
            (9, &[Some(2_018_352)], &Never),
            (9, &[None], &InDoubt),
            (10, &[None], &StopIfConfirmed),
            (10, &[Some(1_893_063), Some(1_404_170)], &Stop),
            (11, &[None], &Stop),
            (12, &[None], &Stop),
            (15, &[None], &Stop),
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
            (21, &[None], &Stop),
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
                &StopIfConfirmed,
            ),
            (101, &[None], &Stop),
            (102, &[None], &Stop),
            (104, &[None], &Stop),
            (190, &[None, Some(458), Some(463), Some(467), Some(2_069_032)], &Stop),
            (200, &[None, Some(2_018_028), Some(2_018_027)], &StopIfConfirmed),
            (200, &[Some(1_545_041)], &Never),
            (230, &[None], &StopIfConfirmed),
            (299, &[None], &StopIfConfirmed),
            (300, &[None], &InDoubt),
            (341, &[None], &limited),
            (368, &[None], &Stop),
            (551, &[None, Some(1_545_041)], &Never),
            (613, &[None, Some(2_534_040), Some(1_996)], &limited),
            (613, &[Some(2_018_338)], &Stop),
            (613, &[Some(1_893_016)], &Never),
            (803, &[None], &Stop),
            (1_200, &[None, Some(2_018_024)], &InDoubt),
            (2_022, &[None], &Stop),
            (2_500, &[None], &Stop),
            (2_069_032, &[None], &Stop),
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
                assert_eq!(&refused(code, *subcode).verdict(), verdict, "{code}/{subcode:?}");
            }
        }
        assert_eq!(SendError::NotConnected.verdict(), Verdict::Later);
        assert_eq!(SendError::NoAnswer("timed out").verdict(), InDoubt);
    }

    #[test]
    fn rate_limit_carries_the_time_to_regain_access() {
        let regain_after = Some(Duration::from_secs(1_140));
        let refusal = Refusal {
            code: 80_006,
            regain_after,
            ..Refusal::default()
        };
        assert_eq!(refusal.verdict(), Verdict::RateLimited(regain_after));
    }

    #[test]
    fn only_codes_that_may_concern_every_contact_are_suspicious() {
        let code = |code, subcode| ErrorCode { code, subcode };
        for (code, subcode, signal) in [
            (100, None, Signal::RefusedSuspiciously(100)),
            (100, Some(7), Signal::RefusedSuspiciously(100)),
            (100, Some(2_018_001), Signal::Answered),
            (10, Some(7), Signal::RefusedSuspiciously(10)),
            (10, Some(2_018_278), Signal::Answered),
            (551, None, Signal::Answered),
            (613, None, Signal::Answered),
            (1, None, Signal::Lost),
            (1_200, None, Signal::Lost),
            (987_654, Some(7), Signal::Unknown(code(987_654, Some(7)))),
            (200, Some(2_018_028), Signal::Suspected(code(200, Some(2_018_028)))),
            (190, None, Signal::Answered),
        ] {
            assert_eq!(refused(code, subcode).signal(), signal, "{code}/{subcode:?}");
        }
        let unknown_user = SendError::Refused(Refusal {
            code: 100,
            no_matching_user: true,
            ..Refusal::default()
        });
        assert_eq!(unknown_user.signal(), Signal::Answered);
        assert_eq!(SendError::NotConnected.signal(), Signal::Lost);
        assert_eq!(SendError::NoAnswer("timed out").signal(), Signal::Lost);
    }

    #[test]
    fn refused_call_stops_the_job_and_refused_contact_does_not() {
        let refused = |subcode, no_matching_user| Refusal {
            code: 100,
            subcode,
            no_matching_user,
            refuses_call: true,
            regain_after: None,
        };
        assert_eq!(refused(None, false).verdict(), Verdict::Stop);
        assert_eq!(refused(Some(7), false).verdict(), Verdict::Stop);
        assert_eq!(refused(None, true).verdict(), Verdict::Never);
        assert_eq!(refused(Some(2_018_001), false).verdict(), Verdict::Never);
        assert_eq!(refused(Some(33), false).verdict(), Verdict::StopIfConfirmed);
    }
}
