//! The delivery row of one contact in one job: the per-contact idempotency key, its state, and the right to send.

use std::fmt;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::ids::{BroadcastId, ContactId, JobId, PageId};
use crate::domain::job::Job;
use crate::domain::reasons::{NotSent, code_of};

/// One contact in one job. There is no row before the first reservation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// The contact that the message is for.
    pub contact_id: ContactId,
    /// The epoch of the claim that last reserved or stamped the row.
    pub epoch: u64,
    /// The random value of the row's last reservation.
    pub token: String,
    /// The number of reservations that were charged to the contact.
    pub attempts: u32,
    /// `true` if the job's counters hold the outcome already, so that the cursor leaves the row out.
    #[serde(default)]
    pub counted: bool,
    /// The time of the last reservation.
    #[serde(with = "millisecond::required")]
    pub reserved_at: Timestamp,
    /// The reservation time of the first attempt that may have arrived although another attempt was made since. A contact
    /// that has one is never `failed` or `skipped`.
    #[serde(default, with = "millisecond::optional", skip_serializing_if = "Option::is_none")]
    pub earlier_doubt: Option<Timestamp>,
    /// The time at which Messenger first refused the contact with an error that may concern every contact: the contact fails
    /// if it is refused so again after the operator has resumed the job.
    #[serde(default, with = "millisecond::optional", skip_serializing_if = "Option::is_none")]
    pub refused_at: Option<Timestamp>,
    /// The [`digest`](crate::domain::digest::digest) of the text that the row was reserved for, by which a lookup
    /// recognizes the message; `None` if the message has no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_digest: Option<String>,
    /// The time of the next lookup while the row is in doubt; `None` if there is no further lookup.
    #[serde(
        default,
        rename = "look_at",
        with = "millisecond::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub lookup_at: Option<Timestamp>,
    /// Messenger's id of a message that arrived although the delivery was recorded as `failed` or `skipped`: its echo came
    /// later. The state stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived_as: Option<String>,
    /// The [`code`](code_of) of the reason under which the outcome is counted; `None` if there is no reason, or an earlier
    /// version wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The time of the last change.
    #[serde(with = "millisecond::required")]
    pub updated_at: Timestamp,
    /// The state of the delivery.
    #[serde(flatten)]
    pub state: State,
}

impl Delivery {
    /// Returns Messenger's id of the message that the contact is known to have got.
    pub fn message_id(&self) -> Option<&str> {
        match &self.state {
            State::Sent { message_id } => Some(message_id),
            _ => self.arrived_as.as_deref(),
        }
    }

    /// Returns the status by which the outcome is counted by reason, and the reason's code; `None` for other outcomes.
    pub fn not_sent(&self) -> Option<(NotSent, String)> {
        let (status, reason) = self.state.not_sent()?;
        Some((status, self.code.clone().unwrap_or_else(|| code_of(reason))))
    }
}

/// The state of a delivery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum State {
    /// A worker may be sending right now; only the holder of the token may record the outcome.
    ///
    /// A worker that finds the row under an older epoch puts it in doubt: a reservation never expires by time.
    Reserved,
    /// Messenger accepted the message. Final.
    Sent {
        /// Messenger's id of the message.
        message_id: String,
    },
    /// Messenger refused the message for good. Final, except for an operator's retry.
    Failed {
        /// The refusal, or the fault of the message itself.
        reason: String,
    },
    /// The message was not sent, because it should not be. Final, except for an operator's retry.
    Skipped {
        /// The reason not to send.
        reason: String,
    },
    /// The contact is in the backlog again; the worker that reaches it when it is due reserves it.
    Waiting {
        /// The time from which the contact is due.
        #[serde(with = "millisecond::required")]
        not_before: Timestamp,
        /// The reason why the last attempt sent nothing.
        reason: String,
    },
    /// Messenger may or may not have accepted the message. Only evidence or an ordered resend moves the row on.
    InDoubt {
        /// The way in which the answer was lost.
        reason: String,
    },
}

/// The name of a [`State`], as it is stored, filtered by and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[schema(as = DeliveryStatus, description = "The state of a delivery.")]
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

/// Writes the name as it is stored and shown.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl State {
    /// Returns the name of the state.
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

    /// Returns the reason why the message is not known to be sent.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Failed { reason }
            | Self::Skipped { reason }
            | Self::Waiting { reason, .. }
            | Self::InDoubt { reason } => Some(reason),
            Self::Reserved | Self::Sent { .. } => None,
        }
    }

    /// Returns the status by which the state is counted by reason, and the reason; `None` for other states.
    pub fn not_sent(&self) -> Option<(NotSent, &str)> {
        match self {
            Self::Failed { reason } => Some((NotSent::Failed, reason)),
            Self::Skipped { reason } => Some((NotSent::Skipped, reason)),
            Self::InDoubt { reason } => Some((NotSent::InDoubt, reason)),
            Self::Reserved | Self::Sent { .. } | Self::Waiting { .. } => None,
        }
    }
}

/// The right to send to one contact, once: granted by a won conditional write, used up by recording the outcome.
#[derive(Debug)]
#[must_use]
pub struct Reservation {
    job: JobId,
    /// The contact that may be sent to.
    pub contact_id: ContactId,
    token: String,
    /// The number of reservations charged to this contact, this one included.
    pub attempt: u32,
    /// `true` if an earlier attempt may have arrived.
    pub earlier_doubt: bool,
    /// `true` if Messenger refused the contact before the operator resumed the job, with an error that may concern every
    /// contact.
    pub refused_before_resume: bool,
    refused_at: Option<Timestamp>,
    reserved_at: Timestamp,
    since: Instant,
}

impl Reservation {
    /// Returns the right that a won conditional write gives; only the store calls this. `before` is the row as it was before, if
    /// there was one.
    ///
    /// `since` is the instant *before* the write was begun, so that the reservation never seems younger than it is.
    pub(crate) fn granted(
        job: &Job,
        contact_id: &ContactId,
        token: String,
        before: Option<&Delivery>,
        reserved_at: Timestamp,
        since: Instant,
    ) -> Self {
        let refused_at = before.and_then(|row| row.refused_at);
        let refused_and_resumed = refused_at.zip(job.breakers.resumed_at);
        Self {
            job: job.id(),
            contact_id: contact_id.clone(),
            token,
            attempt: before.map_or(0, |row| row.attempts) + 1,
            earlier_doubt: before.is_some_and(|row| row.earlier_doubt.is_some()),
            refused_before_resume: refused_and_resumed.is_some_and(|(refused, resumed)| refused <= resumed),
            refused_at,
            reserved_at,
            since,
        }
    }

    /// Returns the job that the reservation was made for.
    pub(crate) fn job(&self) -> &JobId {
        &self.job
    }

    /// Returns the random value that the row carries while this reservation is its last.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Returns `true` if the reservation is younger than `age` by the monotonic and by the wall clock: a process that was
    /// frozen before sending must not send.
    pub fn is_younger_than(&self, age: Duration, now: Timestamp) -> bool {
        let by_wall_clock = now.duration_since(self.reserved_at).unsigned_abs();
        self.since.elapsed() < age && by_wall_clock < age
    }

    /// Returns the same reservation with its age counted from an earlier instant, at which what it relies on was read.
    pub fn counted_from(self, since: Instant) -> Self {
        Self {
            since: self.since.min(since),
            ..self
        }
    }

    /// Returns the metadata that is sent with the message.
    pub fn metadata(&self) -> Metadata {
        Metadata {
            job: self.job.clone(),
            contact_id: self.contact_id.clone(),
            attempt: self.attempt,
        }
    }

    /// Returns the same reservation without its charge to the contact, for an outcome that the contact did not cause.
    pub fn uncharged(self) -> Self {
        Self {
            attempt: self.attempt.saturating_sub(1),
            ..self
        }
    }

    /// Returns the same reservation with the mark that Messenger refused the contact, with an error that may concern every
    /// contact; the time of the first such refusal stays.
    pub fn refused(self, now: Timestamp) -> Self {
        Self {
            refused_at: self.refused_at.or(Some(now)),
            ..self
        }
    }

    /// Returns the time of that refusal, which the row is to keep.
    pub(crate) fn refused_at(&self) -> Option<Timestamp> {
        self.refused_at
    }

    /// Returns `true` if the row's last reservation is this one, whatever the row's state.
    pub fn is_of(&self, row: &Delivery) -> bool {
        row.token == self.token
    }

    /// Gives the right up to a checkpoint, which puts the contact in doubt for this reason.
    pub fn into_doubt(self, reason: String) -> Doubt {
        Doubt {
            token: self.token,
            reserved_at: self.reserved_at,
            reason,
            ours: true,
            was: Status::Reserved,
        }
    }
}

/// A row that a checkpoint is to put in doubt, provided that the row is still in this state under this token.
#[derive(Clone, Debug)]
pub struct Doubt {
    /// The token of the reservation that was seen.
    pub token: String,
    /// The time of that reservation.
    pub reserved_at: Timestamp,
    /// The way in which the answer was lost.
    pub reason: String,
    /// `true` if this worker made the reservation; otherwise a worker made it that is gone.
    pub ours: bool,
    /// The state that was seen: `reserved`; or `waiting`, if nothing is to be sent any more to a contact of which an earlier
    /// attempt may have arrived.
    pub was: Status,
}

/// The text that is sent with a message so that its echo can be recognized: the delivery's key and attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The job.
    pub job: JobId,
    /// The contact.
    pub contact_id: ContactId,
    /// The attempt that the message was sent in, from 1.
    pub attempt: u32,
}

impl Metadata {
    const PREFIX: &str = "oncecast/1";

    /// Returns the key of the delivery.
    pub fn key(&self) -> (JobId, ContactId) {
        (self.job.clone(), self.contact_id.clone())
    }

    /// Returns `true` if a text begins as the metadata that this version writes.
    pub fn is_like(text: &str) -> bool {
        text.split(' ').next() == Some(Self::PREFIX)
    }

    /// Parses the metadata of an echo; `None` if Oncecast did not write it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        if words.next()? != Self::PREFIX {
            return None;
        }
        let broadcast_id = BroadcastId::parse(words.next()?)?;
        let page_id = PageId::parse(words.next()?).ok()?;
        let attempt = words.next()?.parse().ok()?;
        let contact_id = ContactId::parse_stored(words.next()?)?;
        words.next().is_none().then_some(Self {
            job: JobId { broadcast_id, page_id },
            contact_id,
            attempt,
        })
    }
}

/// Writes the form that [`Metadata::parse`] reads.
impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let JobId { broadcast_id, page_id } = &self.job;
        let (prefix, attempt, contact_id) = (Self::PREFIX, self.attempt, &self.contact_id);
        write!(f, "{prefix} {broadcast_id} {page_id} {attempt} {contact_id}")
    }
}

/// The part of a delivery that tells whether the contact has got a broadcast.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PastDelivery {
    /// The contact.
    pub contact_id: ContactId,
    /// The state of the delivery.
    pub status: Status,
    /// Messenger's id of a message that arrived although the delivery failed or was skipped.
    #[serde(default)]
    pub arrived_as: Option<String>,
    /// The time of an earlier attempt that may have arrived.
    #[serde(default, with = "millisecond::optional")]
    pub earlier_doubt: Option<Timestamp>,
}

impl PastDelivery {
    /// Returns `true` if the message is known to have arrived.
    pub fn has_arrived(&self) -> bool {
        self.status == Status::Sent || self.arrived_as.is_some()
    }

    /// Returns `true` unless the message is known not to have arrived.
    pub fn may_have_arrived(&self) -> bool {
        let is_open = matches!(self.status, Status::Reserved | Status::InDoubt);
        self.has_arrived() || is_open || self.earlier_doubt.is_some()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn delivery_that_may_have_arrived_is_neither_sent_nor_unsent() {
        let arrived = |row: Value| {
            let row: PastDelivery = serde_json::from_value(row).unwrap();
            (row.has_arrived(), row.may_have_arrived())
        };
        let row = |status: &str| json!({"contact_id": "ana", "status": status});
        assert_eq!(arrived(row("sent")), (true, true));
        for open in ["reserved", "in_doubt"] {
            assert_eq!(arrived(row(open)), (false, true), "{open}");
        }
        for unsent in ["waiting", "failed", "skipped"] {
            assert_eq!(arrived(row(unsent)), (false, false), "{unsent}");
        }
        let late = json!({"contact_id": "ana", "status": "failed", "arrived_as": "m_1"});
        assert_eq!(arrived(late), (true, true));
        let again = json!({"contact_id": "ana", "status": "waiting", "earlier_doubt": 1_764_000_000_000_i64});
        assert_eq!(arrived(again), (false, true));
    }
}
