//! The actions, and which of them are possible in a state.

use super::job::{end_of, split};
use super::{Control, JobStatus, Phase, Protocol, RowState, Rules, Slot, State, WORKERS, Worker};

/// The answer to a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    /// The message was accepted, but the answer was lost or unreadable.
    AcceptedUnclearly,
    /// The message was not accepted, and no answer says so.
    Unclear,
    /// The message will never be accepted for this contact.
    Never,
    /// A rate limit, or no connection. It also stands for a worker that finds its reservation too old to send.
    Later,
    /// The message was not sent: the contact has opted out.
    Skipped,
}

/// `w` is a worker, `c` a contact; `lost` means that the answer to the write is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A wake-up arrives when no lease is in the way any more.
    Claim {
        lost: bool,
    },
    /// Another wake-up reaches the process that has the claim, and the process takes the claim for the new run's own. Only
    /// without [`Rules::unique_claim_ids`].
    Adopt,
    /// A write of the job is repeated because its answer was lost.
    RepeatJobWrite {
        w: u8,
    },
    /// One batch of a job command, or its end.
    CarryOut {
        w: u8,
        lost: bool,
    },
    /// The index shows the next contact, in order of ids, as one that matches the audience, or does not show it so.
    LookAt {
        w: u8,
        matches: bool,
    },
    /// The progress is written.
    Resolve {
        w: u8,
        lost: bool,
    },
    /// The next contact of the backlog is reserved.
    Start {
        w: u8,
        due: bool,
        lost: bool,
    },
    /// The next contact of the backlog is skipped, since the job is cancelled.
    Skip {
        w: u8,
        lost: bool,
    },
    RepeatReserve {
        w: u8,
        c: u8,
    },
    Send {
        w: u8,
        c: u8,
        answer: Answer,
    },
    Record {
        w: u8,
        c: u8,
        lost: bool,
    },
    Checkpoint {
        w: u8,
        lost: bool,
    },
    /// The contacts of [`Worker::unappended`] are appended.
    Append {
        w: u8,
    },
    /// The run ends, at its deadline or since nothing is left to do; or because every send would fail.
    HandOver {
        w: u8,
        halts: bool,
    },
    Die {
        w: u8,
    },
    /// A contact begins or ceases to match the audience; the index may go on showing the older state.
    Change {
        c: u8,
    },
    /// The index shows no older state of the contact any more.
    Settle {
        c: u8,
    },
    /// A proof that the contact got a message: its echo, or a lookup that finds it.
    Proof {
        c: u8,
    },
    /// The last lookups for these contacts find nothing, so the job is to send to them again.
    LookupsFindNothing {
        set: u8,
    },
    /// A request of the operator reads the job. Only without [`Rules::control_on_status`].
    Look {
        control: Control,
    },
    /// A request of the operator is carried out, or written in the job for a worker to see.
    Control {
        control: Control,
        lost: bool,
    },
    /// A control is repeated because its answer was lost. Only without [`Rules::control_once`].
    RepeatControl,
}

impl State {
    /// Collects the actions that are possible.
    pub(super) fn actions(&self, model: &Protocol, actions: &mut Vec<Action>) {
        let lossy = [false, true];
        let lossy = if self.losses > 0 { &lossy[..] } else { &lossy[..1] };
        let is_ready = match self.job.status {
            JobStatus::Queued => true,
            JobStatus::Processing => model.deaths,
            JobStatus::Paused | JobStatus::Halted | JobStatus::Cancelled | JobStatus::Completed => false,
        };
        if self.job.epoch < model.epochs && is_ready {
            actions.extend(lossy.iter().map(|&lost| Action::Claim { lost }));
        }
        let claims = self.job.epoch as usize;
        if !model.rules.unique_claim_ids && self.job.status == JobStatus::Processing && self.next_worker() == claims {
            actions.push(Action::Adopt);
        }
        for w in 0..WORKERS as u8 {
            if !matches!(self.workers[w as usize].phase, Phase::NotStarted | Phase::Gone) {
                self.actions_of(model, w, lossy, actions);
                if model.deaths {
                    actions.push(Action::Die { w });
                }
            }
        }
        self.changes_of_audience(model, actions);
        if model.proofs {
            let proven = model.contacts().filter(|&c| self.may_be_proven(c));
            actions.extend(proven.map(|c| Action::Proof { c }));
        }
        self.controls(model, actions);
        if model.resend && self.may_be_commanded(&model.rules) {
            let may_find_nothing = |set: u8| {
                let mut named = model.contacts().filter(|c| set & (1 << c) != 0);
                named.all(|c| self.lookup_may_find_nothing(&model.rules, c))
            };
            let sets = (1..1 << model.contacts).filter(|&set| may_find_nothing(set));
            actions.extend(sets.map(|set| Action::LookupsFindNothing { set }));
        }
    }

    /// Collects the actions that are possible for one worker.
    pub fn actions_of(&self, model: &Protocol, w: u8, lossy: &[bool], actions: &mut Vec<Action>) {
        let worker = &self.workers[w as usize];
        for c in model.contacts() {
            match worker.slots[c as usize] {
                Slot::Free | Slot::Doubt { .. } | Slot::Finished(_) => {}
                Slot::Reserving { .. } => actions.push(Action::RepeatReserve { w, c }),
                Slot::Holding { token } => {
                    let possible = |answer: &&Answer| **answer != Answer::Later || token < model.attempts;
                    let answers = model.answers.iter().filter(possible);
                    actions.extend(answers.map(|&answer| Action::Send { w, c, answer }));
                }
                Slot::Ended { .. } => actions.extend(lossy.iter().map(|&lost| Action::Record { w, c, lost })),
            }
        }
        if worker.unsure {
            actions.push(Action::RepeatJobWrite { w });
        }
        if worker.unappended != 0 && !worker.unsure {
            actions.push(Action::Append { w });
        }
        if worker.may_write_job() {
            self.job_writes_of(model, w, lossy, actions);
        }
    }

    fn job_writes_of(&self, model: &Protocol, w: u8, lossy: &[bool], actions: &mut Vec<Action>) {
        let worker = &self.workers[w as usize];
        let (is_carrying_out, is_stopping) = (worker.phase == Phase::CarryingOut, worker.stop.is_some());
        if is_carrying_out && !is_stopping {
            actions.extend(lossy.iter().map(|&lost| Action::CarryOut { w, lost }));
            if model.rules.command_before_work {
                return;
            }
        }
        if worker.phase == Phase::Resolving {
            self.resolution_of(model, w, lossy, actions);
            if model.rules.resolve_before_sending {
                return;
            }
        }
        let is_draining = worker.phase == Phase::Draining;
        let is_news = self.job.stop.is_some() && !is_stopping;
        if self.has_unwritten(w) || (is_news && !is_carrying_out) {
            actions.extend(lossy.iter().map(|&lost| Action::Checkpoint { w, lost }));
        }
        if worker.cursor == worker.next && (!is_carrying_out || is_stopping) {
            self.hand_overs_of(w, actions);
        }
        if is_stopping && !is_draining {
            return;
        }
        if worker.next < end_of(worker.segments) && worker.in_flight() < model.in_flight as usize {
            let (_, contact) = split(worker.next);
            // A backlog holds no contact twice. It may if a rule is missing, and then the second position waits for the first.
            if worker.slots[contact] == Slot::Free && is_draining {
                actions.extend(lossy.iter().map(|&lost| Action::Skip { w, lost }));
            } else if worker.slots[contact] == Slot::Free {
                actions.extend(lossy.iter().map(|&lost| Action::Start { w, due: true, lost }));
                if self.rows[contact].state == RowState::Waiting && self.delays > 0 {
                    actions.push(Action::Start {
                        w,
                        due: false,
                        lost: false,
                    });
                }
            }
        }
    }

    /// Collects the hand-overs of a worker that has written its work.
    pub(super) fn hand_overs_of(&self, w: u8, actions: &mut Vec<Action>) {
        let worker = &self.workers[w as usize];
        actions.push(Action::HandOver { w, halts: false });
        if self.halts > 0 && worker.phase != Phase::Draining && worker.stop.is_none() {
            actions.push(Action::HandOver { w, halts: true });
        }
    }

    /// Returns true if an echo may come or a lookup may find the message, and the row is open.
    fn may_be_proven(&self, c: u8) -> bool {
        let row = &self.rows[c as usize];
        let open = match row.state {
            RowState::Reserved | RowState::InDoubt => true,
            RowState::Waiting => row.earlier_doubt,
            RowState::Absent | RowState::Sent | RowState::Failed | RowState::Skipped => false,
        };
        open && self.accepted[c as usize] > 0
    }

    /// Returns true if no message was accepted and, as a resend by policy assumes, no worker is about to send one.
    fn lookup_may_find_nothing(&self, rules: &Rules, c: u8) -> bool {
        self.rows[c as usize].state == RowState::InDoubt
            && self.accepted[c as usize] == 0
            && !(rules.no_sender_at_last_lookup && self.any_worker_may_send_to(c))
    }

    fn any_worker_may_send_to(&self, c: u8) -> bool {
        let may_send =
            |worker: &Worker| matches!(worker.slots[c as usize], Slot::Reserving { .. } | Slot::Holding { .. });
        self.workers.iter().any(may_send)
    }

    /// Returns true if a checkpoint of this worker would change anything.
    fn has_unwritten(&self, w: u8) -> bool {
        let worker = &self.workers[w as usize];
        let first = self.job.next_position(worker.cursor, worker.segments);
        let passed = first < worker.next && matches!(worker.slots[split(first).1], Slot::Finished(_));
        passed || worker.slots.iter().any(|slot| matches!(slot, Slot::Doubt { .. }))
    }
}
