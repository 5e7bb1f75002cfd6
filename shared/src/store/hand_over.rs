//! The hand-over of a job: the last write of a claim, which the command to stop that stands by then decides, too.

use jiff::Timestamp;

use super::calls::Conditional;
use super::jobs::{Claim, ClaimRefusal, Jobs, WAKE_AGAIN_AFTER, refusal, update_if_claimed};
use super::statement::millis;
use super::tables::{Error, from_item};
use crate::domain::command::StopCommand;
use crate::domain::ids::token;
use crate::domain::job::{Job, JobStatus};
use crate::domain::schedule::QUIET_HOURS;
use crate::runtime::metrics::Event;

/// The way in which a worker leaves a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandOver {
    /// There is more to do at once.
    Queued,
    /// There is more to do from this time on.
    Waiting(Timestamp),
    /// The quiet hours last until this time.
    Quiet(Timestamp),
    /// The job would fail for every contact.
    Halted(String),
    /// The operator wants no more sent until the job is resumed.
    Paused,
    /// Nothing is left to do.
    Completed,
    /// The operator wants no more sent, and every contact is settled or in doubt; or the rest is not known any more, for this
    /// reason.
    Cancelled(Option<String>),
}

/// A job that was handed over.
#[derive(Clone, Debug)]
pub struct HandedOver {
    /// The way in which it was left.
    pub to: HandOver,
    /// The job as it is now.
    pub job: Job,
}

impl HandOver {
    /// Returns the way to leave a job under this command to stop. A cancelled job is `queued` for its drain, whatever else
    /// there is to say about it: nobody would claim a halted one. A job with nothing left to do is completed although it
    /// should pause.
    fn under(&self, stop: Option<StopCommand>) -> Self {
        match (self, stop) {
            (Self::Queued | Self::Waiting(_) | Self::Quiet(_), Some(StopCommand::Pause)) => Self::Paused,
            (Self::Waiting(_) | Self::Quiet(_) | Self::Halted(_), Some(StopCommand::Cancel)) => Self::Queued,
            (Self::Completed, Some(StopCommand::Cancel)) => Self::Cancelled(None),
            (to, _) => to.clone(),
        }
    }
}

impl Jobs<'_> {
    /// Hands a job over, and uses the claim up. Returns the way in which the job is left: a command to stop that came
    /// meanwhile, or was taken back, is obeyed. `None` if another worker has claimed the job.
    ///
    /// A job that has ended keeps its wake-up until its end is announced: see [`Jobs::mark_announced_if_over`].
    ///
    /// # Errors
    /// If DynamoDB does not answer: the job's wake-up then brings it back.
    pub async fn hand_over(
        &self,
        mut claim: Claim,
        wanted: &HandOver,
        now: Timestamp,
    ) -> Result<Option<HandedOver>, Error> {
        const QUEUED: &str = "SET #status = :status, stalls = :none, wake_at = :wake_at, \
                              checkpoint_id = :new_checkpoint_id REMOVE claim_id, lease_until";
        const WAITING: &str = "SET #status = :status, stalls = :none, wake_at = :wake_at, due_at = :wake_at, \
                               checkpoint_id = :new_checkpoint_id REMOVE claim_id, lease_until";
        const QUIET: &str = "SET #status = :status, stalls = :none, wake_at = :wake_at, due_at = :wake_at, \
                             reason = :reason, checkpoint_id = :new_checkpoint_id REMOVE claim_id, lease_until";
        const HALTED: &str = "SET #status = :status, stalls = :none, reason = :reason, \
                              checkpoint_id = :new_checkpoint_id \
                              REMOVE claim_id, lease_until, #stop";
        const PAUSED: &str = "SET #status = :status, stalls = :none, checkpoint_id = :new_checkpoint_id \
                              REMOVE claim_id, lease_until, wake_at, wake_shard, #stop";
        const COMPLETED: &str = "SET #status = :status, stalls = :none, checkpoint_id = :new_checkpoint_id, \
                                 may_send_until = :now REMOVE claim_id, lease_until, #stop";
        const CANCELLED: &str = "SET #status = :status, stalls = :none, checkpoint_id = :new_checkpoint_id, \
                                 may_send_until = :now, reason = :reason \
                                 REMOVE claim_id, lease_until, #stop, #retry, resend_wish";
        const OPERATION: &str = "hand a job over";
        let Self(store) = self;
        loop {
            let (checkpoint_id, to) = (token(), wanted.under(claim.job.stop));
            let (status, expression) = match &to {
                HandOver::Queued => (JobStatus::Queued, QUEUED),
                HandOver::Waiting(_) => (JobStatus::Waiting, WAITING),
                HandOver::Quiet(_) => (JobStatus::Waiting, QUIET),
                HandOver::Halted(_) => (JobStatus::Halted, HALTED),
                HandOver::Paused => (JobStatus::Paused, PAUSED),
                HandOver::Completed => (JobStatus::Completed, COMPLETED),
                HandOver::Cancelled(_) => (JobStatus::Cancelled, CANCELLED),
            };
            let update = update_if_claimed(store, &claim, expression, &checkpoint_id)
                .bind(":status", status)
                .bind(":none", 0)
                .returning_new();
            let update = match &to {
                HandOver::Queued => update.bind(":wake_at", millis(now + WAKE_AGAIN_AFTER)),
                HandOver::Waiting(due) => update.bind(":wake_at", millis(claim.job.not_after_its_end(*due))),
                HandOver::Quiet(until) => {
                    let until = claim.job.not_after_its_end(*until);
                    update.bind(":wake_at", millis(until)).bind(":reason", QUIET_HOURS)
                }
                HandOver::Halted(reason) => update.bind(":reason", reason),
                HandOver::Paused => update,
                HandOver::Completed => update.bind(":now", millis(now)),
                HandOver::Cancelled(reason) => update.bind(":now", millis(now)).bind(":reason", reason),
            };
            let item = match store.update(OPERATION, update).await? {
                Conditional::Written(item) => item,
                Conditional::Refused(item) => match (refusal(&mut claim, item.clone(), &checkpoint_id)?, item) {
                    (ClaimRefusal::Written, Some(item)) => item,
                    (ClaimRefusal::StopChanged, _) => continue,
                    (ClaimRefusal::Written | ClaimRefusal::Stale, _) => return Ok(None),
                },
            };
            match &to {
                HandOver::Halted(_) => store.metrics.count(Event::JobsHalted, 1),
                HandOver::Completed => store.metrics.count(Event::JobsCompleted, 1),
                HandOver::Queued
                | HandOver::Waiting(_)
                | HandOver::Quiet(_)
                | HandOver::Paused
                | HandOver::Cancelled(_) => {}
            }
            let job = from_item(OPERATION, item)?;
            return Ok(Some(HandedOver { to, job }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_that_stands_decides_on_the_hand_over() {
        let (pause, cancel) = (Some(StopCommand::Pause), Some(StopCommand::Cancel));
        let waiting = HandOver::Waiting(Timestamp::UNIX_EPOCH);
        let quiet = HandOver::Quiet(Timestamp::UNIX_EPOCH);
        let halted = HandOver::Halted("token".to_owned());
        for (wanted, under_pause, under_cancel) in [
            (HandOver::Queued, HandOver::Paused, HandOver::Queued),
            (waiting, HandOver::Paused, HandOver::Queued),
            (quiet, HandOver::Paused, HandOver::Queued),
            (halted.clone(), halted, HandOver::Queued),
            (HandOver::Completed, HandOver::Completed, HandOver::Cancelled(None)),
        ] {
            assert_eq!(wanted.under(None), wanted);
            assert_eq!(
                (wanted.under(pause), wanted.under(cancel)),
                (under_pause, under_cancel),
                "{wanted:?}"
            );
        }
    }
}
