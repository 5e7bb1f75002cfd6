//! What a look-up may conclude when two broadcasts send one text to one contact: Messenger's list of messages does not say
//! which of them a message came from.
//!
//! Both deliveries are reserved, sent and recorded as in [`crate::protocol`], each by its own worker; the operator may have
//! one in doubt sent again. A look-up asks Messenger first, then reads the other delivery, then writes.

use stateright::{Model, Property};

/// Deliveries of the same text to the same contact, and the most messages that one of them may come to.
const DELIVERIES: usize = 2;
const ATTEMPTS: usize = 2;

/// A set of messages, a bit each; a delivery's attempts have bits of their own.
type Messages = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowState {
    Absent,
    Reserved,
    /// Ordered again by the operator, after a doubt.
    Waiting,
    InDoubt,
    Failed,
    /// With the id of this message.
    Sent(u8),
}

/// A delivery, and who is at work on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Delivery {
    pub state: RowState,
    pub attempts: u8,
    pub earlier_doubt: bool,
    /// Its worker holds a reservation that it has not used.
    pub holding: bool,
    /// Its worker is to record this message.
    pub answered: Option<u8>,
    /// Settled by a look-up.
    pub looked_up: bool,
    pub look_up: LookUp,
}

/// How far a look-up has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LookUp {
    None,
    /// Has these from Messenger.
    Asked(Messages),
    /// Has read the other delivery, and takes these for its own.
    Sifted(Messages),
    /// Has read which messages cannot be its own, and not asked yet. Only without [`Rules::ask_first`].
    Read(Messages),
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub deliveries: [Delivery; DELIVERIES],
    /// What Messenger accepted.
    pub accepted: Messages,
    /// The items `mid#<id>`: messages that settled a doubt.
    pub claimed: Messages,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Reserve(u8),
    Send {
        d: u8,
        accepted: bool,
        answered: bool,
    },
    Record(u8),
    /// A worker's checkpoint, or one who comes after it, puts the row in doubt.
    Doubt(u8),
    /// A step of a look-up.
    LookUp(u8),
    /// The operator has it sent again.
    Retry(u8),
}

/// The rules of settling.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Messenger is asked before the other deliveries are read.
    pub ask_first: bool,
    /// A message that another delivery holds is no evidence.
    pub not_anothers: bool,
    /// While another delivery is open, there is no evidence: it may be its message.
    pub none_while_another_is_open: bool,
    /// One with an earlier attempt in doubt is open for ever.
    pub earlier_doubt_is_open: bool,
    /// A message settles one doubt.
    pub claim_message: bool,
    /// The other delivery is found: the index of jobs has it when its doubt is old enough for a look-up.
    pub another_is_found: bool,
}

impl Rules {
    pub const ALL: Self = Self {
        ask_first: true,
        not_anothers: true,
        none_while_another_is_open: true,
        earlier_doubt_is_open: true,
        claim_message: true,
        another_is_found: true,
    };
}

/// Two deliveries of one text to one contact.
#[derive(Clone, Copy, Debug)]
pub struct Evidence {
    pub rules: Rules,
}

impl Model for Evidence {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let delivery = Delivery {
            state: RowState::Absent,
            attempts: 0,
            earlier_doubt: false,
            holding: false,
            answered: None,
            looked_up: false,
            look_up: LookUp::None,
        };
        vec![State {
            deliveries: [delivery; DELIVERIES],
            accepted: 0,
            claimed: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for d in 0..DELIVERIES as u8 {
            let delivery = &state.deliveries[d as usize];
            if delivery.holding {
                for (accepted, answered) in
                    [(true, true), (true, false), (false, true), (false, false)]
                {
                    actions.push(Action::Send {
                        d,
                        accepted,
                        answered,
                    });
                }
            }
            if delivery.answered.is_some() {
                actions.push(Action::Record(d));
            }
            match delivery.state {
                RowState::Absent | RowState::Waiting => actions.push(Action::Reserve(d)),
                RowState::Reserved => actions.push(Action::Doubt(d)),
                RowState::InDoubt => {
                    actions.push(Action::LookUp(d));
                    if (delivery.attempts as usize) < ATTEMPTS {
                        actions.push(Action::Retry(d));
                    }
                }
                RowState::Failed | RowState::Sent(_) => {}
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::LookUp(d) => self.look_up(&mut state, d as usize),
            Action::Send {
                d,
                accepted,
                answered,
            } => state.send(d as usize, accepted, answered),
            Action::Record(d) => state.deliveries[d as usize].record(),
            Action::Reserve(d) => {
                let delivery = &mut state.deliveries[d as usize];
                delivery.state = RowState::Reserved;
                delivery.attempts += 1;
                // Whoever held an earlier reservation is gone.
                (delivery.holding, delivery.answered) = (true, None);
            }
            Action::Doubt(d) => state.deliveries[d as usize].state = RowState::InDoubt,
            Action::Retry(d) => {
                let delivery = &mut state.deliveries[d as usize];
                delivery.state = RowState::Waiting;
                delivery.earlier_doubt = true;
                delivery.look_up = LookUp::None;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("promises", |model: &Self, state| {
            model.broken(state).is_none()
        })]
    }
}

fn bit(message: u8) -> Messages {
    1 << message
}

impl Evidence {
    fn look_up(&self, state: &mut State, d: usize) {
        let other = &state.deliveries[1 - d];
        let not_mine = self.cannot_be_mine(other);
        let delivery = &mut state.deliveries[d];
        delivery.look_up = match delivery.look_up {
            LookUp::None if self.rules.ask_first => LookUp::Asked(state.accepted),
            LookUp::None => LookUp::Read(not_mine),
            LookUp::Asked(messages) => LookUp::Sifted(messages & !not_mine),
            LookUp::Read(not_mine) => LookUp::Sifted(state.accepted & !not_mine),
            LookUp::Sifted(0) => LookUp::None,
            LookUp::Sifted(messages) => {
                // One transaction {the row, still in doubt under the same token; the message's own item}.
                let message = messages.trailing_zeros() as u8;
                if state.claimed & bit(message) == 0 || !self.rules.claim_message {
                    state.claimed |= bit(message);
                    delivery.state = RowState::Sent(message);
                    delivery.looked_up = true;
                }
                LookUp::None
            }
        };
    }

    fn cannot_be_mine(&self, other: &Delivery) -> Messages {
        const ANY: Messages = Messages::MAX;
        let rules = &self.rules;
        let open = matches!(
            other.state,
            RowState::Reserved | RowState::InDoubt | RowState::Waiting
        );
        match other.state {
            _ if !rules.another_is_found => 0,
            _ if open && rules.none_while_another_is_open => ANY,
            _ if other.earlier_doubt && rules.earlier_doubt_is_open => ANY,
            RowState::Sent(message) if rules.not_anothers => bit(message),
            _ => 0,
        }
    }

    /// What is broken in a state, if anything.
    pub fn broken(&self, state: &State) -> Option<&'static str> {
        let [first, second] = &state.deliveries;
        let same = first.state == second.state && matches!(first.state, RowState::Sent(_));
        if same && first.looked_up && second.looked_up {
            return Some("one message settles two doubts");
        }
        let anothers = |(d, delivery): (usize, &Delivery)| matches!(delivery.state, RowState::Sent(message) if message as usize / ATTEMPTS != d);
        let guessed = state.deliveries.iter().enumerate().any(anothers);
        // While the other is not found, nothing better can be had.
        (guessed && self.rules.another_is_found).then_some("no guess: another's message")
    }
}

impl State {
    fn send(&mut self, d: usize, accepted: bool, answered: bool) {
        let delivery = &mut self.deliveries[d];
        let message = (d * ATTEMPTS) as u8 + delivery.attempts - 1;
        delivery.holding = false;
        if accepted {
            self.accepted |= bit(message);
            delivery.answered = answered.then_some(message);
        } else if answered && delivery.state == RowState::Reserved && !delivery.earlier_doubt {
            delivery.state = RowState::Failed;
        }
    }
}

impl Delivery {
    /// An answer is proof, whatever has become of the row meanwhile.
    fn record(&mut self) {
        if let Some(message) = self.answered.take()
            && matches!(
                self.state,
                RowState::Reserved | RowState::InDoubt | RowState::Waiting
            )
        {
            self.state = RowState::Sent(message);
        }
    }
}
