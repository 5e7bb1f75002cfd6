//! The way of one contact: reserve, send, record; and the settling of its row from outside.

use super::job::split;
use super::{Answer, Finish, RowState, Rules, Slot, State};

impl State {
    /// Reserves the row of the next contact.
    pub(super) fn start(&mut self, rules: &Rules, w: usize, due: bool, lost: bool) {
        self.delays -= u8::from(!due);
        let c = self.take_next(w);
        if !due || !self.is_free(rules, w, c) {
            return self.handle_as_found(rules, w, c);
        }
        let (row, worker) = (&mut self.rows[c], &mut self.workers[w]);
        row.state = RowState::Reserved;
        row.epoch = worker.epoch;
        row.token += 1;
        let token = row.token;
        self.losses -= u8::from(lost);
        self.has_disobeyed |= worker.told;
        worker.slots[c] = if lost {
            Slot::Reserving { token }
        } else {
            Slot::Holding { token }
        };
    }

    /// Skips the next contact, since the job is cancelled: in one write, unless an earlier attempt is in doubt. Such a row is put
    /// in doubt by the next checkpoint.
    pub(super) fn skip(&mut self, rules: &Rules, w: usize, lost: bool) {
        let c = self.take_next(w);
        if rules.skip_if_free && !self.is_free(rules, w, c) {
            return self.handle_as_found(rules, w, c);
        }
        let end = RowState::Skipped;
        let row = &mut self.rows[c];
        if rules.skip_unless_earlier_doubt && row.earlier_doubt {
            let (token, was) = (row.token, row.state);
            self.workers[w].slots[c] = Slot::Doubt { token, was };
            return;
        }
        row.token += 1;
        row.set_state(end);
        self.losses -= u8::from(lost);
        self.workers[w].slots[c] = if lost {
            Slot::Ended { token: row.token, end }
        } else {
            Slot::Finished(Finish::Skipped)
        };
    }

    /// Takes the next contact of the backlog.
    fn take_next(&mut self, w: usize) -> usize {
        let worker = &mut self.workers[w];
        let (_, c) = split(worker.next);
        worker.next = self.job.next_position(worker.next + 1, worker.segments);
        c
    }

    /// Returns true if the worker may reserve the row.
    fn is_free(&self, rules: &Rules, w: usize, c: usize) -> bool {
        let (row, epoch) = (&self.rows[c], self.workers[w].epoch);
        match row.state {
            RowState::Absent => true,
            RowState::Waiting => row.epoch <= epoch || !rules.reserve_if_not_newer,
            RowState::Reserved if row.epoch <= epoch && !rules.older_is_not_free => true,
            _ => !rules.reserve_if_free,
        }
    }

    pub(super) fn repeat_reserve(&mut self, rules: &Rules, w: usize, c: usize) {
        let Slot::Reserving { token } = self.workers[w].slots[c] else {
            return;
        };
        if self.rows[c].token == token && rules.own_token_is_a_win {
            self.workers[w].slots[c] = Slot::Holding { token };
        } else {
            self.handle_as_found(rules, w, c);
        }
    }

    pub(super) fn send(&mut self, w: usize, c: usize, answer: Answer) {
        let Slot::Holding { token } = self.workers[w].slots[c] else {
            return;
        };
        let ended = |end| Slot::Ended { token, end };
        self.accepted[c] += u8::from(matches!(answer, Answer::Accepted | Answer::AcceptedUnclearly));
        self.workers[w].slots[c] = match answer {
            Answer::Accepted => ended(RowState::Sent),
            Answer::AcceptedUnclearly | Answer::Unclear => Slot::Doubt {
                token,
                was: RowState::Reserved,
            },
            Answer::Never => ended(RowState::Failed),
            Answer::Later => ended(RowState::Waiting),
            Answer::Skipped => ended(RowState::Skipped),
        };
    }

    /// Records the outcome of a reservation. A call that is repeated after a lost answer finds its own work.
    pub(super) fn record(&mut self, rules: &Rules, w: usize, c: usize, lost: bool) {
        let Slot::Ended { token, end } = self.workers[w].slots[c] else {
            return;
        };
        let row = &mut self.rows[c];
        let settles = matches!(end, RowState::Failed | RowState::Skipped);
        let after_doubt = settles && row.earlier_doubt && rules.not_failed_after_doubt;
        let finished = if row.token != token && (rules.record_under_own_token || row.state != RowState::Reserved) {
            None
        } else {
            match (row.state, end) {
                (RowState::Reserved, _) if after_doubt => {
                    self.workers[w].slots[c] = Slot::Doubt {
                        token,
                        was: RowState::Reserved,
                    };
                    return;
                }
                (RowState::Reserved, _) => {
                    row.set_state(end);
                    Some(Finish::from(end))
                }
                (RowState::InDoubt, RowState::Sent | RowState::Failed) if !after_doubt => {
                    self.settle(rules, c, end);
                    Some(Finish::Counted)
                }
                (RowState::InDoubt, RowState::Waiting) if !rules.no_way_back_from_doubt => {
                    row.state = RowState::Waiting;
                    Some(Finish::Requeued)
                }
                (RowState::Waiting, RowState::Sent) => {
                    row.set_state(RowState::Sent);
                    None
                }
                (found, written) if found == written && rules.own_token_is_a_win => Some(if row.counted {
                    Finish::Counted
                } else {
                    Finish::from(found)
                }),
                _ => None,
            }
        };
        if lost {
            self.losses -= 1;
            return;
        }
        match finished {
            Some(finish) => self.workers[w].slots[c] = Slot::Finished(finish),
            None => self.handle_as_found(rules, w, c),
        }
    }

    /// Moves a row out of doubt, in one transaction with the counters that hold it.
    fn settle(&mut self, rules: &Rules, c: usize, end: RowState) {
        self.rows[c].set_state(end);
        if rules.doubt_is_counted {
            self.job.counters.in_doubt -= 1;
            self.job.counters.add(end, 1);
        }
    }

    /// Decides by the row that refused a worker what to do with its contact.
    pub(super) fn handle_as_found(&mut self, rules: &Rules, w: usize, c: usize) {
        let (row, epoch) = (&mut self.rows[c], self.workers[w].epoch);
        self.workers[w].slots[c] = match row.state {
            RowState::Reserved | RowState::Waiting if row.epoch > epoch => {
                self.workers[w].slots[c] = Slot::Free;
                return self.workers[w].stop();
            }
            RowState::Reserved if rules.older_is_in_doubt => Slot::Doubt {
                token: row.token,
                was: RowState::Reserved,
            },
            RowState::Waiting => {
                row.epoch = epoch;
                Slot::Finished(Finish::Requeued)
            }
            _ if row.counted => Slot::Finished(Finish::Counted),
            state => Slot::Finished(Finish::from(state)),
        };
    }

    /// Settles a row by an echo, or by a lookup that found the message.
    pub(super) fn prove(&mut self, rules: &Rules, c: usize) {
        if self.rows[c].state == RowState::InDoubt {
            self.settle(rules, c, RowState::Sent);
        } else {
            self.rows[c].set_state(RowState::Sent);
        }
    }
}
