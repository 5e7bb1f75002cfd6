//! A worker: one claim and its run.

use super::job::Position;
use super::{CONTACTS, RowState, StopCommand};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Worker {
    pub phase: Phase,
    pub epoch: u8,
    /// The last write of the job was this worker's: the job has the checkpoint id that it knows.
    pub current: bool,
    /// The answer to its last write of the job was lost. The write was applied, and the call will be repeated.
    pub unsure: bool,
    /// The last stop that it has seen. It starts nothing more, even if the operator takes the stop back.
    pub stop: Option<StopCommand>,
    /// The answer to one of its writes came while a stop stood, whatever it has seen of that.
    pub told: bool,
    /// The cursor as this worker last wrote it.
    pub cursor: Position,
    /// The position of the next contact to start.
    pub next: Position,
    /// The number of segments that it knows of.
    pub segments: u8,
    /// The progress of each contact since the cursor.
    pub slots: [Slot; CONTACTS],
    /// The number of contacts that it has looked at, and those before it.
    pub looked_at: u8,
    /// `looked_at` as this worker last wrote it.
    pub resolved: u8,
    /// The contacts that match among those looked at since.
    pub found: u8,
    /// The contacts that the cursor has passed and that are still to be appended. Only without [`append_with_cursor`] or
    /// [`retry_in_one_transaction`].
    ///
    /// [`append_with_cursor`]: super::Rules::append_with_cursor
    /// [`retry_in_one_transaction`]: super::Rules::retry_in_one_transaction
    pub unappended: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    NotStarted,
    /// The worker carries out a job command.
    CarryingOut,
    /// The worker looks for the contacts of the audience. The next run sends to them.
    Resolving,
    /// The worker carries out a cancel: it skips the contacts to the end of the backlog.
    Draining,
    Working,
    /// The worker knows that another has claimed the job. It starts nothing more, but finishes the sends in flight.
    Overtaken,
    Gone,
}

/// The progress of one contact in a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    Free,
    /// The row is reserved, but the answer was lost: the call will be repeated.
    Reserving {
        token: u8,
    },
    /// The row is reserved, and the message not sent yet.
    Holding {
        token: u8,
    },
    /// The outcome is to be recorded.
    Ended {
        token: u8,
        end: RowState,
    },
    /// The next checkpoint puts the row in doubt if it still has this token and this state: reserved, or waiting if the contact
    /// is skipped after a doubt.
    Doubt {
        token: u8,
        was: RowState,
    },
    Finished(Finish),
}

/// The effect of a contact that the cursor passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finish {
    Sent,
    Failed,
    Skipped,
    /// The counters already hold it.
    Counted,
    /// The contact joins the end of the backlog.
    Requeued,
}

impl Worker {
    pub const NOT_STARTED: Self = Self {
        phase: Phase::NotStarted,
        epoch: 0,
        current: false,
        unsure: false,
        stop: None,
        told: false,
        cursor: 0,
        next: 0,
        segments: 0,
        slots: [Slot::Free; CONTACTS],
        looked_at: 0,
        resolved: 0,
        found: 0,
        unappended: 0,
    };

    pub const GONE: Self = Self {
        phase: Phase::Gone,
        ..Self::NOT_STARTED
    };

    /// Returns the number of contacts in flight.
    pub fn in_flight(&self) -> usize {
        let in_flight = |slot: &&Slot| !matches!(slot, Slot::Free | Slot::Finished(_) | Slot::Doubt { .. });
        self.slots.iter().filter(in_flight).count()
    }

    /// Returns true if the worker may write the job, as far as it knows.
    pub fn may_write_job(&self) -> bool {
        matches!(
            self.phase,
            Phase::Working | Phase::CarryingOut | Phase::Resolving | Phase::Draining
        ) && !self.unsure
            && self.unappended == 0
    }

    /// Ends the run except for the sends in flight. The worker forgets the job, since another worker changes it now.
    pub fn stop(&mut self) {
        self.phase = Phase::Overtaken;
        for slot in &mut self.slots {
            if matches!(slot, Slot::Finished(_) | Slot::Doubt { .. }) {
                *slot = Slot::Free;
            }
        }
        *self = if self.in_flight() == 0 {
            Self::GONE
        } else {
            Self {
                phase: Phase::Overtaken,
                epoch: self.epoch,
                slots: self.slots,
                ..Self::NOT_STARTED
            }
        };
    }
}

impl From<RowState> for Finish {
    /// Returns the effect of a row that was recorded or found in this state.
    fn from(state: RowState) -> Self {
        match state {
            RowState::Sent => Self::Sent,
            RowState::Failed => Self::Failed,
            RowState::Skipped => Self::Skipped,
            RowState::Waiting => Self::Requeued,
            RowState::InDoubt | RowState::Absent | RowState::Reserved => Self::Counted,
        }
    }
}
