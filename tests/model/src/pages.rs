//! One contact and a broadcast to an audience on two Pages: from the request, which may find nobody, to the messages of its two
//! jobs. Meanwhile the contact is deleted and created again, also on the other Page.
//!
//! Each job reserves the contact once, as in [`crate::protocol`]; so here a job takes it or not, reads it, and sends once.

use stateright::{Model, Property};

/// The number of Pages. The contact is on the first one when the request is received.
const PAGES: usize = 2;

/// The Page that the contact wrote to: Messenger made the id for it.
const HOME: u8 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    Received,
    Accepted,
    /// Refused, since nobody was found.
    Refused,
}

/// The part of the broadcast for one Page, as far as it concerns the contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Job {
    NotResolved,
    /// The contact is in the backlog.
    Taken,
    /// The contact was read; it is sent to next.
    Read,
    Over,
}

/// The index's part for one Page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// It may show an older state of the contact.
    pub lagging: bool,
    /// It may show a state of before the request.
    pub lagging_since_before: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The Page of the contact, unless it is deleted.
    pub page: Option<u8>,
    pub index: [Part; PAGES],
    pub request: Request,
    pub jobs: [Job; PAGES],
    /// The jobs that took the contact.
    pub taken: [bool; PAGES],
    /// The messages that Messenger accepted.
    pub accepted: u8,
    /// The number of times that the contact may still be changed.
    pub changes: u8,
    /// The contact was changed since the request.
    pub is_changed: bool,
    /// The contact was deleted since the request.
    pub is_deleted: bool,
    /// A job sent although the contact, as it was read, was on another Page.
    pub sent_from_wrong_page: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The request looks in the index for anybody.
    Look {
        found: bool,
    },
    /// The contact is written with this Page.
    Put {
        page: u8,
    },
    Delete,
    /// The index's part for this Page shows no older state any more.
    Settle {
        page: u8,
    },
    /// The job of this Page looks for the contact in the index.
    Resolve {
        page: u8,
        found: bool,
    },
    /// The job of this Page reads the contact before it sends.
    Read {
        page: u8,
    },
    Send {
        page: u8,
    },
}

/// The rules of contacts and their Pages. The code follows all of them.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A write of a contact does not change its Page.
    pub stays_on_its_page: bool,
    /// A request is refused for lack of contacts only by a look that shows all that was written before it.
    pub refuse_after_lag: bool,
    /// Nobody is looked for before the index shows all that was written before acceptance.
    pub wait_for_index: bool,
    /// A job skips a contact that is on another Page when it is read.
    pub skip_on_other_page: bool,
    /// Messenger takes an id from no other Page than that which the contact wrote to: the assumption of everything here.
    pub id_is_of_one_page: bool,
}

impl Rules {
    pub const ALL: Self = Self {
        stays_on_its_page: true,
        refuse_after_lag: true,
        wait_for_index: true,
        skip_on_other_page: true,
        id_is_of_one_page: true,
    };
}

/// One contact, two Pages, and so many changes of the contact.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    pub rules: Rules,
    pub changes: u8,
}

impl Model for Pages {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let part = Part {
            lagging: true,
            lagging_since_before: true,
        };
        vec![State {
            page: Some(HOME),
            index: [part; PAGES],
            request: Request::Received,
            jobs: [Job::NotResolved; PAGES],
            taken: [false; PAGES],
            accepted: 0,
            changes: self.changes,
            is_changed: false,
            is_deleted: false,
            sent_from_wrong_page: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let lags = state.index.iter().any(|part| part.lagging_since_before);
        if state.request == Request::Received {
            actions.push(Action::Look { found: true });
            if (0..PAGES as u8).all(|page| state.may_show(page, false)) && !(self.rules.refuse_after_lag && lags) {
                actions.push(Action::Look { found: false });
            }
        }
        if state.changes > 0 {
            let may_put = |page: &u8| match state.page {
                Some(other) => other != *page && !self.rules.stays_on_its_page,
                None => true,
            };
            actions.extend((0..PAGES as u8).filter(may_put).map(|page| Action::Put { page }));
            if state.page.is_some() {
                actions.push(Action::Delete);
            }
        }
        for page in 0..PAGES as u8 {
            if state.index[page as usize].lagging {
                actions.push(Action::Settle { page });
            }
            match state.jobs[page as usize] {
                Job::NotResolved if state.request == Request::Accepted && !(self.rules.wait_for_index && lags) => {
                    let possible = [true, false].into_iter().filter(|&found| state.may_show(page, found));
                    actions.extend(possible.map(|found| Action::Resolve { page, found }));
                }
                Job::Taken => actions.push(Action::Read { page }),
                Job::Read => actions.push(Action::Send { page }),
                Job::NotResolved | Job::Over => {}
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Look { found } => {
                state.request = if found { Request::Accepted } else { Request::Refused };
            }
            Action::Put { page } => state.change(Some(page)),
            Action::Delete => {
                state.change(None);
                state.is_deleted = true;
            }
            Action::Settle { page } => {
                state.index[page as usize] = Part {
                    lagging: false,
                    lagging_since_before: false,
                };
            }
            Action::Resolve { page, found } => {
                state.jobs[page as usize] = if found { Job::Taken } else { Job::Over };
                state.taken[page as usize] = found;
            }
            Action::Read { page } => {
                let is_skipped = match state.page {
                    Some(found) => found != page && self.rules.skip_on_other_page,
                    None => true,
                };
                state.sent_from_wrong_page |= !is_skipped && state.page != Some(page);
                state.jobs[page as usize] = if is_skipped { Job::Over } else { Job::Read };
            }
            Action::Send { page } => {
                state.accepted += u8::from(page == HOME || !self.rules.id_is_of_one_page);
                state.jobs[page as usize] = Job::Over;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("promises", |_, state: &State| {
            state.broken().is_none()
        })]
    }
}

impl State {
    /// Returns true if the index may show the contact as on this Page, or as not on it.
    fn may_show(&self, page: u8, found: bool) -> bool {
        self.index[page as usize].lagging || (self.page == Some(page)) == found
    }

    fn change(&mut self, page: Option<u8>) {
        for changed in [self.page, page].into_iter().flatten() {
            self.index[changed as usize].lagging = true;
        }
        self.page = page;
        self.changes -= 1;
        self.is_changed = true;
    }

    /// Returns the promise that is broken, if any.
    pub fn broken(&self) -> Option<&'static str> {
        if self.request == Request::Refused && !self.is_changed {
            return Some("refused though somebody matches");
        }
        if self.taken == [true; PAGES] && !self.is_deleted {
            return Some("in two jobs");
        }
        if self.sent_from_wrong_page {
            return Some("sent from a Page that the contact has left");
        }
        (self.accepted > 1).then_some("sent twice")
    }
}
