//! The history of a broadcast: what was ordered for it since it was accepted, by whom and when.

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};

use crate::domain::ids::PageId;

/// An order that was carried out, or will be by the workers of its jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The time of the order.
    #[serde(with = "millisecond::required")]
    pub time: Timestamp,
    /// The caller of the API; `None` if callers are not authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// The order.
    pub action: Action,
    /// The Page that the order was limited to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_id: Option<PageId>,
    /// The number of jobs that it changed.
    pub jobs: u64,
    /// The number of contacts of those jobs that it concerned.
    pub contacts: u64,
    /// More about the order, such as the statuses of a retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
}

/// An order for a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = HistoryAction, description = "An order for a broadcast.")]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing more is sent until the broadcast is resumed.
    Pause,
    /// Sending goes on.
    Resume,
    /// Nothing more is sent for good.
    Cancel,
    /// Messages are sent again to some contacts.
    Retry,
    /// The broadcast says something else, or is sent at another time.
    Change,
    /// The broadcast may be sent.
    Approve,
}
