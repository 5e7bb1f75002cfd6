//! The deliveries table: the reservation that gives the right to send, and what may be recorded from where.

use std::fmt;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use jiff::Timestamp;

use super::doubts::Settled;
use super::{
    Error, Item, REPORT_OUTLIVES, SCHEMA, Store, at, conditionally, expiry, from_item, patiently,
    unsettled, value,
};
use crate::delivery::{Delivery, State, Status};
use crate::ids::{BroadcastId, ContactId, JobId, PageId, token};
use crate::job::Job;
use crate::metrics::Event;

/// The right to send to one contact, once: made by a won conditional write, used up by recording what became of it.
#[derive(Debug)]
#[must_use]
pub struct Reservation {
    job: JobId,
    /// Whom it is for.
    pub contact_id: ContactId,
    token: String,
    /// Reservations spent on this contact, with this one.
    pub attempt: u32,
    /// Another attempt was made before that may have arrived.
    pub earlier_doubt: bool,
    reserved_at: Timestamp,
    since: Instant,
}

/// What goes with a message so that its echo can be told: the delivery's key and attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The job.
    pub job: JobId,
    /// The contact.
    pub contact_id: ContactId,
    /// Which reservation of the contact it was sent under, from 1.
    pub attempt: u32,
}

impl Metadata {
    const PREFIX: &str = "oncecast/1";

    /// Reads what Messenger gives back, or nothing if it is not ours.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        if words.next()? != Self::PREFIX {
            return None;
        }
        let broadcast_id = BroadcastId::parse(words.next()?)?;
        let page_id = PageId::parse(words.next()?).ok()?;
        let attempt = words.next()?.parse().ok()?;
        let contact_id = ContactId::parse(words.next()?).ok()?;
        words.next().is_none().then_some(Self {
            job: JobId {
                broadcast_id,
                page_id,
            },
            contact_id,
            attempt,
        })
    }
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let JobId {
            broadcast_id,
            page_id,
        } = &self.job;
        let (prefix, attempt, contact_id) = (Self::PREFIX, self.attempt, &self.contact_id);
        write!(
            f,
            "{prefix} {broadcast_id} {page_id} {attempt} {contact_id}"
        )
    }
}

impl Reservation {
    /// Whether it is younger than this by the monotonic and by the wall clock: a process that was frozen between reserving
    /// and sending must not send.
    pub fn is_younger_than(&self, age: Duration, now: Timestamp) -> bool {
        let by_wall_clock = now.duration_since(self.reserved_at).unsigned_abs();
        self.since.elapsed() < age && by_wall_clock < age
    }

    /// What goes with the message.
    pub fn metadata(&self) -> Metadata {
        Metadata {
            job: self.job.clone(),
            contact_id: self.contact_id.clone(),
            attempt: self.attempt,
        }
    }

    /// The same, at no cost to the contact: what happened was not about them.
    pub fn uncharged(self) -> Self {
        Self {
            attempt: self.attempt.saturating_sub(1),
            ..self
        }
    }

    /// Whether the row stands under this reservation, whatever it says.
    pub fn is_of(&self, row: &Delivery) -> bool {
        row.token == self.token
    }

    /// Gives the right up to a checkpoint, which will put the contact in doubt for this reason.
    pub fn into_doubt(self, reason: String) -> Doubt {
        Doubt {
            token: self.token,
            reserved_at: self.reserved_at,
            reason,
            ours: true,
        }
    }
}

/// A row that a checkpoint is to put in doubt, while it is still reserved under this token.
#[derive(Clone, Debug)]
pub struct Doubt {
    /// The reservation that was seen.
    pub token: String,
    /// When that was made.
    pub reserved_at: Timestamp,
    /// How the answer was lost.
    pub reason: String,
    /// The reservation was made by this worker; else by one who is gone.
    pub ours: bool,
}

/// Whether the contact is ours to send to.
#[derive(Debug)]
pub enum Reserve {
    /// It is.
    Granted(Reservation),
    /// It is not; the row says what to do.
    Refused(Delivery),
}

/// Whether an outcome was recorded.
#[derive(Debug)]
pub enum Record {
    /// The row holds it, and the cursor will count it.
    Written,
    /// The row was in doubt meanwhile; now it and the job's counters hold the outcome.
    WrittenLate,
    /// The row says otherwise, and stays as it is.
    Refused(Box<Delivery>),
}

impl Store {
    /// Takes the right to send to this contact, unless somebody has it or the delivery is settled.
    ///
    /// Who is not due is refused, and so is a worker who has been overtaken: a row that waits is stamped with the epoch of
    /// the last worker who passed it. `text_digest` is what a look-up will know the message by, if it is a text.
    pub async fn reserve(
        &self,
        job: &Job,
        contact_id: &ContactId,
        text_digest: Option<&str>,
        now: Timestamp,
    ) -> Result<Reserve, Error> {
        const RESERVE: &str = "SET #status = :reserved, epoch = :epoch, #token = :token, reserved_at = :now, \
                               updated_at = :now, expires_at = :expires_at, \
                               #schema = if_not_exists(#schema, :schema)";
        const IF_TEXT: &str = ", text_digest = :digest";
        const BEGIN_ANEW: &str = " REMOVE not_before, reason ADD attempts :one";
        const IF_FREE: &str = "attribute_not_exists(contact_id) \
                               OR (#status = :waiting AND not_before <= :now AND epoch <= :epoch)";
        const OPERATION: &str = "reserve a delivery";
        let (job_id, token, since) = (job.id(), token(), Instant::now());
        let mut call = self.update_delivery(&job_id, contact_id)?;
        let mut if_text = "";
        if let Some(digest) = text_digest {
            call = call.expression_attribute_values(":digest", value(digest)?);
            if_text = IF_TEXT;
        }
        let call = call
            .update_expression(format!("{RESERVE}{if_text}{BEGIN_ANEW}"))
            .condition_expression(IF_FREE)
            .expression_attribute_names("#status", "status")
            .expression_attribute_names("#token", "token")
            .expression_attribute_names("#schema", "schema")
            .expression_attribute_values(":reserved", value(Status::Reserved)?)
            .expression_attribute_values(":waiting", value(Status::Waiting)?)
            .expression_attribute_values(":epoch", value(job.epoch)?)
            .expression_attribute_values(":token", value(&token)?)
            .expression_attribute_values(":now", at(now)?)
            .expression_attribute_values(
                ":expires_at",
                value(expiry(job.retained_until, REPORT_OUTLIVES))?,
            )
            .expression_attribute_values(":schema", value(SCHEMA)?)
            .expression_attribute_values(":one", value(1)?)
            .return_values(aws_sdk_dynamodb::types::ReturnValue::AllNew);
        let row = match conditionally(OPERATION, call).await? {
            Ok(item) => from_item(OPERATION, item)?,
            Err(item) => delivery(OPERATION, item)?,
        };
        // Repeated after a lost answer, the call may find its own reservation moved on by another.
        if row.token != token || row.state != State::Reserved {
            return Ok(Reserve::Refused(row));
        }
        Ok(Reserve::Granted(Reservation {
            job: job_id,
            contact_id: contact_id.clone(),
            token,
            attempt: row.attempts,
            earlier_doubt: row.earlier_doubt.is_some(),
            reserved_at: now,
            since,
        }))
    }

    /// Marks a waiting row as passed by this epoch, so that a worker who has been overtaken cannot take it through its old
    /// place in line. What changed meanwhile is returned, to be handled as found.
    pub async fn stamp(&self, job: &Job, row: &Delivery) -> Result<Option<Delivery>, Error> {
        const STAMP: &str = "SET epoch = :epoch";
        const IF_NOT_PASSED: &str = "#status = :waiting AND #token = :token AND epoch <= :epoch";
        const OPERATION: &str = "stamp a waiting delivery";
        let call = self
            .update_delivery(&job.id(), &row.contact_id)?
            .update_expression(STAMP)
            .condition_expression(IF_NOT_PASSED)
            .expression_attribute_names("#status", "status")
            .expression_attribute_names("#token", "token")
            .expression_attribute_values(":waiting", value(Status::Waiting)?)
            .expression_attribute_values(":token", value(&row.token)?)
            .expression_attribute_values(":epoch", value(job.epoch)?);
        match conditionally(OPERATION, call).await? {
            Ok(_) => Ok(None),
            Err(item) => Ok(Some(delivery(OPERATION, item)?)),
        }
    }

    /// Records what became of a reservation, while the row is still reserved under it.
    ///
    /// If a newer worker has put the row in doubt meanwhile, only an outcome that Messenger itself gave may still be
    /// recorded: `sent` or `failed`. Never back in line, for somebody else has passed it.
    pub async fn record(
        &self,
        reservation: &Reservation,
        outcome: &State,
        now: Timestamp,
    ) -> Result<Record, Error> {
        const OPERATION: &str = "record a delivery";
        let update = Outcome::of(outcome, reservation.attempt);
        let call = self
            .update_delivery(&reservation.job, &reservation.contact_id)?
            .update_expression(update.expression)
            .condition_expression(IF_UNCHANGED)
            .set_expression_attribute_names(Some(names()))
            .set_expression_attribute_values(Some(update.values(
                &reservation.token,
                Status::Reserved,
                now,
            )?));
        let Err(item) = conditionally(OPERATION, call).await? else {
            self.count(outcome);
            return Ok(Record::Written);
        };
        let row = delivery(OPERATION, item)?;
        if row.token != reservation.token {
            return Ok(Record::Refused(Box::new(row)));
        }
        match (&row.state, outcome) {
            (State::InDoubt { .. }, State::Sent { .. } | State::Failed { .. }) => {
                let settled = self.settle(&reservation.job, &row, outcome, None, now);
                Ok(match settled.await? {
                    Settled::Now => Record::WrittenLate,
                    Settled::Otherwise(row) => Record::Refused(row),
                    Settled::MessageTaken | Settled::JobGone => Record::Refused(Box::new(row)),
                })
            }
            (found, written) if found == written => {
                // Written by us, and the answer was lost; or at another time by its echo, which has counted it.
                if row.updated_at == now {
                    self.count(outcome);
                }
                Ok(Record::Written)
            }
            _ => Ok(Record::Refused(Box::new(row))),
        }
    }

    /// Counts what a delivery has come to, by a write that was made.
    pub(super) fn count(&self, outcome: &State) {
        if let Some(event) = Event::of(outcome) {
            self.metrics.count(event, 1);
        }
    }

    /// One delivery, as of now.
    pub async fn delivery(
        &self,
        job: &JobId,
        contact_id: &ContactId,
    ) -> Result<Option<Delivery>, Error> {
        const OPERATION: &str = "read a delivery";
        let call = self
            .client
            .get_item()
            .table_name(&self.deliveries)
            .key("job", value(job.to_string())?)
            .key("contact_id", value(contact_id)?)
            .consistent_read(true);
        let found = patiently(|| call.clone().send())
            .await
            .map_err(unsettled(OPERATION))?;
        found
            .item
            .map(|item| from_item(OPERATION, item))
            .transpose()
    }

    /// The rows of a job by contact id, from after `after`; at most `limit`, of which those with another status are left
    /// out. The id to go on after, unless that was all.
    pub async fn deliveries(
        &self,
        job: &JobId,
        status: Option<Status>,
        after: Option<&ContactId>,
        limit: i32,
    ) -> Result<(Vec<Delivery>, Option<ContactId>), Error> {
        let mut call = self.rows_of(job, after)?.limit(limit);
        if let Some(status) = status {
            call = call
                .filter_expression("#status = :status")
                .expression_attribute_names("#status", "status")
                .expression_attribute_values(":status", value(status)?);
        }
        self.some_rows("list deliveries", call).await
    }

    /// A query of the rows of a job by contact id, from after `after`.
    pub(super) fn rows_of(
        &self,
        job: &JobId,
        after: Option<&ContactId>,
    ) -> Result<QueryFluentBuilder, Error> {
        let mut call = self
            .client
            .query()
            .table_name(&self.deliveries)
            .key_condition_expression("job = :job")
            .expression_attribute_values(":job", value(job.to_string())?)
            .consistent_read(true);
        if let Some(after) = after {
            call = call
                .exclusive_start_key("job", value(job.to_string())?)
                .exclusive_start_key("contact_id", value(after)?);
        }
        Ok(call)
    }

    /// What such a query finds at once, and the id to go on after, unless that was all.
    pub(super) async fn some_rows(
        &self,
        operation: &'static str,
        call: QueryFluentBuilder,
    ) -> Result<(Vec<Delivery>, Option<ContactId>), Error> {
        let found = patiently(|| call.clone().send())
            .await
            .map_err(unsettled(operation))?;
        let rows = found.items.unwrap_or_default().into_iter();
        let rows = rows
            .map(|item| from_item(operation, item))
            .collect::<Result<_, _>>()?;
        let last = found
            .last_evaluated_key
            .and_then(|mut key| key.remove("contact_id"));
        let last = last.and_then(|id| id.as_s().ok().and_then(|id| ContactId::parse(id).ok()));
        Ok((rows, last))
    }

    pub(super) fn update_delivery(
        &self,
        job: &JobId,
        contact_id: &ContactId,
    ) -> Result<UpdateItemFluentBuilder, Error> {
        Ok(self
            .client
            .update_item()
            .table_name(&self.deliveries)
            .key("job", value(job.to_string())?)
            .key("contact_id", value(contact_id)?))
    }
}

/// Nobody has moved the row on since it was seen under this token.
pub(super) const IF_UNCHANGED: &str = "#status = :expected AND #token = :token";

pub(super) fn names() -> std::collections::HashMap<String, String> {
    [("#status", "status"), ("#token", "token")]
        .map(|(name, attribute)| (name.to_owned(), attribute.to_owned()))
        .into()
}

/// The row that refused a write.
pub(super) fn delivery(operation: &'static str, item: Option<Item>) -> Result<Delivery, Error> {
    from_item(operation, item.ok_or(Error::Gone { operation })?)
}

/// How a state is written.
pub(super) struct Outcome<'a> {
    pub(super) expression: &'static str,
    state: &'a State,
    attempts: u32,
}

impl<'a> Outcome<'a> {
    pub(super) fn of(state: &'a State, attempts: u32) -> Self {
        const SENT: &str = "SET #status = :status, updated_at = :now, message_id = :message_id \
                            REMOVE reason, doubt_shard, look_at";
        const WAITING: &str = "SET #status = :status, updated_at = :now, reason = :reason, not_before = :not_before, attempts = :attempts";
        const OTHER: &str = "SET #status = :status, updated_at = :now, reason = :reason REMOVE doubt_shard, look_at";
        let expression = match state {
            State::Sent { .. } => SENT,
            State::Waiting { .. } => WAITING,
            State::Reserved
            | State::Failed { .. }
            | State::Skipped { .. }
            | State::InDoubt { .. } => OTHER,
        };
        Self {
            expression,
            state,
            attempts,
        }
    }

    pub(super) fn values(
        &self,
        token: &str,
        expected: Status,
        now: Timestamp,
    ) -> Result<Item, Error> {
        let mut values = Item::from([
            (":status".to_owned(), value(self.state.status())?),
            (":now".to_owned(), at(now)?),
            (":token".to_owned(), value(token)?),
            (":expected".to_owned(), value(expected)?),
        ]);
        match self.state {
            State::Sent { message_id } => {
                values.insert(":message_id".to_owned(), value(message_id)?)
            }
            State::Waiting { not_before, reason } => {
                values.insert(":attempts".to_owned(), value(self.attempts)?);
                values.insert(":not_before".to_owned(), at(*not_before)?);
                values.insert(":reason".to_owned(), value(reason)?)
            }
            other => values.insert(":reason".to_owned(), value(other.reason())?),
        };
        Ok(values)
    }
}
