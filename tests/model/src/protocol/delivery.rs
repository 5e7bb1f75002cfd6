//! The delivery row.

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    pub state: RowState,
    /// The epoch of the claim that reserved or stamped it; 0 in states in which no write compares it.
    pub epoch: u8,
    /// The number of the contact's last reservation.
    pub token: u8,
    /// The job's counters already hold its outcome.
    pub counted: bool,
    /// An earlier attempt is in doubt.
    pub earlier_doubt: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowState {
    Absent,
    Reserved,
    Waiting,
    Sent,
    Failed,
    Skipped,
    InDoubt,
}

impl Row {
    /// Returns true if the row is settled or in doubt.
    pub fn is_finished(&self) -> bool {
        !matches!(self.state, RowState::Absent | RowState::Reserved | RowState::Waiting)
    }

    pub fn set_state(&mut self, state: RowState) {
        self.state = state;
        if self.is_finished() {
            self.epoch = 0;
        }
    }
}
