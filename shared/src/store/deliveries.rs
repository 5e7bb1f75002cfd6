//! Deliveries: the reservation that gives the right to send, and the outcomes that may be recorded from each state.

use std::time::Instant;

use jiff::Timestamp;

use super::calls::{BATCH_GET, Conditional, Read};
use super::delivery_filter::DeliveryFilter;
use super::keys;
use super::statement::{Query, Update, millis};
use super::tables::{Error, Item, REPORT_OUTLIVES, SCHEMA, Store, expiry, from_item};
use crate::domain::delivery::{Delivery, Doubt, Reservation, State, Status};
use crate::domain::ids::{ContactId, JobId, token};
use crate::domain::job::Job;
use crate::domain::reasons::code_of;
use crate::runtime::metrics::Event;

/// The deliveries of a [`Store`].
pub struct Deliveries<'a>(pub(super) &'a Store);

/// The answer to a request for the right to send to a contact.
#[derive(Debug)]
pub enum Reserve {
    /// The right was granted.
    Granted(Reservation),
    /// The right was refused; the row says what to do.
    Refused(Delivery),
}

/// A row as it was seen, which an update expects unchanged.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) contact_id: &'a ContactId,
    pub(super) status: Status,
    pub(super) token: &'a str,
    /// The attempts that the row is to show from now on, if it goes back to the backlog.
    pub(super) attempts: u32,
    /// The first refusal that may have concerned every contact, which the row keeps if it goes back to the backlog.
    pub(super) refused_at: Option<Timestamp>,
}

impl<'a> From<&'a Delivery> for Seen<'a> {
    fn from(row: &'a Delivery) -> Self {
        Self {
            contact_id: &row.contact_id,
            status: row.state.status(),
            token: &row.token,
            attempts: row.attempts,
            refused_at: row.refused_at,
        }
    }
}

impl<'a> From<&'a Reservation> for Seen<'a> {
    fn from(reservation: &'a Reservation) -> Self {
        Self {
            contact_id: &reservation.contact_id,
            status: Status::Reserved,
            token: reservation.token(),
            attempts: reservation.attempt,
            refused_at: reservation.refused_at(),
        }
    }
}

/// The end of an attempt to change a row as it was seen.
#[derive(Debug)]
pub enum RowChange {
    /// The row holds the change.
    Written,
    /// The row has been moved on meanwhile, and stays as it is.
    Refused(Box<Delivery>),
}

impl Deliveries<'_> {
    /// Takes the right to send to a contact, unless another worker has it or the delivery is settled.
    ///
    /// A contact that is not due is refused, and so is a worker that has been overtaken: a waiting row is stamped with the
    /// epoch of the last worker that passed it. `text_digest` is the digest by which a lookup will know the message, if it
    /// is a text.
    ///
    /// # Errors
    /// If DynamoDB does not answer: the right may then have been granted, and the next claim finds the row.
    pub async fn reserve(
        &self,
        job: &Job,
        contact_id: &ContactId,
        text_digest: Option<&str>,
        now: Timestamp,
    ) -> Result<Reserve, Error> {
        const RESERVE: &str = "SET #status = :reserved, epoch = :epoch, #token = :token, reserved_at = :now, \
                               updated_at = :now, expires_at = :expires_at, #schema = if_not_exists(#schema, :schema)";
        const WITH_DIGEST: &str = ", text_digest = :digest";
        const BEGIN_ATTEMPT: &str = " REMOVE not_before, reason, code ADD attempts :one";
        const IF_FREE: &str = "attribute_not_exists(contact_id) \
                               OR (#status = :waiting AND not_before <= :now AND epoch <= :epoch)";
        const OPERATION: &str = "reserve a delivery";
        let Self(store) = self;
        let (job_id, token, since) = (job.id(), token(), Instant::now());
        let with_digest = text_digest.map_or("", |_| WITH_DIGEST);
        let expression = format!("{RESERVE}{with_digest}{BEGIN_ATTEMPT}");
        let mut reserve = Update::new(&store.deliveries, keys::delivery(&job_id, contact_id), expression)
            .only_if(IF_FREE)
            .bind(":reserved", Status::Reserved)
            .bind(":waiting", Status::Waiting)
            .bind(":epoch", job.epoch)
            .bind(":token", &token)
            .bind(":now", millis(now))
            .bind(":expires_at", expiry(job.retained_until, REPORT_OUTLIVES))
            .bind(":schema", SCHEMA)
            .bind(":one", 1)
            .returning_old();
        if let Some(digest) = text_digest {
            reserve = reserve.bind(":digest", digest);
        }
        let before = match store.update(OPERATION, reserve).await? {
            // Nothing is sent back for a first attempt, as nearly all are; nothing but the key by an emulator.
            Conditional::Written(before) if !before.contains_key("token") => None,
            Conditional::Written(before) => Some(from_item(OPERATION, before)?),
            Conditional::Refused(item) => {
                let row = refusing_row(OPERATION, item)?;
                // A call that is repeated after a lost answer finds its own reservation, unless another worker has moved it on.
                if !is_reserved_under(&row, &token) {
                    return Ok(Reserve::Refused(row));
                }
                Some(Delivery {
                    attempts: row.attempts.saturating_sub(1),
                    ..row
                })
            }
        };
        let reservation = Reservation::granted(job, contact_id, token, before.as_ref(), now, since);
        Ok(Reserve::Granted(reservation))
    }

    /// Marks a waiting row as passed by this epoch, so that a worker that has been overtaken cannot reserve it through its
    /// old position in the backlog.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn stamp_if_waiting(&self, job: &Job, row: &Delivery) -> Result<RowChange, Error> {
        const STAMP: &str = "SET epoch = :epoch";
        const IF_NOT_PASSED: &str = "#status = :waiting AND #token = :token AND epoch <= :epoch";
        const OPERATION: &str = "stamp a waiting delivery";
        let Self(store) = self;
        let stamp = Update::new(&store.deliveries, keys::delivery(&job.id(), &row.contact_id), STAMP)
            .only_if(IF_NOT_PASSED)
            .bind(":waiting", Status::Waiting)
            .bind(":token", &row.token)
            .bind(":epoch", job.epoch);
        match store.update(OPERATION, stamp).await? {
            Conditional::Written(_) => Ok(RowChange::Written),
            Conditional::Refused(item) => Ok(RowChange::Refused(Box::new(refusing_row(OPERATION, item)?))),
        }
    }

    /// Marks a delivery `sent`, as Messenger's own word proves, while the row is `reserved` or `waiting` as it was seen.
    /// The counters do not hold such a row yet; the cursor will count it.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn mark_sent_if_unchanged(
        &self,
        job: &JobId,
        row: &Delivery,
        sent: &State,
        now: Timestamp,
    ) -> Result<RowChange, Error> {
        self.set_outcome("mark a delivery as sent", job, row.into(), sent, now)
            .await
    }

    /// Keeps the message id of an echo on a row that was recorded as `failed` or `skipped`, and whose state stays, while the row
    /// is as it was seen and has no such id. Repeating the call is harmless.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn keep_late_echo(
        &self,
        job: &JobId,
        row: &Delivery,
        message_id: &str,
        now: Timestamp,
    ) -> Result<RowChange, Error> {
        const KEEP: &str = "SET arrived_as = :message_id, updated_at = :now";
        const IF_FIRST: &str = "#status = :expected AND #token = :token AND attribute_not_exists(arrived_as)";
        const OPERATION: &str = "keep a late echo";
        let Self(store) = self;
        let keep = if_unchanged(store, job, row.into(), KEEP)
            .only_if(IF_FIRST)
            .bind(":message_id", message_id)
            .bind(":now", millis(now));
        if let Conditional::Refused(item) = store.update(OPERATION, keep).await? {
            let found = refusing_row(OPERATION, item)?;
            // Otherwise this very call wrote it, and its answer was lost.
            if found.arrived_as.as_deref() != Some(message_id) || found.updated_at != now {
                return Ok(RowChange::Refused(Box::new(found)));
            }
        }
        store.metrics.count(Event::ArrivedAfterRefusal, 1);
        Ok(RowChange::Written)
    }

    /// Writes an outcome while the row is as it was seen. An outcome that is found there already was written by this very
    /// call, of which the answer was lost, or at another time by an echo, which has counted it.
    pub(super) async fn set_outcome(
        &self,
        operation: &'static str,
        job: &JobId,
        seen: Seen<'_>,
        outcome: &State,
        now: Timestamp,
    ) -> Result<RowChange, Error> {
        let Self(store) = self;
        match store
            .update(operation, outcome_update(store, job, seen, outcome, now))
            .await?
        {
            Conditional::Written(_) => store.count_outcome(outcome),
            Conditional::Refused(item) => {
                let found = refusing_row(operation, item)?;
                if !holds(&found, seen.token, outcome) {
                    return Ok(RowChange::Refused(Box::new(found)));
                }
                if found.updated_at == now {
                    store.count_outcome(outcome);
                }
            }
        }
        Ok(RowChange::Written)
    }

    /// Reads one delivery, as of now.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn get(&self, job: &JobId, contact_id: &ContactId) -> Result<Option<Delivery>, Error> {
        let Self(store) = self;
        store
            .get(
                "read a delivery",
                &store.deliveries,
                keys::delivery(job, contact_id),
                Read::Consistent,
            )
            .await
    }

    /// Lists the rows of a job by contact id, from after `after`; reads at most `limit`, and leaves out those that do not match
    /// the filter. Returns the id to go on after, unless that was all.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn list(
        &self,
        job: &JobId,
        filter: &DeliveryFilter,
        after: Option<&ContactId>,
        limit: i32,
    ) -> Result<(Vec<Delivery>, Option<ContactId>), Error> {
        let query = filter.apply(self.rows(job, after).limit(limit));
        self.page("list deliveries", query).await
    }

    pub(super) fn rows(&self, job: &JobId, after: Option<&ContactId>) -> Query<'_> {
        Query::table(&self.0.deliveries, "job = :job")
            .bind(":job", job.to_string())
            .after(after.map(|contact_id| keys::delivery(job, contact_id)))
    }

    pub(super) async fn page(
        &self,
        operation: &'static str,
        query: Query<'_>,
    ) -> Result<(Vec<Delivery>, Option<ContactId>), Error> {
        let (rows, last) = self.0.query_page(operation, query).await?;
        let last = last.and_then(|key| ContactId::parse_stored(key.get("contact_id")?.as_s().ok()?));
        Ok((rows, last))
    }

    /// Reads the rows of these keys, as far as they exist, as of now.
    pub(super) async fn get_all(&self, operation: &'static str, keys: &[Item]) -> Result<Vec<Delivery>, Error> {
        let Self(store) = self;
        let mut rows = Vec::new();
        for keys in keys.chunks(BATCH_GET) {
            let batch = store.batch_get(operation, &store.deliveries, keys.to_vec(), None, Read::Consistent);
            rows.append(&mut batch.await?);
        }
        Ok(rows)
    }
}

impl Store {
    /// Counts the outcome of a delivery, once its write is known to be made.
    pub(super) fn count_outcome(&self, outcome: &State) {
        if let Some(event) = Event::of(outcome) {
            self.metrics.count(event, 1);
        }
    }
}

/// Returns whether a row is the reservation that carries this token, and not moved on since.
fn is_reserved_under(row: &Delivery, token: &str) -> bool {
    row.token == token && row.state == State::Reserved
}

/// Returns whether a row holds this outcome under this token.
pub(super) fn holds(row: &Delivery, token: &str, outcome: &State) -> bool {
    row.token == token && row.state == *outcome
}

/// The row has not been moved on since it was seen with this status, under this token.
pub(super) const IF_UNCHANGED: &str = "#status = :expected AND #token = :token";

/// The row that refused a write.
pub(super) fn refusing_row(operation: &'static str, item: Option<Item>) -> Result<Delivery, Error> {
    from_item(operation, item.ok_or(Error::Gone { operation })?)
}

/// Writes an outcome, while the row is as it was seen.
pub(super) fn outcome_update<'s>(
    store: &'s Store,
    job: &JobId,
    seen: Seen<'_>,
    outcome: &State,
    now: Timestamp,
) -> Update<'s> {
    const SENT: &str = "SET #status = :status, updated_at = :now, message_id = :message_id \
                        REMOVE reason, code, doubt_shard, look_at";
    const WAITING: &str = "SET #status = :status, updated_at = :now, reason = :reason, code = :code, \
                           not_before = :not_before, attempts = :attempts";
    const WAITING_REFUSED: &str = "SET #status = :status, updated_at = :now, reason = :reason, code = :code, \
                                   not_before = :not_before, attempts = :attempts, refused_at = :refused_at";
    const OTHER: &str = "SET #status = :status, updated_at = :now, reason = :reason, code = :code \
                         REMOVE doubt_shard, look_at";
    let expression = match outcome {
        State::Sent { .. } => SENT,
        State::Waiting { .. } if seen.refused_at.is_some() => WAITING_REFUSED,
        State::Waiting { .. } => WAITING,
        State::Reserved | State::Failed { .. } | State::Skipped { .. } | State::InDoubt { .. } => OTHER,
    };
    let update = if_unchanged(store, job, seen, expression)
        .bind(":status", outcome.status())
        .bind(":now", millis(now));
    match outcome {
        State::Sent { message_id } => update.bind(":message_id", message_id),
        State::Waiting { not_before, reason } => {
            let waiting = update
                .bind(":attempts", seen.attempts)
                .bind(":not_before", millis(*not_before))
                .bind(":reason", reason)
                .bind(":code", code_of(reason));
            match seen.refused_at {
                Some(at) => waiting.bind(":refused_at", millis(at)),
                None => waiting,
            }
        }
        other => update
            .bind(":reason", other.reason())
            .bind(":code", other.reason().map(code_of)),
    }
}

/// The part of a checkpoint that puts a row in doubt, counted under this code, marks it `counted`, and has it looked up in time.
pub(super) fn put_in_doubt<'s>(
    store: &'s Store,
    job: &JobId,
    contact_id: &ContactId,
    doubt: &Doubt,
    code: &str,
    now: Timestamp,
) -> Update<'s> {
    const DOUBT: &str = "SET #status = :in_doubt, reason = :reason, code = :code, counted = :counted, \
                         updated_at = :now, doubt_shard = :shard, look_at = :look_at REMOVE not_before";
    let seen = Seen {
        contact_id,
        status: doubt.was,
        token: &doubt.token,
        attempts: 0,
        refused_at: None,
    };
    if_unchanged(store, job, seen, DOUBT)
        .bind(":in_doubt", Status::InDoubt)
        .bind(":reason", &doubt.reason)
        .bind(":code", code)
        .bind(":counted", true)
        .bind(":shard", keys::doubt_shard(job, contact_id))
        .bind(":look_at", millis(doubt.reserved_at + store.first_lookup))
        .bind(":now", millis(now))
}

/// An update of a row that is as it was seen.
pub(super) fn if_unchanged<'s>(store: &'s Store, job: &JobId, seen: Seen<'_>, expression: &'static str) -> Update<'s> {
    Update::new(&store.deliveries, keys::delivery(job, seen.contact_id), expression)
        .only_if(IF_UNCHANGED)
        .bind(":expected", seen.status)
        .bind(":token", seen.token)
}
