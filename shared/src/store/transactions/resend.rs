//! Sending again: the command to resend deliveries in doubt, which names rows, and the claim that carries out such a command or a
//! retry.

use jiff::Timestamp;

use super::{ROWS_AT_ONCE, Transactions};
use crate::domain::backlog::Segment;
use crate::domain::delivery::{Delivery, Status};
use crate::domain::ids::{JobId, token};
use crate::domain::job::{Job, JobStatus};
use crate::store::calls::{Transaction, is_refusal};
use crate::store::jobs::{self, Claim, ClaimRefusal, extend_lease, update_if_claimed};
use crate::store::statement::{Update, millis};
use crate::store::tables::{Error, from_item};
use crate::store::{keys, reopening, segments};

/// The answer to a job command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandOutcome {
    /// The next claim carries the command out.
    Accepted,
    /// The job is not completed, and takes no such command now.
    NotNow,
    /// The job is cancelled, and takes no such command any more.
    Never,
    /// The row has been moved on meanwhile.
    RowChanged,
}

/// The end of putting rows back in the backlog.
#[derive(Debug)]
pub enum Resent {
    /// The rows are in a new segment at the end of the backlog.
    Done,
    /// Nothing is written: these rows, by their index, have been moved on meanwhile.
    Changed(Vec<usize>),
    /// Nothing is written: the job has been claimed by another worker.
    Stale,
}

impl Transactions<'_> {
    /// Asks a completed job to send to this contact again, although the message may have arrived. The row is named, and the
    /// next claim of the job carries the command out for the rows that are: never for all that are in doubt. A job of which the
    /// end is not announced yet takes no command.
    ///
    /// # Errors
    /// If DynamoDB does not answer; the command may then be given, and a repetition finds the row changed.
    pub async fn command_resend_if_completed(
        &self,
        job: &JobId,
        row: &Delivery,
        now: Timestamp,
    ) -> Result<CommandOutcome, Error> {
        const COMMAND: &str = "SET #status = :queued, resend_wish = :yes, wake_at = :now, wake_shard = :shard";
        const IF_COMPLETED: &str = "retained_until > :now \
                                    AND ((#status = :completed AND attribute_not_exists(wake_at)) \
                                         OR (#status = :queued AND resend_wish = :yes)) \
                                    AND NOT (not_after <= :now)";
        const OPERATION: &str = "command a resend";
        let Self(store) = self;
        let command = Update::new(&store.broadcasts, keys::job(job), COMMAND)
            .only_if(IF_COMPLETED)
            .bind(":queued", JobStatus::Queued)
            .bind(":completed", JobStatus::Completed)
            .bind(":shard", keys::wake_shard(job))
            .bind(":now", millis(now))
            .bind(":yes", true);
        let name = reopening::name_for_resend(store, job, row);
        let parts = vec![name.into_part(OPERATION)?, command.into_part(OPERATION)?];
        Ok(match store.transact(OPERATION, parts, &token()).await? {
            Transaction::Written => CommandOutcome::Accepted,
            Transaction::Refused(reasons) if reasons.first().is_some_and(is_refusal) => CommandOutcome::RowChanged,
            Transaction::Refused(reasons) => {
                let job = reasons.into_iter().nth(1).and_then(|reason| reason.item);
                let job = job.map(|job| from_item::<Job>(OPERATION, job)).transpose()?;
                match job.is_some_and(|job| job.status == JobStatus::Cancelled || job.is_expired(now)) {
                    true => CommandOutcome::Never,
                    false => CommandOutcome::NotNow,
                }
            }
        })
    }

    /// Puts rows that the job's command to send again is for back in the backlog, at its end; at most [`ROWS_AT_ONCE`]. One
    /// transaction of the rows, a new segment and the job, on top of this claim's last checkpoint: a batch that is repeated
    /// after a lost answer cannot reuse the segment's number.
    ///
    /// # Errors
    /// If DynamoDB does not answer; the next claim carries out what is left of the command.
    pub async fn resend(&self, claim: &mut Claim, rows: &[Delivery], now: Timestamp) -> Result<Resent, Error> {
        loop {
            if let Some(end) = self.try_resend(claim, rows, now).await? {
                return Ok(end);
            }
        }
    }

    /// Puts rows back under the command to stop that the claim knows of; `None` if that is another one now.
    async fn try_resend(&self, claim: &mut Claim, rows: &[Delivery], now: Timestamp) -> Result<Option<Resent>, Error> {
        const COUNT: &str = "SET #segments = :segments, waiting = waiting + :rows, failed = failed - :failed, \
                             skipped = skipped - :skipped, in_doubt = in_doubt - :in_doubt, lease_until = :lease_until, wake_at = :wake_at, checkpoint_id = :new_checkpoint_id";
        const OPERATION: &str = "put deliveries back in the backlog";
        debug_assert!(rows.len() <= ROWS_AT_ONCE);
        let Self(store) = self;
        let segment = Segment {
            number: claim.job.segments,
            contacts: rows.iter().map(|row| row.contact_id.clone()).collect(),
            due_at: None,
        };
        let mut reasons = claim.job.reasons.clone();
        for (status, code) in rows.iter().filter_map(Delivery::not_sent) {
            reasons.discount(status, &code);
        }
        let changes = reasons.changes_since(&claim.job.reasons);
        let of = |status| rows.iter().filter(|row| row.state.status() == status).count();
        let checkpoint_id = token();
        let count = extend_lease(update_if_claimed(store, claim, COUNT, &checkpoint_id), claim, now)
            .bind(":segments", claim.job.segments + 1)
            .bind(":rows", rows.len())
            .bind(":failed", of(Status::Failed))
            .bind(":skipped", of(Status::Skipped))
            .bind(":in_doubt", of(Status::InDoubt));
        let mut parts = vec![
            count.add_all(&changes).into_part(OPERATION)?,
            segments::put(store, OPERATION, &claim.job, &segment)?,
        ];
        let before_rows = parts.len();
        for row in rows {
            parts.push(reopening::requeue(store, &claim.job, row, now).into_part(OPERATION)?);
        }
        if let Transaction::Refused(reasons) = store.transact(OPERATION, parts, &checkpoint_id).await? {
            let job = reasons
                .first()
                .filter(|reason| is_refusal(reason))
                .and_then(|reason| reason.item.clone());
            if job.is_none() {
                let rows = reasons.iter().skip(before_rows).enumerate();
                let changed = rows.filter(|(_, reason)| is_refusal(reason));
                return Ok(Some(Resent::Changed(changed.map(|(index, _)| index).collect())));
            }
            match jobs::refusal(claim, job, &checkpoint_id)? {
                ClaimRefusal::Written => {}
                ClaimRefusal::StopChanged => return Ok(None),
                ClaimRefusal::Stale => return Ok(Some(Resent::Stale)),
            }
        }
        claim.job.segments += 1;
        claim.job.reasons = reasons;
        claim.record_written(checkpoint_id, now);
        Ok(Some(Resent::Done))
    }
}
