//! A state of the search, and its successors.

use super::audience::Audience;
use super::job::SEGMENTS;
use super::{
    Action, CONTACTS, Control, Counters, Job, JobCommand, JobStatus, Phase, Protocol, Row, RowState, StopCommand,
    WORKERS, Worker,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub job: Job,
    pub rows: [Row; CONTACTS],
    pub workers: [Worker; WORKERS],
    pub audience: Audience,
    /// The messages that Messenger accepted, by contact. Only lookups and echoes know it.
    pub accepted: [u8; CONTACTS],
    /// The further messages that the operator commanded, by contact.
    pub resends_commanded: [u8; CONTACTS],
    /// The number of answers that may still be lost.
    pub losses: u8,
    /// The number of times that a contact may still be found not due.
    pub delays: u8,
    /// The number of retries that the operator may still command.
    pub retries: u8,
    /// The number of pauses, resumes and cancels that the operator may still command.
    pub controls: u8,
    /// The number of times that a contact may still begin or cease to match the audience.
    pub changes: u8,
    /// The number of times that a worker may still halt the job.
    pub halts: u8,
    /// The operator's last accepted word. A pause ends when the job is completed or halted.
    pub wanted: Option<StopCommand>,
    /// A worker that was told of a stop has started another contact.
    pub has_disobeyed: bool,
    /// The job as it was read for a control that writes without a condition. Only without [`control_on_status`].
    ///
    /// [`control_on_status`]: super::Rules::control_on_status
    pub looked: Option<(Control, JobStatus)>,
    /// A control that was applied, and will be repeated since its answer was lost. Only without [`control_once`].
    ///
    /// [`control_once`]: super::Rules::control_once
    pub repeating: Option<Control>,
}

impl State {
    pub(super) fn new(model: &Protocol) -> Self {
        let row = Row {
            state: RowState::Absent,
            epoch: 0,
            token: 0,
            counted: false,
            earlier_doubt: false,
        };
        let mut backlog = [0; SEGMENTS];
        let named: u8 = match model.members {
            Some(_) => 0,
            None => (1 << model.contacts) - 1,
        };
        backlog[0] = named;
        let first_segments = u8::from(model.members.is_none());
        Self {
            job: Job {
                status: JobStatus::Queued,
                epoch: 0,
                cursor: 0,
                segments: first_segments,
                first_segments,
                contacts: named.count_ones() as u8,
                resolving: model.members.map(|_| 0),
                counters: Counters::default(),
                command: JobCommand::Nothing,
                stop: None,
                backlog,
            },
            rows: [row; CONTACTS],
            workers: [Worker::NOT_STARTED; WORKERS],
            audience: Audience::new(model, named),
            accepted: [0; CONTACTS],
            resends_commanded: [0; CONTACTS],
            losses: model.losses,
            delays: model.delays,
            retries: model.retries,
            controls: model.controls,
            changes: model.changes,
            halts: model.halts,
            wanted: None,
            has_disobeyed: false,
            looked: None,
            repeating: None,
        }
    }

    /// Returns the index of the first worker that has not started.
    pub fn next_worker(&self) -> usize {
        let not_started = |worker: &Worker| worker.phase == Phase::NotStarted;
        self.workers.iter().position(not_started).unwrap_or(WORKERS)
    }

    /// Performs one action.
    pub fn step(&mut self, model: &Protocol, action: Action) {
        let rules = &model.rules;
        match action {
            Action::Claim { lost } => self.claim(rules, lost),
            Action::Adopt => self.adopt(rules),
            Action::RepeatJobWrite { w } => self.repeat_job_write(rules, w as usize),
            Action::CarryOut { w, lost } => self.carry_out(model, w as usize, lost),
            Action::LookAt { w, matches } => self.look_at(w as usize, matches),
            Action::Resolve { w, lost } => self.resolve(model, w as usize, lost),
            Action::Change { c } => self.change(c),
            Action::Settle { c } => self.audience.settle(1 << c),
            Action::Start { w, due, lost } => self.start(rules, w as usize, due, lost),
            Action::Skip { w, lost } => self.skip(rules, w as usize, lost),
            Action::RepeatReserve { w, c } => self.repeat_reserve(rules, w as usize, c as usize),
            Action::Send { w, c, answer } => self.send(w as usize, c as usize, answer),
            Action::Record { w, c, lost } => self.record(rules, w as usize, c as usize, lost),
            Action::Checkpoint { w, lost } => self.checkpoint(rules, w as usize, lost),
            Action::Append { w } => self.append_late(rules, w as usize),
            Action::HandOver { w, halts } => self.hand_over(rules, w as usize, halts),
            Action::Die { w } => self.workers[w as usize] = Worker::GONE,
            Action::Proof { c } => self.prove(rules, c as usize),
            Action::LookupsFindNothing { set } => {
                self.job.command = JobCommand::Resend(set);
                self.job.status = JobStatus::Queued;
            }
            Action::Look { control } => self.looked = Some((control, self.job.status)),
            Action::Control { control, lost } => self.control(model, control, lost),
            Action::RepeatControl => self.repeat_control(rules),
        }
        for worker in &mut self.workers {
            if worker.phase == Phase::Overtaken {
                worker.stop();
            }
        }
    }
}
