//! The contacts of the next sends, read in one call and as of a moment ago: a read of each by itself, as of now, would be a quarter of
//! all requests, and cost twice as much.

use std::collections::{HashMap, HashSet};
use std::iter;
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
const MOST: usize = 100;

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

    /// Returns a contact. If it has not been read ahead, it is read together with those that come next, in place of the others.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn get<'c>(
        &mut self,
        app: &App,
        contact_id: &'c ContactId,
        next: impl Iterator<Item = &'c ContactId>,
    ) -> Result<ReadContact, store::Error> {
        if let Some(contact) = self.take(contact_id) {
            return Ok(contact);
        }
        let batch: Vec<_> = iter::once(contact_id).chain(next).take(MOST).cloned().collect();
        self.asked.clear();
        (self.at, self.since) = (app.clock.now(), Instant::now());
        self.found = app.store.contacts().get_all_lately(&batch).await?;
        self.asked.extend(batch);
        match self.take(contact_id) {
            Some(contact) => Ok(contact),
            // The read took longer than it may be old.
            None => ReadContact::as_of_now(app, contact_id).await,
        }
    }

    /// Takes a contact, unless it was not read, or too long ago.
    fn take(&mut self, contact_id: &ContactId) -> Option<ReadContact> {
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
}
