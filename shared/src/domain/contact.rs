//! A contact as it is stored, and the table of its fields.
//!
//! A field is listed in two places, both in this file: in [`Contact`], and with its kind in [`FIELDS`]. The checks of an
//! import, the columns of a CSV file, the answer of the API and the variables of a template are derived from the table.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::domain::ids::{ContactId, PageId};

/// The name of the field that holds a contact's own attributes.
pub const ATTRIBUTES: &str = "attributes";
/// The prefix of the names of a contact's own attributes, in the table as in a CSV file.
///
/// Each attribute is an attribute of the item by itself, so one can be set or cleared without touching the others.
pub const ATTRIBUTE_PREFIX: &str = "attributes.";

/// A person who wrote to a Page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contact {
    /// The Page-scoped id, unique across Pages.
    pub contact_id: ContactId,
    /// The Page that the contact wrote to, and that sends to the contact.
    pub page_id: PageId,
    /// First name.
    #[serde(default)]
    pub first_name: Option<String>,
    /// Last name.
    #[serde(default)]
    pub last_name: Option<String>,
    /// Labels by which audiences are chosen.
    #[serde(default)]
    pub tags: Vec<String>,
    /// True if the contact wants no messages; it is never sent one.
    #[serde(default)]
    pub opted_out: bool,
    /// The time at which the contact last wrote to the Page.
    #[serde(default, with = "millisecond::optional")]
    pub last_interaction_at: Option<Timestamp>,
    /// The contact's own attributes, by name with the prefix.
    #[serde(flatten, deserialize_with = "own_attributes")]
    own: BTreeMap<String, Value>,
}

/// A field of a contact, under the name that it has in the table, in JSON, in CSV and in templates.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The name, which is also that of the struct's field.
    pub name: &'static str,
    /// The kind of value that the field takes.
    pub kind: FieldKind,
    /// True if a template may use the field under its name.
    pub is_template_variable: bool,
    /// Returns the value as the API shows it; `null` if there is none.
    pub value: fn(&Contact) -> Value,
}

/// The kind of value that a [`Field`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// The id of the contact: required, and never cleared.
    ContactId,
    /// The id of a Page: required, and never cleared.
    PageId,
    /// A short text.
    Text,
    /// A list of short texts.
    Tags,
    /// True or false.
    Flag,
    /// A point in time: milliseconds of the epoch in the table, RFC 3339 everywhere else.
    Time,
    /// An object of strings, numbers and booleans. Each entry is an attribute `attributes.NAME` in the table and a column
    /// of that name in CSV.
    Attributes,
}

/// The fields of a contact, in the order in which faults are reported.
pub const FIELDS: &[Field] = &[
    Field {
        name: "contact_id",
        kind: FieldKind::ContactId,
        is_template_variable: true,
        value: |contact| json!(contact.contact_id),
    },
    Field {
        name: "page_id",
        kind: FieldKind::PageId,
        is_template_variable: false,
        value: |contact| json!(contact.page_id),
    },
    Field {
        name: "first_name",
        kind: FieldKind::Text,
        is_template_variable: true,
        value: |contact| json!(contact.first_name),
    },
    Field {
        name: "last_name",
        kind: FieldKind::Text,
        is_template_variable: true,
        value: |contact| json!(contact.last_name),
    },
    Field {
        name: "tags",
        kind: FieldKind::Tags,
        is_template_variable: true,
        value: |contact| json!(contact.tags),
    },
    Field {
        name: "opted_out",
        kind: FieldKind::Flag,
        is_template_variable: false,
        value: |contact| json!(contact.opted_out),
    },
    Field {
        name: "last_interaction_at",
        kind: FieldKind::Time,
        is_template_variable: false,
        value: |contact| json!(contact.last_interaction_at),
    },
    // A template uses the entries, as `attributes.NAME`; the object itself cannot be shown in a text.
    Field {
        name: ATTRIBUTES,
        kind: FieldKind::Attributes,
        is_template_variable: false,
        value: |contact| json!(contact.attributes().collect::<BTreeMap<_, _>>()),
    },
];

impl FieldKind {
    /// Returns true if every contact has a value of this kind.
    pub fn is_required(self) -> bool {
        matches!(self, Self::ContactId | Self::PageId)
    }
}

/// Returns the names of the fields that a template may use, besides `attributes.*`.
pub fn template_variables() -> impl Iterator<Item = &'static str> {
    let variables = FIELDS.iter().filter(|field| field.is_template_variable);
    variables.map(|field| field.name)
}

/// Keeps `attributes.*`; ignores unknown attributes, whatever their DynamoDB type: a later version may have written types
/// that JSON does not have.
fn own_attributes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Value>, D::Error> {
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
    /// Returns the contact's own attributes, by name without the prefix.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.own
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(ATTRIBUTE_PREFIX)?, value)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn ana() -> Contact {
        let item = json!({
            "contact_id": "ana", "page_id": "p", "first_name": "Ana", "last_name": null, "tags": ["vip"],
            "last_interaction_at": 1_764_000_000_000_i64, "attributes.city": "Porto", "schema": 1,
        });
        serde_json::from_value(item).unwrap()
    }

    #[test]
    fn table_lists_every_stored_field_once() {
        let stored = serde_json::to_value(ana()).unwrap();
        let stored: BTreeSet<_> = stored.as_object().unwrap().keys().map(String::as_str).collect();
        let listed = FIELDS.iter().map(|field| match field.kind {
            FieldKind::Attributes => "attributes.city",
            _ => field.name,
        });

        assert_eq!(listed.clone().count(), stored.len());
        assert_eq!(listed.collect::<BTreeSet<_>>(), stored);
    }

    #[test]
    fn fields_are_shown_under_their_own_names() {
        let shown: BTreeMap<_, _> = FIELDS.iter().map(|field| (field.name, (field.value)(&ana()))).collect();

        let expected = json!({
            "contact_id": "ana", "page_id": "p", "first_name": "Ana", "last_name": null, "tags": ["vip"], "opted_out": false,
            "last_interaction_at": "2025-11-24T16:00:00Z", "attributes": {"city": "Porto"},
        });
        assert_eq!(json!(shown), expected);
    }
}
