//! A contact as it is stored, and the table of its fields.
//!
//! [`contact_fields!`](crate::contact_fields) alone lists the fields. The stored [`Contact`], the table [`FIELDS`] and the forms of
//! the API are made from it; the checks of an import, the columns of a CSV file and the variables of a template from the table.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Number, Value, json};

use crate::domain::ids::{ContactId, JobId, PageId};

/// The name of the field that holds a contact's own attributes.
pub const ATTRIBUTES: &str = "attributes";
/// The prefix of the names of a contact's own attributes, in the table as in a CSV file.
///
/// Each attribute is an attribute of the item by itself, so one can be set or cleared without touching the others.
pub const ATTRIBUTE_PREFIX: &str = "attributes.";

/// Calls a macro with the fields of a contact, in the order in which faults are reported.
///
/// It gives of each field, after the documentation: the name, which the field has in the table, in JSON, in CSV and in templates;
/// the type; the [`FieldKind`]; `true` if a template may use the field under its name; and the
/// attributes that the type needs in the stored form and in the forms of the API.
#[macro_export]
macro_rules! contact_fields {
    ($make:ident) => {
        $make! {
            required {
                /// The Page-scoped id, unique across Pages.
                contact_id [ContactId] ContactId true;
                /// The Page that the contact wrote to, and that sends to the contact.
                page_id [PageId] PageId false;
            }
            optional {
                /// First name.
                first_name [Option<String>] Text true [serde(default)] [];
                /// Last name.
                last_name [Option<String>] Text true [serde(default)] [];
                /// The whole name, as Messenger's conversations show it. It is never made from the first and last name, nor
                /// split into them.
                name [Option<String>] Text true [serde(default)] [];
                /// Language and country, such as `pt_BR`.
                locale [Option<String>] Text true [serde(default)] [];
                /// Distance of the local time from UTC in hours, as Messenger gives it.
                timezone [Option<Number>] Hours true [serde(default)]
                    [schema(value_type = Option<f64>, minimum = -24, maximum = 24)];
                /// Labels by which audiences are chosen.
                tags [Vec<String>] Tags true [serde(default)] [];
                /// True if the contact wants no messages; it is never sent one.
                opted_out [bool] Flag false [serde(default)] [];
                /// True if test messages may be sent to the contact.
                tester [bool] Flag false [serde(default)] [];
                /// The time at which the contact last wrote to the Page.
                last_interaction_at [Option<Timestamp>] Time false [serde(default, with = "millisecond::optional")] [];
                /// Origin of the contact: `api`, `webhook`, `conversations`, or a word that the first import gave. The first
                /// one is kept, whatever a later import says.
                source [Option<String>] Text false [serde(default)] [];
                /// The contact's own attributes by name: letters, digits and `_`, not beginning with a digit. A template uses
                /// each as `attributes.NAME`.
                attributes [BTreeMap<String, Value>] Attributes false
                    [serde(flatten, deserialize_with = "own_attributes")]
                    [schema(value_type = BTreeMap<AttributeName, AttributeValue>)];
            }
        }
    };
}

macro_rules! stored_contact {
    (
        required { $($(#[$id_doc:meta])* $id:ident [$id_type:ty] $id_kind:ident $id_in_texts:literal;)* }
        optional {
            $($(#[$doc:meta])* $name:ident [$type:ty] $kind:ident $in_texts:literal [$($stored:meta)?] [$($_api:meta)?];)*
        }
    ) => {
        /// A person who wrote to a Page.
        #[derive(Clone, Debug, PartialEq, Deserialize)]
        pub struct Contact {
            $($(#[$id_doc])* pub $id: $id_type,)*
            $($(#[$doc])* $(#[$stored])? pub $name: $type,)*
            /// The broadcast that the contact was sent last, where a gap between broadcasts is configured. No field of the API.
            #[serde(default)]
            pub last_broadcast: Option<LastBroadcast>,
            /// The time at which Messenger was last asked for the contact's profile, whatever it answered. No field of the API.
            #[serde(default, with = "millisecond::optional")]
            pub profile_at: Option<Timestamp>,
        }

        /// The fields of a contact, in the order in which faults are reported.
        pub const FIELDS: &[Field] = &[
            $(Field {
                name: stringify!($id),
                kind: FieldKind::$id_kind,
                is_template_variable: $id_in_texts,
                value: |contact| json!(contact.$id),
            },)*
            $(Field {
                name: stringify!($name),
                kind: FieldKind::$kind,
                is_template_variable: $in_texts,
                value: |contact| json!(contact.$name),
            },)*
        ];
    };
}

contact_fields!(stored_contact);

/// The origin of a contact that is created by other means than an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// It wrote to its Page, and Messenger reported it.
    Webhook,
    /// It has a conversation with its Page.
    Conversations,
}

/// The name of the field that holds the origin of a contact.
pub const SOURCE: &str = "source";
/// The origin of a contact that an import creates without naming one.
pub const SOURCE_API: &str = "api";

/// The part of a contact that Messenger shows of a person, as far as it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// The whole name.
    pub name: Option<String>,
    /// First name.
    pub first_name: Option<String>,
    /// Last name.
    pub last_name: Option<String>,
    /// Language and country.
    pub locale: Option<String>,
    /// Distance from UTC in hours.
    pub timezone: Option<Number>,
}

/// The names of the fields that a [`Profile`] may fill in.
pub const PROFILE_FIELDS: [&str; 5] = ["name", "first_name", "last_name", "locale", "timezone"];

/// A mark on a contact that it was sent a broadcast.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBroadcast {
    /// The job that sent it.
    pub job: String,
    /// The time at which the attempt began.
    #[serde(with = "millisecond::required")]
    pub sent_at: Timestamp,
}

impl LastBroadcast {
    /// Returns `true` if another job may not send to the contact yet.
    pub fn blocks(&self, job: &JobId, gap: Duration, now: Timestamp) -> bool {
        self.job != job.to_string() && self.sent_at + gap > now
    }
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
    /// Returns the value in JSON; `null` if there is none.
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
    /// A difference of hours from UTC, which may have a fraction.
    Hours,
    /// An object of strings, numbers and booleans. Each entry is an attribute `attributes.NAME` in the table and a column
    /// of that name in CSV.
    Attributes,
}

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

/// Keeps `attributes.*`, by name without the prefix; ignores unknown attributes, whatever their DynamoDB type: a later version
/// may have written types that JSON does not have.
fn own_attributes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Value>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Attribute {
        Own(Value),
        Other(IgnoredAny),
    }
    let all = BTreeMap::<String, Attribute>::deserialize(deserializer)?;
    let own = all.into_iter().filter_map(|(name, value)| match value {
        Attribute::Own(value) => Some((name.strip_prefix(ATTRIBUTE_PREFIX)?.to_owned(), value)),
        Attribute::Other(_) => None,
    });
    Ok(own.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ana() -> Contact {
        let item = json!({
            "contact_id": "ana", "page_id": "p", "first_name": "Ana", "last_name": null, "timezone": -3.5, "tags": ["vip"],
            "last_interaction_at": 1_764_000_000_000_i64, "attributes.city": "Porto", "schema": 1,
        });
        serde_json::from_value(item).unwrap()
    }

    #[test]
    fn fields_are_shown_under_their_own_names() {
        let shown: BTreeMap<_, _> = FIELDS.iter().map(|field| (field.name, (field.value)(&ana()))).collect();

        let expected = json!({
            "contact_id": "ana", "page_id": "p", "first_name": "Ana", "last_name": null, "name": null, "locale": null,
            "timezone": -3.5, "tags": ["vip"], "opted_out": false, "tester": false,
            "last_interaction_at": "2025-11-24T16:00:00Z", "source": null, "attributes": {"city": "Porto"},
        });
        assert_eq!(json!(shown), expected);
    }
}
