//! The outcome of a delivery: recorded by its sender, or settled together with the job's counters once it is in doubt.

use aws_sdk_dynamodb::types::{CancellationReason, TransactWriteItem};
use jiff::Timestamp;
use serde::Serialize;

use super::Transactions;
use crate::domain::delivery::{Delivery, Reservation, State, Status};
use crate::domain::ids::{ContactId, JobId, token};
use crate::domain::reasons::{self, NotSent, code_of};
use crate::runtime::metrics::Event;
use crate::store::calls::{Transaction, is_refusal};
use crate::store::deliveries::{RowChange, Seen, holds, outcome_update, refusing_row};
use crate::store::keys;
use crate::store::statement::{Put, Update};
use crate::store::tables::{Error, REPORT_OUTLIVES, SCHEMA, expiry, to_item};

/// The end of recording an outcome.
#[derive(Debug)]
pub enum Record {
    /// The row holds the outcome, and the cursor will count it.
    Written,
    /// The row was in doubt meanwhile; now it and the job's counters hold the outcome.
    WrittenLate,
    /// The row has been moved on, and stays as it is.
    Refused(Box<Delivery>),
}

/// The end of settling a row.
#[derive(Debug)]
pub enum Settled {
    /// The row and the job's counters hold the outcome.
    Now,
    /// The row has been moved on meanwhile, and stays as it is.
    Otherwise(Box<Delivery>),
    /// The message is known to be another delivery's.
    MessageTaken,
    /// The job does not exist any more.
    JobGone,
}

#[derive(Serialize)]
struct StoredMessage {
    schema: u32,
    delivery: String,
    expires_at: i64,
}

impl Transactions<'_> {
    /// Records the outcome of a reservation, while the row is still reserved under it.
    ///
    /// If a newer worker has put the row in doubt meanwhile, only an outcome that Messenger itself gave may still be
    /// recorded: `sent` or `failed`. The row never goes back to the backlog, for the newer worker has passed it.
    ///
    /// # Errors
    /// If DynamoDB does not answer: the next claim finds the truth in the row.
    pub async fn record(&self, reservation: &Reservation, outcome: &State, now: Timestamp) -> Result<Record, Error> {
        let Self(store) = self;
        let (job, seen) = (reservation.job(), Seen::from(reservation));
        let change = store
            .deliveries()
            .set_outcome("record a delivery", job, seen, outcome, now)
            .await?;
        let RowChange::Refused(row) = change else {
            return Ok(Record::Written);
        };
        if !may_record_late(&row, reservation, outcome) {
            return Ok(Record::Refused(row));
        }
        Ok(match self.settle(job, &row, outcome, None, now).await? {
            Settled::Now => Record::WrittenLate,
            Settled::Otherwise(row) => Record::Refused(row),
            Settled::MessageTaken | Settled::JobGone => Record::Refused(row),
        })
    }

    /// Settles a row that is in doubt, together with the job's counters, which hold it. With `evidence` the message of this
    /// id is claimed for this delivery: no other may be settled by it.
    ///
    /// A delivery of which an earlier attempt may have arrived never fails.
    ///
    /// # Errors
    /// If DynamoDB does not answer; repeating the call is harmless.
    pub async fn settle(
        &self,
        job: &JobId,
        row: &Delivery,
        outcome: &State,
        evidence: Option<&str>,
        now: Timestamp,
    ) -> Result<Settled, Error> {
        const SENT: &str = "SET in_doubt = in_doubt - :one, sent = sent + :one";
        const FAILED: &str = "SET in_doubt = in_doubt - :one, failed = failed + :one";
        const IF_UNCHANGED_AND_NO_EARLIER: &str =
            "#status = :expected AND #token = :token AND attribute_not_exists(earlier_doubt)";
        const OPERATION: &str = "settle a delivery in doubt";
        let Self(store) = self;
        let in_doubt = Seen {
            status: Status::InDoubt,
            ..row.into()
        };
        let update = outcome_update(store, job, in_doubt, outcome, now);
        let (update, counters) = match outcome {
            State::Sent { .. } => (update, SENT),
            _ => (update.only_if(IF_UNCHANGED_AND_NO_EARLIER), FAILED),
        };
        let mut counters = Update::new(&store.broadcasts, keys::job(job), counters)
            .only_if("attribute_exists(pk)")
            .bind(":one", 1);
        // A row that an earlier version put in doubt has no code, and is counted by none.
        if let Some(code) = &row.code {
            counters = counters.add(&reasons::attribute(NotSent::InDoubt, code), -1);
        }
        if let Some((status, reason)) = outcome.not_sent() {
            counters = counters.add(&reasons::attribute(status, &code_of(reason)), 1);
        }
        let mut parts = vec![update.into_part(OPERATION)?, counters.into_part(OPERATION)?];
        if let Some(message_id) = evidence {
            parts.push(self.claim_message(OPERATION, message_id, job, &row.contact_id, now)?);
        }
        match store.transact(OPERATION, parts, &token()).await? {
            Transaction::Written => {
                self.count_settled(outcome);
                Ok(Settled::Now)
            }
            Transaction::Refused(reasons) => self.settling_refused(OPERATION, row, outcome, now, reasons),
        }
    }

    /// Judges a refused settling by the first part that refused it: the row, the job, or else the message.
    fn settling_refused(
        &self,
        operation: &'static str,
        row: &Delivery,
        outcome: &State,
        now: Timestamp,
        reasons: Vec<CancellationReason>,
    ) -> Result<Settled, Error> {
        let mut reasons = reasons.into_iter();
        if let Some(reason) = reasons.next().filter(is_refusal) {
            let found = refusing_row(operation, reason.item)?;
            if !holds(&found, &row.token, outcome) {
                return Ok(Settled::Otherwise(Box::new(found)));
            }
            // By this call, of which the answer was lost; or at another time by another, which has counted it.
            if found.updated_at == now {
                self.count_settled(outcome);
            }
            return Ok(Settled::Now);
        }
        if reasons.next().is_some_and(|job| is_refusal(&job)) {
            return Ok(Settled::JobGone);
        }
        Ok(Settled::MessageTaken)
    }

    fn count_settled(&self, outcome: &State) {
        self.0.count_outcome(outcome);
        self.0.metrics.count(Event::DoubtsSettled, 1);
    }

    fn claim_message(
        &self,
        operation: &'static str,
        message_id: &str,
        job: &JobId,
        contact_id: &ContactId,
        now: Timestamp,
    ) -> Result<TransactWriteItem, Error> {
        const IF_FREE: &str = "attribute_not_exists(pk) OR delivery = :delivery";
        let Self(store) = self;
        let delivery = keys::claimed_by(job, contact_id);
        let expires_at = expiry(now + store.retention, REPORT_OUTLIVES);
        let stored = StoredMessage {
            schema: SCHEMA,
            delivery: delivery.clone(),
            expires_at,
        };
        let mut item = to_item(operation, &stored)?;
        item.extend(keys::message(message_id));
        Put::new(&store.broadcasts, item)
            .only_if(IF_FREE)
            .bind(":delivery", delivery)
            .into_part(operation)
    }
}

/// Returns whether an outcome may be recorded although a newer worker has put the row in doubt.
fn may_record_late(row: &Delivery, reservation: &Reservation, outcome: &State) -> bool {
    let messengers_own = matches!(outcome, State::Sent { .. } | State::Failed { .. });
    row.token == reservation.token() && matches!(row.state, State::InDoubt { .. }) && messengers_own
}
