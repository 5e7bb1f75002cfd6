//! A contact as it is stored: whom a Page may write to, and what a message may say about them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::ids::{ContactId, PageId};

/// What the names of a contact's own attributes begin with, in the table as in a CSV file.
///
/// Each is an attribute of the item by itself: so one can be set or cleared without touching the others.
pub const ATTRIBUTE_PREFIX: &str = "attributes.";

/// Somebody who wrote to a Page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contact {
    /// The Page-scoped id, unique across Pages.
    pub contact_id: ContactId,
    /// The Page that this contact wrote to, and that writes to them.
    pub page_id: PageId,
    /// First name.
    #[serde(default)]
    pub first_name: Option<String>,
    /// Last name.
    #[serde(default)]
    pub last_name: Option<String>,
    /// What audiences are chosen by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Does not want messages: is never sent one.
    #[serde(default)]
    pub opted_out: bool,
    /// When they last wrote to the Page.
    #[serde(default, with = "millisecond::optional")]
    pub last_interaction_at: Option<Timestamp>,
    /// The contact's own attributes, by name with the prefix.
    #[serde(flatten, deserialize_with = "own_attributes")]
    own: BTreeMap<String, Value>,
}

/// Of all other attributes of the item. What a later version has written may be of types that no JSON has.
fn own_attributes<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Value>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Attribute {
        Own(Value),
        Other(IgnoredAny),
    }
    let all = BTreeMap::<String, Attribute>::deserialize(deserializer)?;
    let own = all.into_iter().filter_map(|(name, value)| match value {
        Attribute::Own(value) if name.starts_with(ATTRIBUTE_PREFIX) => Some((name, value)),
        Attribute::Own(_) | Attribute::Other(_) => None,
    });
    Ok(own.collect())
}

impl Contact {
    /// The contact's own attributes, by name without the prefix.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.own
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(ATTRIBUTE_PREFIX)?, value)))
    }

    /// One of the contact's own attributes.
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes()
            .find_map(|(known, value)| (known == name).then_some(value))
    }
}
