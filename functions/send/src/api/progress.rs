//! The progress of a broadcast: its speed, its expected end, and the state of its Pages.

use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::domain::ids::PageId;
use utoipa::ToSchema;

/// The progress of a broadcast, as of a moment ago.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({
    "sent_per_minute": [{"minute": "2026-12-01T01:00:00Z", "sent": 1798}], "expected_end": "2026-12-01T01:05:30Z",
    "pages": [{
        "page_id": "page-1", "rate": 30, "paused_until": null, "backoffs": 0, "token": "ok",
        "sent_per_minute": [{"minute": "2026-12-01T01:00:00Z", "sent": 1798}], "expected_end": "2026-12-01T01:05:30Z"
    }]
})))]
pub struct ProgressReport {
    /// The messages of all Pages in each minute of the last hour in which there were any.
    pub sent_per_minute: Vec<MinuteReport>,
    /// The latest expected end of the Pages; `null` if none is expected.
    #[schema(required)]
    pub expected_end: Option<Timestamp>,
    /// The Pages, sorted.
    pub pages: Vec<PageProgressReport>,
}

/// The messages that were sent in a minute, about: what a run of less than a hundred messages sends may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MinuteReport {
    /// The beginning of the minute.
    pub minute: Timestamp,
    /// The number of messages.
    pub sent: u64,
}

/// The progress of a broadcast on one Page, and the state of the Page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PageProgressReport {
    /// The Page.
    pub page_id: PageId,
    /// The messages per second that are sent at most, over all broadcasts of the Page.
    #[schema(value_type = u32, minimum = 1)]
    pub rate: NonZeroU32,
    /// The end of the Page's pause, for a limit or an outage of Messenger; `null` if it does not pause.
    #[schema(required)]
    pub paused_until: Option<Timestamp>,
    /// The pauses since the Page's last success.
    pub backoffs: u32,
    /// The state of the Page's access token.
    pub token: TokenState,
    /// The messages in each minute of the last hour in which there were any.
    pub sent_per_minute: Vec<MinuteReport>,
    /// The time at which the last contact is expected to be sent to, by the speed of the last minutes, or else by the rate; `null`
    /// if the broadcast does not go on by itself on this Page.
    #[schema(required)]
    pub expected_end: Option<Timestamp>,
}

/// The state of a Page's access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenState {
    /// There is one, and Messenger has not refused it to this broadcast.
    Ok,
    /// There is none.
    Missing,
    /// Messenger has refused it, so that the job is halted.
    Refused,
    /// It cannot be read at the moment.
    Unknown,
}
