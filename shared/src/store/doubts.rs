//! Deliveries in doubt: how a row gets there, is found by those who look for evidence, and leaves.
//!
//! Entering and leaving is one transaction with the job's counters, and marks the row `counted`; the index `doubt` holds
//! the rows that are still to be looked up, and like every index only says where to look.

use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use aws_sdk_dynamodb::types::{
    KeysAndAttributes, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::broadcasts::wake_shard;
use super::deliveries::{Doubt, IF_UNCHANGED, Outcome, delivery, names};
use super::jobs::{Claim, DOUBTS_AT_ONCE};
use super::{
    Error, REPORT_OUTLIVES, SCHEMA, Store, at, conditionally, expiry, from_item, incomplete,
    patiently, pauses, refused, throttled, to_item, transact, unsettled, value,
};
use crate::delivery::{Delivery, State, Status};
use crate::ids::{ContactId, JobId, PageId, token};
use crate::job::JobStatus;
use crate::line::Segment;
use crate::metrics::Event;

/// Partitions of the `doubt` index.
const DOUBT_SHARDS: u64 = 8;
/// What DynamoDB reads in one call.
const BATCH: usize = 100;
/// Rows of one partition of the index that are asked for their age.
const OLDEST: i32 = 25;

/// What became of settling a row.
#[derive(Debug)]
pub enum Settled {
    /// The row and the job's counters hold it.
    Now,
    /// The row has been moved on meanwhile, and stays as it is.
    Otherwise(Box<Delivery>),
    /// The message is known to be another delivery's.
    MessageTaken,
    /// There is no such job any more.
    JobGone,
}

/// What became of a wish to send again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordered {
    /// The next claim carries it out.
    Yes,
    /// The job is not completed, and takes no such wish now.
    NotNow,
    /// The row has been moved on meanwhile.
    Otherwise,
}

/// What became of putting rows back in line.
#[derive(Debug)]
pub enum Resent {
    /// They stand in a new segment at the line's end.
    Done,
    /// Nothing is written: these, by their place among the rows, have been moved on meanwhile.
    Changed(Vec<usize>),
    /// Nothing is written: the job has been claimed by another.
    Stale,
}

#[derive(Serialize)]
struct StoredMessage {
    pk: String,
    sk: &'static str,
    schema: u32,
    delivery: String,
    expires_at: i64,
}

/// The keys of a row, as the index has them.
#[derive(Deserialize)]
struct Key {
    job: String,
    contact_id: ContactId,
}

fn doubt_shard(job: &JobId, contact_id: &ContactId) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (job, contact_id).hash(&mut hasher);
    (hasher.finish() % DOUBT_SHARDS).to_string()
}

impl Store {
    /// The part of a checkpoint that puts one reserved row in doubt, marks it counted, and has it looked up in time.
    pub(super) fn put_in_doubt(
        &self,
        job: &JobId,
        contact_id: &ContactId,
        doubt: &Doubt,
        now: Timestamp,
    ) -> Result<TransactWriteItem, Error> {
        const DOUBT: &str = "SET #status = :in_doubt, reason = :reason, counted = :counted, updated_at = :now, \
                             doubt_shard = :shard, look_at = :look_at";
        let update = self
            .row(job, contact_id)?
            .update_expression(DOUBT)
            .condition_expression(IF_UNCHANGED)
            .set_expression_attribute_names(Some(names()))
            .expression_attribute_values(":in_doubt", value(Status::InDoubt)?)
            .expression_attribute_values(":expected", value(Status::Reserved)?)
            .expression_attribute_values(":token", value(&doubt.token)?)
            .expression_attribute_values(":reason", value(&doubt.reason)?)
            .expression_attribute_values(":counted", value(true)?)
            .expression_attribute_values(":shard", value(doubt_shard(job, contact_id))?)
            .expression_attribute_values(":look_at", at(doubt.reserved_at + self.first_look)?)
            .expression_attribute_values(":now", at(now)?);
        part("checkpoint a job", update)
    }

    /// Settles a row that is in doubt, together with the job's counters, which hold it. With `evidence` the message of this
    /// id is claimed for this delivery: no other may be settled by it.
    ///
    /// A delivery of which an earlier attempt may have arrived never fails.
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
        const IF_NO_EARLIER: &str = " AND attribute_not_exists(earlier_doubt)";
        const OPERATION: &str = "settle a delivery in doubt";
        let update = Outcome::of(outcome, row.attempts);
        let (counters, earlier) = match outcome {
            State::Sent { .. } => (SENT, ""),
            _ => (FAILED, IF_NO_EARLIER),
        };
        let values = update.values(&row.token, Status::InDoubt, now)?;
        let row_update = self
            .row(job, &row.contact_id)?
            .update_expression(update.expression)
            .condition_expression(format!("{IF_UNCHANGED}{earlier}"))
            .set_expression_attribute_names(Some(names()))
            .set_expression_attribute_values(Some(values));
        let counters = self
            .update_job(job)?
            .update_expression(counters)
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_values(":one", value(1)?);
        let mut parts = vec![part(OPERATION, row_update)?, part(OPERATION, counters)?];
        if let Some(message_id) = evidence {
            parts.push(self.claim_message(message_id, job, &row.contact_id, now)?);
        }
        let count = || {
            self.count(outcome);
            self.metrics.count(Event::DoubtsSettled, 1);
        };
        let Err(reasons) = transact(self, OPERATION, parts, &token()).await? else {
            count();
            return Ok(Settled::Now);
        };
        let mut reasons = reasons.into_iter();
        if let Some(reason) = reasons.next().filter(refused) {
            let found = delivery(OPERATION, reason.item)?;
            let done = found.token == row.token && found.state == *outcome;
            // By us, and the answer was lost; or at another time by another, who has counted it.
            if done && found.updated_at == now {
                count();
            }
            return Ok(if done {
                Settled::Now
            } else {
                Settled::Otherwise(Box::new(found))
            });
        }
        Ok(if reasons.next().is_some_and(|reason| refused(&reason)) {
            Settled::JobGone
        } else {
            Settled::MessageTaken
        })
    }

    fn claim_message(
        &self,
        message_id: &str,
        job: &JobId,
        contact_id: &ContactId,
        now: Timestamp,
    ) -> Result<TransactWriteItem, Error> {
        const IF_FREE: &str = "attribute_not_exists(pk) OR delivery = :delivery";
        const OPERATION: &str = "claim a message";
        let stored = StoredMessage {
            pk: format!("mid#{message_id}"),
            sk: "mid",
            schema: SCHEMA,
            delivery: format!("{job}/{contact_id}"),
            expires_at: expiry(now + self.retention, REPORT_OUTLIVES),
        };
        let put = Put::builder()
            .table_name(&self.broadcasts)
            .condition_expression(IF_FREE)
            .expression_attribute_values(":delivery", value(&stored.delivery)?)
            .set_item(Some(to_item(OPERATION, &stored)?))
            .build()
            .map_err(incomplete(OPERATION))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    /// Records that a message of this delivery did arrive, by Messenger's own word, while the row is as it was seen. From
    /// `reserved` and `waiting`, which are not counted yet; the cursor will count it.
    pub async fn prove(
        &self,
        job: &JobId,
        row: &Delivery,
        sent: &State,
        now: Timestamp,
    ) -> Result<Settled, Error> {
        const OPERATION: &str = "prove a delivery";
        let update = Outcome::of(sent, row.attempts);
        let values = update.values(&row.token, row.state.status(), now)?;
        let call = self
            .update_delivery(job, &row.contact_id)?
            .update_expression(update.expression)
            .condition_expression(IF_UNCHANGED)
            .set_expression_attribute_names(Some(names()))
            .set_expression_attribute_values(Some(values));
        let Err(item) = conditionally(OPERATION, call).await? else {
            self.count(sent);
            return Ok(Settled::Now);
        };
        let found = delivery(OPERATION, item)?;
        Ok(if found.state == *sent {
            if found.updated_at == now {
                self.count(sent);
            }
            Settled::Now
        } else {
            Settled::Otherwise(Box::new(found))
        })
    }

    /// Deliveries whose time to be looked up has come, in one partition of the index, from the longest overdue; at most
    /// `limit` of them.
    pub async fn doubts_to_look_up(
        &self,
        shard: u64,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<(JobId, ContactId)>, Error> {
        const OPERATION: &str = "look for deliveries in doubt";
        let call = self
            .client
            .query()
            .table_name(&self.deliveries)
            .index_name("doubt")
            .key_condition_expression("doubt_shard = :shard AND look_at <= :now")
            .expression_attribute_values(":shard", value(shard.to_string())?)
            .expression_attribute_values(":now", at(now)?);
        let (mut doubts, mut after) = (Vec::new(), None);
        loop {
            let call = call.clone().set_exclusive_start_key(after);
            let found = patiently(|| call.clone().send())
                .await
                .map_err(unsettled(OPERATION))?;
            for item in found.items.unwrap_or_default() {
                let key: Key = from_item(OPERATION, item)?;
                doubts.extend(JobId::parse(&key.job).map(|job| (job, key.contact_id)));
            }
            after = found.last_evaluated_key;
            if after.is_none() || doubts.len() >= limit {
                doubts.truncate(limit);
                return Ok(doubts);
            }
        }
    }

    /// When the oldest delivery was reserved that is still to be looked up, if there is one. In each partition of the index
    /// only those are read that are to be looked up first, a few dozen; those whose look-ups fail are among them.
    pub async fn oldest_doubt(&self) -> Result<Option<Timestamp>, Error> {
        const OPERATION: &str = "look for the oldest delivery in doubt";
        let mut keys = Vec::new();
        for shard in Self::doubt_shards() {
            let call = self
                .client
                .query()
                .table_name(&self.deliveries)
                .index_name("doubt")
                .key_condition_expression("doubt_shard = :shard")
                .expression_attribute_values(":shard", value(shard.to_string())?)
                .limit(OLDEST);
            let found = patiently(|| call.clone().send())
                .await
                .map_err(unsettled(OPERATION))?;
            for item in found.items.unwrap_or_default() {
                let key: Key = from_item(OPERATION, item)?;
                keys.push((key.job, key.contact_id));
            }
        }
        let rows = self.rows_by_key(OPERATION, &keys).await?.into_iter();
        // The index lags.
        let waiting = rows.filter(|row| row.look_at.is_some());
        Ok(waiting.map(|row| row.reserved_at).min())
    }

    /// The partitions of the index that [`Store::doubts_to_look_up`] looks into.
    pub fn doubt_shards() -> std::ops::Range<u64> {
        0..DOUBT_SHARDS
    }

    /// Has a delivery in doubt looked up again at this time, or not any more, for this reason.
    pub async fn look_again(
        &self,
        job: &JobId,
        row: &Delivery,
        next: Result<Timestamp, &str>,
    ) -> Result<(), Error> {
        const AGAIN: &str = "SET look_at = :look_at";
        const NO_MORE: &str = "SET reason = :reason REMOVE doubt_shard, look_at";
        let call = self
            .update_delivery(job, &row.contact_id)?
            .condition_expression(IF_UNCHANGED)
            .set_expression_attribute_names(Some(names()))
            .expression_attribute_values(":expected", value(Status::InDoubt)?)
            .expression_attribute_values(":token", value(&row.token)?);
        let call = match next {
            Ok(look_at) => call
                .update_expression(AGAIN)
                .expression_attribute_values(":look_at", at(look_at)?),
            Err(reason) => call
                .update_expression(NO_MORE)
                .expression_attribute_values(":reason", value(reason)?),
        };
        // Refused: it has been settled.
        let written = conditionally("look a delivery up again", call).await?;
        if written.is_ok() && next.is_err() {
            self.metrics.count(Event::DoubtsLeft, 1);
        }
        Ok(())
    }

    /// Jobs of a Page, the newest first. The index lags.
    pub async fn jobs_of_page(&self, page_id: &PageId) -> Result<Vec<JobId>, Error> {
        const OPERATION: &str = "list the jobs of a Page";
        #[derive(Deserialize)]
        struct Key {
            pk: String,
        }
        let call = self
            .client
            .query()
            .table_name(&self.broadcasts)
            .index_name("page_jobs")
            .key_condition_expression("page_id = :page_id")
            .expression_attribute_values(":page_id", value(page_id)?)
            .scan_index_forward(false);
        let (mut jobs, mut after) = (Vec::new(), None);
        loop {
            let call = call.clone().set_exclusive_start_key(after);
            let found = patiently(|| call.clone().send())
                .await
                .map_err(unsettled(OPERATION))?;
            for item in found.items.unwrap_or_default() {
                let key: Key = from_item(OPERATION, item)?;
                let broadcast_id = key.pk.strip_prefix("broadcast#").unwrap_or_default();
                jobs.extend(JobId::parse(&format!("{broadcast_id}/{page_id}")));
            }
            after = found.last_evaluated_key;
            if after.is_none() {
                return Ok(jobs);
            }
        }
    }

    /// What these jobs have done about one contact, as of now.
    pub async fn deliveries_to(
        &self,
        contact_id: &ContactId,
        jobs: &[JobId],
    ) -> Result<Vec<Delivery>, Error> {
        let keys = jobs.iter().map(|job| (job.to_string(), contact_id.clone()));
        let keys: Vec<_> = keys.collect();
        self.rows_by_key("read a contact's deliveries", &keys).await
    }

    /// These deliveries, as far as there are any, as of now.
    async fn rows_by_key(
        &self,
        operation: &'static str,
        keys: &[(String, ContactId)],
    ) -> Result<Vec<Delivery>, Error> {
        let mut rows = Vec::new();
        for some in keys.chunks(BATCH) {
            let mut keys = KeysAndAttributes::builder().consistent_read(true);
            for (job, contact_id) in some {
                let key = [
                    ("job".to_owned(), value(job)?),
                    ("contact_id".to_owned(), value(contact_id)?),
                ];
                keys = keys.keys(key.into());
            }
            let keys = keys.build().map_err(incomplete(operation))?;
            let mut asked = [(self.deliveries.clone(), keys)].into();
            let mut pauses = pauses();
            loop {
                let call = self.client.batch_get_item().set_request_items(Some(asked));
                let answer = patiently(|| call.clone().send())
                    .await
                    .map_err(unsettled(operation))?;
                for item in answer.responses.unwrap_or_default().into_values().flatten() {
                    rows.push(from_item(operation, item)?);
                }
                asked = answer.unprocessed_keys.unwrap_or_default();
                if asked.is_empty() {
                    break;
                }
                let pause = pauses.next().ok_or_else(|| throttled(operation))?;
                tokio::time::sleep(pause).await;
            }
        }
        Ok(rows)
    }

    /// Wishes a completed job to send to this contact again, although the message may have arrived. The row is named, and
    /// the next claim of the job, which `scheduled` hints, carries it out for the rows that are.
    pub async fn order_resend(
        &self,
        job: &JobId,
        row: &Delivery,
        now: Timestamp,
    ) -> Result<Ordered, Error> {
        const NAME: &str = "SET resend = :yes REMOVE doubt_shard, look_at";
        const WISH: &str =
            "SET #status = :queued, resend_wish = :yes, wake_at = :now, wake_shard = :shard";
        const IF_COMPLETED: &str = "retained_until > :now \
                                    AND (#status = :completed OR (#status = :queued AND resend_wish = :yes))";
        const OPERATION: &str = "wish to send again";
        let name = self
            .row(job, &row.contact_id)?
            .update_expression(NAME)
            .condition_expression(IF_UNCHANGED)
            .set_expression_attribute_names(Some(names()))
            .expression_attribute_values(":expected", value(Status::InDoubt)?)
            .expression_attribute_values(":token", value(&row.token)?)
            .expression_attribute_values(":yes", value(true)?);
        let wish = self
            .update_job(job)?
            .update_expression(WISH)
            .condition_expression(IF_COMPLETED)
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":queued", value(JobStatus::Queued)?)
            .expression_attribute_values(":completed", value(JobStatus::Completed)?)
            .expression_attribute_values(":shard", value(wake_shard(job))?)
            .expression_attribute_values(":now", at(now)?)
            .expression_attribute_values(":yes", value(true)?);
        let parts = vec![part(OPERATION, name)?, part(OPERATION, wish)?];
        let Err(reasons) = transact(self, OPERATION, parts, &token()).await? else {
            return Ok(Ordered::Yes);
        };
        Ok(if reasons.first().is_some_and(refused) {
            Ordered::Otherwise
        } else {
            Ordered::NotNow
        })
    }

    /// Rows of a job that somebody wished to be sent again, as of now, from after `after`. Where to go on, unless that was
    /// all.
    pub async fn rows_to_resend(
        &self,
        job: &JobId,
        after: Option<&ContactId>,
    ) -> Result<(Vec<Delivery>, Option<ContactId>), Error> {
        const OPERATION: &str = "look for deliveries to send again";
        let call = self
            .rows_of(job, after)?
            .filter_expression("#status = :in_doubt AND resend = :yes")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":in_doubt", value(Status::InDoubt)?)
            .expression_attribute_values(":yes", value(true)?);
        self.some_rows(OPERATION, call).await
    }

    /// Puts rows that are in doubt back in line, at its end; at most [`DOUBTS_AT_ONCE`]. One transaction of the rows, a new
    /// segment and the job, on top of this claim's last checkpoint. From here on the contact is never `failed`, for the
    /// attempt before may have arrived.
    pub async fn resend(
        &self,
        claim: &mut Claim,
        rows: &[Delivery],
        now: Timestamp,
    ) -> Result<Resent, Error> {
        const AGAIN: &str = "SET #status = :waiting, epoch = :epoch, not_before = :now, updated_at = :now, \
                             earlier_doubt = if_not_exists(earlier_doubt, reserved_at) \
                             REMOVE counted, resend, doubt_shard, look_at";
        const IF_STILL_WISHED: &str = "#status = :expected AND #token = :token AND resend = :yes";
        const OPERATION: &str = "put deliveries back in line";
        debug_assert!(rows.len() <= DOUBTS_AT_ONCE);
        let job_id = claim.job.id();
        let segment = Segment {
            number: claim.job.segments,
            contacts: rows.iter().map(|row| row.contact_id.clone()).collect(),
            due_at: None,
        };
        let new_checkpoint_id = token();
        let count = self.count_resent(claim, rows.len(), &new_checkpoint_id, now)?;
        let mut parts = vec![
            part(OPERATION, count)?,
            self.put_segment(&claim.job.snapshot, &segment, claim.job.retained_until)?,
        ];
        let before_rows = parts.len();
        for row in rows {
            let again = self
                .row(&job_id, &row.contact_id)?
                .update_expression(AGAIN)
                .condition_expression(IF_STILL_WISHED)
                .set_expression_attribute_names(Some(names()))
                .expression_attribute_values(":waiting", value(Status::Waiting)?)
                .expression_attribute_values(":expected", value(Status::InDoubt)?)
                .expression_attribute_values(":token", value(&row.token)?)
                .expression_attribute_values(":yes", value(true)?)
                .expression_attribute_values(":epoch", value(claim.job.epoch)?)
                .expression_attribute_values(":now", at(now)?);
            parts.push(part(OPERATION, again)?);
        }
        if let Err(reasons) = transact(self, OPERATION, parts, &new_checkpoint_id).await? {
            let job = reasons.first().filter(|reason| refused(reason));
            let job = job.and_then(|reason| reason.item.clone());
            let written = job.map(|job| Claim::is_written(job, &new_checkpoint_id));
            match written.transpose()? {
                Some(true) => {}
                Some(false) => return Ok(Resent::Stale),
                None => {
                    let rows = reasons.iter().skip(before_rows).enumerate();
                    let changed = rows.filter(|(_, reason)| refused(reason));
                    return Ok(Resent::Changed(changed.map(|(index, _)| index).collect()));
                }
            }
        }
        claim.job.segments += 1;
        claim.note_written(new_checkpoint_id, now);
        Ok(Resent::Done)
    }

    pub(super) fn row(&self, job: &JobId, contact_id: &ContactId) -> Result<UpdateBuilder, Error> {
        Ok(Update::builder()
            .table_name(&self.deliveries)
            .key("job", value(job.to_string())?)
            .key("contact_id", value(contact_id)?)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld))
    }
}

/// An update as a part of a transaction.
fn part(operation: &'static str, update: UpdateBuilder) -> Result<TransactWriteItem, Error> {
    let update = update.build().map_err(incomplete(operation))?;
    Ok(TransactWriteItem::builder().update(update).build())
}
