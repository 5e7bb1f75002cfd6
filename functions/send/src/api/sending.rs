//! The switch for sending, and the health check, which shows it.

use serde::{Deserialize, Serialize};
use shared::domain::ids::PageId;
use shared::domain::sending::{SendingChanged, SendingState};
use utoipa::ToSchema;

/// The answer to a health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({"status": "ok", "sending": "on"})))]
pub struct Health {
    /// Always `ok`: the function runs, and the database answers it.
    pub status: String,
    /// The switch for sending.
    pub sending: SendingState,
}

/// A new position of the switch for sending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"state": "off", "reason": "wrong text"})))]
pub struct SendingChange {
    /// The position.
    pub state: SendingState,
    /// The reason, which the switch shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub reason: Option<String>,
    /// The Page for which it is set; all Pages if it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_id: Option<PageId>,
}

/// The switch for sending, for all Pages or for one, and its history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({
    "state": "off", "reason": "wrong text", "changed_by": null, "changed_at": "2026-12-01T01:00:00Z", "page_id": "page-1",
    "all_pages": "on",
    "history": [
        {"state": "off", "reason": "wrong text", "changed_by": null, "changed_at": "2026-12-01T01:00:00Z", "page_id": "page-1"}
    ]
})))]
pub struct SendingReport {
    /// The switch as it was set last, for all Pages or for the one that was asked for.
    #[serde(flatten)]
    pub change: SendingChanged,
    /// The position of the switch for all Pages. Sending for a Page is on if both are.
    pub all_pages: SendingState,
    /// The last changes, newest first, up to 50: of the switch for all Pages, and of single Pages that the caller may use.
    pub history: Vec<SendingChanged>,
}
