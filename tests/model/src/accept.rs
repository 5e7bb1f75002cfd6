//! Requests with one idempotency key: which of them makes a broadcast.
//!
//! A request is received at some time, looks the key up, and commits; it may be slow between any two steps. Its time-out is
//! not modelled: a request that never takes its next step has run into it.

use stateright::{Model, Property};

/// Requests that a state has room for.
pub const REQUESTS: usize = 3;

/// How long a key is valid, in ticks.
const VALIDITY: u8 = 2;

/// Ticks in all: the first request's key may expire, and the key of one that comes after that, too.
const TICKS: u8 = 5;

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Has not come yet.
    Unborn,
    /// Received at this time.
    Received(u8),
    /// Found no valid key.
    New(u8),
    /// Its commit was applied, the answer was lost: the call will be repeated.
    Unsure(u8),
    /// Was answered with this request's broadcast.
    Answered(u8),
}

/// The item of the request key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The request that it was written by, whose broadcast it names.
    pub broadcast: u8,
    pub valid_until: u8,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub now: u8,
    pub key: Option<Key>,
    pub requests: [Request; REQUESTS],
    /// When the request of each broadcast was received; a request makes one or none.
    pub broadcasts: [Option<u8>; REQUESTS],
    /// Answers that may still be lost.
    pub losses: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Tick,
    Receive(u8),
    LookUp(u8),
    Commit {
        request: u8,
        lost: bool,
    },
    RepeatCommit(u8),
    /// DynamoDB's time to live takes the key.
    Expire,
}

/// The rules of accepting. All hold in the code.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The key is looked up before anything else.
    pub look_up: bool,
    /// The commit is conditional on the key.
    pub commit_if_free: bool,
    /// Expiry is compared with the time at which the request was received, not with the time of the commit.
    pub by_time_of_receipt: bool,
    /// A refusal by the key that this very request wrote is a win.
    pub own_key_is_a_win: bool,
    /// A key outlives its validity until all are answered who were received within it.
    pub key_outlives_validity: bool,
}

impl Rules {
    pub const ALL: Self = Self {
        look_up: true,
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
            requests: [Request::Unborn; REQUESTS],
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
                Request::Unborn => actions.push(Action::Receive(request)),
                Request::Received(_) => actions.push(Action::LookUp(request)),
                Request::New(_) => {
                    actions.push(Action::Commit {
                        request,
                        lost: false,
                    });
                    if state.losses > 0 {
                        actions.push(Action::Commit {
                            request,
                            lost: true,
                        });
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
            Action::LookUp(r) => self.look_up(&mut state, r),
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
            Request::Unborn | Request::Answered(_) => false,
        };
        let still_asked_for = state.requests.iter().any(in_time);
        state.now >= key.valid_until && !(self.rules.key_outlives_validity && still_asked_for)
    }

    fn look_up(&self, state: &mut State, r: u8) {
        let Request::Received(at) = state.requests[r as usize] else {
            return;
        };
        let valid = state
            .key
            .filter(|key| key.valid_until > at && self.rules.look_up);
        state.requests[r as usize] = match valid {
            Some(key) => Request::Answered(key.broadcast),
            None => Request::New(at),
        };
    }

    /// One transaction {the request key, the broadcast and its jobs}.
    fn commit(&self, state: &mut State, r: u8, lost: bool) {
        let (Request::New(at) | Request::Unsure(at)) = state.requests[r as usize] else {
            return;
        };
        let now = if self.rules.by_time_of_receipt {
            at
        } else {
            state.now
        };
        if let Some(key) = state
            .key
            .filter(|key| key.valid_until > now && self.rules.commit_if_free)
        {
            if key.broadcast == r && !self.rules.own_key_is_a_win {
                // Begins again, as if it had been refused by somebody else, who is not to be found.
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
    /// Two broadcasts for requests of which one came while the other's key was valid, or an answer that names none.
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
        let names_none = |request: &Request| matches!(request, Request::Answered(r) if self.broadcasts[*r as usize].is_none());
        self.requests
            .iter()
            .any(names_none)
            .then_some("an answer without a broadcast")
    }
}
