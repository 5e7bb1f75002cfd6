//! Jobs: the claim, and each transition of a job that writes its item alone.

use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::TransactWriteItem;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::calls::{Conditional, Read};
use super::keys::{self, JobKey};
use super::statement::{Put, Query, Update, millis};
use super::tables::{Error, Item, SCHEMA, Store, from_item, to_item};
use crate::domain::command::StopCommand;
use crate::domain::ids::{JobId, PageId, token};
use crate::domain::job::{Job, JobStatus};
use crate::domain::retry;

/// The time from the end of a lease to the job's wake-up: a worker that is only slow has handed over by then.
const WAKE_AFTER_LEASE: SignedDuration = SignedDuration::from_secs(60);
/// The time until which a job may send that has been claimed and is not completed: nothing bounds it.
const NOT_COMPLETED: Timestamp = Timestamp::MAX;
/// The time after which a queued job is woken again, if no worker has claimed it: its wake-up was lost, or there are more jobs
/// than workers. From then on it is a back-off.
pub const WAKE_AGAIN_AFTER: Duration = Duration::from_secs(180);

/// The jobs of a [`Store`].
pub struct Jobs<'a>(pub(super) &'a Store);

/// The right to work on a job. Its holder is the only writer of the job's progress; the next claim makes it stale.
#[derive(Debug)]
pub struct Claim {
    /// The job as it was claimed, with the changes that this claim has made.
    pub job: Job,
    /// The id of the last checkpoint, so that each is made once, on top of the one before.
    checkpoint_id: String,
    wake_at: Timestamp,
    lease: Duration,
    /// The instant before the last write that told which command to stop stands: nothing is begun long after it.
    pub told_at: Instant,
}

/// The answer to a request for a claim.
#[derive(Debug)]
pub enum Claimed {
    /// The claim was granted.
    Won(Box<Claim>),
    /// Another worker holds the job, under a live lease.
    HeldByAnother,
    /// The job is not to be worked on now.
    NotReady(JobStatus),
    /// There is no such job.
    Unknown,
}

#[derive(Serialize)]
struct StoredJob<'a> {
    schema: u32,
    /// The partition of the `wake` index; there as long as `wake_at` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    wake_shard: Option<String>,
    /// The id of the last checkpoint; none yet.
    checkpoint_id: &'a str,
    expires_at: i64,
    #[serde(flatten)]
    job: &'a Job,
}

/// The part of a job that tells the author of its last checkpoint, and the command to stop.
#[derive(Deserialize)]
struct LastCheckpoint {
    #[serde(default)]
    checkpoint_id: String,
    #[serde(default)]
    stop: Option<StopCommand>,
}

impl Claim {
    /// The end of a lease that is extended now, and the wake-up after it: moved only if the lease would pass it, so that
    /// most checkpoints leave the `wake` index alone; or if it is too late, since the clock has gone back.
    fn renewed(&self, now: Timestamp) -> (Timestamp, Timestamp) {
        let lease_until = now + self.lease;
        let latest = lease_until + WAKE_AFTER_LEASE;
        let is_after_lease = (lease_until..=latest).contains(&self.wake_at);
        (lease_until, if is_after_lease { self.wake_at } else { latest })
    }

    /// Notes that a write with this checkpoint id has been made, as of `now`.
    pub(super) fn record_written(&mut self, checkpoint_id: String, now: Timestamp) {
        let (lease_until, wake_at) = self.renewed(now);
        self.checkpoint_id = checkpoint_id;
        self.job.lease_until = Some(lease_until);
        self.wake_at = wake_at;
    }
}

/// The meaning of a job's refusal of a write of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaimRefusal {
    /// This very write was made: its answer was lost.
    Written,
    /// The claim stands, and so does its last checkpoint; only the command to stop is another one, which the claim knows now.
    /// The write is to be repeated.
    StopChanged,
    /// Another worker has claimed the job.
    Stale,
}

/// Judges the refusal of a write of a claim by the job that refused it.
pub(super) fn refusal(claim: &mut Claim, job: Option<Item>, new_checkpoint_id: &str) -> Result<ClaimRefusal, Error> {
    let Some(job) = job else {
        return Ok(ClaimRefusal::Stale);
    };
    let found: LastCheckpoint = from_item("judge a refusal", job)?;
    Ok(match found.checkpoint_id {
        id if id == new_checkpoint_id => {
            claim.job.stop = found.stop;
            ClaimRefusal::Written
        }
        id if id == claim.checkpoint_id && found.stop != claim.job.stop => {
            claim.job.stop = found.stop;
            ClaimRefusal::StopChanged
        }
        _ => ClaimRefusal::Stale,
    })
}

/// No other worker has claimed the job since, no checkpoint has been written but the one that this claim knows of, and no
/// command to stop has come since.
///
/// Every claim, checkpoint and hand-over writes an id of its own, so this one stands for epoch and cursor both. The cursor
/// alone would not do: a checkpoint may count doubts and leave the cursor where it is. A command to stop leaves the id alone,
/// so that the worker is not stale; it learns of the command by the refusal, and that costs nothing while there is none.
pub(super) const IF_CLAIMED: &str = "checkpoint_id = :checkpoint_id AND attribute_not_exists(#stop)";
/// As [`IF_CLAIMED`], with the command to stop that this claim knows of.
const IF_CLAIMED_AND_STOPPED: &str = "checkpoint_id = :checkpoint_id AND #stop = :stop";

impl Jobs<'_> {
    /// Claims a job, if it is ready or its worker's lease is over.
    ///
    /// # Errors
    /// If DynamoDB does not answer: the job may then be claimed, and its wake-up brings it back.
    pub async fn claim(&self, job: &JobId, lease: Duration, now: Timestamp) -> Result<Claimed, Error> {
        const CLAIM: &str = "SET #status = :processing, claim_id = :claim_id, checkpoint_id = :claim_id, \
                             lease_until = :lease_until, wake_at = :wake_at, wake_shard = :wake_shard, \
                             epoch = epoch + :one, stalls = stalls + :one, may_send_until = :not_completed \
                             REMOVE due_at, reason, wake_ups";
        const OPERATION: &str = "claim a job";
        let (claim_id, told_at) = (token(), Instant::now());
        let (lease_until, wake_at) = (now + lease, now + lease + WAKE_AFTER_LEASE);
        let claim = self
            .update_if_ready(job, CLAIM, now)
            .bind(":claim_id", &claim_id)
            .bind(":lease_until", millis(lease_until))
            .bind(":wake_at", millis(wake_at))
            .bind(":wake_shard", keys::wake_shard(job))
            .bind(":not_completed", millis(NOT_COMPLETED))
            .bind(":one", 1)
            .returning_new();
        let item = match self.0.update(OPERATION, claim).await? {
            Conditional::Written(item) | Conditional::Refused(Some(item)) => item,
            Conditional::Refused(None) => return Ok(Claimed::Unknown),
        };
        let job: Job = from_item(OPERATION, item)?;
        if job.claim_id.as_ref() == Some(&claim_id) {
            return Ok(Claimed::Won(Box::new(Claim {
                job,
                checkpoint_id: claim_id,
                wake_at,
                lease,
                told_at,
            })));
        }
        Ok(match job.status {
            JobStatus::Processing => Claimed::HeldByAnother,
            status => Claimed::NotReady(status),
        })
    }

    /// Clears a job's command to send again once it has been carried out; `false` if another worker has claimed the job.
    ///
    /// # Errors
    /// If DynamoDB does not answer: the next claim then carries the command out again, which changes nothing.
    pub async fn clear_command_if_claimed(&self, claim: &mut Claim, now: Timestamp) -> Result<bool, Error> {
        const CLEAR: &str = "SET checkpoint_id = :new_checkpoint_id, lease_until = :lease_until, wake_at = :wake_at \
                             REMOVE resend_wish, #retry";
        loop {
            let checkpoint_id = token();
            let update = extend_lease(update_if_claimed(self.0, claim, CLEAR, &checkpoint_id), claim, now);
            if let Conditional::Refused(job) = self.0.update("clear a job command", update).await? {
                match refusal(claim, job, &checkpoint_id)? {
                    ClaimRefusal::Written => {}
                    ClaimRefusal::StopChanged => continue,
                    ClaimRefusal::Stale => return Ok(false),
                }
            }
            claim.record_written(checkpoint_id, now);
            (claim.job.resend_command, claim.job.retry) = (false, None);
            return Ok(true);
        }
    }

    /// Reads a job as of now.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn get(&self, job: &JobId) -> Result<Option<Job>, Error> {
        let Self(store) = self;
        store
            .get("read a job", &store.broadcasts, keys::job(job), Read::Consistent)
            .await
    }

    /// Lists jobs that are due for a wake-up, in one partition of the index, from the longest overdue; at most `limit`.
    /// The index lags: [`Jobs::postpone_wake_up_if_unchanged`] asks the job itself.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn due_for_wake_up(&self, shard: u64, limit: usize, now: Timestamp) -> Result<Vec<JobId>, Error> {
        const DUE: &str = "wake_shard = :shard AND wake_at <= :now";
        let Self(store) = self;
        let query = Query::index(&store.broadcasts, "wake", DUE)
            .bind(":shard", shard.to_string())
            .bind(":now", millis(now));
        let found: Vec<JobKey> = store.query_all("list jobs to wake", query, limit).await?;
        Ok(found.into_iter().take(limit).filter_map(JobKey::into_job).collect())
    }

    /// Lists every job that has a wake-up ahead, whenever that is: for a start with an empty queue. The index lags.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn unfinished(&self) -> Result<Vec<JobId>, Error> {
        let Self(store) = self;
        let mut unfinished = Vec::new();
        for shard in keys::wake_shards().chain([keys::imports_shard()]) {
            let query =
                Query::index(&store.broadcasts, "wake", "wake_shard = :shard").bind(":shard", shard.to_string());
            let found: Vec<JobKey> = store.query_all("list unfinished jobs", query, usize::MAX).await?;
            unfinished.extend(found.into_iter().filter_map(JobKey::into_job));
        }
        Ok(unfinished)
    }

    /// Lists the jobs of a Page that may have sent at or after a time: those that have been claimed, and were not completed
    /// before it. The index lags.
    ///
    /// A job that is completed sends no more: each of its rows is settled or in doubt, so that not even a worker that was
    /// overtaken can reserve one. Every other job may, however long ago its last lease has ended.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn that_may_have_sent(&self, page_id: &PageId, since: Timestamp) -> Result<Vec<JobId>, Error> {
        const MAY_HAVE_SENT: &str = "page_id = :page_id AND may_send_until >= :since";
        let Self(store) = self;
        let query = Query::index(&store.broadcasts, "page_sending", MAY_HAVE_SENT)
            .bind(":page_id", page_id)
            .bind(":since", millis(since));
        let found: Vec<JobKey> = store
            .query_all("list jobs that may have sent", query, usize::MAX)
            .await?;
        Ok(found.into_iter().filter_map(JobKey::into_job).collect())
    }

    /// Reads a job that is due for a wake-up; `None` if it is not, by a read that may lag.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn get_if_due_for_wake_up(&self, job: &JobId, now: Timestamp) -> Result<Option<Job>, Error> {
        let Self(store) = self;
        let job = store.get("read a job to wake", &store.broadcasts, keys::job(job), Read::Eventual);
        Ok(job.await?.filter(|job: &Job| job.wake_at.is_some_and(|at| at <= now)))
    }

    /// Takes the right to wake a job that is due, as it was read: moves its wake-up on, so that one of two callers wakes it.
    /// Returns the job as it then is, or `None` if there is no reason to wake it any more.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn postpone_wake_up_if_unchanged(&self, job: &Job, now: Timestamp) -> Result<Option<Job>, Error> {
        const POSTPONE: &str = "SET wake_at = :wake_at, wake_ups = :wake_ups";
        const IF_AS_SEEN: &str = "wake_at = :seen";
        // Its wake-ups may wait in the queue, and further ones would only join them.
        let wake_ups = job.wake_ups + u32::from(job.status == JobStatus::Queued);
        // The jitter tells this write from another caller's, so that a lost answer can be told from a refusal.
        let wake_at = now + retry::backoff(WAKE_AGAIN_AFTER, wake_ups + 1, rand::random());
        let update = Update::new(&self.0.broadcasts, keys::job(&job.id()), POSTPONE)
            .only_if(IF_AS_SEEN)
            .bind(":seen", job.wake_at.map(millis))
            .bind(":wake_ups", wake_ups);
        self.set_wake_up(update, wake_at).await
    }

    /// Postpones the wake-up of a job that no worker has claimed, until its Page is free.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn postpone_wake_up_if_ready(
        &self,
        job: &JobId,
        wake_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), Error> {
        let update = self.update_if_ready(job, "SET wake_at = :wake_at", now);
        self.set_wake_up(update, wake_at).await.map(drop)
    }

    async fn set_wake_up(&self, update: Update<'_>, wake_at: Timestamp) -> Result<Option<Job>, Error> {
        const OPERATION: &str = "set the wake-up of a job";
        let update = update.bind(":wake_at", millis(wake_at)).returning_new();
        let item = match self.0.update(OPERATION, update).await? {
            Conditional::Written(item) | Conditional::Refused(Some(item)) => item,
            Conditional::Refused(None) => return Ok(None),
        };
        let job: Job = from_item(OPERATION, item)?;
        Ok((job.wake_at == Some(wake_at)).then_some(job))
    }

    /// Notes that a message may have arrived that is recorded as `failed` or `skipped`, before its row says so.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn note_late_echo(&self, job: &JobId) -> Result<(), Error> {
        let Self(store) = self;
        let note = Update::new(&store.broadcasts, keys::job(job), "SET has_late_echoes = :yes")
            .only_if("attribute_exists(pk)")
            .bind(":yes", true);
        store.update("note a late echo", note).await.map(drop)
    }

    /// Takes away the wake-up of a job that has ended, once its end is announced; unless it goes on again by now.
    ///
    /// # Errors
    /// If DynamoDB does not answer: the wake-up stands, and the end is announced again, which changes nothing.
    pub async fn mark_announced_if_over(&self, job: &Job) -> Result<(), Error> {
        const IF_AS_SEEN: &str = "#status = :status AND epoch = :epoch";
        let Self(store) = self;
        let mark = Update::new(&store.broadcasts, keys::job(&job.id()), "REMOVE wake_at, wake_shard")
            .only_if(IF_AS_SEEN)
            .bind(":status", job.status)
            .bind(":epoch", job.epoch);
        store.update("mark an end as announced", mark).await.map(drop)
    }

    /// Counts a worker that a live lease refused.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn count_refused_claim(&self, job: &JobId) -> Result<(), Error> {
        let count = Update::new(&self.0.broadcasts, keys::job(job), "ADD prevented_claim :one")
            .only_if("attribute_exists(pk)")
            .bind(":one", 1);
        self.0.update("count a refused claim", count).await.map(drop)
    }

    /// An update of a job that a worker could claim now.
    fn update_if_ready(&self, job: &JobId, expression: &'static str, now: Timestamp) -> Update<'_> {
        const IF_READY: &str = "#status = :queued \
                                OR (#status IN (:scheduled, :waiting) AND due_at <= :now) \
                                OR (#status = :processing AND lease_until < :now)";
        Update::new(&self.0.broadcasts, keys::job(job), expression)
            .only_if(IF_READY)
            .bind(":queued", JobStatus::Queued)
            .bind(":scheduled", JobStatus::Scheduled)
            .bind(":waiting", JobStatus::Waiting)
            .bind(":processing", JobStatus::Processing)
            .bind(":now", millis(now))
    }
}

/// The part of a commit that creates a job.
pub(super) fn put(
    store: &Store,
    operation: &'static str,
    job: &Job,
    expires_at: i64,
) -> Result<TransactWriteItem, Error> {
    let stored = StoredJob {
        schema: SCHEMA,
        wake_shard: job.wake_at.map(|_| keys::wake_shard(&job.id())),
        checkpoint_id: "",
        expires_at,
        job,
    };
    let mut item = to_item(operation, stored)?;
    item.extend(keys::job(&job.id()));
    Put::new(&store.broadcasts, item).into_part(operation)
}

/// An update of a claimed job, on top of the claim's last checkpoint. [`refusal`] judges its refusal.
pub(super) fn update_if_claimed<'s>(
    store: &'s Store,
    claim: &Claim,
    expression: &'static str,
    new_checkpoint_id: &str,
) -> Update<'s> {
    let update = Update::new(&store.broadcasts, keys::job(&claim.job.id()), expression)
        .bind(":checkpoint_id", &claim.checkpoint_id)
        .bind(":new_checkpoint_id", new_checkpoint_id);
    match claim.job.stop {
        None => update.only_if(IF_CLAIMED),
        Some(stop) => update.only_if(IF_CLAIMED_AND_STOPPED).bind(":stop", stop),
    }
}

/// Binds the lease and the wake-up of a claim that is extended now.
pub(super) fn extend_lease<'s>(update: Update<'s>, claim: &Claim, now: Timestamp) -> Update<'s> {
    let (lease_until, wake_at) = claim.renewed(now);
    update
        .bind(":lease_until", millis(lease_until))
        .bind(":wake_at", millis(wake_at))
}
