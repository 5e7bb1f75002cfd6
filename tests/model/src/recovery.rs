//! The recovery from a state: all workers are dead or frozen, and the index shows all contacts as they are. New workers finish the
//! job, and then the frozen ones thaw, one after the other. The operator resumes a job that is paused or halted.

use crate::protocol::{Action, Answer, Control, JobStatus, Protocol, State, StopCommand, Worker};

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
    state.looked = None;
    state.audience.settle(u8::MAX);
    let new = state.next_worker();
    if !state.job.is_over() {
        // The run that resolves the audience hands the job over to one that sends.
        if state.job.resolving.is_some() {
            finish_job(model, &mut state, answer);
        }
        finish_job(model, &mut state, answer);
        let (status, missed) = match state.wanted {
            Some(StopCommand::Cancel) => (JobStatus::Cancelled, "not cancelled by a recovery"),
            Some(StopCommand::Pause) | None => (JobStatus::Completed, "not completed by a recovery"),
        };
        if state.job.status != status {
            return state.broken(model).or(Some(missed));
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

/// Lets one worker, or two with a pause between them, finish the job.
fn finish_job(model: &Protocol, state: &mut State, answer: Answer) {
    let new = state.next_worker();
    if state.job.is_over() {
        return;
    }
    let is_held = |state: &State| matches!(state.job.status, JobStatus::Paused | JobStatus::Halted);
    if !is_held(state) {
        state.step(model, Action::Claim { lost: false });
        finish(model, state, new, answer);
        state.workers[new] = Worker::NOT_STARTED;
    }
    // A resume takes back no cancel.
    if is_held(state) && state.job.stop != Some(StopCommand::Cancel) {
        state.controls += 1;
        let control = Control::Resume;
        state.step(model, Action::Control { control, lost: false });
        state.step(model, Action::Claim { lost: false });
        finish(model, state, new, answer);
    }
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
