//! Jobs: claimed by one worker at a time, moved on by that worker's checkpoints only.

use std::time::Duration;

use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use aws_sdk_dynamodb::types::{
    ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::broadcasts::{WAKE_SHARDS, job_sort_key, partition, wake_shard};
use super::{
    Error, Item, Store, at, conditionally, from_item, patiently, refused, transact, unsettled,
    value,
};
use crate::breakers::Breakers;
use crate::delivery::Delivery;
use crate::ids::{BroadcastId, JobId, PageId, token};
use crate::job::{Job, JobStatus};
use crate::line::{Entry, Progress, Segment};
use crate::metrics::Event;
use crate::store::deliveries::Doubt;

/// A working job is looked at when its lease has been over for so long.
const WAKE_AFTER_LEASE: SignedDuration = SignedDuration::from_secs(60);

/// A job that was hinted is looked at when nothing has happened for so long.
pub const WAKE_AFTER_HINT: SignedDuration = SignedDuration::from_secs(180);

/// Rows in one transaction, besides the job and a segment; DynamoDB takes 100 items.
pub const DOUBTS_AT_ONCE: usize = 90;

/// The right to work on a job. The only writer of the job's progress; whoever claims it next makes this one stale.
#[derive(Debug)]
pub struct Claim {
    /// The job as it was claimed, but for what this claim has changed.
    pub job: Job,
    /// Known to the last checkpoint, so that each is made once, on top of the one before.
    checkpoint_id: String,
    wake_at: Timestamp,
    lease: Duration,
}

impl Claim {
    /// The end of a lease that is extended now, and when to look at the job then: moved only if the lease would pass it.
    fn renewed(&self, now: Timestamp) -> (Timestamp, Timestamp) {
        let lease_until = now + self.lease;
        let wake_at = if lease_until < self.wake_at {
            self.wake_at
        } else {
            lease_until + WAKE_AFTER_LEASE
        };
        (lease_until, wake_at)
    }

    /// Whether the job, as it refused a write, shows that this very write was made: its answer was lost.
    pub(super) fn is_written(job: Item, checkpoint_id: &str) -> Result<bool, Error> {
        let stands: Stands = from_item("tell a lost answer from a refusal", job)?;
        Ok(stands.checkpoint_id == checkpoint_id)
    }

    /// Notes that this write has been made, as of `now`.
    pub(super) fn note_written(&mut self, checkpoint_id: String, now: Timestamp) {
        let (lease_until, wake_at) = self.renewed(now);
        self.checkpoint_id = checkpoint_id;
        self.job.lease_until = Some(lease_until);
        self.wake_at = wake_at;
    }
}

/// Whether the job is ours.
#[derive(Debug)]
pub enum Claimed {
    /// It is.
    Won(Box<Claim>),
    /// Another works on it.
    HeldByAnother,
    /// Nobody should work on it now.
    NotReady(JobStatus),
    /// There is no such job.
    Unknown,
}

/// What a checkpoint writes.
#[derive(Debug, Default)]
pub struct Checkpoint<'a> {
    /// How far the cursor moves.
    pub progress: Progress,
    /// Rows to put in doubt; at most [`DOUBTS_AT_ONCE`].
    pub doubts: &'a [(Entry, Doubt)],
    /// Settled contacts that were met since the last checkpoint.
    pub prevented: u64,
    /// What has gone wrong in a row.
    pub breakers: Breakers,
}

/// What became of a checkpoint.
#[derive(Debug)]
pub enum Checkpointed {
    /// All of it is written, with the segment that it appended.
    Written(Option<Segment>),
    /// Nothing is written: these rows, by their place among the doubts, have changed; the others have not.
    Changed(Vec<(usize, Delivery)>),
    /// Nothing is written: the job has been claimed by another.
    Stale,
}

/// How a worker leaves a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandOver {
    /// There is more to do at once.
    Queued,
    /// There is more to do from this time on.
    Waiting(Timestamp),
    /// It would fail for everybody.
    Halted(String),
    /// Nothing is left to do.
    Completed,
}

impl Store {
    /// Takes the job, if it is ready or its worker's lease is over.
    pub async fn claim(
        &self,
        job: &JobId,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Claimed, Error> {
        const CLAIM: &str = "SET #status = :processing, claim_id = :claim_id, checkpoint_id = :claim_id, \
                             lease_until = :lease_until, wake_at = :wake_at, wake_shard = :wake_shard, \
                             epoch = epoch + :one, stalls = stalls + :one REMOVE due_at, reason";
        const OPERATION: &str = "claim a job";
        let claim_id = token();
        let (lease_until, wake_at) = (now + lease, now + lease + WAKE_AFTER_LEASE);
        let call = self
            .if_ready(job, now)?
            .update_expression(CLAIM)
            .expression_attribute_values(":claim_id", value(&claim_id)?)
            .expression_attribute_values(":lease_until", at(lease_until)?)
            .expression_attribute_values(":wake_at", at(wake_at)?)
            .expression_attribute_values(":wake_shard", value(wake_shard(job))?)
            .expression_attribute_values(":one", value(1)?)
            .return_values(ReturnValue::AllNew);
        let item = match conditionally(OPERATION, call).await? {
            Ok(item) | Err(Some(item)) => item,
            Err(None) => return Ok(Claimed::Unknown),
        };
        let job: Job = from_item(OPERATION, item)?;
        if job.claim_id.as_ref() == Some(&claim_id) {
            return Ok(Claimed::Won(Box::new(Claim {
                job,
                checkpoint_id: claim_id,
                wake_at,
                lease,
            })));
        }
        Ok(match job.status {
            JobStatus::Processing => Claimed::HeldByAnother,
            status => Claimed::NotReady(status),
        })
    }

    /// Moves the job on by what this claim has done since its last checkpoint, and extends its lease.
    pub async fn checkpoint(
        &self,
        claim: &mut Claim,
        what: &Checkpoint<'_>,
        now: Timestamp,
    ) -> Result<Checkpointed, Error> {
        const CHECKPOINT: &str = "SET #cursor = :cursor, #segments = :segments, stalls = :stalls, breakers = :breakers, \
                                  waiting = waiting + :waiting, sent = sent + :sent, failed = failed + :failed, \
                                  skipped = skipped + :skipped, in_doubt = in_doubt + :in_doubt, \
                                  prevented_reservation = prevented_reservation + :prevented, \
                                  lease_until = :lease_until, wake_at = :wake_at, checkpoint_id = :new_checkpoint_id";
        const OPERATION: &str = "checkpoint a job";
        let job_id = claim.job.id();
        let progress = &what.progress;
        let new_checkpoint_id = token();
        let appended = (!progress.again.is_empty()).then(|| Segment {
            number: claim.job.segments,
            contacts: progress
                .again
                .iter()
                .map(|(contact_id, _)| contact_id.clone())
                .collect(),
            due_at: progress.again.iter().map(|(_, due)| *due).min(),
        });
        let segments = claim.job.segments + u32::from(appended.is_some());
        let leave_their_second_place = what.doubts.iter().filter(|(entry, _)| entry.again).count();
        let stalls = if progress.cursor == claim.job.cursor {
            claim.job.stalls
        } else {
            0
        };
        let (lease_until, wake_at) = claim.renewed(now);

        let values = Item::from([
            (":cursor".to_owned(), value(progress.cursor)?),
            (":segments".to_owned(), value(segments)?),
            (":stalls".to_owned(), value(stalls)?),
            (":breakers".to_owned(), value(&what.breakers)?),
            (
                ":waiting".to_owned(),
                value(progress.waiting - to_i64(leave_their_second_place))?,
            ),
            (":sent".to_owned(), value(progress.sent)?),
            (":failed".to_owned(), value(progress.failed)?),
            (":skipped".to_owned(), value(progress.skipped)?),
            (":in_doubt".to_owned(), value(what.doubts.len())?),
            (":prevented".to_owned(), value(what.prevented)?),
            (":lease_until".to_owned(), at(lease_until)?),
            (":wake_at".to_owned(), at(wake_at)?),
            (":new_checkpoint_id".to_owned(), value(&new_checkpoint_id)?),
            (":checkpoint_id".to_owned(), value(&claim.checkpoint_id)?),
        ]);
        let names = [("#cursor", "cursor"), ("#segments", "segments")];
        let names = names
            .map(|(name, attribute)| (name.to_owned(), attribute.to_owned()))
            .into();
        let refusal = if appended.is_none() && what.doubts.is_empty() {
            let call = self
                .job_update(&job_id)?
                .update_expression(CHECKPOINT)
                .condition_expression(IF_MINE)
                .set_expression_attribute_names(Some(names))
                .set_expression_attribute_values(Some(values));
            match conditionally(OPERATION, call).await? {
                Ok(_) => None,
                Err(item) => Some((item, Vec::new())),
            }
        } else {
            let update = self
                .update_job(&job_id)?
                .update_expression(CHECKPOINT)
                .condition_expression(IF_MINE)
                .set_expression_attribute_names(Some(names))
                .set_expression_attribute_values(Some(values));
            let mut parts: Vec<_> = update
                .build()
                .into_iter()
                .map(|update| TransactWriteItem::builder().update(update).build())
                .collect();
            for (entry, doubt) in what.doubts {
                parts.push(self.put_in_doubt(&job_id, &entry.contact_id, doubt, now)?);
            }
            if let Some(segment) = &appended {
                parts.push(self.put_segment(
                    &claim.job.snapshot,
                    segment,
                    claim.job.retained_until,
                )?);
            }
            match transact(self, OPERATION, parts, &new_checkpoint_id).await? {
                Ok(()) => None,
                Err(mut reasons) => {
                    let rows = reasons.split_off(1);
                    let job = reasons.pop().filter(refused).and_then(|reason| reason.item);
                    Some((job, rows))
                }
            }
        };
        if let Some((job, rows)) = refusal {
            let written = job.map(|job| Claim::is_written(job, &new_checkpoint_id));
            match written.transpose()? {
                Some(true) => {}
                Some(false) => return Ok(Checkpointed::Stale),
                None => {
                    let mut changed = Vec::new();
                    for (index, reason) in rows
                        .into_iter()
                        .enumerate()
                        .filter(|(_, reason)| refused(reason))
                    {
                        changed.push((
                            index,
                            from_item(OPERATION, reason.item.unwrap_or_default())?,
                        ));
                    }
                    return if changed.is_empty() {
                        Ok(Checkpointed::Stale)
                    } else {
                        Ok(Checkpointed::Changed(changed))
                    };
                }
            }
        }
        let doubts = what.doubts.len() as u64;
        self.metrics.count(Event::InDoubt, doubts);
        claim.note_written(new_checkpoint_id, now);
        claim.job.cursor = progress.cursor;
        claim.job.segments = segments;
        claim.job.stalls = stalls;
        Ok(Checkpointed::Written(appended))
    }

    /// Leaves the job to whoever comes next; false if another has it already. After this the claim is used up.
    ///
    /// Returns when somebody must look at it again, which is what its next hint is known by.
    pub async fn hand_over(
        &self,
        claim: Claim,
        to: &HandOver,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Error> {
        const QUEUED: &str = "SET #status = :status, stalls = :none, wake_at = :wake_at, checkpoint_id = :new_checkpoint_id \
                              REMOVE claim_id, lease_until";
        const WAITING: &str = "SET #status = :status, stalls = :none, wake_at = :wake_at, due_at = :wake_at, \
                               checkpoint_id = :new_checkpoint_id REMOVE claim_id, lease_until";
        const HALTED: &str = "SET #status = :status, stalls = :none, reason = :reason, checkpoint_id = :new_checkpoint_id \
                              REMOVE claim_id, lease_until, wake_at, wake_shard";
        const COMPLETED: &str = "SET #status = :status, stalls = :none, checkpoint_id = :new_checkpoint_id \
                                 REMOVE claim_id, lease_until, wake_at, wake_shard";
        const OPERATION: &str = "hand a job over";
        let new_checkpoint_id = token();
        let (status, expression, wake_at) = match to {
            HandOver::Queued => (JobStatus::Queued, QUEUED, Some(now + WAKE_AFTER_HINT)),
            HandOver::Waiting(due) => (JobStatus::Waiting, WAITING, Some(*due)),
            HandOver::Halted(_) => (JobStatus::Halted, HALTED, None),
            HandOver::Completed => (JobStatus::Completed, COMPLETED, None),
        };
        let mut call = self
            .job_update(&claim.job.id())?
            .update_expression(expression)
            .condition_expression(IF_MINE)
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":status", value(status)?)
            .expression_attribute_values(":none", value(0)?)
            .expression_attribute_values(":new_checkpoint_id", value(&new_checkpoint_id)?)
            .expression_attribute_values(":checkpoint_id", value(&claim.checkpoint_id)?);
        if let Some(wake_at) = wake_at {
            call = call.expression_attribute_values(":wake_at", at(wake_at)?);
        }
        if let HandOver::Halted(reason) = to {
            call = call.expression_attribute_values(":reason", value(reason)?);
        }
        let handed_over = match conditionally(OPERATION, call).await? {
            Ok(_) => true,
            Err(Some(item)) => Claim::is_written(item, &new_checkpoint_id)?,
            Err(None) => false,
        };
        if !handed_over {
            return Ok(None);
        }
        match to {
            HandOver::Halted(_) => self.metrics.count(Event::JobsHalted, 1),
            HandOver::Completed => self.metrics.count(Event::JobsCompleted, 1),
            HandOver::Queued | HandOver::Waiting(_) => {}
        }
        Ok(Some(wake_at.unwrap_or(now)))
    }

    /// The part of a resend that moves so many rows from doubt into a new segment, on top of this claim's last checkpoint.
    pub(super) fn count_resent(
        &self,
        claim: &Claim,
        rows: usize,
        new_checkpoint_id: &str,
        now: Timestamp,
    ) -> Result<UpdateBuilder, Error> {
        const COUNT: &str = "SET #segments = :segments, waiting = waiting + :rows, in_doubt = in_doubt - :rows, \
                             lease_until = :lease_until, wake_at = :wake_at, checkpoint_id = :new_checkpoint_id";
        let (lease_until, wake_at) = claim.renewed(now);
        Ok(self
            .update_job(&claim.job.id())?
            .update_expression(COUNT)
            .condition_expression(IF_MINE)
            .expression_attribute_names("#segments", "segments")
            .expression_attribute_values(":segments", value(claim.job.segments + 1)?)
            .expression_attribute_values(":rows", value(rows)?)
            .expression_attribute_values(":lease_until", at(lease_until)?)
            .expression_attribute_values(":wake_at", at(wake_at)?)
            .expression_attribute_values(":new_checkpoint_id", value(new_checkpoint_id)?)
            .expression_attribute_values(":checkpoint_id", value(&claim.checkpoint_id)?))
    }

    /// Notes that a wish to send again has been carried out; false if another has claimed the job.
    pub async fn fulfil_resend_wish(
        &self,
        claim: &mut Claim,
        now: Timestamp,
    ) -> Result<bool, Error> {
        const FULFIL: &str = "SET checkpoint_id = :new_checkpoint_id, lease_until = :lease_until, wake_at = :wake_at \
                              REMOVE resend_wish";
        let new_checkpoint_id = token();
        let (lease_until, wake_at) = claim.renewed(now);
        let call = self
            .job_update(&claim.job.id())?
            .update_expression(FULFIL)
            .condition_expression(IF_MINE)
            .expression_attribute_values(":lease_until", at(lease_until)?)
            .expression_attribute_values(":wake_at", at(wake_at)?)
            .expression_attribute_values(":new_checkpoint_id", value(&new_checkpoint_id)?)
            .expression_attribute_values(":checkpoint_id", value(&claim.checkpoint_id)?);
        let written = match conditionally("fulfil a wish to send again", call).await? {
            Ok(_) => true,
            Err(Some(item)) => Claim::is_written(item, &new_checkpoint_id)?,
            Err(None) => false,
        };
        if written {
            claim.note_written(new_checkpoint_id, now);
            claim.job.resend_wish = false;
        }
        Ok(written)
    }

    /// Queues a halted job again, with nothing held against it; its epoch and wake-up, for the hint. Nothing if it is not
    /// halted any more. Who resumes it twice hints it twice, which is harmless.
    pub async fn resume(
        &self,
        job: &JobId,
        now: Timestamp,
    ) -> Result<Option<(u64, Timestamp)>, Error> {
        const RESUME: &str = "SET #status = :queued, stalls = :none, breakers = :breakers, wake_at = :wake_at, \
                              wake_shard = :wake_shard REMOVE reason";
        const IF_HALTED: &str = "#status = :halted";
        const OPERATION: &str = "resume a job";
        let call = self
            .job_update(job)?
            .update_expression(RESUME)
            .condition_expression(IF_HALTED)
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":queued", value(JobStatus::Queued)?)
            .expression_attribute_values(":halted", value(JobStatus::Halted)?)
            .expression_attribute_values(":none", value(0)?)
            .expression_attribute_values(":breakers", value(Breakers::default())?)
            .expression_attribute_values(":wake_at", at(now + WAKE_AFTER_HINT)?)
            .expression_attribute_values(":wake_shard", value(wake_shard(job))?)
            .return_values(ReturnValue::AllNew);
        let job: Job = match conditionally(OPERATION, call).await? {
            Ok(item) | Err(Some(item)) => from_item(OPERATION, item)?,
            Err(None) => return Ok(None),
        };
        let queued = job.status == JobStatus::Queued;
        Ok(job
            .wake_at
            .filter(|_| queued)
            .map(|wake_at| (job.epoch, wake_at)))
    }

    /// Jobs whose time to be looked at has come, in one partition of the index, from the longest overdue. The index lags:
    /// [`Store::postpone_wake`] asks the job itself.
    pub async fn jobs_to_wake(&self, shard: u64, now: Timestamp) -> Result<Vec<JobId>, Error> {
        const OPERATION: &str = "look for jobs to wake";
        let call = self
            .client
            .query()
            .table_name(&self.broadcasts)
            .index_name("wake")
            .key_condition_expression("wake_shard = :shard AND wake_at <= :now")
            .expression_attribute_values(":shard", value(shard.to_string())?)
            .expression_attribute_values(":now", at(now)?)
            .limit(100);
        let found = patiently(|| call.clone().send())
            .await
            .map_err(unsettled(OPERATION))?;
        let keys = found.items.unwrap_or_default().into_iter();
        keys.map(|item| from_item::<Key>(OPERATION, item).map(Key::into_job))
            .filter_map(Result::transpose)
            .collect()
    }

    /// Every job that somebody must look at some time, whenever that is: for a start that finds no hints. The index lags.
    pub async fn unfinished_jobs(&self) -> Result<Vec<JobId>, Error> {
        const OPERATION: &str = "look for unfinished jobs";
        let mut unfinished = Vec::new();
        for shard in Self::wake_shards() {
            let call = self
                .client
                .query()
                .table_name(&self.broadcasts)
                .index_name("wake")
                .key_condition_expression("wake_shard = :shard")
                .expression_attribute_values(":shard", value(shard.to_string())?);
            let mut after = None;
            loop {
                let call = call.clone().set_exclusive_start_key(after);
                let found = patiently(|| call.clone().send())
                    .await
                    .map_err(unsettled(OPERATION))?;
                for item in found.items.unwrap_or_default() {
                    unfinished.extend(from_item::<Key>(OPERATION, item)?.into_job());
                }
                after = found.last_evaluated_key;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(unfinished)
    }

    /// The partitions of the index that [`Store::jobs_to_wake`] looks into.
    pub fn wake_shards() -> std::ops::Range<u64> {
        0..WAKE_SHARDS
    }

    /// Takes the right to hint a job whose time has come: moves that time on, so that of two who look one hints.
    /// The job as it then is, or nothing if there is no reason to hint it any more.
    pub async fn postpone_wake(&self, job: &JobId, now: Timestamp) -> Result<Option<Job>, Error> {
        const IF_DUE: &str = "wake_at <= :now";
        let call = self
            .job_update(job)?
            .condition_expression(IF_DUE)
            .expression_attribute_values(":now", at(now)?);
        // Not the same time as another's who looks at the same moment: so a lost answer can be told from a refusal.
        let apart = Duration::from_millis(rand::random_range(0..1_000));
        self.set_wake(call, now + WAKE_AFTER_HINT + apart).await
    }

    /// Has a job that nobody works on looked at again at this time, when its Page is free.
    pub async fn wake_when_page_is_free(
        &self,
        job: &JobId,
        wake_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.set_wake(self.if_ready(job, now)?, wake_at).await?;
        Ok(())
    }

    async fn set_wake(
        &self,
        call: UpdateItemFluentBuilder,
        wake_at: Timestamp,
    ) -> Result<Option<Job>, Error> {
        const SET_WAKE: &str = "SET wake_at = :wake_at";
        const OPERATION: &str = "set when to look at a job";
        let call = call
            .update_expression(SET_WAKE)
            .expression_attribute_values(":wake_at", at(wake_at)?)
            .return_values(ReturnValue::AllNew);
        let item = match conditionally(OPERATION, call).await? {
            Ok(item) => item,
            Err(None) => return Ok(None),
            Err(Some(item)) => item,
        };
        let job: Job = from_item(OPERATION, item)?;
        Ok((job.wake_at == Some(wake_at)).then_some(job))
    }

    /// An update of a job that somebody could work on now.
    fn if_ready(&self, job: &JobId, now: Timestamp) -> Result<UpdateItemFluentBuilder, Error> {
        const IF_READY: &str = "#status = :queued \
                                OR (#status IN (:scheduled, :waiting) AND due_at <= :now) \
                                OR (#status = :processing AND lease_until < :now)";
        Ok(self
            .job_update(job)?
            .condition_expression(IF_READY)
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":queued", value(JobStatus::Queued)?)
            .expression_attribute_values(":scheduled", value(JobStatus::Scheduled)?)
            .expression_attribute_values(":waiting", value(JobStatus::Waiting)?)
            .expression_attribute_values(":processing", value(JobStatus::Processing)?)
            .expression_attribute_values(":now", at(now)?))
    }

    fn job_update(&self, job: &JobId) -> Result<UpdateItemFluentBuilder, Error> {
        Ok(self
            .client
            .update_item()
            .table_name(&self.broadcasts)
            .key("pk", value(partition(&job.broadcast_id))?)
            .key("sk", value(job_sort_key(job))?))
    }

    /// The same, as a part of a transaction.
    pub(super) fn update_job(&self, job: &JobId) -> Result<UpdateBuilder, Error> {
        Ok(Update::builder()
            .table_name(&self.broadcasts)
            .key("pk", value(partition(&job.broadcast_id))?)
            .key("sk", value(job_sort_key(job))?)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld))
    }
}

/// Nobody has claimed the job since, and nothing has been checkpointed but what this claim knows of: every claim,
/// checkpoint and hand-over writes an id of its own, so this one stands for epoch and cursor both. The cursor alone would
/// not do: a checkpoint may count doubts and leave it where it is.
const IF_MINE: &str = "checkpoint_id = :checkpoint_id";

/// What a refused checkpoint is told by.
#[derive(Deserialize)]
struct Stands {
    #[serde(default)]
    checkpoint_id: String,
}

/// The keys of a job, as the index has them.
#[derive(Deserialize)]
struct Key {
    pk: String,
    sk: String,
}

impl Key {
    pub(super) fn into_job(self) -> Option<JobId> {
        Some(JobId {
            broadcast_id: BroadcastId::parse(self.pk.strip_prefix("broadcast#")?)?,
            page_id: PageId::parse(self.sk.strip_prefix("job#")?).ok()?,
        })
    }
}

fn to_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
