//! Whom the demo sends to: every contact once, some ids a second time, all shuffled.

use std::collections::BTreeSet;

use rand::seq::SliceRandom;
use serde::Serialize;

use crate::messenger::SANDBOX_PAGES;

const CONTACTS: usize = 1_000;
const REPEATS: usize = 250;
const FIRST_NAMES: [&str; 5] = ["Ana", "Ben", "Carla", "Dinh", "Edwin"];

/// A contact as the API takes it.
#[derive(Debug, Clone, Serialize)]
pub struct Contact {
    pub contact_id: String,
    pub page_id: &'static str,
    /// Some have none, and get the message's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_name: Option<&'static str>,
}

/// The contacts, and the ids that the broadcast asks for.
#[derive(Debug)]
pub struct Audience {
    pub contacts: Vec<Contact>,
    pub ids: Vec<String>,
}

impl Audience {
    pub fn new() -> Audience {
        let contacts: Vec<Contact> = (0..CONTACTS)
            .map(|number| Contact {
                contact_id: format!("{}", 6_001 + number),
                page_id: SANDBOX_PAGES[number % SANDBOX_PAGES.len()],
                first_name: FIRST_NAMES.get(number % (FIRST_NAMES.len() + 1)).copied(),
            })
            .collect();
        let mut ids: Vec<String> = contacts
            .iter()
            .map(|contact| contact.contact_id.clone())
            .collect();
        let mut random = rand::rng();
        ids.shuffle(&mut random);
        ids.extend_from_within(..REPEATS);
        ids.shuffle(&mut random);
        Audience { contacts, ids }
    }

    pub fn pages(&self) -> usize {
        SANDBOX_PAGES.len()
    }

    pub fn repeats(&self) -> usize {
        self.ids.len() - self.contacts.len()
    }

    pub fn asked_for(&self) -> BTreeSet<&str> {
        self.ids.iter().map(String::as_str).collect()
    }
}
