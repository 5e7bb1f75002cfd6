//! Controls of a broadcast: pause, resume, cancel; and its history.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::domain::history::Action;
use shared::domain::ids::PageId;
use utoipa::ToSchema;

use super::broadcasts::BroadcastReport;

/// A control of some or all jobs of a broadcast.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"page_id": "page-1"})))]
pub struct ControlRequest {
    /// The Page of the only job that is meant; all jobs if it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_id: Option<PageId>,
}

/// A broadcast after a control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({
    "broadcast_id": "019ac2f07d3e7c51a0e0b5c4d3e2f1a0", "name": "Opening hours", "metadata": {"campaign": "spring"},
    "status": "paused", "created_at": "2026-12-01T01:00:00Z",
    "scheduled_at": null,
    "contacts": {
        "requested": 3, "duplicates_removed": 1, "unknown": 0, "unknown_ids": [], "opted_out": 0, "accepted": 2
    },
    "counters": {"pending": 2, "waiting": 0, "sent": 0, "failed": 0, "skipped": 0, "in_doubt": 0},
    "duplicates_prevented": {"request": 1, "replay": 0, "claim": 0, "reservation": 0},
    "jobs": [{
        "page_id": "page-1", "status": "paused", "reason": null, "contacts": 2,
        "counters": {"pending": 2, "waiting": 0, "sent": 0, "failed": 0, "skipped": 0, "in_doubt": 0},
        "command": null
    }],
    "history": [{
        "time": "2026-12-01T01:00:05Z", "caller": null, "action": "pause", "page_id": null, "jobs": 1, "contacts": 2, "details": null
    }],
    "affected": {"jobs": 1, "contacts": 2}, "dry_run": false
})))]
pub struct ControlReport {
    /// The broadcast, as it is after the control.
    #[serde(flatten)]
    pub report: BroadcastReport,
    /// The jobs that the control changed, or would change.
    pub affected: Affected,
    /// True if nothing was changed, as the request asked.
    pub dry_run: bool,
}

/// The jobs that a control changes. A job that was in the wanted state already, or that cannot get there, is left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Affected {
    /// The number of jobs.
    pub jobs: u64,
    /// Their contacts that are pending or waiting.
    pub contacts: u64,
}

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
