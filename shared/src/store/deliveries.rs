//! The deliveries table: the reservation that gives the right to send, and what may be recorded from where.

use std::time::{Duration, Instant};

use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update};
use jiff::Timestamp;

use super::{
    Error, Item, REPORT_OUTLIVES, SCHEMA, Store, at, conditionally, expiry, from_item, incomplete,
    patiently, refused, transact, unsettled, value,
};
use crate::delivery::{Delivery, State, Status};
use crate::ids::{ContactId, JobId, PageId, token};
use crate::job::Job;

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
    reserved_at: Timestamp,
    since: Instant,
}

impl Reservation {
    /// Whether it is younger than this by the monotonic and by the wall clock: a process that was frozen between reserving
    /// and sending must not send.
    pub fn is_younger_than(&self, age: Duration, now: Timestamp) -> bool {
        let by_wall_clock = now.duration_since(self.reserved_at).unsigned_abs();
        self.since.elapsed() < age && by_wall_clock < age
    }

    /// What goes with the message so that its echo can be told: the delivery's key and attempt.
    pub fn metadata(&self, page_id: &PageId) -> String {
        format!(
            "oncecast/1 {} {page_id} {} {}",
            self.job.broadcast_id, self.attempt, self.contact_id
        )
    }

    /// The same, at no cost to the contact: what happened was not about them.
    pub fn uncharged(self) -> Self {
        Self {
            attempt: self.attempt.saturating_sub(1),
            ..self
        }
    }

    /// Gives the right up to a checkpoint, which will put the contact in doubt.
    pub fn into_token(self) -> String {
        self.token
    }
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
    Refused(Delivery),
}

impl Store {
    /// Takes the right to send to this contact, unless somebody has it or the delivery is settled.
    ///
    /// Who is not due is refused, and so is a worker who has been overtaken: a row that waits is stamped with the epoch of
    /// the last worker who passed it.
    pub async fn reserve(
        &self,
        job: &Job,
        contact_id: &ContactId,
        now: Timestamp,
    ) -> Result<Reserve, Error> {
        const RESERVE: &str = "SET #status = :reserved, epoch = :epoch, #token = :token, reserved_at = :now, \
                               updated_at = :now, expires_at = :expires_at, #schema = :schema \
                               REMOVE not_before, reason ADD attempts :one";
        const IF_FREE: &str = "attribute_not_exists(contact_id) \
                               OR (#status = :waiting AND not_before <= :now AND epoch <= :epoch)";
        const OPERATION: &str = "reserve a delivery";
        let (job_id, token, since) = (job.id(), token(), Instant::now());
        let call = self
            .update_delivery(&job_id, contact_id)?
            .update_expression(RESERVE)
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
        if row.token != token {
            return Ok(Reserve::Refused(row));
        }
        Ok(Reserve::Granted(Reservation {
            job: job_id,
            contact_id: contact_id.clone(),
            token,
            attempt: row.attempts,
            reserved_at: now,
            since,
        }))
    }

    /// Marks a waiting row as passed by this epoch, so that a worker who has been overtaken cannot take it through its old
    /// place in line. What changed meanwhile is returned, to be handled as found.
    pub async fn stamp(&self, job: &Job, row: &Delivery) -> Result<Option<Delivery>, Error> {
        const STAMP: &str = "SET epoch = :epoch";
        const IF_UNCHANGED: &str = "#status = :waiting AND #token = :token AND epoch <= :epoch";
        const OPERATION: &str = "stamp a waiting delivery";
        let call = self
            .update_delivery(&job.id(), &row.contact_id)?
            .update_expression(STAMP)
            .condition_expression(IF_UNCHANGED)
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
        reservation: Reservation,
        outcome: &State,
        now: Timestamp,
    ) -> Result<Record, Error> {
        const OPERATION: &str = "record a delivery";
        let update = Outcome::of(outcome, reservation.attempt);
        let call = self
            .update_delivery(&reservation.job, &reservation.contact_id)?
            .update_expression(update.expression)
            .condition_expression(IF_STILL_OURS)
            .set_expression_attribute_names(Some(names()))
            .set_expression_attribute_values(Some(update.values(
                &reservation.token,
                Status::Reserved,
                now,
            )?));
        let Err(item) = conditionally(OPERATION, call).await? else {
            return Ok(Record::Written);
        };
        let row = delivery(OPERATION, item)?;
        if row.token != reservation.token {
            return Ok(Record::Refused(row));
        }
        match (&row.state, outcome) {
            (State::InDoubt { .. }, State::Sent { .. } | State::Failed { .. }) => {
                self.record_late(&reservation, outcome, now).await
            }
            (found, written) if found == written => Ok(Record::Written),
            _ => Ok(Record::Refused(row)),
        }
    }

    /// Settles a row that is in doubt, together with the job's counters, which hold it.
    async fn record_late(
        &self,
        reservation: &Reservation,
        outcome: &State,
        now: Timestamp,
    ) -> Result<Record, Error> {
        const SETTLE_SENT: &str = "SET in_doubt = in_doubt - :one, sent = sent + :one";
        const SETTLE_FAILED: &str = "SET in_doubt = in_doubt - :one, failed = failed + :one";
        const OPERATION: &str = "settle a delivery in doubt";
        let update = Outcome::of(outcome, reservation.attempt);
        let row = Update::builder()
            .table_name(&self.deliveries)
            .key("job", value(reservation.job.to_string())?)
            .key("contact_id", value(&reservation.contact_id)?)
            .update_expression(update.expression)
            .condition_expression(IF_STILL_OURS)
            .set_expression_attribute_names(Some(names()))
            .set_expression_attribute_values(Some(update.values(
                &reservation.token,
                Status::InDoubt,
                now,
            )?))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let settle = if matches!(outcome, State::Sent { .. }) {
            SETTLE_SENT
        } else {
            SETTLE_FAILED
        };
        let counters = self
            .update_job(&reservation.job)?
            .update_expression(settle)
            .expression_attribute_values(":one", value(1)?);
        let parts = [row.build(), counters.build()].into_iter().flatten();
        let parts = parts
            .map(|update| TransactWriteItem::builder().update(update).build())
            .collect();
        let Err(reasons) = transact(self, OPERATION, parts, &token()).await? else {
            return Ok(Record::WrittenLate);
        };
        let found = reasons
            .into_iter()
            .find(refused)
            .and_then(|reason| reason.item);
        let row = delivery(OPERATION, found)?;
        if row.token == reservation.token && row.state == *outcome {
            return Ok(Record::WrittenLate);
        }
        Ok(Record::Refused(row))
    }

    /// The part of a checkpoint that puts one reserved row in doubt and marks it counted.
    pub(super) fn put_in_doubt(
        &self,
        job: &JobId,
        contact_id: &ContactId,
        token: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<TransactWriteItem, Error> {
        const DOUBT: &str =
            "SET #status = :in_doubt, reason = :reason, counted = :counted, updated_at = :now";
        let update = Update::builder()
            .table_name(&self.deliveries)
            .key("job", value(job.to_string())?)
            .key("contact_id", value(contact_id)?)
            .update_expression(DOUBT)
            .condition_expression(IF_STILL_OURS)
            .set_expression_attribute_names(Some(names()))
            .expression_attribute_values(":in_doubt", value(Status::InDoubt)?)
            .expression_attribute_values(":expected", value(Status::Reserved)?)
            .expression_attribute_values(":token", value(token)?)
            .expression_attribute_values(":reason", value(reason)?)
            .expression_attribute_values(":counted", value(true)?)
            .expression_attribute_values(":now", at(now)?)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let update = update.build().map_err(incomplete("checkpoint a job"))?;
        Ok(TransactWriteItem::builder().update(update).build())
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
        const OPERATION: &str = "list deliveries";
        let mut call = self
            .client
            .query()
            .table_name(&self.deliveries)
            .key_condition_expression("job = :job")
            .expression_attribute_values(":job", value(job.to_string())?)
            .consistent_read(true)
            .limit(limit);
        if let Some(status) = status {
            call = call
                .filter_expression("#status = :status")
                .expression_attribute_names("#status", "status")
                .expression_attribute_values(":status", value(status)?);
        }
        if let Some(after) = after {
            call = call
                .exclusive_start_key("job", value(job.to_string())?)
                .exclusive_start_key("contact_id", value(after)?);
        }
        let found = patiently(|| call.clone().send())
            .await
            .map_err(unsettled(OPERATION))?;
        let rows = found.items.unwrap_or_default().into_iter();
        let rows = rows
            .map(|item| from_item(OPERATION, item))
            .collect::<Result<_, _>>()?;
        let last = found
            .last_evaluated_key
            .and_then(|mut key| key.remove("contact_id"));
        let last = last.and_then(|id| id.as_s().ok().and_then(|id| ContactId::parse(id).ok()));
        Ok((rows, last))
    }

    fn update_delivery(
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

/// Nobody has taken the row since it was reserved under this token.
const IF_STILL_OURS: &str = "#status = :expected AND #token = :token";

fn names() -> std::collections::HashMap<String, String> {
    [("#status", "status"), ("#token", "token")]
        .map(|(name, attribute)| (name.to_owned(), attribute.to_owned()))
        .into()
}

/// The row that refused a write.
fn delivery(operation: &'static str, item: Option<Item>) -> Result<Delivery, Error> {
    from_item(operation, item.ok_or(Error::Gone { operation })?)
}

/// How a state is written.
struct Outcome<'a> {
    expression: &'static str,
    state: &'a State,
    attempts: u32,
}

impl<'a> Outcome<'a> {
    fn of(state: &'a State, attempts: u32) -> Self {
        const SENT: &str =
            "SET #status = :status, updated_at = :now, message_id = :message_id REMOVE reason";
        const WAITING: &str = "SET #status = :status, updated_at = :now, reason = :reason, not_before = :not_before, attempts = :attempts";
        const OTHER: &str = "SET #status = :status, updated_at = :now, reason = :reason";
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

    fn values(&self, token: &str, expected: Status, now: Timestamp) -> Result<Item, Error> {
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
