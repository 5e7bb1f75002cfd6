//! Changes of the tags of many contacts.

use serde::{Deserialize, Serialize};
use shared::domain::ids::ContactId;
use utoipa::ToSchema;

use crate::api::audiences::AudienceChoice;

/// A change of the tags of many contacts. It has tags to add, or tags to remove, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(
    json!({"add": ["vip"], "remove": ["new"], "contact_ids": ["6001", "6003"]}),
    json!({"add": ["quiet"], "audience": {"page_id": "page-1", "inactive_for_hours": 720}})
))]
pub struct TagsChange {
    /// The tags that the contacts are to have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100)]
    pub add: Vec<String>,
    /// The tags that the contacts are to have no more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100)]
    pub remove: Vec<String>,
    /// The contacts; in place of an audience.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(min_items = 1, max_items = 1_000, nullable)]
    pub contact_ids: Vec<ContactId>,
    /// The contacts as an audience; in place of their ids. Contacts that have opted out are in none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<AudienceChoice>,
    /// The number of contacts of an audience after which one request ends, about; as many as there is time for, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub limit: Option<u64>,
    /// `next_cursor` of the answer before, with an audience only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// The numbers of contacts by what has become of their tags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({"changed": 1, "unchanged": 1, "unknown": 0, "too_many": 0, "next_cursor": null})))]
pub struct TagsChanged {
    /// Contacts that have other tags now.
    pub changed: u64,
    /// Contacts that had these tags already.
    pub unchanged: u64,
    /// Ids of no contact that the caller may see.
    pub unknown: u64,
    /// Contacts that would have more than 100 tags, and were left as they are.
    pub too_many: u64,
    /// The cursor with which to repeat the request for the rest of the audience; `null` if all is done.
    #[schema(required)]
    pub next_cursor: Option<String>,
}
