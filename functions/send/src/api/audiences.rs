//! Audiences: contacts chosen by what is known of them.

use serde::{Deserialize, Serialize};
use shared::domain::audience::{Audience, AudienceName, Excluded, ExcludedCounts};
use shared::domain::ids::PageId;
use utoipa::ToSchema;

pub use shared::domain::audience::SavedAudience;

/// The contacts that a request is for: those that match filters, all (`{"everybody": true}`), or a saved audience by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(examples(json!({"page_id": "page-1", "tags_any": ["vip"], "active_within_hours": 168})))]
pub enum AudienceChoice {
    /// A saved audience.
    Saved(AudienceRef),
    /// Filters.
    Filters(Audience),
}

/// A saved audience, by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"name": "vips"})))]
pub struct AudienceRef {
    /// The name.
    pub name: AudienceName,
}

/// The contacts of an audience, counted as of a moment ago, or a part of that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({
    "matching": 1200, "by_page": [{"page_id": "page-1", "matching": 1200}], "considered": 1500,
    "excluded": [{"filter": "tags_any", "contacts": 200}, {"filter": "opted_out", "contacts": 100}], "next_cursor": null
})))]
pub struct AudienceCount {
    /// The contacts that match.
    pub matching: u64,
    /// The contacts that match, by Page.
    pub by_page: Vec<PageCount>,
    /// The contacts that were looked at: those of the audience's Pages.
    pub considered: u64,
    /// The contacts that were left out, each by the first filter that excludes it.
    pub excluded: Vec<ExcludedCount>,
    /// The cursor with which to count on, and to add up; `null` if this is all.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// The contacts of one Page that match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({"page_id": "page-1", "matching": 1200})))]
pub struct PageCount {
    /// The Page.
    pub page_id: PageId,
    /// The contacts that match.
    pub matching: u64,
}

/// The contacts that a filter leaves out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({"filter": "opted_out", "contacts": 100})))]
pub struct ExcludedCount {
    /// The filter: a field of the audience, or `opted_out`.
    pub filter: Excluded,
    /// The number of contacts.
    pub contacts: u64,
}

impl ExcludedCount {
    /// Lists the numbers of contacts that were left out, in the order in which filters are asked.
    pub fn list(counts: &ExcludedCounts) -> Vec<Self> {
        let counts = counts.iter();
        counts.map(|(&filter, &contacts)| Self { filter, contacts }).collect()
    }
}
