//! The promises of `shared/README.md`, checked in one state.

use super::job::split;
use super::{Counters, JobCommand, JobStatus, Protocol, RowState, State, StopCommand};

impl State {
    /// Returns the promise that does not hold, if any.
    pub fn broken(&self, model: &Protocol) -> Option<&'static str> {
        if let Some(broken) = self.broken_word() {
            return Some(broken);
        }
        if let Some(broken) = self.broken_audience(model) {
            return Some(broken);
        }
        let mut counters = Counters::default();
        for c in 0..model.contacts as usize {
            let (row, accepted) = (&self.rows[c], self.accepted[c]);
            if self.audience.taken & (1 << c) == 0 {
                if accepted > 0 {
                    return Some("sent to a stranger");
                }
                continue;
            }
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
                (Some(_), None) if self.job.is_over() => return Some("contact lost: completed too early"),
                (Some(_), None) if row.counted => counters.add(row.state, 1),
                (Some(position), None) => counters.waiting += i8::from(self.job.is_requeued(position)),
                (None, None) if row.is_finished() => counters.add(row.state, 1),
                (None, None) if !model.rules.cancel_is_drain && self.job.status == JobStatus::Cancelled => {
                    counters.add(RowState::Skipped, 1);
                }
                (None, None) => return Some("contact lost"),
            }
        }
        if counters != self.job.counters {
            return Some("wrong counters");
        }
        (self.audience.taken.count_ones() != u32::from(self.job.contacts)).then_some("wrong number of contacts")
    }

    /// Returns the promise about the audience that does not hold, if any.
    fn broken_audience(&self, model: &Protocol) -> Option<&'static str> {
        let (job, audience) = (&self.job, &self.audience);
        let looked_at = match (job.status, job.resolving) {
            (JobStatus::Completed, _) | (_, None) => model.contacts,
            (_, Some(looked_at)) => looked_at,
        };
        if audience.throughout & !audience.taken & ((1 << looked_at) - 1) != 0 {
            return Some("member missed");
        }
        (audience.taken & !audience.ever != 0).then_some("stranger taken")
    }

    /// Returns the promise to the operator that does not hold, if any.
    fn broken_word(&self) -> Option<&'static str> {
        if self.has_disobeyed {
            return Some("started after a stop");
        }
        if self.job.status == JobStatus::Completed && self.job.command != JobCommand::Nothing {
            return Some("retry forgotten");
        }
        if self.job.standing_stop() == self.wanted {
            return None;
        }
        Some(match self.wanted {
            Some(StopCommand::Cancel) => "cancel forgotten",
            Some(StopCommand::Pause) => "pause forgotten",
            None => "stopped against the last word",
        })
    }
}
