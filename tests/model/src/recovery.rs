//! What becomes of a state when nothing hinders any more: all workers are dead or frozen, a fresh one claims the job and comes
//! to its end, and then the frozen ones thaw, one after the other.

use crate::protocol::{Action, Answer, JobStatus, Protocol, State};

/// More steps than any run needs.
const MANY: usize = 200;

/// What is broken at the end of such a run, whether Messenger accepts everybody or nobody in it.
pub fn broken_after(model: &Protocol, state: &State) -> Option<&'static str> {
    [Answer::Accepted, Answer::Never]
        .into_iter()
        .find_map(|answer| run(model, state, answer))
}

fn run(model: &Protocol, state: &State, answer: Answer) -> Option<&'static str> {
    let mut state = state.clone();
    let fresh = state.unborn();
    if state.job.status != JobStatus::Completed {
        state.step(model, Action::Claim { lost: false });
        finish(model, &mut state, fresh, answer);
        if state.job.status != JobStatus::Completed {
            return Some("recovery: not completed");
        }
        if let Some(broken) = state.broken(model) {
            return Some(broken);
        }
    }
    for frozen in 0..fresh {
        finish(model, &mut state, frozen, answer);
    }
    state.broken(model)
}

/// Lets a worker go on until nothing is left for it to do.
fn finish(model: &Protocol, state: &mut State, w: usize, answer: Answer) {
    let mut actions = Vec::new();
    for _ in 0..MANY {
        actions.clear();
        state.actions_of(model, w as u8, &[false], &mut actions);
        let first = actions
            .iter()
            .find(|action| !matches!(action, Action::HandOver { .. }));
        let action = match first.or(actions.first()) {
            Some(Action::Send { w, c, .. }) => Action::Send {
                w: *w,
                c: *c,
                answer,
            },
            Some(other) => *other,
            None => return,
        };
        state.step(model, action);
    }
}
