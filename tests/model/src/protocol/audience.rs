//! The resolution of an audience: looking for its contacts in the index, in order of their ids, and writing them as segments.

use super::{Action, Protocol, State};

/// The contacts of an audience, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Audience {
    /// The contacts that match now.
    pub matching: u8,
    /// Those that the index may show as they were before.
    pub lagging: u8,
    /// Those among them that changed before acceptance.
    pub lagging_since_before: u8,
    /// The contacts that have matched since acceptance without a break.
    pub throughout: u8,
    /// The contacts that have matched at any time since acceptance.
    pub ever: u8,
    /// The contacts that the job was given.
    pub taken: u8,
}

impl Audience {
    /// Returns the audience at acceptance. Every contact has been changed a moment before.
    pub(super) fn new(model: &Protocol, named: u8) -> Self {
        let members = model.members.unwrap_or(named);
        let lagging = model.members.map_or(0, |_| (1 << model.contacts) - 1);
        Self {
            matching: members,
            lagging,
            lagging_since_before: lagging,
            throughout: members,
            ever: members,
            taken: named,
        }
    }

    /// Lets the index show these contacts as they are.
    pub fn settle(&mut self, set: u8) {
        self.lagging &= !set;
        self.lagging_since_before &= !set;
    }
}

impl State {
    /// Collects the changes of the audience and its index. Of a contact that was looked at none matters any more.
    pub(super) fn changes_of_audience(&self, model: &Protocol, actions: &mut Vec<Action>) {
        let Some(looked_at) = self.job.resolving.filter(|_| !self.job.is_over()) else {
            return;
        };
        for c in looked_at..model.contacts {
            if self.changes > 0 {
                actions.push(Action::Change { c });
            }
            if self.audience.lagging & (1 << c) != 0 {
                actions.push(Action::Settle { c });
            }
        }
    }

    /// Collects the actions of a worker that resolves the audience.
    pub(super) fn resolution_of(&self, model: &Protocol, w: u8, lossy: &[bool], actions: &mut Vec<Action>) {
        let (worker, audience) = (&self.workers[w as usize], &self.audience);
        let may_look = audience.lagging_since_before == 0 || !model.rules.wait_for_index;
        if worker.looked_at < model.contacts && worker.stop.is_none() && may_look {
            let bit = 1 << worker.looked_at;
            let matches = audience.matching & bit != 0;
            actions.push(Action::LookAt { w, matches });
            if audience.lagging & bit != 0 {
                actions.push(Action::LookAt { w, matches: !matches });
            }
        }
        if worker.resolved < worker.looked_at {
            actions.extend(lossy.iter().map(|&lost| Action::Resolve { w, lost }));
        } else if model.rules.resolve_before_sending {
            self.hand_overs_of(w, actions);
        }
    }

    pub(super) fn change(&mut self, c: u8) {
        self.changes -= 1;
        let (audience, bit) = (&mut self.audience, 1 << c);
        audience.matching ^= bit;
        audience.lagging |= bit;
        audience.throughout &= !bit;
        audience.ever |= audience.matching & bit;
    }

    pub(super) fn look_at(&mut self, w: usize, matches: bool) {
        let worker = &mut self.workers[w];
        worker.found |= u8::from(matches) << worker.looked_at;
        worker.looked_at += 1;
    }

    /// Writes one transaction {a new segment, the position up to which the contacts were looked at, the job's numbers}.
    pub(super) fn resolve(&mut self, model: &Protocol, w: usize, lost: bool) {
        let rules = &model.rules;
        let worker = self.workers[w];
        if !rules.part_in_transaction && worker.found != 0 {
            self.job.backlog[worker.segments as usize] = worker.found;
        }
        if rules.part_on_last_write && !self.may_write(rules, w) {
            return self.workers[w].stop();
        }
        if worker.found != 0 {
            self.append(w, worker.found);
            self.job.first_segments += 1;
            self.job.contacts += worker.found.count_ones() as u8;
            self.audience.taken |= worker.found;
            self.workers[w].found = 0;
        }
        if worker.found == 0 || rules.position_in_transaction {
            self.job.resolving = Some(worker.looked_at).filter(|looked_at| *looked_at < model.contacts);
            self.workers[w].resolved = worker.looked_at;
        }
        self.written(w, lost, rules.checkpoint_shows_stop);
    }
}
