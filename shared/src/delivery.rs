//! The row of one contact in one job: the per-contact idempotency key and its outcome.

use std::fmt;

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};

use crate::ids::ContactId;

/// One contact in one job. There is no row before the first reservation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// Whom the message is for.
    pub contact_id: ContactId,
    /// The epoch of the claim that last reserved or stamped it.
    pub epoch: u64,
    /// The random value of the reservation that it stands under.
    pub token: String,
    /// Reservations that were spent on it.
    pub attempts: u32,
    /// The job's counters hold its outcome already, so the cursor leaves it out.
    #[serde(default)]
    pub counted: bool,
    /// When it was reserved.
    #[serde(with = "millisecond::required")]
    pub reserved_at: Timestamp,
    /// When the first attempt was reserved that may have arrived although another was made since: such a contact is never
    /// `failed` or `skipped`.
    #[serde(
        default,
        with = "millisecond::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub earlier_doubt: Option<Timestamp>,
    /// The [`digest`](crate::message::digest) of the text that it was reserved for, by which a look-up knows it again; none
    /// if the message is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_digest: Option<String>,
    /// When Messenger is asked for the message next, while it is in doubt; none if it is not asked any more.
    #[serde(
        default,
        with = "millisecond::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub look_at: Option<Timestamp>,
    /// When it last changed.
    #[serde(with = "millisecond::required")]
    pub updated_at: Timestamp,
    /// What is known about it.
    #[serde(flatten)]
    pub state: State,
}

/// What is known about a delivery, and who moves it on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum State {
    /// Somebody may be sending right now: only the holder of the token may say what became of it.
    /// Whoever finds it under an older epoch puts it in doubt: it is never free again by time.
    Reserved,
    /// Messenger accepted it. Final.
    Sent {
        /// Messenger's id of the message.
        message_id: String,
    },
    /// Messenger refused it for good. Final, but for an operator's retry.
    Failed {
        /// What Messenger, or the message itself, had against it.
        reason: String,
    },
    /// It was not sent, because it should not be. Final, but for an operator's retry.
    Skipped {
        /// Why.
        reason: String,
    },
    /// It stands in line again; whoever meets it there when it is due reserves it.
    Waiting {
        /// Before this it is not due.
        #[serde(with = "millisecond::required")]
        not_before: Timestamp,
        /// Why it was not sent.
        reason: String,
    },
    /// Messenger may or may not have accepted it. Only evidence, or who answers for the risk, moves it on.
    InDoubt {
        /// How the answer was lost.
        reason: String,
    },
}

/// The name of a [`State`], as stored, filtered by and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// See [`State::Reserved`].
    Reserved,
    /// See [`State::Sent`].
    Sent,
    /// See [`State::Failed`].
    Failed,
    /// See [`State::Skipped`].
    Skipped,
    /// See [`State::Waiting`].
    Waiting,
    /// See [`State::InDoubt`].
    InDoubt,
}

/// As stored and shown.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl State {
    /// Its name.
    pub fn status(&self) -> Status {
        match self {
            Self::Reserved => Status::Reserved,
            Self::Sent { .. } => Status::Sent,
            Self::Failed { .. } => Status::Failed,
            Self::Skipped { .. } => Status::Skipped,
            Self::Waiting { .. } => Status::Waiting,
            Self::InDoubt { .. } => Status::InDoubt,
        }
    }

    /// Messenger's id of the message, once accepted.
    pub fn message_id(&self) -> Option<&str> {
        match self {
            Self::Sent { message_id } => Some(message_id),
            _ => None,
        }
    }

    /// Why it is not sent.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Failed { reason }
            | Self::Skipped { reason }
            | Self::Waiting { reason, .. }
            | Self::InDoubt { reason } => Some(reason),
            Self::Reserved | Self::Sent { .. } => None,
        }
    }
}
