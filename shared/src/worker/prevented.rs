//! The contacts that were settled before a run came to them: duplicates that the reservation prevented.

use tracing::warn;

use crate::domain::ids::{ContactId, first_ten};
use crate::runtime::metrics::{Layer, Metrics};

/// The contacts, and how many of them checkpoints have written.
#[derive(Default)]
pub struct Prevented {
    contacts: Vec<ContactId>,
    written: u64,
}

impl Prevented {
    /// Adds a contact.
    pub fn add(&mut self, contact_id: ContactId) {
        self.contacts.push(contact_id);
    }

    /// Returns the number that the next checkpoint writes.
    pub fn unwritten(&self) -> u64 {
        self.contacts.len() as u64 - self.written
    }

    /// Notes that a checkpoint has written so many.
    pub fn record_written(&mut self, count: u64) {
        self.written += count;
    }

    /// Counts and logs them, at the end of the run.
    pub fn report(&self, metrics: &Metrics) {
        if self.contacts.is_empty() {
            return;
        }
        let (count, ids) = (self.contacts.len(), first_ten(&self.contacts));
        metrics.prevented(Layer::Reservation, count as u64);
        warn!(
            duplicates.layer = "reservation",
            duplicates.prevented = count,
            contact.ids = ids,
            "duplicates prevented: contacts were settled before"
        );
    }
}
