//! Imports of a Page's contacts. Each is a job of its own kind, one for a Page: two imports of a Page at once are the same job.
//! Claims, hand-overs and wake-ups are those of every job.

use jiff::Timestamp;

use super::calls::Conditional;
use super::controls;
use super::jobs::{Claim, ClaimRefusal, WAKE_AGAIN_AFTER, extend_lease, refusal, update_if_claimed};
use super::keys;
use super::statement::{Update, millis};
use super::tables::{Error, REPORT_OUTLIVES, SCHEMA, Store, expiry, from_item};
use crate::domain::control::JobChange;
use crate::domain::ids::{JobId, PageId, token};
use crate::domain::import::ImportProgress;
use crate::domain::job::{Job, JobStatus};

/// The imports of a [`Store`].
pub struct Imports<'a>(pub(super) &'a Store);

/// The answer to a request for an import.
#[derive(Debug)]
pub enum Started {
    /// The import begins; it is to be woken.
    Now(Box<Job>),
    /// An import of the Page is under way.
    Before(Box<Job>),
}

impl Imports<'_> {
    /// Reads the last import of a Page, as of now.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or the item is unreadable.
    pub async fn get(&self, page_id: &PageId) -> Result<Option<Job>, Error> {
        self.0.jobs().get(&JobId::of_import(page_id)).await
    }

    /// Begins an import of a Page, at the beginning of the list, unless one is under way. The epoch goes on, so that no worker and
    /// no control of an earlier import concerns this one.
    ///
    /// # Errors
    /// If DynamoDB does not answer: the import may have begun, and a repetition finds it.
    pub async fn start_if_over(&self, page_id: &PageId, now: Timestamp) -> Result<Started, Error> {
        const START: &str = "SET broadcast_id = :broadcast_id, import_page_id = :page_id, #status = :queued, \
                             #contacts = :none, #snapshot = :nowhere, #segments = :none, first_segments = :none, \
                             #cursor = :none, epoch = if_not_exists(epoch, :none), stalls = :none, wake_at = :wake_at, \
                             wake_shard = :wake_shard, created_at = :now, retained_until = :retained_until, \
                             expires_at = :expires_at, #import = :import, checkpoint_id = :checkpoint_id, \
                             #schema = if_not_exists(#schema, :schema) \
                             REMOVE claim_id, lease_until, due_at, reason, wake_ups, may_send_until, #stop";
        const IF_OVER: &str = "attribute_not_exists(pk) OR #status IN (:completed, :cancelled, :halted)";
        const OPERATION: &str = "begin an import";
        let Self(store) = self;
        let (id, checkpoint_id) = (JobId::of_import(page_id), token());
        let retained_until = now + store.retention;
        let start = Update::new(&store.broadcasts, keys::job(&id), START)
            .only_if(IF_OVER)
            .bind(":broadcast_id", &id.broadcast_id)
            .bind(":page_id", page_id)
            .bind(":queued", JobStatus::Queued)
            .bind(":completed", JobStatus::Completed)
            .bind(":cancelled", JobStatus::Cancelled)
            .bind(":halted", JobStatus::Halted)
            .bind(":none", 0)
            .bind(":nowhere", "")
            .bind(":wake_at", millis(now + WAKE_AGAIN_AFTER))
            .bind(":wake_shard", keys::wake_shard(&id))
            .bind(":now", millis(now))
            .bind(":retained_until", millis(retained_until))
            .bind(":expires_at", expiry(retained_until, REPORT_OUTLIVES))
            .bind(":import", ImportProgress::default())
            .bind(":checkpoint_id", &checkpoint_id)
            .bind(":schema", SCHEMA)
            .returning_new();
        let (item, is_refused) = match store.update(OPERATION, start).await? {
            Conditional::Written(item) => (item, false),
            Conditional::Refused(Some(item)) => (item, true),
            Conditional::Refused(None) => return Err(Error::Gone { operation: OPERATION }),
        };
        let is_own = item.get("checkpoint_id").and_then(|id| id.as_s().ok()) == Some(&checkpoint_id);
        let job = Box::new(from_item(OPERATION, item)?);
        // Refused by this very write: its answer was lost.
        Ok(match is_refused && !is_own {
            true => Started::Before(job),
            false => Started::Now(job),
        })
    }

    /// Writes the progress of a claimed import and extends its lease; `false` if another worker has claimed it. The claim knows
    /// afterwards which command to stop stands.
    ///
    /// # Errors
    /// If DynamoDB does not answer: the progress may be written, so the claim must not be used any more.
    pub async fn checkpoint_if_claimed(
        &self,
        claim: &mut Claim,
        progress: &ImportProgress,
        now: Timestamp,
    ) -> Result<bool, Error> {
        const CHECKPOINT: &str = "SET #import = :import, stalls = :none, lease_until = :lease_until, wake_at = :wake_at, \
                                  checkpoint_id = :new_checkpoint_id";
        let Self(store) = self;
        loop {
            let checkpoint_id = token();
            let update = update_if_claimed(store, claim, CHECKPOINT, &checkpoint_id)
                .bind(":import", progress)
                .bind(":none", 0);
            let update = extend_lease(update, claim, now);
            if let Conditional::Refused(job) = store.update("checkpoint an import", update).await? {
                match refusal(claim, job, &checkpoint_id)? {
                    ClaimRefusal::Written => {}
                    ClaimRefusal::StopChanged => continue,
                    ClaimRefusal::Stale => return Ok(false),
                }
            }
            claim.record_written(checkpoint_id, now);
            return Ok(true);
        }
    }

    /// Changes an import that is as it was read; `false` if it has changed since.
    ///
    /// # Errors
    /// If DynamoDB does not answer: the import may be changed, and a repetition finds it as it wants it.
    pub async fn change_if_unchanged(&self, job: &Job, change: &JobChange, now: Timestamp) -> Result<bool, Error> {
        let update = controls::change(self.0, job, change, now);
        let changed = self.0.update("change an import", update).await?;
        Ok(matches!(changed, Conditional::Written(_)))
    }
}
