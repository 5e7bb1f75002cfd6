//! The conclusions of a lookup when two broadcasts send the same text to the same contact: Messenger's list of messages does
//! not tell which of them a message came from.
//!
//! Both deliveries are reserved, sent and recorded as in [`crate::protocol`], each by its own worker; the operator may command
//! a resend of one in doubt. A lookup asks Messenger first, then reads the other delivery, then writes.

use stateright::{Model, Property};

/// The number of deliveries of the same text to the same contact.
const DELIVERIES: usize = 2;

/// The most messages that one delivery may cause.
const ATTEMPTS: usize = 2;

/// A set of messages, one bit each. Each attempt of each delivery has a bit of its own.
type Messages = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowState {
    Absent,
    Reserved,
    /// To be sent again by command of the operator, after a doubt.
    Waiting,
    InDoubt,
    Failed,
    /// Sent with the id of this message.
    Sent(u8),
}

/// A delivery, with its worker and its lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Delivery {
    pub state: RowState,
    pub attempts: u8,
    pub earlier_doubt: bool,
    /// The worker holds a reservation that it has not used.
    pub holding: bool,
    /// The message that the worker is to record.
    pub answered: Option<u8>,
    /// The row was settled by a lookup.
    pub settled_by_lookup: bool,
    pub lookup: Lookup,
}

/// The progress of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lookup {
    None,
    /// Messenger has listed these messages.
    Asked(Messages),
    /// The other delivery was read as well: these messages are taken for evidence.
    Filtered(Messages),
    /// The other delivery was read, which excludes these messages, and Messenger not asked yet. Only without
    /// [`Rules::ask_first`].
    Read(Messages),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub deliveries: [Delivery; DELIVERIES],
    /// The messages that Messenger accepted.
    pub accepted: Messages,
    /// The items `mid#<id>`: the messages that settled a doubt.
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
    /// A checkpoint of the worker, or of a later one, puts the row in doubt.
    Doubt(u8),
    /// A step of a lookup.
    Lookup(u8),
    /// The operator commands a resend.
    Retry(u8),
}

/// The rules of settling. The code follows all of them.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Messenger is asked before the other deliveries are read.
    pub ask_first: bool,
    /// A message with which another delivery is settled is no evidence.
    pub not_of_other: bool,
    /// While another delivery is open, no message is evidence: each may be of that delivery.
    pub none_while_other_is_open: bool,
    /// A delivery with an earlier attempt in doubt is open for ever.
    pub earlier_doubt_is_open: bool,
    /// A message settles one doubt.
    pub claim_message: bool,
    /// The other delivery is found: the index of jobs contains its job when the doubt is old enough for a lookup.
    pub other_is_found: bool,
}

impl Rules {
    pub const ALL: Self = Self {
        ask_first: true,
        not_of_other: true,
        none_while_other_is_open: true,
        earlier_doubt_is_open: true,
        claim_message: true,
        other_is_found: true,
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
            settled_by_lookup: false,
            lookup: Lookup::None,
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
                for (accepted, answered) in [(true, true), (true, false), (false, true), (false, false)] {
                    actions.push(Action::Send { d, accepted, answered });
                }
            }
            if delivery.answered.is_some() {
                actions.push(Action::Record(d));
            }
            match delivery.state {
                RowState::Absent | RowState::Waiting => actions.push(Action::Reserve(d)),
                RowState::Reserved => actions.push(Action::Doubt(d)),
                RowState::InDoubt => {
                    actions.push(Action::Lookup(d));
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
            Action::Lookup(d) => self.look_up(&mut state, d as usize),
            Action::Send { d, accepted, answered } => state.send(d as usize, accepted, answered),
            Action::Record(d) => state.deliveries[d as usize].record(),
            Action::Reserve(d) => {
                let delivery = &mut state.deliveries[d as usize];
                delivery.state = RowState::Reserved;
                delivery.attempts += 1;
                // The worker that held an earlier reservation is gone.
                (delivery.holding, delivery.answered) = (true, None);
            }
            Action::Doubt(d) => state.deliveries[d as usize].state = RowState::InDoubt,
            Action::Retry(d) => {
                let delivery = &mut state.deliveries[d as usize];
                delivery.state = RowState::Waiting;
                delivery.earlier_doubt = true;
                delivery.lookup = Lookup::None;
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
        let excluded = self.excluded_by(other);
        let delivery = &mut state.deliveries[d];
        delivery.lookup = match delivery.lookup {
            Lookup::None if self.rules.ask_first => Lookup::Asked(state.accepted),
            Lookup::None => Lookup::Read(excluded),
            Lookup::Asked(messages) => Lookup::Filtered(messages & !excluded),
            Lookup::Read(excluded) => Lookup::Filtered(state.accepted & !excluded),
            Lookup::Filtered(0) => Lookup::None,
            Lookup::Filtered(messages) => {
                // One transaction {the row, still in doubt under the same token; the item of the message}.
                let message = messages.trailing_zeros() as u8;
                if state.claimed & bit(message) == 0 || !self.rules.claim_message {
                    state.claimed |= bit(message);
                    delivery.state = RowState::Sent(message);
                    delivery.settled_by_lookup = true;
                }
                Lookup::None
            }
        };
    }

    /// Returns the messages that are no evidence because of the other delivery.
    fn excluded_by(&self, other: &Delivery) -> Messages {
        const ANY: Messages = Messages::MAX;
        let rules = &self.rules;
        let open = matches!(other.state, RowState::Reserved | RowState::InDoubt | RowState::Waiting);
        match other.state {
            _ if !rules.other_is_found => 0,
            _ if open && rules.none_while_other_is_open => ANY,
            _ if other.earlier_doubt && rules.earlier_doubt_is_open => ANY,
            RowState::Sent(message) if rules.not_of_other => bit(message),
            _ => 0,
        }
    }

    /// Returns the promise that is broken in a state, if any.
    pub fn broken(&self, state: &State) -> Option<&'static str> {
        let [first, second] = &state.deliveries;
        let same = first.state == second.state && matches!(first.state, RowState::Sent(_));
        if same && first.settled_by_lookup && second.settled_by_lookup {
            return Some("one message settles two doubts");
        }
        let guessed =
            state.deliveries.iter().enumerate().any(
                |(d, delivery)| matches!(delivery.state, RowState::Sent(message) if message as usize / ATTEMPTS != d),
            );
        // A lookup that does not find the other delivery cannot tell its messages.
        (guessed && self.rules.other_is_found).then_some("guessed: message of the other delivery")
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
    /// Records an answer. It is a proof, whatever state the row has meanwhile.
    fn record(&mut self) {
        if let Some(message) = self.answered.take()
            && matches!(self.state, RowState::Reserved | RowState::InDoubt | RowState::Waiting)
        {
            self.state = RowState::Sent(message);
        }
    }
}
