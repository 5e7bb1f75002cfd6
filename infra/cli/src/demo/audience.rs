//! The recipients of the demo: every contact once, some ids a second time, in random order.

use std::collections::BTreeSet;

use client::api::contacts::ContactChange;
use local::SANDBOX_PAGES;
use rand::seq::SliceRandom;
use shared::domain::ids::{ContactId, PageId};

const CONTACTS: usize = 1_000;
const REPEATS: usize = 250;
const FIRST_NAMES: [&str; 5] = ["Ana", "Ben", "Carla", "Dinh", "Edwin"];

/// The contacts, and the ids that the broadcast requests.
#[derive(Debug)]
pub struct Audience {
    pub contacts: Vec<ContactChange>,
    pub ids: Vec<ContactId>,
}

impl Audience {
    /// Makes up the contacts and shuffles the ids.
    pub fn new() -> Audience {
        let contacts: Vec<ContactChange> = (0..CONTACTS).filter_map(contact).collect();
        let mut ids: Vec<ContactId> = contacts.iter().map(|contact| contact.contact_id.clone()).collect();
        let mut random = rand::rng();
        ids.shuffle(&mut random);
        ids.extend_from_within(..REPEATS);
        ids.shuffle(&mut random);
        Audience { contacts, ids }
    }

    /// Returns the number of Pages that the contacts belong to.
    pub fn pages(&self) -> usize {
        SANDBOX_PAGES.len()
    }

    /// Returns the number of ids that occur a second time.
    pub fn repeats(&self) -> usize {
        self.ids.len() - self.contacts.len()
    }

    /// Returns each requested id once.
    pub fn requested(&self) -> BTreeSet<&str> {
        self.ids.iter().map(ContactId::as_str).collect()
    }
}

/// Returns the contact with this number. Some contacts have no name, and get the message's default.
fn contact(number: usize) -> Option<ContactChange> {
    let contact_id = ContactId::parse(&(6_001 + number).to_string()).ok()?;
    let page_id = PageId::parse(SANDBOX_PAGES[number % SANDBOX_PAGES.len()]).ok()?;
    let first_name = FIRST_NAMES.get(number % (FIRST_NAMES.len() + 1));
    Some(ContactChange {
        first_name: first_name.map(|name| Some((*name).to_owned())),
        ..ContactChange::new(contact_id, page_id)
    })
}
