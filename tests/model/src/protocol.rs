//! One job: claimed, worked on, handed over, settled and retried, by workers that may stop for ever or for a while between
//! any two steps.
//!
//! A step is one call that DynamoDB or Messenger sees, together with what the worker makes of the answer. A worker that
//! freezes is one whose next step comes late, so freezing needs no action of its own. Leases need no clock: any worker may
//! claim the job at any moment, which also stands for hints that are lost, doubled or late.

use stateright::{Model, Property};

use crate::recovery;

/// Contacts that a state has room for.
pub const CONTACTS: usize = 3;
/// Claims that a state has room for; the last is left to [`recovery`].
pub const WORKERS: usize = 5;
/// Segments that a state has room for.
const SEGMENTS: usize = 12;

/// A place in line: segment × [`CONTACTS`] + contact. A segment is a set here, so who stands in it has one place.
type Place = u8;

/// The job item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Job {
    pub status: JobStatus,
    /// +1 with each claim.
    pub epoch: u8,
    pub cursor: Place,
    /// Segments in its line.
    pub segments: u8,
    pub counters: Counters,
    /// What the next claim carries out before it works.
    pub wish: Wish,
    /// The segments, a bit per contact. Items of their own in DynamoDB, written in the job's transactions.
    pub line: [u8; SEGMENTS],
}

/// `scheduled` and `waiting` differ from `queued` only in when somebody comes; `halted` in who lets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobStatus {
    Queued,
    Processing,
    Completed,
}

/// Contacts of the job by outcome; the others are pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counters {
    pub waiting: i8,
    pub sent: i8,
    pub failed: i8,
    pub skipped: i8,
    pub in_doubt: i8,
}

/// Which rows of a completed job are to be worked on again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wish {
    Nothing,
    /// By the operator; those in doubt only if named.
    Retry {
        in_doubt: bool,
    },
    /// By policy: these contacts, a bit each.
    Resend(u8),
}

/// A delivery row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    pub state: RowState,
    /// Of the claim that reserved or stamped it; 0 where nobody asks any more.
    pub epoch: u8,
    /// Which of the contact's reservations it last stood under.
    pub token: u8,
    /// The job's counters hold its outcome already.
    pub counted: bool,
    /// An earlier attempt is in doubt.
    pub earlier_doubt: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowState {
    Absent,
    Reserved,
    Waiting,
    Sent,
    Failed,
    Skipped,
    InDoubt,
}

/// One claim and its slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Worker {
    pub phase: Phase,
    pub epoch: u8,
    /// The job's checkpoint id is the one that this worker wrote last: nobody has written the job since.
    pub current: bool,
    /// Its last write of the job had no answer yet. The write was applied, and the call will be repeated.
    pub unsure: bool,
    /// The cursor as it wrote it last.
    pub cursor: Place,
    /// Who is taken up next.
    pub next: Place,
    /// Segments that it knows of.
    pub segments: u8,
    /// What became of those whom it has taken up since the cursor.
    pub slots: [Slot; CONTACTS],
    /// Contacts whom the cursor has passed and who are still to be appended. Only without [`Rules::append_with_cursor`] or
    /// [`Rules::retry_in_one`].
    pub unappended: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Has not come yet.
    Unborn,
    /// Carries out a wish.
    Obeying,
    Working,
    /// Knows that it was overtaken: starts nothing more, but what is under way goes on.
    Overtaken,
    Gone,
}

/// One contact in a worker's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    Free,
    /// Reserved, but the answer was lost: the call will be repeated.
    Reserving {
        token: u8,
    },
    /// Reserved, and not sent yet.
    Holding {
        token: u8,
    },
    /// What came of it is to be recorded.
    Ended {
        token: u8,
        end: RowState,
    },
    /// The next checkpoint puts the row in doubt, while it is reserved under this token.
    Doubt {
        token: u8,
    },
    Finished(Finish),
}

/// What the cursor makes of a contact that it passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finish {
    Sent,
    Failed,
    Skipped,
    /// The counters hold it already.
    Counted,
    /// Stands in line again.
    Again,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub job: Job,
    pub rows: [Row; CONTACTS],
    pub workers: [Worker; WORKERS],
    /// Messages that Messenger accepted, by contact. Nobody reads this but Messenger.
    pub accepted: [u8; CONTACTS],
    /// Messages more than one that the operator ordered, by contact.
    pub ordered: [u8; CONTACTS],
    /// Answers that may still be lost.
    pub losses: u8,
    /// How often a contact may still be found not to be due.
    pub delays: u8,
    /// Retries that the operator may still order.
    pub retries: u8,
}

/// What Messenger, or nobody, says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    /// Accepted, but the answer was lost or made no sense.
    AcceptedUnclearly,
    /// Not accepted, and no answer that says so.
    Unclear,
    /// Never to this contact.
    Never,
    /// Not now: a rate limit, no connection. Also what a worker says that finds its reservation too old to send.
    Later,
    /// Not sent: the contact has opted out.
    Skipped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A hint arrives, when no lease is in the way any more.
    Claim {
        lost: bool,
    },
    /// Another hint reaches a process that has the claim, and that takes it for its own. Only without [`Rules::claim_ids`].
    Adopt,
    /// A write of the job whose answer was lost is repeated.
    RepeatJobWrite {
        w: u8,
    },
    /// One batch of a wish, or its end.
    CarryOut {
        w: u8,
        lost: bool,
    },
    /// The next contact in line: reserve.
    Start {
        w: u8,
        due: bool,
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
    /// See [`Worker::unappended`].
    Append {
        w: u8,
    },
    HandOver {
        w: u8,
    },
    Die {
        w: u8,
    },
    /// Proof that the contact was sent a message: its echo, or a look-up that finds it.
    Proof {
        c: u8,
    },
    /// The last look-ups for these contacts find nothing: the job is to send to them again.
    LookInVain {
        set: u8,
    },
    /// The operator orders a retry.
    Retry {
        in_doubt: bool,
    },
}

/// The rules of the protocol. All hold in the code; a test takes one out to see what it is good for.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Reserve only a row that is absent or waits.
    pub reserve_if_free: bool,
    /// Reserve a waiting row only if its epoch is not above mine.
    pub reserve_if_not_newer: bool,
    /// Who meets a row reserved by an older claim does not send to it again.
    pub older_is_not_free: bool,
    /// Who meets a row reserved by an older claim puts it in doubt.
    pub older_is_in_doubt: bool,
    /// A refusal that shows my own token or id is a win.
    pub own_token_is_a_win: bool,
    /// Record only what stands under my token.
    pub record_under_my_token: bool,
    /// From in doubt, nobody goes back in line.
    pub no_way_back_from_doubt: bool,
    /// Never failed or skipped while an earlier attempt is in doubt.
    pub not_failed_after_doubt: bool,
    /// What checkpoints, hand-overs and batches are conditional on.
    pub checkpoint: Condition,
    /// Who stands in line again is appended in the transaction that moves the cursor.
    pub append_with_cursor: bool,
    /// Rows are put in doubt one by one on their condition; what changed is handled as found.
    pub doubt_as_found: bool,
    /// Whoever moves a row out of in doubt moves the counters with it.
    pub doubt_is_counted: bool,
    /// A claim id is never used twice.
    pub claim_ids: bool,
    /// The rows of a retry change in the transaction that appends their segment.
    pub retry_in_one: bool,
    /// A batch is conditional on how many segments there are.
    pub batch_on_segment_count: bool,
    /// A resend by policy names its rows.
    pub resend_names_rows: bool,
    /// The assumption of a resend by policy: nobody is frozen between reserving and sending when the last look-up is made.
    pub no_sender_at_last_look: bool,
}

impl Rules {
    pub const ALL: Self = Self {
        reserve_if_free: true,
        reserve_if_not_newer: true,
        older_is_not_free: true,
        older_is_in_doubt: true,
        own_token_is_a_win: true,
        record_under_my_token: true,
        no_way_back_from_doubt: true,
        not_failed_after_doubt: true,
        checkpoint: Condition::LastWrite,
        append_with_cursor: true,
        doubt_as_found: true,
        doubt_is_counted: true,
        claim_ids: true,
        retry_in_one: true,
        batch_on_segment_count: true,
        resend_names_rows: true,
        no_sender_at_last_look: true,
    };
}

/// What a write of the job by its worker is conditional on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The id of the claim, checkpoint or hand-over before it.
    LastWrite,
    /// The epoch: nobody else has claimed the job since.
    Epoch,
    Nothing,
}

/// How much of the protocol is searched, and by which rules.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    pub rules: Rules,
    pub contacts: u8,
    /// Claims that are made.
    pub epochs: u8,
    /// Contacts that a worker has under way at once.
    pub in_flight: u8,
    /// Reservations of one contact after which Messenger says `Later` no more.
    pub attempts: u8,
    pub answers: &'static [Answer],
    pub losses: u8,
    pub delays: u8,
    pub retries: u8,
    /// Rows in one batch of a wish.
    pub batch: u8,
    /// Echoes arrive and look-ups find.
    pub proofs: bool,
    /// `IN_DOUBT_POLICY=resend`.
    pub resend: bool,
    /// Workers die. Those that only freeze do as much harm; but a resend may have to wait for a death.
    pub deaths: bool,
    /// Without deaths, freezes and unclear answers, nobody may end in doubt.
    pub clear: bool,
}

impl Protocol {
    /// `contacts` × `epochs`, without lost answers, delays, retries and proofs.
    pub const fn new(contacts: u8, epochs: u8) -> Self {
        Self {
            rules: Rules::ALL,
            contacts,
            epochs,
            in_flight: contacts,
            attempts: 2,
            answers: &[
                Answer::Accepted,
                Answer::AcceptedUnclearly,
                Answer::Unclear,
                Answer::Never,
                Answer::Later,
            ],
            losses: 0,
            delays: 0,
            retries: 0,
            batch: 1,
            proofs: false,
            resend: false,
            deaths: true,
            clear: false,
        }
    }

    fn contacts(&self) -> impl Iterator<Item = u8> + use<> {
        0..self.contacts
    }

    /// What is broken in a state, if anything.
    pub fn broken(&self, state: &State) -> Option<&'static str> {
        match state.broken(self) {
            // A run that begins with deaths puts contacts in doubt.
            None if !self.clear => recovery::broken_after(self, state),
            broken => broken,
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        state.actions(self, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        state.step(self, action);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("promises", |model: &Self, state| {
            model.broken(state).is_none()
        })]
    }
}

const EVERYBODY_FREE: [Slot; CONTACTS] = [Slot::Free; CONTACTS];

impl Worker {
    const UNBORN: Self = Self {
        phase: Phase::Unborn,
        epoch: 0,
        current: false,
        unsure: false,
        cursor: 0,
        next: 0,
        segments: 0,
        slots: EVERYBODY_FREE,
        unappended: 0,
    };

    const GONE: Self = Self {
        phase: Phase::Gone,
        ..Self::UNBORN
    };

    fn under_way(&self) -> usize {
        let under_way =
            |slot: &&Slot| !matches!(slot, Slot::Free | Slot::Finished(_) | Slot::Doubt { .. });
        self.slots.iter().filter(under_way).count()
    }

    /// Whether it may write the job item, as far as it knows.
    fn may_write_job(&self) -> bool {
        matches!(self.phase, Phase::Working | Phase::Obeying)
            && !self.unsure
            && self.unappended == 0
    }

    /// Starts nothing more. What it knows of the job means nothing any more.
    fn stop(&mut self) {
        self.phase = Phase::Overtaken;
        for slot in &mut self.slots {
            if matches!(slot, Slot::Finished(_) | Slot::Doubt { .. }) {
                *slot = Slot::Free;
            }
        }
        *self = if self.under_way() == 0 {
            Self::GONE
        } else {
            Self {
                phase: Phase::Overtaken,
                epoch: self.epoch,
                slots: self.slots,
                ..Self::UNBORN
            }
        };
    }
}

impl Job {
    /// Who stands at or behind this place, in the first so many segments: their places.
    fn places(&self, from: Place, segments: u8) -> impl Iterator<Item = Place> + '_ {
        (from..end_of(segments)).filter(|place| {
            let (segment, contact) = split(*place);
            self.line
                .get(segment)
                .is_some_and(|set| set & (1 << contact) != 0)
        })
    }

    /// The first of those, or the end of the line.
    fn next_place(&self, from: Place, segments: u8) -> Place {
        self.places(from, segments)
            .next()
            .unwrap_or(end_of(segments))
    }
}

fn end_of(segments: u8) -> Place {
    segments * CONTACTS as u8
}

/// Segment and contact of a place.
fn split(place: Place) -> (usize, usize) {
    (place as usize / CONTACTS, place as usize % CONTACTS)
}

/// Joined the line a second time: the counters hold it as waiting.
fn again(place: Place) -> bool {
    place >= CONTACTS as u8
}

impl Counters {
    fn of(&mut self, state: RowState) -> Option<&mut i8> {
        match state {
            RowState::Waiting => Some(&mut self.waiting),
            RowState::Sent => Some(&mut self.sent),
            RowState::Failed => Some(&mut self.failed),
            RowState::Skipped => Some(&mut self.skipped),
            RowState::InDoubt => Some(&mut self.in_doubt),
            RowState::Absent | RowState::Reserved => None,
        }
    }

    fn add(&mut self, state: RowState, n: i8) {
        if let Some(counter) = self.of(state) {
            *counter += n;
        }
    }
}

impl Row {
    /// Settled, or in doubt.
    fn is_finished(&self) -> bool {
        !matches!(
            self.state,
            RowState::Absent | RowState::Reserved | RowState::Waiting
        )
    }

    fn turn(&mut self, state: RowState) {
        self.state = state;
        if self.is_finished() {
            self.epoch = 0;
        }
    }
}

fn finish(state: RowState) -> Finish {
    match state {
        RowState::Sent => Finish::Sent,
        RowState::Failed => Finish::Failed,
        RowState::Skipped => Finish::Skipped,
        RowState::Waiting => Finish::Again,
        RowState::InDoubt | RowState::Absent | RowState::Reserved => Finish::Counted,
    }
}

impl State {
    fn new(model: &Protocol) -> Self {
        let row = Row {
            state: RowState::Absent,
            epoch: 0,
            token: 0,
            counted: false,
            earlier_doubt: false,
        };
        let mut line = [0; SEGMENTS];
        line[0] = (1 << model.contacts) - 1;
        Self {
            job: Job {
                status: JobStatus::Queued,
                epoch: 0,
                cursor: 0,
                segments: 1,
                counters: Counters::default(),
                wish: Wish::Nothing,
                line,
            },
            rows: [row; CONTACTS],
            workers: [Worker::UNBORN; WORKERS],
            accepted: [0; CONTACTS],
            ordered: [0; CONTACTS],
            losses: model.losses,
            delays: model.delays,
            retries: model.retries,
        }
    }

    /// Everything that can happen next.
    fn actions(&self, model: &Protocol, actions: &mut Vec<Action>) {
        let lossy = [false, true];
        let lossy = if self.losses > 0 {
            &lossy[..]
        } else {
            &lossy[..1]
        };
        if self.job.epoch < model.epochs && self.job.status != JobStatus::Completed {
            actions.extend(lossy.iter().map(|&lost| Action::Claim { lost }));
        }
        let claims = self.job.epoch as usize;
        if !model.rules.claim_ids
            && self.job.status == JobStatus::Processing
            && self.unborn() == claims
        {
            actions.push(Action::Adopt);
        }
        for w in 0..WORKERS as u8 {
            if !matches!(self.workers[w as usize].phase, Phase::Unborn | Phase::Gone) {
                self.actions_of(model, w, lossy, actions);
                if model.deaths {
                    actions.push(Action::Die { w });
                }
            }
        }
        if model.proofs {
            let proven = model.contacts().filter(|&c| self.may_be_proven(c));
            actions.extend(proven.map(|c| Action::Proof { c }));
        }
        if self.job.status != JobStatus::Completed {
            return;
        }
        if model.resend {
            let in_vain = |set: u8| {
                let mut named = model.contacts().filter(|c| set & (1 << c) != 0);
                named.all(|c| self.may_look_in_vain(&model.rules, c))
            };
            let sets = (1..1 << model.contacts).filter(|&set| in_vain(set));
            actions.extend(sets.map(|set| Action::LookInVain { set }));
        }
        for (in_doubt, state) in [(false, RowState::Failed), (true, RowState::InDoubt)] {
            if self.retries > 0 && self.rows.iter().any(|row| row.state == state) {
                actions.push(Action::Retry { in_doubt });
            }
        }
    }

    /// What a worker can do next.
    pub fn actions_of(&self, model: &Protocol, w: u8, lossy: &[bool], actions: &mut Vec<Action>) {
        let worker = &self.workers[w as usize];
        for c in model.contacts() {
            match worker.slots[c as usize] {
                Slot::Free | Slot::Doubt { .. } | Slot::Finished(_) => {}
                Slot::Reserving { .. } => actions.push(Action::RepeatReserve { w, c }),
                Slot::Holding { token } => {
                    let possible =
                        |answer: &&Answer| **answer != Answer::Later || token < model.attempts;
                    let answers = model.answers.iter().filter(possible);
                    actions.extend(answers.map(|&answer| Action::Send { w, c, answer }));
                }
                Slot::Ended { .. } => {
                    actions.extend(lossy.iter().map(|&lost| Action::Record { w, c, lost }))
                }
            }
        }
        if worker.unsure {
            actions.push(Action::RepeatJobWrite { w });
        }
        if worker.unappended != 0 && !worker.unsure {
            actions.push(Action::Append { w });
        }
        if !worker.may_write_job() {
            return;
        }
        if worker.phase == Phase::Obeying {
            actions.extend(lossy.iter().map(|&lost| Action::CarryOut { w, lost }));
            return;
        }
        if self.has_unwritten(w) {
            actions.extend(lossy.iter().map(|&lost| Action::Checkpoint { w, lost }));
        }
        if worker.cursor == worker.next {
            actions.push(Action::HandOver { w });
        }
        if worker.next < end_of(worker.segments) && worker.under_way() < model.in_flight as usize {
            let (_, contact) = split(worker.next);
            // The line has nobody twice; without a rule it may, and then the second place waits for the first.
            if worker.slots[contact] == Slot::Free {
                actions.extend(
                    lossy
                        .iter()
                        .map(|&lost| Action::Start { w, due: true, lost }),
                );
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

    /// An echo may come, or a look-up find the message, while the row is open.
    fn may_be_proven(&self, c: u8) -> bool {
        let row = &self.rows[c as usize];
        let open = match row.state {
            RowState::Reserved | RowState::InDoubt => true,
            RowState::Waiting => row.earlier_doubt,
            RowState::Absent | RowState::Sent | RowState::Failed | RowState::Skipped => false,
        };
        open && self.accepted[c as usize] > 0
    }

    /// The last look-up may find nothing, if there is nothing to find and, as is assumed, nobody is about to send.
    fn may_look_in_vain(&self, rules: &Rules, c: u8) -> bool {
        self.rows[c as usize].state == RowState::InDoubt
            && self.accepted[c as usize] == 0
            && !(rules.no_sender_at_last_look && self.somebody_may_send_to(c))
    }

    fn somebody_may_send_to(&self, c: u8) -> bool {
        let may_send = |worker: &Worker| {
            matches!(
                worker.slots[c as usize],
                Slot::Reserving { .. } | Slot::Holding { .. }
            )
        };
        self.workers.iter().any(may_send)
    }

    /// Whether a checkpoint of this worker would change anything.
    fn has_unwritten(&self, w: u8) -> bool {
        let worker = &self.workers[w as usize];
        let first = self.job.next_place(worker.cursor, worker.segments);
        let passed =
            first < worker.next && matches!(worker.slots[split(first).1], Slot::Finished(_));
        passed
            || worker
                .slots
                .iter()
                .any(|slot| matches!(slot, Slot::Doubt { .. }))
    }

    /// The first worker that has not come yet.
    pub fn unborn(&self) -> usize {
        let unborn = |worker: &Worker| worker.phase == Phase::Unborn;
        self.workers.iter().position(unborn).unwrap_or(WORKERS)
    }

    /// Does one thing.
    pub fn step(&mut self, model: &Protocol, action: Action) {
        let rules = &model.rules;
        match action {
            Action::Claim { lost } => {
                self.claim();
                self.lose(lost, self.unborn() - 1);
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
            Action::LookInVain { set } => {
                self.job.wish = Wish::Resend(set);
                self.job.status = JobStatus::Queued;
            }
            Action::Retry { in_doubt } => {
                self.retries -= 1;
                self.job.wish = Wish::Retry { in_doubt };
                self.job.status = JobStatus::Queued;
            }
        }
        for worker in &mut self.workers {
            if worker.phase == Phase::Overtaken {
                worker.stop();
            }
        }
    }

    fn claim(&mut self) {
        let w = self.unborn();
        self.job.epoch += 1;
        self.job.status = JobStatus::Processing;
        self.workers[w] = Worker {
            phase: if self.job.wish == Wish::Nothing {
                Phase::Working
            } else {
                Phase::Obeying
            },
            epoch: self.job.epoch,
            cursor: self.job.cursor,
            next: self.job.next_place(self.job.cursor, self.job.segments),
            segments: self.job.segments,
            ..Worker::UNBORN
        };
        self.written_by(w);
    }

    fn adopt(&mut self) {
        let w = self.unborn();
        self.job.epoch -= 1;
        let current: Vec<_> = self.workers.iter().map(|worker| worker.current).collect();
        self.claim();
        for (worker, current) in self.workers.iter_mut().zip(current) {
            worker.current = current;
        }
        self.workers[w].current = true;
    }

    /// The job has a new checkpoint id, which this worker knows.
    fn written_by(&mut self, w: usize) {
        for worker in &mut self.workers {
            worker.current = false;
        }
        self.workers[w].current = true;
    }

    /// The answer to this worker's write of the job is lost, or not.
    fn lose(&mut self, lost: bool, w: usize) {
        self.losses -= u8::from(lost);
        self.workers[w].unsure = lost;
    }

    /// Refused by its own id, unless another has written since.
    fn repeat_job_write(&mut self, rules: &Rules, w: usize) {
        let worker = &mut self.workers[w];
        worker.unsure = false;
        if !(worker.current && rules.own_token_is_a_win) {
            worker.stop();
        }
    }

    fn may_write(&self, rules: &Rules, w: usize) -> bool {
        match rules.checkpoint {
            Condition::LastWrite => self.workers[w].current,
            Condition::Epoch => self.is_newest(w),
            Condition::Nothing => true,
        }
    }

    fn is_newest(&self, w: usize) -> bool {
        self.job.status == JobStatus::Processing && self.workers[w].epoch == self.job.epoch
    }

    /// One transaction {rows → waiting, a new segment, the job's counters}; when there are no more rows, the wish is cleared.
    fn carry_out(&mut self, model: &Protocol, w: usize, lost: bool) {
        let rules = &model.rules;
        let worker = self.workers[w];
        let wished = |state: &Self, c: u8| match (state.job.wish, state.rows[c as usize].state) {
            (Wish::Retry { .. }, RowState::Failed | RowState::Skipped) => true,
            (Wish::Retry { in_doubt }, RowState::InDoubt) => in_doubt,
            (Wish::Resend(named), RowState::InDoubt) => {
                named & (1 << c) != 0 || !rules.resend_names_rows
            }
            _ => false,
        };
        let rows: Vec<_> = model
            .contacts()
            .filter(|&c| wished(self, c))
            .take(model.batch as usize)
            .collect();
        let mine = if rules.batch_on_segment_count {
            self.may_write(rules, w)
        } else {
            self.is_newest(w)
        };
        if !mine {
            return self.workers[w].stop();
        }
        if rows.is_empty() {
            self.job.wish = Wish::Nothing;
            self.workers[w].phase = Phase::Working;
            self.written_by(w);
            return self.lose(lost, w);
        }
        let mut set = 0;
        for c in rows {
            set |= 1 << c;
            let row = &mut self.rows[c as usize];
            let in_doubt = row.state == RowState::InDoubt;
            self.job.counters.add(row.state, -1);
            self.job.counters.waiting += 1;
            row.earlier_doubt |= in_doubt;
            row.state = RowState::Waiting;
            row.epoch = worker.epoch;
            row.counted = false;
            self.ordered[c as usize] +=
                u8::from(in_doubt && matches!(self.job.wish, Wish::Retry { .. }));
        }
        self.written_by(w);
        if !rules.retry_in_one {
            self.workers[w].unappended = set;
            return self.lose(lost, w);
        }
        self.put_segment(w, set);
        if lost && !rules.batch_on_segment_count {
            // Taken for not applied: the next batch takes the same number.
            self.losses -= 1;
            self.workers[w] = worker;
            return;
        }
        self.lose(lost, w);
    }

    /// Appends a segment where the worker believes that the line ends.
    fn put_segment(&mut self, w: usize, set: u8) {
        let worker = &mut self.workers[w];
        assert!(
            (worker.segments as usize) < SEGMENTS,
            "more room for segments is needed"
        );
        self.job.line[worker.segments as usize] = set;
        worker.segments += 1;
        self.job.segments = worker.segments;
        worker.next = self.job.next_place(worker.next, worker.segments);
        worker.cursor = self.job.next_place(worker.cursor, worker.segments);
        self.job.cursor = worker.cursor;
    }

    fn start(&mut self, rules: &Rules, w: usize, due: bool, lost: bool) {
        self.delays -= u8::from(!due);
        let worker = &mut self.workers[w];
        let (_, c) = split(worker.next);
        worker.next = self.job.next_place(worker.next + 1, worker.segments);
        let row = &mut self.rows[c];
        let free = match row.state {
            RowState::Absent => true,
            RowState::Waiting => due && (row.epoch <= worker.epoch || !rules.reserve_if_not_newer),
            RowState::Reserved if row.epoch <= worker.epoch && !rules.older_is_not_free => true,
            _ => !rules.reserve_if_free,
        };
        if !free {
            return self.found(rules, w, c);
        }
        *row = Row {
            state: RowState::Reserved,
            epoch: worker.epoch,
            token: row.token + 1,
            ..*row
        };
        let token = row.token;
        self.losses -= u8::from(lost);
        worker.slots[c] = if lost {
            Slot::Reserving { token }
        } else {
            Slot::Holding { token }
        };
    }

    fn repeat_reserve(&mut self, rules: &Rules, w: usize, c: usize) {
        let Slot::Reserving { token } = self.workers[w].slots[c] else {
            return;
        };
        if self.rows[c].token == token && rules.own_token_is_a_win {
            self.workers[w].slots[c] = Slot::Holding { token };
        } else {
            self.found(rules, w, c);
        }
    }

    fn send(&mut self, w: usize, c: usize, answer: Answer) {
        let Slot::Holding { token } = self.workers[w].slots[c] else {
            return;
        };
        let ended = |end| Slot::Ended { token, end };
        self.accepted[c] += u8::from(matches!(
            answer,
            Answer::Accepted | Answer::AcceptedUnclearly
        ));
        self.workers[w].slots[c] = match answer {
            Answer::Accepted => ended(RowState::Sent),
            Answer::AcceptedUnclearly | Answer::Unclear => Slot::Doubt { token },
            Answer::Never => ended(RowState::Failed),
            Answer::Later => ended(RowState::Waiting),
            Answer::Skipped => ended(RowState::Skipped),
        };
    }

    /// Records what came of a reservation. What is repeated after a lost answer finds its own work.
    fn record(&mut self, rules: &Rules, w: usize, c: usize, lost: bool) {
        let Slot::Ended { token, end } = self.workers[w].slots[c] else {
            return;
        };
        let row = &mut self.rows[c];
        let settles = matches!(end, RowState::Failed | RowState::Skipped);
        let after_doubt = settles && row.earlier_doubt && rules.not_failed_after_doubt;
        let finished = if row.token != token
            && (rules.record_under_my_token || row.state != RowState::Reserved)
        {
            None
        } else {
            match (row.state, end) {
                (RowState::Reserved, _) if after_doubt => {
                    self.workers[w].slots[c] = Slot::Doubt { token };
                    return;
                }
                (RowState::Reserved, _) => {
                    row.turn(end);
                    Some(finish(end))
                }
                (RowState::InDoubt, RowState::Sent | RowState::Failed) if !after_doubt => {
                    self.settle(rules, c, end);
                    Some(Finish::Counted)
                }
                (RowState::InDoubt, RowState::Waiting) if !rules.no_way_back_from_doubt => {
                    row.state = RowState::Waiting;
                    Some(Finish::Again)
                }
                (RowState::Waiting, RowState::Sent) => {
                    row.turn(RowState::Sent);
                    None
                }
                (found, written) if found == written && rules.own_token_is_a_win => {
                    Some(if row.counted {
                        Finish::Counted
                    } else {
                        finish(found)
                    })
                }
                _ => None,
            }
        };
        if lost {
            self.losses -= 1;
            return;
        }
        match finished {
            Some(finish) => self.workers[w].slots[c] = Slot::Finished(finish),
            None => self.found(rules, w, c),
        }
    }

    /// Out of in doubt, in one transaction with the counters, which hold it.
    fn settle(&mut self, rules: &Rules, c: usize, end: RowState) {
        self.rows[c].turn(end);
        if rules.doubt_is_counted {
            self.job.counters.in_doubt -= 1;
            self.job.counters.add(end, 1);
        }
    }

    /// What a row says to do that refused a worker.
    fn found(&mut self, rules: &Rules, w: usize, c: usize) {
        let (row, epoch) = (&mut self.rows[c], self.workers[w].epoch);
        self.workers[w].slots[c] = match row.state {
            RowState::Reserved | RowState::Waiting if row.epoch > epoch => {
                self.workers[w].slots[c] = Slot::Free;
                return self.workers[w].stop();
            }
            RowState::Reserved if rules.older_is_in_doubt => Slot::Doubt { token: row.token },
            RowState::Waiting => {
                row.epoch = epoch;
                Slot::Finished(Finish::Again)
            }
            _ if row.counted => Slot::Finished(Finish::Counted),
            state => Slot::Finished(finish(state)),
        };
    }

    /// One transaction {the job's cursor and counters, a new segment, rows → in doubt}.
    fn checkpoint(&mut self, rules: &Rules, w: usize, lost: bool) {
        if !self.may_write(rules, w) {
            return self.workers[w].stop();
        }
        if self.doubts_have_changed(rules, w) {
            return;
        }
        let (job, worker) = (self.job, self.workers[w]);
        let (mut cursor, mut set) = (worker.next, 0);
        let counters = &mut self.job.counters;
        let mut contiguous = true;
        for place in job
            .places(worker.cursor, worker.segments)
            .take_while(|place| *place < worker.next)
        {
            let (_, c) = split(place);
            let finish = match worker.slots[c] {
                Slot::Finished(finish) if contiguous => finish,
                other => {
                    cursor = cursor.min(place);
                    contiguous = false;
                    if let Slot::Doubt { .. } = other {
                        self.rows[c].turn(RowState::InDoubt);
                        self.rows[c].counted = true;
                        self.workers[w].slots[c] = Slot::Finished(Finish::Counted);
                        counters.in_doubt += 1;
                        counters.waiting -= i8::from(again(place));
                    }
                    continue;
                }
            };
            let state = match finish {
                Finish::Sent => RowState::Sent,
                Finish::Failed => RowState::Failed,
                Finish::Skipped => RowState::Skipped,
                Finish::Again => RowState::Waiting,
                Finish::Counted => RowState::Absent,
            };
            if finish != Finish::Counted {
                counters.add(state, 1);
                counters.waiting -= i8::from(again(place));
            }
            if finish == Finish::Again {
                set |= 1 << c;
            }
            self.workers[w].slots[c] = Slot::Free;
        }
        self.workers[w].cursor = cursor;
        self.job.cursor = cursor;
        self.job.segments = worker.segments;
        if set != 0 && rules.append_with_cursor {
            self.put_segment(w, set);
        } else {
            self.workers[w].unappended = set;
        }
        self.written_by(w);
        self.lose(lost, w);
    }

    /// Rows that are not any more what was to be put in doubt refuse the whole transaction, and are handled as found.
    fn doubts_have_changed(&mut self, rules: &Rules, w: usize) -> bool {
        let mut changed = false;
        for c in 0..CONTACTS {
            let Slot::Doubt { token } = self.workers[w].slots[c] else {
                continue;
            };
            if self.rows[c].state == RowState::Reserved && self.rows[c].token == token {
                continue;
            }
            changed = true;
            if rules.doubt_as_found {
                self.found(rules, w, c);
            } else {
                self.workers[w].slots[c] = Slot::Finished(Finish::Counted);
            }
        }
        changed
    }

    fn append_late(&mut self, rules: &Rules, w: usize) {
        if !self.may_write(rules, w) {
            return self.workers[w].stop();
        }
        let set = std::mem::take(&mut self.workers[w].unappended);
        self.put_segment(w, set);
        self.written_by(w);
    }

    /// Completed at the end of the line; else somebody goes on.
    fn hand_over(&mut self, rules: &Rules, w: usize) {
        if self.may_write(rules, w) {
            let worker = self.workers[w];
            self.job.status = if worker.next >= end_of(worker.segments) {
                JobStatus::Completed
            } else {
                JobStatus::Queued
            };
            self.written_by(w);
        }
        self.workers[w] = Worker::GONE;
    }

    /// An echo, or a look-up that found the message.
    fn prove(&mut self, rules: &Rules, c: usize) {
        if self.rows[c].state == RowState::InDoubt {
            self.settle(rules, c, RowState::Sent);
        } else {
            self.rows[c].turn(RowState::Sent);
        }
    }

    /// What of DESIGN §1 does not hold.
    pub fn broken(&self, model: &Protocol) -> Option<&'static str> {
        let mut counters = Counters::default();
        for c in 0..model.contacts as usize {
            let (row, accepted) = (&self.rows[c], self.accepted[c]);
            if accepted > 1 + self.ordered[c] {
                return Some("never twice");
            }
            match row.state {
                RowState::Sent if accepted == 0 => return Some("no guess: sent"),
                RowState::Failed | RowState::Skipped if accepted > 0 => {
                    return Some("no guess: failed");
                }
                RowState::InDoubt if model.clear => return Some("in doubt without a cause"),
                _ => {}
            }
            let stands = |place: &Place| split(*place).1 == c;
            let mut places = self
                .job
                .places(self.job.cursor, self.job.segments)
                .filter(stands);
            match (places.next(), places.next()) {
                (_, Some(_)) => return Some("conservation: stands in line twice"),
                (Some(_), None) if self.job.status == JobStatus::Completed => {
                    return Some("nobody lost: completed too early");
                }
                (Some(_), None) if row.counted => counters.add(row.state, 1),
                (Some(place), None) => counters.waiting += i8::from(again(place)),
                (None, None) if row.is_finished() => counters.add(row.state, 1),
                (None, None) => return Some("nobody lost"),
            }
        }
        (counters != self.job.counters).then_some("conservation: counters")
    }
}
