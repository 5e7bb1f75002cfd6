//! The recipients of the demo: every contact once, some ids a second time, in random order.

use std::collections::BTreeSet;

use local::SANDBOX_PAGES;
use rand::seq::SliceRandom;
use serde::Serialize;

const CONTACTS: usize = 1_000;
const REPEATS: usize = 250;
const FIRST_NAMES: [&str; 5] = ["Ana", "Ben", "Carla", "Dinh", "Edwin"];

/// A contact in the form in which the API takes it.
#[derive(Debug, Clone, Serialize)]
pub struct DemoContact {
    pub contact_id: String,
    pub page_id: &'static str,
    /// The name in the greeting. Some contacts have none, and get the message's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_name: Option<&'static str>,
}

/// The contacts, and the ids that the broadcast requests.
#[derive(Debug)]
pub struct Audience {
    pub contacts: Vec<DemoContact>,
    pub ids: Vec<String>,
}

impl Audience {
    /// Makes up the contacts and shuffles the ids.
    pub fn new() -> Audience {
        let contacts: Vec<DemoContact> = (0..CONTACTS)
            .map(|number| DemoContact {
                contact_id: format!("{}", 6_001 + number),
                page_id: SANDBOX_PAGES[number % SANDBOX_PAGES.len()],
                first_name: FIRST_NAMES.get(number % (FIRST_NAMES.len() + 1)).copied(),
            })
            .collect();
        let mut ids: Vec<String> = contacts.iter().map(|contact| contact.contact_id.clone()).collect();
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
        self.ids.iter().map(String::as_str).collect()
    }
}
