//! The job item and its backlog.

use super::{CONTACTS, RowState};

/// The capacity of a backlog for segments.
pub const SEGMENTS: usize = 12;

/// A position in the backlog: segment × [`CONTACTS`] + contact. A segment is a set here, so a contact has one position in it.
pub type Position = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Job {
    pub status: JobStatus,
    /// The number of claims so far.
    pub epoch: u8,
    pub cursor: Position,
    /// The number of segments in the backlog.
    pub segments: u8,
    /// The number of segments at its beginning that hold no requeued contacts.
    pub first_segments: u8,
    /// The number of contacts in those.
    pub contacts: u8,
    /// The number of contacts that were looked at for the audience, in order of their ids; `None` once all were, or if the
    /// broadcast names its contacts.
    pub resolving: Option<u8>,
    pub counters: Counters,
    /// The command that the next claim carries out before it works.
    pub command: JobCommand,
    /// The end of work that the operator has asked for and no worker has come to.
    pub stop: Option<StopCommand>,
    /// The segments, one bit per contact. In DynamoDB they are items of their own, written in the job's transactions.
    pub backlog: [u8; SEGMENTS],
}

/// The status of a job. Two are left out: `scheduled` and `waiting` differ from `queued` only in the time of the next claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobStatus {
    Queued,
    Processing,
    Paused,
    Halted,
    Cancelled,
    Completed,
}

/// The end of work that the operator asks of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopCommand {
    Pause,
    Cancel,
}

/// The job's contacts by outcome; the others are pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counters {
    pub waiting: i8,
    pub sent: i8,
    pub failed: i8,
    pub skipped: i8,
    pub in_doubt: i8,
}

/// The rows of a completed job that are to be worked on again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobCommand {
    Nothing,
    /// A retry by the operator. Rows in doubt are included only if the operator names them.
    Retry {
        in_doubt: bool,
    },
    /// A resend by policy of these contacts, one bit each.
    Resend(u8),
}

impl Job {
    /// Returns true if no worker may claim the job any more, unless a command of a completed job reopens it.
    pub fn is_over(&self) -> bool {
        matches!(self.status, JobStatus::Completed | JobStatus::Cancelled)
    }

    /// Returns the stop that is in force, or on its way.
    pub fn standing_stop(&self) -> Option<StopCommand> {
        match self.status {
            JobStatus::Paused => Some(StopCommand::Pause),
            JobStatus::Cancelled => Some(StopCommand::Cancel),
            JobStatus::Queued | JobStatus::Processing | JobStatus::Halted | JobStatus::Completed => self.stop,
        }
    }

    /// Returns true for every segment but the first ones: the counters hold its contacts as waiting.
    pub fn is_requeued(&self, position: Position) -> bool {
        position >= end_of(self.first_segments)
    }

    /// Returns the occupied positions at or behind `from`, in the first `segments` segments.
    pub fn positions(&self, from: Position, segments: u8) -> impl Iterator<Item = Position> + '_ {
        (from..end_of(segments)).filter(|position| {
            let (segment, contact) = split(*position);
            self.backlog.get(segment).is_some_and(|set| set & (1 << contact) != 0)
        })
    }

    /// Returns the first of those positions, or the end of the backlog.
    pub fn next_position(&self, from: Position, segments: u8) -> Position {
        self.positions(from, segments).next().unwrap_or(end_of(segments))
    }
}

/// Returns the position behind the last segment.
pub fn end_of(segments: u8) -> Position {
    segments * CONTACTS as u8
}

/// Splits a position into segment and contact.
pub fn split(position: Position) -> (usize, usize) {
    (position as usize / CONTACTS, position as usize % CONTACTS)
}

impl Counters {
    pub fn add(&mut self, state: RowState, n: i8) {
        let counter = match state {
            RowState::Waiting => &mut self.waiting,
            RowState::Sent => &mut self.sent,
            RowState::Failed => &mut self.failed,
            RowState::Skipped => &mut self.skipped,
            RowState::InDoubt => &mut self.in_doubt,
            RowState::Absent | RowState::Reserved => return,
        };
        *counter += n;
    }
}
