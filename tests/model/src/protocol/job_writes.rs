//! The writes of the job: claim, batches of a command, checkpoint, hand-over.

use super::job::{SEGMENTS, end_of, split};
use super::{
    CONTACTS, Condition, Finish, JobCommand, JobStatus, Phase, Protocol, RowState, Rules, Slot, State, StopCommand,
    Worker,
};

impl State {
    pub(super) fn claim(&mut self, rules: &Rules, lost: bool) {
        let w = self.next_worker();
        let is_cancelled = self.job.stop == Some(StopCommand::Cancel) && rules.claim_obeys_stop;
        let has_command = self.job.command != JobCommand::Nothing;
        self.job.epoch += 1;
        self.job.status = JobStatus::Processing;
        self.workers[w] = Worker {
            phase: if is_cancelled {
                Phase::Draining
            } else if has_command {
                Phase::CarryingOut
            } else if self.job.resolving.is_some() {
                Phase::Resolving
            } else {
                Phase::Working
            },
            epoch: self.job.epoch,
            cursor: self.job.cursor,
            next: self.job.next_position(self.job.cursor, self.job.segments),
            segments: self.job.segments,
            looked_at: self.job.resolving.unwrap_or_default(),
            resolved: self.job.resolving.unwrap_or_default(),
            ..Worker::NOT_STARTED
        };
        self.written(w, lost, rules.claim_obeys_stop);
    }

    /// Starts a worker on the claim of another, so that both have the same epoch and checkpoint id.
    pub(super) fn adopt(&mut self, rules: &Rules) {
        let w = self.next_worker();
        self.job.epoch -= 1;
        let current: Vec<_> = self.workers.iter().map(|worker| worker.current).collect();
        self.claim(rules, false);
        for (worker, current) in self.workers.iter_mut().zip(current) {
            worker.current = current;
        }
        self.workers[w].current = true;
    }

    /// Gives the job a new checkpoint id, which only this worker knows.
    fn set_last_writer(&mut self, w: usize) {
        for worker in &mut self.workers {
            worker.current = false;
        }
        self.workers[w].current = true;
    }

    /// Takes note of this worker's write of the job: of a stop that its answer shows, unless the answer is lost.
    pub(super) fn written(&mut self, w: usize, lost: bool, shows_stop: bool) {
        self.set_last_writer(w);
        self.losses -= u8::from(lost);
        self.workers[w].unsure = lost;
        if !lost {
            self.tell(w, shows_stop);
        }
    }

    /// Answers a worker's write of the job with the stop that stands.
    fn tell(&mut self, w: usize, shows_stop: bool) {
        let (job, worker) = (&self.job, &mut self.workers[w]);
        worker.told |= job.standing_stop().is_some();
        if shows_stop && job.stop.is_some() {
            worker.stop = job.stop;
        }
    }

    /// Repeats a write that was applied. The call is refused; the refusal shows the worker's own id unless another has
    /// written since.
    pub(super) fn repeat_job_write(&mut self, rules: &Rules, w: usize) {
        let worker = &mut self.workers[w];
        worker.unsure = false;
        if worker.current && rules.own_token_is_a_win {
            self.tell(w, rules.checkpoint_shows_stop);
        } else {
            worker.stop();
        }
    }

    pub(super) fn may_write(&self, rules: &Rules, w: usize) -> bool {
        match rules.checkpoint {
            Condition::LastWrite => self.workers[w].current,
            Condition::Epoch => self.is_newest(w),
            Condition::Nothing => true,
        }
    }

    fn is_newest(&self, w: usize) -> bool {
        self.job.status == JobStatus::Processing && self.workers[w].epoch == self.job.epoch
    }

    /// Writes one transaction {rows → waiting, a new segment, the job's counters}; clears the command when no rows are left.
    pub(super) fn carry_out(&mut self, model: &Protocol, w: usize, lost: bool) {
        let rules = &model.rules;
        let worker = self.workers[w];
        let rows: Vec<_> = model
            .contacts()
            .filter(|&c| self.is_commanded(rules, c))
            .take(model.batch as usize)
            .collect();
        let may_write = if rules.batch_on_segment_count {
            self.may_write(rules, w)
        } else {
            self.is_newest(w)
        };
        if !may_write {
            return self.workers[w].stop();
        }
        if rows.is_empty() {
            self.job.command = JobCommand::Nothing;
            self.workers[w].phase = Phase::Working;
            return self.written(w, lost, rules.checkpoint_shows_stop);
        }
        let set = rows.iter().fold(0, |set, c| set | 1 << c);
        for c in rows {
            self.reopen(c as usize, worker.epoch);
        }
        if !rules.retry_in_one_transaction {
            self.workers[w].unappended = set;
            return self.written(w, lost, rules.checkpoint_shows_stop);
        }
        self.set_last_writer(w);
        self.append(w, set);
        if lost && !rules.batch_on_segment_count {
            // The worker takes the batch for not applied, and gives the next one the same segment number.
            self.losses -= 1;
            self.workers[w] = worker;
            return;
        }
        self.written(w, lost, rules.checkpoint_shows_stop);
    }

    fn is_commanded(&self, rules: &Rules, c: u8) -> bool {
        match (self.job.command, self.rows[c as usize].state) {
            (JobCommand::Retry { .. }, RowState::Failed | RowState::Skipped) => true,
            (JobCommand::Retry { in_doubt }, RowState::InDoubt) => in_doubt,
            (JobCommand::Resend(named), RowState::InDoubt) => named & (1 << c) != 0 || !rules.resend_names_rows,
            _ => false,
        }
    }

    fn reopen(&mut self, c: usize, epoch: u8) {
        let row = &mut self.rows[c];
        let in_doubt = row.state == RowState::InDoubt;
        self.job.counters.add(row.state, -1);
        self.job.counters.waiting += 1;
        row.earlier_doubt |= in_doubt;
        row.state = RowState::Waiting;
        row.epoch = epoch;
        row.counted = false;
    }

    /// Appends a segment where the worker believes that the backlog ends.
    pub(super) fn append(&mut self, w: usize, set: u8) {
        let worker = &mut self.workers[w];
        assert!(
            (worker.segments as usize) < SEGMENTS,
            "the backlog is full: raise SEGMENTS"
        );
        self.job.backlog[worker.segments as usize] = set;
        worker.segments += 1;
        self.job.segments = worker.segments;
        worker.next = self.job.next_position(worker.next, worker.segments);
        worker.cursor = self.job.next_position(worker.cursor, worker.segments);
        self.job.cursor = worker.cursor;
    }

    /// Writes one transaction {the job's cursor and counters, a new segment, rows → in doubt}.
    pub(super) fn checkpoint(&mut self, rules: &Rules, w: usize, lost: bool) {
        if !self.may_write(rules, w) {
            return self.workers[w].stop();
        }
        if self.doubts_have_changed(rules, w) {
            return;
        }
        let (job, worker) = (self.job, self.workers[w]);
        let (mut cursor, mut set) = (worker.next, 0);
        let mut contiguous = true;
        for position in job
            .positions(worker.cursor, worker.segments)
            .take_while(|position| *position < worker.next)
        {
            let (_, c) = split(position);
            match worker.slots[c] {
                Slot::Finished(finish) if contiguous => {
                    self.count(finish, job.is_requeued(position));
                    set |= u8::from(finish == Finish::Requeued) << c;
                    self.workers[w].slots[c] = Slot::Free;
                }
                other => {
                    cursor = cursor.min(position);
                    contiguous = false;
                    if let Slot::Doubt { .. } = other {
                        self.rows[c].set_state(RowState::InDoubt);
                        self.rows[c].counted = true;
                        self.workers[w].slots[c] = Slot::Finished(Finish::Counted);
                        self.job.counters.in_doubt += 1;
                        self.job.counters.waiting -= i8::from(job.is_requeued(position));
                    }
                }
            }
        }
        self.workers[w].cursor = cursor;
        self.job.cursor = cursor;
        self.job.segments = worker.segments;
        if set != 0 && rules.append_with_cursor {
            self.append(w, set);
        } else {
            self.workers[w].unappended = set;
        }
        self.written(w, lost, rules.checkpoint_shows_stop);
    }

    /// Counts a contact that the cursor passes.
    fn count(&mut self, finish: Finish, was_waiting: bool) {
        let state = match finish {
            Finish::Sent => RowState::Sent,
            Finish::Failed => RowState::Failed,
            Finish::Skipped => RowState::Skipped,
            Finish::Requeued => RowState::Waiting,
            Finish::Counted => return,
        };
        self.job.counters.add(state, 1);
        self.job.counters.waiting -= i8::from(was_waiting);
    }

    /// Handles as found the rows that have changed since the worker decided to put them in doubt. One such row refuses the
    /// whole transaction.
    fn doubts_have_changed(&mut self, rules: &Rules, w: usize) -> bool {
        let mut changed = false;
        for c in 0..CONTACTS {
            let Slot::Doubt { token, was } = self.workers[w].slots[c] else {
                continue;
            };
            if self.rows[c].state == was && self.rows[c].token == token {
                continue;
            }
            changed = true;
            if rules.doubt_as_found {
                self.handle_as_found(rules, w, c);
            } else {
                self.workers[w].slots[c] = Slot::Finished(Finish::Counted);
            }
        }
        changed
    }

    /// Appends what a checkpoint or a batch has left unappended because a rule is missing.
    pub(super) fn append_late(&mut self, rules: &Rules, w: usize) {
        if !self.may_write(rules, w) {
            return self.workers[w].stop();
        }
        let set = std::mem::take(&mut self.workers[w].unappended);
        self.append(w, set);
        self.set_last_writer(w);
    }

    /// Ends a run: at the end of the backlog the job is completed, or cancelled by a drain; else it is paused, halted or queued.
    pub(super) fn hand_over(&mut self, rules: &Rules, w: usize, halts: bool) {
        self.halts -= u8::from(halts);
        if self.may_write(rules, w) {
            self.job.status = self.status_after(rules, w, halts);
            if self.job.status == JobStatus::Cancelled {
                self.job.command = JobCommand::Nothing;
            }
            if self.job.status != JobStatus::Queued {
                self.end_stop(rules);
            }
            self.set_last_writer(w);
        }
        self.workers[w] = Worker::GONE;
    }

    /// Clears the stop of a job that no worker has any more. A pause has no meaning for a job that is completed, and a halted one
    /// is resumed anyway.
    fn end_stop(&mut self, rules: &Rules) {
        let is_paused = self.job.status == JobStatus::Paused;
        if is_paused || self.job.status == JobStatus::Cancelled || rules.pause_ends {
            self.job.stop = None;
        }
        if !is_paused {
            self.wanted = self.wanted.filter(|wanted| *wanted == StopCommand::Cancel);
        }
    }

    /// Returns the status in which a run leaves its job. The write is conditional on the stop that it was decided by; if that
    /// has changed, the worker decides again.
    fn status_after(&self, rules: &Rules, w: usize, halts: bool) -> JobStatus {
        let (job, worker) = (&self.job, &self.workers[w]);
        let is_at_end = worker.next >= end_of(worker.segments);
        let is_resolved = job.resolving.is_none() || !rules.resolved_before_completion;
        let is_commanded = job.command != JobCommand::Nothing && rules.command_before_completion;
        let is_done = is_at_end && is_resolved && !is_commanded;
        let stop = match worker.stop {
            Some(StopCommand::Pause) if !rules.paused_if_it_stands => worker.stop,
            _ => job.stop,
        };
        let is_drained = is_at_end && worker.phase == Phase::Draining;
        match stop {
            Some(StopCommand::Cancel) if is_drained => JobStatus::Cancelled,
            Some(StopCommand::Cancel) if is_done && rules.completed_unless_cancelled => JobStatus::Cancelled,
            _ if is_done => JobStatus::Completed,
            Some(StopCommand::Cancel) if !halts || rules.halted_unless_cancelled => JobStatus::Queued,
            _ if halts => JobStatus::Halted,
            Some(StopCommand::Pause) => JobStatus::Paused,
            _ => JobStatus::Queued,
        }
    }
}
