//! A state of the search, and its successors.

use super::job::SEGMENTS;
use super::{Action, CONTACTS, Counters, Job, JobCommand, JobStatus, Phase, Protocol, Row, RowState, WORKERS, Worker};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub job: Job,
    pub rows: [Row; CONTACTS],
    pub workers: [Worker; WORKERS],
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
        backlog[0] = (1 << model.contacts) - 1;
        Self {
            job: Job {
                status: JobStatus::Queued,
                epoch: 0,
                cursor: 0,
                segments: 1,
                counters: Counters::default(),
                command: JobCommand::Nothing,
                backlog,
            },
            rows: [row; CONTACTS],
            workers: [Worker::NOT_STARTED; WORKERS],
            accepted: [0; CONTACTS],
            resends_commanded: [0; CONTACTS],
            losses: model.losses,
            delays: model.delays,
            retries: model.retries,
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
            Action::Claim { lost } => {
                self.claim();
                self.lose_answer(lost, self.next_worker() - 1);
            }
            Action::Adopt => self.adopt(),
            Action::RepeatJobWrite { w } => self.repeat_job_write(rules, w as usize),
            Action::CarryOut { w, lost } => self.carry_out(model, w as usize, lost),
            Action::Start { w, due, lost } => self.start(rules, w as usize, due, lost),
            Action::RepeatReserve { w, c } => self.repeat_reserve(rules, w as usize, c as usize),
            Action::Send { w, c, answer } => self.send(w as usize, c as usize, answer),
            Action::Record { w, c, lost } => self.record(rules, w as usize, c as usize, lost),
            Action::Checkpoint { w, lost } => self.checkpoint(rules, w as usize, lost),
            Action::Append { w } => self.append_late(rules, w as usize),
            Action::HandOver { w } => self.hand_over(rules, w as usize),
            Action::Die { w } => self.workers[w as usize] = Worker::GONE,
            Action::Proof { c } => self.prove(rules, c as usize),
            Action::LookupsFindNothing { set } => {
                self.job.command = JobCommand::Resend(set);
                self.job.status = JobStatus::Queued;
            }
            Action::Retry { in_doubt } => {
                self.retries -= 1;
                self.job.command = JobCommand::Retry { in_doubt };
                self.job.status = JobStatus::Queued;
            }
        }
        for worker in &mut self.workers {
            if worker.phase == Phase::Overtaken {
                worker.stop();
            }
        }
    }
}
