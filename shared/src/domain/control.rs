//! Controls: an operator's orders for the jobs of a broadcast, and the change that each makes to a job in its present state.
//! Pure, no I/O.

use jiff::Timestamp;

use crate::domain::command::{RetryCommand, StopCommand};
use crate::domain::job::{Job, JobStatus};

/// An operator's order for a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Nothing more is sent until the job is resumed.
    Pause,
    /// The job goes on, after a pause or after the cause of its halt has been repaired.
    Resume,
    /// Nothing more is sent for good; what is left is skipped.
    Cancel,
    /// A completed job sends again to some of the contacts that are not known to have got the message.
    Retry(RetryCommand),
}

/// The consequence of a control for a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The job is changed.
    Change(JobChange),
    /// The job is in the wanted state, or will be by a command that stands.
    AlreadySo,
    /// The job cannot get there any more, or not from here.
    Impossible,
}

/// A change to a job, which holds only for the job as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobChange {
    /// No worker has the job: it becomes `paused`.
    Pause,
    /// A worker has the job, or had it until it died: it is commanded to stop.
    CommandStop(StopCommand),
    /// The command to pause is taken back.
    TakeBackPause,
    /// The job becomes `scheduled` or `waiting` again, and is due at this time.
    AwaitDueTime(JobStatus, Timestamp),
    /// The job becomes `queued`, after a pause.
    Requeue,
    /// The job becomes `queued` with all breakers reset, after a halt.
    RequeueHalted,
    /// The job becomes `queued` for its drain.
    Drain,
    /// The job becomes `queued` for a retry, with all breakers reset.
    Retry(RetryCommand),
}

impl Control {
    /// Returns the consequence of this control for a job.
    pub fn decide(&self, job: &Job, now: Timestamp) -> Decision {
        match self {
            Self::Pause => pause(job),
            Self::Resume => resume(job, now),
            Self::Cancel => cancel(job),
            Self::Retry(command) => retry(job, command, now),
        }
    }
}

fn pause(job: &Job) -> Decision {
    match (job.status, job.stop) {
        (JobStatus::AwaitingApproval | JobStatus::Halted | JobStatus::Cancelled | JobStatus::Completed, _) => {
            Decision::Impossible
        }
        (_, Some(StopCommand::Cancel)) => Decision::Impossible,
        (JobStatus::Paused, _) | (_, Some(StopCommand::Pause)) => Decision::AlreadySo,
        (JobStatus::Processing, None) => Decision::Change(JobChange::CommandStop(StopCommand::Pause)),
        (JobStatus::Queued | JobStatus::Waiting | JobStatus::Scheduled, None) => Decision::Change(JobChange::Pause),
    }
}

fn resume(job: &Job, now: Timestamp) -> Decision {
    let due_later = job.due_at.filter(|due| *due > now);
    match (job.status, job.stop) {
        (JobStatus::Cancelled | JobStatus::Completed, _) | (_, Some(StopCommand::Cancel)) => Decision::Impossible,
        (JobStatus::Halted, _) => Decision::Change(JobChange::RequeueHalted),
        (JobStatus::Paused, _) => Decision::Change(match due_later {
            Some(due) if job.epoch == 0 => JobChange::AwaitDueTime(JobStatus::Scheduled, due),
            Some(due) => JobChange::AwaitDueTime(JobStatus::Waiting, due),
            None => JobChange::Requeue,
        }),
        (_, Some(StopCommand::Pause)) => Decision::Change(JobChange::TakeBackPause),
        (
            JobStatus::Processing
            | JobStatus::Queued
            | JobStatus::Waiting
            | JobStatus::Scheduled
            | JobStatus::AwaitingApproval,
            None,
        ) => Decision::AlreadySo,
    }
}

fn cancel(job: &Job) -> Decision {
    match (job.status, job.stop) {
        (JobStatus::Completed, _) => Decision::Impossible,
        (JobStatus::Cancelled, _) | (_, Some(StopCommand::Cancel)) => Decision::AlreadySo,
        (JobStatus::Processing, _) => Decision::Change(JobChange::CommandStop(StopCommand::Cancel)),
        (
            JobStatus::Queued
            | JobStatus::Waiting
            | JobStatus::Paused
            | JobStatus::Scheduled
            | JobStatus::AwaitingApproval
            | JobStatus::Halted,
            _,
        ) => Decision::Change(JobChange::Drain),
    }
}

fn retry(job: &Job, command: &RetryCommand, now: Timestamp) -> Decision {
    match job.status {
        JobStatus::Completed if now < job.retained_until => Decision::Change(JobChange::Retry(command.clone())),
        // The request is repeated, and the command stands.
        JobStatus::Queued if job.retry.as_ref() == Some(command) => Decision::AlreadySo,
        JobStatus::Completed
        | JobStatus::Queued
        | JobStatus::Processing
        | JobStatus::Waiting
        | JobStatus::Paused
        | JobStatus::Scheduled
        | JobStatus::AwaitingApproval
        | JobStatus::Halted
        | JobStatus::Cancelled => Decision::Impossible,
    }
}
