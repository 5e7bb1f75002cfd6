//! One job: its audience found, claimed, worked on, handed over, settled, paused, resumed, cancelled and retried, by workers that may stop, for a
//! while or for ever, between any two steps.
//!
//! A step is one call to DynamoDB or Messenger, together with the worker's reaction to the answer. A frozen worker is one
//! that takes its next step late, so freezing needs no action of its own. Leases need no clock: any worker may claim the job
//! at any moment, which also covers wake-ups that are lost, repeated or late.

mod action;
mod audience;
mod controls;
mod delivery;
mod job;
mod job_writes;
mod promises;
mod rules;
mod sending;
mod state;
mod worker;

use stateright::{Model, Property};

use crate::recovery;

pub use self::action::{Action, Answer};
pub use self::controls::Control;
pub use self::delivery::{Row, RowState};
pub use self::job::{Counters, Job, JobCommand, JobStatus, StopCommand};
pub use self::rules::{Condition, Rules};
pub use self::state::State;
pub use self::worker::{Finish, Phase, Slot, Worker};

/// The capacity of a state for contacts.
pub const CONTACTS: usize = 3;

/// The capacity of a state for claims. The last one is reserved for [`recovery`].
pub const WORKERS: usize = 5;

/// The part of the protocol that is searched, and the rules that it follows.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    pub rules: Rules,
    pub contacts: u8,
    /// The number of claims.
    pub epochs: u8,
    /// The most contacts that a worker has in flight at once.
    pub in_flight: u8,
    /// The reservations of a contact after which Messenger no longer answers `Later`.
    pub attempts: u8,
    pub answers: &'static [Answer],
    /// The number of DynamoDB's answers that are lost.
    pub losses: u8,
    /// The number of times that a contact is found not due.
    pub delays: u8,
    /// The number of retries by the operator.
    pub retries: u8,
    /// The number of pauses, resumes and cancels by the operator.
    pub controls: u8,
    /// The number of times that a worker halts the job.
    pub halts: u8,
    /// The contacts that match the audience at acceptance, one bit each; `None` if the broadcast names its contacts.
    pub members: Option<u8>,
    /// The number of times that a contact begins or ceases to match.
    pub changes: u8,
    /// The most rows in one batch of a job command.
    pub batch: u8,
    /// Returns whether echoes arrive and lookups find messages.
    pub proofs: bool,
    /// Returns whether the policy is `IN_DOUBT_POLICY=resend`.
    pub resend: bool,
    /// Returns whether workers die and leases end. A frozen worker does as much harm as a dead one; but a resend may have to
    /// wait for a death.
    pub deaths: bool,
    /// Returns whether doubt is a violation: without deaths, freezes and unclear answers no delivery may end in doubt.
    pub no_doubt: bool,
}

impl Protocol {
    /// Returns a search of `contacts` × `epochs` without lost answers, delays, controls, retries and proofs.
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
            controls: 0,
            halts: 0,
            members: None,
            changes: 0,
            batch: 1,
            proofs: false,
            resend: false,
            deaths: true,
            no_doubt: false,
        }
    }

    fn contacts(&self) -> impl Iterator<Item = u8> + use<> {
        0..self.contacts
    }

    /// Returns the promise that is broken in a state or in a recovery from it, if any.
    pub fn broken(&self, state: &State) -> Option<&'static str> {
        match state.broken(self) {
            // A recovery begins with deaths, and so puts contacts in doubt.
            None if !self.no_doubt => recovery::broken_after(self, state),
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
