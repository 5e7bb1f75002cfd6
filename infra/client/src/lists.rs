//! The parameters of lists. An absent one has the API's default.

use jiff::Timestamp;
use send::api::broadcasts::BroadcastOrder;
use serde::Serialize;
use shared::domain::delivery::Status;
use shared::domain::ids::PageId;
use shared::domain::job::JobStatus;

/// The part of the list of broadcasts that is asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BroadcastQuery {
    /// Only broadcasts with this status.
    pub status: Option<JobStatus>,
    /// Only broadcasts that this Page sends.
    pub page_id: Option<PageId>,
    /// Only broadcasts that were accepted after this time.
    pub created_after: Option<Timestamp>,
    /// True to have sends to testers, too.
    pub tests: Option<bool>,
    /// The order; newest first without one.
    pub sort: Option<BroadcastOrder>,
    /// The number of items.
    pub limit: Option<u32>,
    /// `next_cursor` of the part before.
    pub cursor: Option<String>,
}

/// The part of another list that is asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PartQuery {
    /// The number of items.
    pub limit: Option<u32>,
    /// `next_cursor` of the part before.
    pub cursor: Option<String>,
}

/// The part of a count that is asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CountQuery {
    /// The number of contacts to look at, about.
    pub limit: Option<u64>,
    /// `next_cursor` of the part before.
    pub cursor: Option<String>,
}

/// The part of the deliveries of a broadcast that is asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DeliveryQuery {
    /// Only deliveries with this status.
    pub status: Option<Status>,
    /// Only deliveries with this code of their reason.
    pub reason: Option<String>,
    /// Only deliveries of this Page.
    pub page_id: Option<PageId>,
    /// Only deliveries that changed last after this time.
    pub updated_after: Option<Timestamp>,
    /// Only deliveries that changed last before this time.
    pub updated_before: Option<Timestamp>,
    /// The number of items.
    pub limit: Option<u32>,
    /// `next_cursor` of the part before.
    pub cursor: Option<String>,
}

/// The part of the contacts that is asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ContactQuery {
    /// Only contacts of this Page.
    pub page_id: Option<PageId>,
    /// Only contacts that have this tag.
    pub tag: Option<String>,
    /// Only contacts that have this text in their id or name.
    pub q: Option<String>,
    /// The number of items.
    pub limit: Option<u32>,
    /// `next_cursor` of the part before.
    pub cursor: Option<String>,
}

/// The part of an erasure that is asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ErasureQuery {
    /// The contact's Page, if the contact itself is gone.
    pub page_id: Option<PageId>,
    /// The number of jobs to read.
    pub limit: Option<u32>,
    /// `next_cursor` of the part before.
    pub cursor: Option<String>,
}
