//! Requests with the same idempotency key, of which one makes a broadcast.
//!
//! A request is received at some time, reads the key, and commits; it may be slow between any two steps. Its time-out is not
//! modelled: a request that never takes its next step stands for one that timed out.

use stateright::{Model, Property};

/// The capacity of a state for requests.
pub const REQUESTS: usize = 3;

/// The validity of a key, in ticks.
const VALIDITY: u8 = 2;

/// The ticks of a search: enough for the first request's key to expire, and for the key of a request after that, too.
const TICKS: u8 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    NotReceived,
    /// Received at this time, in ticks.
    Received(u8),
    /// Received at this time, and found no valid key.
    New(u8),
    /// Received at this time, and committed. The answer was lost: the call will be repeated.
    Unsure(u8),
    /// Answered with the broadcast of this request.
    Answered(u8),
}

/// The request key, an item in DynamoDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The request that wrote the key. The key names its broadcast.
    pub broadcast: u8,
    pub valid_until: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub now: u8,
    pub key: Option<Key>,
    pub requests: [Request; REQUESTS],
    /// The receipt of the request of each broadcast; a request makes one broadcast or none.
    pub broadcasts: [Option<u8>; REQUESTS],
    /// The number of answers that may still be lost.
    pub losses: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Tick,
    Receive(u8),
    ReadKey(u8),
    Commit {
        request: u8,
        lost: bool,
    },
    RepeatCommit(u8),
    /// DynamoDB's time to live deletes the key.
    Expire,
}

/// The rules of accepting. The code follows all of them.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The key is read before anything else.
    pub read_key_first: bool,
    /// The commit is conditional on the key.
    pub commit_if_free: bool,
    /// Expiry is compared with the receipt of the request, not with the time of the commit.
    pub by_time_of_receipt: bool,
    /// A refusal by the key that the same request wrote is a win.
    pub own_key_is_a_win: bool,
    /// A key outlives its validity until all requests are answered that were received within it.
    pub key_outlives_validity: bool,
}

impl Rules {
    pub const ALL: Self = Self {
        read_key_first: true,
        commit_if_free: true,
        by_time_of_receipt: true,
        own_key_is_a_win: true,
        key_outlives_validity: true,
    };
}

/// Up to [`REQUESTS`] requests with one key.
#[derive(Clone, Copy, Debug)]
pub struct Accept {
    pub rules: Rules,
    pub requests: u8,
    pub losses: u8,
}

impl Model for Accept {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: 0,
            key: None,
            requests: [Request::NotReceived; REQUESTS],
            broadcasts: [None; REQUESTS],
            losses: self.losses,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now < TICKS {
            actions.push(Action::Tick);
        }
        for request in 0..self.requests {
            match state.requests[request as usize] {
                Request::NotReceived => actions.push(Action::Receive(request)),
                Request::Received(_) => actions.push(Action::ReadKey(request)),
                Request::New(_) => {
                    actions.push(Action::Commit { request, lost: false });
                    if state.losses > 0 {
                        actions.push(Action::Commit { request, lost: true });
                    }
                }
                Request::Unsure(_) => actions.push(Action::RepeatCommit(request)),
                Request::Answered(_) => {}
            }
        }
        if state.key.is_some_and(|key| self.may_expire(state, key)) {
            actions.push(Action::Expire);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick => state.now += 1,
            Action::Receive(r) => state.requests[r as usize] = Request::Received(state.now),
            Action::ReadKey(r) => self.read_key(&mut state, r),
            Action::Commit { request, lost } => self.commit(&mut state, request, lost),
            Action::RepeatCommit(r) => self.commit(&mut state, r, false),
            Action::Expire => state.key = None,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("promises", |_, state: &State| {
            state.broken().is_none()
        })]
    }
}

impl Accept {
    fn may_expire(&self, state: &State, key: Key) -> bool {
        let in_time = |request: &Request| match request {
            Request::Received(at) | Request::New(at) | Request::Unsure(at) => *at < key.valid_until,
            Request::NotReceived | Request::Answered(_) => false,
        };
        let still_needed = state.requests.iter().any(in_time);
        state.now >= key.valid_until && !(self.rules.key_outlives_validity && still_needed)
    }

    fn read_key(&self, state: &mut State, r: u8) {
        let Request::Received(at) = state.requests[r as usize] else {
            return;
        };
        let valid = state
            .key
            .filter(|key| key.valid_until > at && self.rules.read_key_first);
        state.requests[r as usize] = match valid {
            Some(key) => Request::Answered(key.broadcast),
            None => Request::New(at),
        };
    }

    /// Writes one transaction {the request key, the broadcast and its jobs}.
    fn commit(&self, state: &mut State, r: u8, lost: bool) {
        let (Request::New(at) | Request::Unsure(at)) = state.requests[r as usize] else {
            return;
        };
        let now = if self.rules.by_time_of_receipt { at } else { state.now };
        if let Some(key) = state
            .key
            .filter(|key| key.valid_until > now && self.rules.commit_if_free)
        {
            if key.broadcast == r && !self.rules.own_key_is_a_win {
                // It begins again, as if it had been refused by another request.
                state.requests[r as usize] = Request::Received(at);
            } else {
                state.requests[r as usize] = Request::Answered(key.broadcast);
            }
            return;
        }
        state.key = Some(Key {
            broadcast: r,
            valid_until: at + VALIDITY,
        });
        state.broadcasts[r as usize] = Some(at);
        state.requests[r as usize] = if lost {
            Request::Unsure(at)
        } else {
            Request::Answered(r)
        };
        state.losses -= u8::from(lost);
    }
}

impl State {
    /// Returns the promise that is broken, if any: two broadcasts for requests of which one was received while the key of the
    /// other was valid, or an answer that names no broadcast.
    pub fn broken(&self) -> Option<&'static str> {
        for (i, first) in self.broadcasts.iter().enumerate() {
            for second in &self.broadcasts[i + 1..] {
                if let (Some(first), Some(second)) = (first, second)
                    && first.abs_diff(*second) < VALIDITY
                {
                    return Some("two broadcasts");
                }
            }
        }
        let names_none =
            |request: &Request| matches!(request, Request::Answered(r) if self.broadcasts[*r as usize].is_none());
        self.requests
            .iter()
            .any(names_none)
            .then_some("an answer without a broadcast")
    }
}
