//! Controls of a broadcast: pause, resume, cancel, retry.

use serde::{Deserialize, Serialize};
use shared::domain::ids::{BroadcastId, PageId};
use shared::domain::reasons::NotSent;
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
    "status": "paused", "created_at": "2026-12-01T01:00:00Z", "page_ids": ["page-1"],
    "scheduled_at": null,
    "contacts": {
        "requested": 3, "duplicates_removed": 1, "unknown": 0, "unknown_ids": [], "opted_out": 0, "accepted": 2
    }, "audience": null,
    "counters": {"pending": 2, "waiting": 0, "sent": 0, "failed": 0, "skipped": 0, "in_doubt": 0},
    "duplicates_prevented": {"request": 1, "replay": 0, "claim": 0, "reservation": 0}, "message": {"text": "Hi {{ first_name | default('there') }}, we open at nine."},
    "jobs": [{
        "page_id": "page-1", "status": "paused", "reason": null, "contacts": 2, "resolving": false,
        "counters": {"pending": 2, "waiting": 0, "sent": 0, "failed": 0, "skipped": 0, "in_doubt": 0},
        "command": null
    }],
    "history": [{
        "time": "2026-12-01T01:00:05Z", "caller": null, "action": "pause", "page_id": null, "jobs": 1, "contacts": 2, "details": null
    }],
    "affected": {"jobs": 1, "contacts": 2, "resolving": false}, "dry_run": false
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
    /// True if an audience of theirs is not resolved yet: more contacts than these are meant.
    pub resolving: bool,
}

/// A request to send again to contacts that are not known to have got the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"statuses": ["failed"], "reasons": ["551"]})))]
pub struct RetryRequest {
    /// The statuses of the contacts. `in_doubt` must be named, since such a contact may get the message twice.
    #[schema(min_items = 1, default = json!(["failed"]))]
    #[schema(value_type = Option<Vec<NotSent>>)]
    pub statuses: Vec<NotSent>,
    /// The codes of their reasons, as the report shows them; any if it is absent. Messenger's code without a subcode stands for all
    /// of its subcodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Option<Vec<String>>, max_items = 30)]
    pub reasons: Vec<String>,
    /// The Page of the only job that is meant; all jobs if it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_id: Option<PageId>,
}

impl Default for RetryRequest {
    fn default() -> Self {
        Self {
            statuses: vec![NotSent::Failed],
            reasons: Vec::new(),
            page_id: None,
        }
    }
}

/// The contacts that a retry sends to again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({
    "broadcast_id": "019ac2f07d3e7c51a0e0b5c4d3e2f1a0", "reopened": 2, "may_get_it_twice": 0,
    "jobs": [{"page_id": "page-1", "reopened": 2}], "dry_run": false
})))]
pub struct RetryReport {
    /// The identity of the broadcast.
    pub broadcast_id: BroadcastId,
    /// The number of contacts that are sent to again, or would be.
    pub reopened: u64,
    /// The number of those that are in doubt: they may have got the message.
    pub may_get_it_twice: u64,
    /// The jobs that were meant, sorted by Page.
    pub jobs: Vec<RetriedJob>,
    /// True if nothing was changed, as the request asked.
    pub dry_run: bool,
}

/// The part of a retry for one Page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RetriedJob {
    /// The Page.
    pub page_id: PageId,
    /// The number of its contacts that are sent to again, or would be.
    pub reopened: u64,
}
