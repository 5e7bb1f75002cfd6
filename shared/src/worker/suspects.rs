//! The contacts that Messenger refused in this run with an error that may concern every contact, until the send to another
//! contact decides.

use crate::domain::backlog::Entry;

/// The entries of these contacts. Their rows are `waiting`, and the cursor has not passed them, so that none is lost if the
/// run ends before the decision.
#[derive(Default)]
pub struct Suspects {
    undecided: Vec<Entry>,
    /// The contacts that alone are concerned, since Messenger accepted another one; they are to be asked again.
    alone: Vec<Entry>,
}

impl Suspects {
    /// Adds a contact that was refused.
    pub fn add(&mut self, entry: Entry) {
        self.undecided.push(entry);
    }

    /// Returns `true` if there are no such contacts.
    pub fn is_empty(&self) -> bool {
        self.undecided.is_empty() && self.alone.is_empty()
    }

    /// Decides that the errors concern none but these contacts.
    pub fn find_alone(&mut self) {
        self.alone.append(&mut self.undecided);
    }

    /// Takes the next contact that is to be asked again.
    pub fn next_alone(&mut self) -> Option<Entry> {
        self.alone.pop()
    }

    /// Takes all contacts, to be requeued.
    pub fn take(&mut self) -> impl Iterator<Item = Entry> {
        let Self { undecided, alone } = std::mem::take(self);
        undecided.into_iter().chain(alone)
    }
}
