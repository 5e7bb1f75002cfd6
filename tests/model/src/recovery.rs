//! The recovery from a state: all workers are dead or frozen, a new one claims the job and finishes it, and then the frozen
//! ones thaw, one after the other.

use crate::protocol::{Action, Answer, JobStatus, Protocol, State};

/// A limit of steps above what any recovery needs.
const MAX_STEPS: usize = 200;

/// Returns the promise that is broken at the end of a recovery in which Messenger accepts every contact, or of one in which it
/// refuses every contact.
pub fn broken_after(model: &Protocol, state: &State) -> Option<&'static str> {
    [Answer::Accepted, Answer::Never]
        .into_iter()
        .find_map(|answer| recover(model, state, answer))
}

fn recover(model: &Protocol, state: &State, answer: Answer) -> Option<&'static str> {
    let mut state = state.clone();
    let new = state.next_worker();
    if state.job.status != JobStatus::Completed {
        state.step(model, Action::Claim { lost: false });
        finish(model, &mut state, new, answer);
        if state.job.status != JobStatus::Completed {
            return Some("not completed by a recovery");
        }
        if let Some(broken) = state.broken(model) {
            return Some(broken);
        }
    }
    for frozen in 0..new {
        finish(model, &mut state, frozen, answer);
    }
    state.broken(model)
}

/// Lets a worker go on until it has nothing left to do.
fn finish(model: &Protocol, state: &mut State, w: usize, answer: Answer) {
    let mut actions = Vec::new();
    for _ in 0..MAX_STEPS {
        actions.clear();
        state.actions_of(model, w as u8, &[false], &mut actions);
        let first = actions.iter().find(|action| !matches!(action, Action::HandOver { .. }));
        let action = match first.or(actions.first()) {
            Some(Action::Send { w, c, .. }) => Action::Send { w: *w, c: *c, answer },
            Some(other) => *other,
            None => return,
        };
        state.step(model, action);
    }
}
