//! The operator's commands: pause, resume, cancel and retry.

use super::job::end_of;
use super::{Action, JobCommand, JobStatus, Protocol, RowState, Rules, State, StopCommand};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Control {
    Pause,
    Resume,
    Cancel,
    /// Rows in doubt are reopened only if the operator names them.
    Retry {
        in_doubt: bool,
    },
}

impl State {
    /// Collects the controls that the job accepts.
    pub(super) fn controls(&self, model: &Protocol, actions: &mut Vec<Action>) {
        let rules = &model.rules;
        if let Some((control, _)) = self.looked {
            actions.push(Action::Control { control, lost: false });
        }
        if self.repeating.is_some() {
            actions.push(Action::RepeatControl);
        }
        for control in [Control::Pause, Control::Resume, Control::Cancel] {
            if self.controls > 0 && self.accepts(rules, control) {
                self.push_control(rules, control, actions);
            }
        }
        for (in_doubt, state) in [(false, RowState::Failed), (true, RowState::InDoubt)] {
            let control = Control::Retry { in_doubt };
            let reopens_any = self.rows.iter().any(|row| row.state == state);
            if self.retries > 0 && reopens_any && self.accepts(rules, control) {
                self.push_control(rules, control, actions);
            }
        }
    }

    fn push_control(&self, rules: &Rules, control: Control, actions: &mut Vec<Action>) {
        if !rules.control_on_status {
            if self.looked.is_none() {
                actions.push(Action::Look { control });
            }
            return;
        }
        actions.push(Action::Control { control, lost: false });
        // A repetition that changes nothing needs no step.
        if self.losses > 0 && !rules.control_once {
            actions.push(Action::Control { control, lost: true });
        }
    }

    /// Returns true if the control changes the job. Otherwise it is refused, or its wish is fulfilled already.
    fn accepts(&self, rules: &Rules, control: Control) -> bool {
        let job = &self.job;
        let may_replace = job.stop != Some(StopCommand::Cancel) || !rules.cancel_is_final;
        match control {
            Control::Pause => {
                let is_wanted = job.stop == Some(StopCommand::Pause);
                matches!(job.status, JobStatus::Queued | JobStatus::Processing) && !is_wanted && may_replace
            }
            Control::Resume => {
                let is_stopped = matches!(job.status, JobStatus::Paused | JobStatus::Halted) || job.stop.is_some();
                is_stopped && may_replace
            }
            Control::Cancel => !job.is_over() && job.stop != Some(StopCommand::Cancel),
            Control::Retry { .. } => self.may_be_commanded(rules),
        }
    }

    /// Returns true if the job takes a command to reopen rows.
    pub(super) fn may_be_commanded(&self, rules: &Rules) -> bool {
        self.job.status == JobStatus::Completed || !rules.command_if_completed
    }

    /// Carries out a control, in one write that is conditional on the status.
    pub(super) fn control(&mut self, model: &Protocol, control: Control, lost: bool) {
        let status = self.looked.take().map_or(self.job.status, |(_, status)| status);
        let is_final = self.wanted == Some(StopCommand::Cancel);
        match control {
            Control::Pause if !is_final => self.wanted = Some(StopCommand::Pause),
            Control::Resume if !is_final => self.wanted = None,
            Control::Pause | Control::Resume => {}
            Control::Cancel => self.wanted = Some(StopCommand::Cancel),
            Control::Retry { in_doubt } => {
                for c in model.contacts() {
                    let named = in_doubt && self.rows[c as usize].state == RowState::InDoubt;
                    self.resends_commanded[c as usize] += u8::from(named);
                }
            }
        }
        match control {
            Control::Retry { .. } => self.retries -= 1,
            Control::Pause | Control::Resume | Control::Cancel => self.controls -= 1,
        }
        if lost {
            self.losses -= 1;
            self.repeating = Some(control);
        }
        self.apply(&model.rules, control, status);
    }

    pub(super) fn repeat_control(&mut self, rules: &Rules) {
        if let Some(control) = self.repeating.take()
            && self.accepts(rules, control)
        {
            self.apply(rules, control, self.job.status);
        }
    }

    /// Makes the changes of a control to a job of this status.
    fn apply(&mut self, rules: &Rules, control: Control, status: JobStatus) {
        let is_processing = status == JobStatus::Processing;
        let job = &mut self.job;
        match control {
            Control::Pause if is_processing => job.stop = Some(StopCommand::Pause),
            Control::Pause => job.status = JobStatus::Paused,
            Control::Resume => {
                job.stop = None;
                if !is_processing {
                    job.status = JobStatus::Queued;
                }
            }
            Control::Cancel if rules.cancel_is_drain => {
                job.stop = Some(StopCommand::Cancel);
                if !is_processing {
                    job.status = JobStatus::Queued;
                }
            }
            Control::Cancel => {
                let rest = job.positions(job.cursor, job.segments).count();
                job.counters.skipped += rest as i8;
                job.counters.waiting = 0;
                (job.status, job.cursor) = (JobStatus::Cancelled, end_of(job.segments));
                // The running worker is overtaken.
                for worker in &mut self.workers {
                    worker.current = false;
                }
            }
            Control::Retry { in_doubt } => {
                job.command = JobCommand::Retry { in_doubt };
                if !is_processing {
                    job.status = JobStatus::Queued;
                }
            }
        }
    }
}
