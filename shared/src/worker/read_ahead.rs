//! The contacts of the next sends, read in one call and as of a moment ago: a read of each by itself, as of now, would be a quarter of
//! all requests, and cost twice as much.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::app::App;
use crate::domain::contact::Contact;
use crate::domain::ids::ContactId;
use crate::store;

/// The longest time between the read of a contact and its reservation. With what a read lags behind, an opt-out of about three
/// seconds ago may not be seen.
const VALID_FOR: Duration = Duration::from_secs(2);

/// The most contacts that are read at once, as many as DynamoDB takes in one call.
pub const MOST: usize = 100;

/// A contact as it was read, if there is one.
#[derive(Debug)]
pub struct ReadContact {
    /// The contact.
    pub contact: Option<Contact>,
    /// The time before the read.
    pub at: Timestamp,
    /// The instant before the read.
    pub since: Instant,
    /// The contact was read as of then, and not as of a moment before.
    pub is_current: bool,
}

impl ReadContact {
    /// Reads a contact as of now.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn as_of_now(app: &App, contact_id: &ContactId) -> Result<Self, store::Error> {
        let (at, since) = (app.clock.now(), Instant::now());
        let contact = app.store.contacts().get(contact_id).await?;
        Ok(Self {
            contact,
            at,
            since,
            is_current: true,
        })
    }
}

/// The contacts that were read and not taken yet.
pub struct ReadAhead {
    valid_for: Duration,
    at: Timestamp,
    since: Instant,
    /// The contacts that were asked for.
    asked: HashSet<ContactId>,
    /// Those of them that exist.
    found: HashMap<ContactId, Contact>,
}

impl ReadAhead {
    /// Returns no contacts.
    pub fn new(app: &App) -> Self {
        Self {
            // A reservation counts as being as old as the read, and is not used when it is older than the time-out.
            valid_for: VALID_FOR.min(app.config.messenger_timeout / 5),
            at: app.clock.now(),
            since: Instant::now(),
            asked: HashSet::new(),
            found: HashMap::new(),
        }
    }

    /// Takes a contact, unless it was not read, or too long ago.
    pub fn take(&mut self, contact_id: &ContactId) -> Option<ReadContact> {
        if !self.asked.remove(contact_id) || self.since.elapsed() > self.valid_for {
            return None;
        }
        Some(ReadContact {
            contact: self.found.remove(contact_id),
            at: self.at,
            since: self.since,
            is_current: false,
        })
    }

    /// Reads these contacts, in place of the others. If that fails there are none.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn read(&mut self, app: &App, contacts: Vec<ContactId>) -> Result<(), store::Error> {
        self.asked.clear();
        (self.at, self.since) = (app.clock.now(), Instant::now());
        self.found = app.store.contacts().get_all_lately(&contacts).await?;
        self.asked.extend(contacts);
        Ok(())
    }
}
