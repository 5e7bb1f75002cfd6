//! The jobs' parts of a control: the change of a job as it was seen.

use jiff::Timestamp;

use super::jobs::WAKE_AGAIN_AFTER;
use super::keys;
use super::statement::{Update, millis};
use super::tables::Store;
use crate::domain::breakers::Breakers;
use crate::domain::command::StopCommand;
use crate::domain::control::JobChange;
use crate::domain::job::{Job, JobStatus};

/// The job is in the state that the control was decided for: no claim, hand-over, change of its due time or other control has
/// come in between. Checkpoints may have.
const IF_AS_SEEN: &str = "#status = :seen_status AND epoch = :seen_epoch";
const AND_NOT_STOPPED: &str = "attribute_not_exists(#stop)";
const AND_STOPPED: &str = "#stop = :seen_stop";
const AND_NOT_DUE: &str = "(attribute_not_exists(due_at) OR attribute_type(due_at, :null))";
const AND_DUE: &str = "due_at = :seen_due";

/// Changes a job that is as it was seen. The id of its last checkpoint stays: a worker that has the job is not stale, and
/// learns of a command to stop at its next write.
pub(super) fn change<'s>(store: &'s Store, job: &Job, change: &JobChange, now: Timestamp) -> Update<'s> {
    const PAUSE: &str = "SET #status = :status REMOVE wake_at, wake_shard";
    const COMMAND_STOP: &str = "SET #stop = :stop";
    const TAKE_BACK_PAUSE: &str = "REMOVE #stop";
    const AWAIT_DUE_TIME: &str = "SET #status = :status, wake_at = :wake_at, wake_shard = :wake_shard";
    const REQUEUE: &str = "SET #status = :status, wake_at = :wake_at, wake_shard = :wake_shard REMOVE due_at";
    const REQUEUE_HALTED: &str = "SET #status = :status, stalls = :none, breakers = :breakers, wake_at = :wake_at, \
                                  wake_shard = :wake_shard REMOVE reason";
    const DRAIN: &str = "SET #status = :status, #stop = :stop, wake_at = :wake_at, wake_shard = :wake_shard \
                         REMOVE due_at, reason";
    const RETRY: &str = "SET #status = :status, #retry = :retry, stalls = :none, breakers = :breakers, \
                         wake_at = :wake_at, wake_shard = :wake_shard";
    let update = |expression| as_seen(Update::new(&store.broadcasts, keys::job(&job.id()), expression), job);
    let queued = |expression, wake_at: Timestamp| {
        update(expression)
            .bind(":status", JobStatus::Queued)
            .bind(":wake_at", millis(wake_at))
            .bind(":wake_shard", keys::wake_shard(&job.id()))
    };
    let wake_again = now + WAKE_AGAIN_AFTER;
    match change {
        JobChange::Pause => update(PAUSE).bind(":status", JobStatus::Paused),
        JobChange::CommandStop(stop) => update(COMMAND_STOP).bind(":stop", stop),
        JobChange::TakeBackPause => update(TAKE_BACK_PAUSE),
        JobChange::AwaitDueTime(status, due) => queued(AWAIT_DUE_TIME, *due).bind(":status", status),
        JobChange::Requeue => queued(REQUEUE, wake_again),
        JobChange::RequeueHalted => queued(REQUEUE_HALTED, wake_again)
            .bind(":none", 0)
            .bind(":breakers", Breakers::resumed(now)),
        JobChange::Drain => queued(DRAIN, wake_again).bind(":stop", StopCommand::Cancel),
        // The operator's word that the Page is in order, as at a resume.
        JobChange::Retry(command) => queued(RETRY, wake_again)
            .bind(":retry", command)
            .bind(":none", 0)
            .bind(":breakers", Breakers::resumed(now)),
    }
}

fn as_seen<'s>(update: Update<'s>, job: &Job) -> Update<'s> {
    let stop = job.stop.map_or(AND_NOT_STOPPED, |_| AND_STOPPED);
    let due = job.due_at.map_or(AND_NOT_DUE, |_| AND_DUE);
    let mut update = update
        .only_if([IF_AS_SEEN, stop, due].join(" AND "))
        .bind(":seen_status", job.status)
        .bind(":seen_epoch", job.epoch);
    if let Some(stop) = job.stop {
        update = update.bind(":seen_stop", stop);
    }
    match job.due_at {
        Some(due) => update.bind(":seen_due", millis(due)),
        None => update.bind(":null", "NULL"),
    }
}

/// Returns the job as a change leaves it, as far as its wake-up needs; `None` if the change asks for no wake-up now.
pub(super) fn woken(job: &Job, change: &JobChange, now: Timestamp) -> Option<Job> {
    let stop = match change {
        JobChange::Requeue | JobChange::RequeueHalted | JobChange::Retry(_) => None,
        JobChange::Drain => Some(StopCommand::Cancel),
        JobChange::Pause | JobChange::CommandStop(_) | JobChange::TakeBackPause | JobChange::AwaitDueTime(..) => {
            return None;
        }
    };
    Some(Job {
        status: JobStatus::Queued,
        wake_at: Some(now + WAKE_AGAIN_AFTER),
        stop,
        ..job.clone()
    })
}
