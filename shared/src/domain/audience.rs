//! Audiences: contacts chosen by what is known of them, in place of a list of ids.
//!
//! Filters are asked in a fixed order, and a contact that an audience leaves out is counted under the first that excludes it.
//! The order is that of [`Excluded`], from those that cost nothing to those that need a read.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::domain::ids::{BroadcastId, ContactId, PageId};

/// The contacts that match every filter, and have not opted out.
// A process of an earlier version must not resolve an audience without the filters that it does not know: to read one fails.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(examples(json!({"page_id": "page-1", "tags_any": ["vip"], "active_within_hours": 168})))]
pub struct Audience {
    /// True for an audience without any filter, which has to be asked for by this word.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub everybody: bool,
    /// The contacts' Page; without it, and without `page_ids`, all Pages that the caller may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_id: Option<PageId>,
    /// The contacts' Pages, if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(min_items = 1, max_items = 90)]
    pub page_ids: Vec<PageId>,
    /// The contact has at least one of these tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(min_items = 1, max_items = 100)]
    pub tags_any: Vec<String>,
    /// The contact has each of these tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(min_items = 1, max_items = 100)]
    pub tags_all: Vec<String>,
    /// The contact has none of these tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(min_items = 1, max_items = 100)]
    pub tags_none: Vec<String>,
    /// For each name, the contact's own attribute of that name has one of these values: strings, numbers, `true` or `false`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Vec<Value>>,
    /// The contact is known to have written to its Page within these hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 87_600)]
    pub active_within_hours: Option<u32>,
    /// The contact is known to have written to its Page, and the last time was longer ago than these hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 87_600)]
    pub inactive_for_hours: Option<u32>,
    /// The contact is known to have got one of these broadcasts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(min_items = 1, max_items = 20)]
    pub sent_in: Vec<BroadcastId>,
    /// The contact has got none of these broadcasts, and cannot have got one: a delivery in doubt may have arrived.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(min_items = 1, max_items = 20)]
    pub not_sent_in: Vec<BroadcastId>,
}

/// The name of a saved audience.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, ToSchema)]
#[schema(pattern = "^[A-Za-z0-9_-]{1,64}$", examples("vips"))]
#[serde(transparent)]
pub struct AudienceName(String);

impl AudienceName {
    /// Accepts 1 to 64 characters of `[A-Za-z0-9_-]`, but not `count`, which is a path of the API.
    ///
    /// # Errors
    /// A phrase for the caller of the API that states the rule that the name breaks.
    pub fn parse(name: &str) -> Result<Self, &'static str> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        match (1..=64).contains(&name.len()) && name.chars().all(allowed) {
            _ if name == "count" => Err("must not be count, which is a path of the API"),
            true => Ok(Self(name.to_owned())),
            false => Err("must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -"),
        }
    }

    /// Returns the name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for AudienceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::parse(&name).map_err(D::Error::custom)
    }
}

/// An audience that was saved under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({
    "name": "vips", "audience": {"page_id": "page-1", "tags_any": ["vip"], "active_within_hours": 168},
    "changed_by": null, "changed_at": "2026-12-01T01:00:00Z"
})))]
pub struct SavedAudience {
    /// The name.
    pub name: AudienceName,
    /// The audience.
    pub audience: Audience,
    /// The caller that saved it last; `null` for a caller without authentication.
    #[schema(required)]
    pub changed_by: Option<String>,
    /// The time at which it was saved last.
    pub changed_at: Timestamp,
}

/// The first filter that leaves a contact out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Excluded {
    /// See [`Audience::tags_any`].
    TagsAny,
    /// See [`Audience::tags_all`].
    TagsAll,
    /// See [`Audience::tags_none`].
    TagsNone,
    /// See [`Audience::active_within_hours`].
    ActiveWithinHours,
    /// See [`Audience::inactive_for_hours`].
    InactiveForHours,
    /// The contact wants no messages. It is asked after the filters of the index, so that those are counted who would be
    /// members otherwise.
    OptedOut,
    /// See [`Audience::sent_in`].
    SentIn,
    /// See [`Audience::not_sent_in`].
    NotSentIn,
    /// See [`Audience::attributes`].
    Attributes,
}

/// Writes the name that the API uses.
impl fmt::Display for Excluded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// The numbers of contacts that an audience leaves out, by the first filter that excludes them.
pub type ExcludedCounts = BTreeMap<Excluded, u64>;

/// The part of a contact that the index of audiences has.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct IndexedContact {
    /// The contact.
    pub contact_id: ContactId,
    /// The contact's tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The contact wants no messages.
    #[serde(default)]
    pub opted_out: bool,
    /// The time at which the contact last wrote to the Page.
    #[serde(default, with = "millisecond::optional")]
    pub last_interaction_at: Option<Timestamp>,
}

impl Audience {
    /// Returns the Pages that the audience names; none if it is of all Pages.
    pub fn named_pages(&self) -> impl Iterator<Item = &PageId> {
        self.page_id.iter().chain(&self.page_ids)
    }

    /// Asks the filters that the index can answer.
    ///
    /// # Errors
    /// The first filter that leaves the contact out.
    pub fn matches(&self, contact: &IndexedContact, now: Timestamp) -> Result<(), Excluded> {
        let has = |tag: &String| contact.tags.contains(tag);
        let last = contact.last_interaction_at;
        // Of a contact whose last interaction is unknown nobody can say either.
        let is_active = |hours: u32| last.is_some_and(|at| at > now - hours_of(hours));
        let is_inactive = |hours: u32| last.is_some_and(|at| at <= now - hours_of(hours));
        let asked = [
            (
                Excluded::TagsAny,
                self.tags_any.is_empty() || self.tags_any.iter().any(has),
            ),
            (Excluded::TagsAll, self.tags_all.iter().all(has)),
            (Excluded::TagsNone, !self.tags_none.iter().any(has)),
            (
                Excluded::ActiveWithinHours,
                self.active_within_hours.is_none_or(is_active),
            ),
            (
                Excluded::InactiveForHours,
                self.inactive_for_hours.is_none_or(is_inactive),
            ),
            (Excluded::OptedOut, !contact.opted_out),
        ];
        match asked.into_iter().find(|(_, matches)| !matches) {
            Some((excluded, _)) => Err(excluded),
            None => Ok(()),
        }
    }

    /// Asks for the values of a contact's own attributes.
    ///
    /// # Errors
    /// If one of them is none of those that are wanted.
    pub fn matches_attributes(&self, attributes: &BTreeMap<String, Value>) -> Result<(), Excluded> {
        let has = |(name, wanted): (&String, &Vec<Value>)| {
            let found = attributes.get(name);
            found.is_some_and(|found| wanted.iter().any(|wanted| is_same(wanted, found)))
        };
        match self.attributes.iter().all(has) {
            true => Ok(()),
            false => Err(Excluded::Attributes),
        }
    }
}

fn hours_of(hours: u32) -> Duration {
    Duration::from_secs(u64::from(hours) * 3_600)
}

/// Compares values of attributes; of numbers their value counts, not the way in which it is written.
fn is_same(wanted: &Value, found: &Value) -> bool {
    match (wanted.as_f64(), found.as_f64()) {
        (Some(wanted), Some(found)) => wanted == found,
        _ => wanted == found,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_764_000_000_000;

    fn now() -> Timestamp {
        Timestamp::from_millisecond(NOW).unwrap()
    }

    fn audience(filters: Value) -> Audience {
        serde_json::from_value(filters).unwrap()
    }

    /// A contact that wrote so many hours ago.
    fn contact(tags: &[&str], hours: Option<i64>) -> IndexedContact {
        let at = hours.map(|hours| NOW - hours * 3_600_000);
        let item = json!({"contact_id": "ana", "tags": tags, "last_interaction_at": at, "page_shard": "page-1#3"});
        serde_json::from_value(item).unwrap()
    }

    #[test]
    fn first_filter_that_excludes_is_named() {
        let vip = contact(&["vip", "porto"], Some(30));
        let unknown = contact(&[], None);
        for (filters, contact, expected) in [
            (json!({"everybody": true}), &unknown, Ok(())),
            (json!({"tags_any": ["vip", "new"]}), &vip, Ok(())),
            (json!({"tags_any": ["new"]}), &vip, Err(Excluded::TagsAny)),
            (
                json!({"tags_any": ["new"], "tags_none": ["vip"]}),
                &vip,
                Err(Excluded::TagsAny),
            ),
            (json!({"tags_all": ["vip", "porto"]}), &vip, Ok(())),
            (json!({"tags_all": ["vip", "new"]}), &vip, Err(Excluded::TagsAll)),
            (json!({"tags_none": ["porto"]}), &vip, Err(Excluded::TagsNone)),
            (json!({"active_within_hours": 31}), &vip, Ok(())),
            (
                json!({"active_within_hours": 30}),
                &vip,
                Err(Excluded::ActiveWithinHours),
            ),
            (json!({"inactive_for_hours": 30}), &vip, Ok(())),
            (json!({"inactive_for_hours": 31}), &vip, Err(Excluded::InactiveForHours)),
            (
                json!({"active_within_hours": 9}),
                &unknown,
                Err(Excluded::ActiveWithinHours),
            ),
            (
                json!({"inactive_for_hours": 9}),
                &unknown,
                Err(Excluded::InactiveForHours),
            ),
        ] {
            assert_eq!(audience(filters.clone()).matches(contact, now()), expected, "{filters}");
        }
        let opted_out = IndexedContact { opted_out: true, ..vip };
        let everybody = audience(json!({"everybody": true}));
        assert_eq!(everybody.matches(&opted_out, now()), Err(Excluded::OptedOut));
    }

    #[test]
    fn attributes_match_by_value() {
        let own = BTreeMap::from([("city".to_owned(), json!("Porto")), ("visits".to_owned(), json!(5))]);
        for (wanted, matches) in [
            (json!({"city": ["Faro", "Porto"]}), true),
            (json!({"city": ["porto"]}), false),
            (json!({"visits": [5.0]}), true),
            (json!({"visits": ["5"]}), false),
            (json!({"city": ["Porto"], "visits": [6]}), false),
            (json!({"country": ["Portugal"]}), false),
        ] {
            let found = audience(json!({ "attributes": wanted })).matches_attributes(&own);
            assert_eq!(found.is_ok(), matches, "{wanted}");
        }
    }

    #[test]
    fn filter_of_a_later_version_is_not_ignored() {
        assert!(serde_json::from_value::<Audience>(json!({"tags_any": ["vip"], "spoken_to": true})).is_err());
    }
}
