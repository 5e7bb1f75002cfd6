//! The history of a broadcast.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::domain::history::Action;
use shared::domain::ids::PageId;
use utoipa::ToSchema;

/// An order that was given for the broadcast.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = HistoryEntry)]
pub struct HistoryReport {
    /// The time of the order.
    pub time: Timestamp,
    /// The caller who gave it; `null` if callers are not authenticated.
    #[schema(required)]
    pub caller: Option<String>,
    /// The order.
    pub action: Action,
    /// The Page that the order was limited to; `null` if it was for all.
    #[schema(required)]
    pub page_id: Option<PageId>,
    /// The number of jobs that it changed.
    pub jobs: u64,
    /// The number of contacts of those jobs that it concerned.
    pub contacts: u64,
    /// More about the order; `null` if there is no more to tell.
    #[schema(required)]
    pub details: Option<String>,
}
