//! The promises of `shared/README.md`, checked in one state.

use super::job::{is_requeued, split};
use super::{Counters, JobStatus, Protocol, RowState, State};

impl State {
    /// Returns the promise that does not hold, if any.
    pub fn broken(&self, model: &Protocol) -> Option<&'static str> {
        let mut counters = Counters::default();
        for c in 0..model.contacts as usize {
            let (row, accepted) = (&self.rows[c], self.accepted[c]);
            if accepted > 1 + self.resends_commanded[c] {
                return Some("sent twice");
            }
            match row.state {
                RowState::Sent if accepted == 0 => return Some("guessed: sent"),
                RowState::Failed | RowState::Skipped if accepted > 0 => {
                    return Some("guessed: failed");
                }
                RowState::InDoubt if model.no_doubt => return Some("in doubt without a cause"),
                _ => {}
            }
            let has_contact = |position: &u8| split(*position).1 == c;
            let mut positions = self
                .job
                .positions(self.job.cursor, self.job.segments)
                .filter(has_contact);
            match (positions.next(), positions.next()) {
                (_, Some(_)) => return Some("twice in the backlog"),
                (Some(_), None) if self.job.status == JobStatus::Completed => {
                    return Some("contact lost: completed too early");
                }
                (Some(_), None) if row.counted => counters.add(row.state, 1),
                (Some(position), None) => counters.waiting += i8::from(is_requeued(position)),
                (None, None) if row.is_finished() => counters.add(row.state, 1),
                (None, None) => return Some("contact lost"),
            }
        }
        (counters != self.job.counters).then_some("wrong counters")
    }
}
