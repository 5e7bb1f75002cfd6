//! Previews: what a broadcast would do.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::domain::ids::{ContactId, PageId};
use shared::domain::job::ContactCounts;
use utoipa::ToSchema;

use super::broadcasts::BroadcastReport;

/// The answer to a request for a broadcast.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(examples(json!({
    "broadcast_id": "019ac2f07d3e7c51a0e0b5c4d3e2f1a0", "name": "Opening hours", "metadata": {"campaign": "spring"},
    "status": "completed", "created_at": "2026-12-01T01:00:00Z", "page_ids": ["page-1"], "scheduled_at": null,
    "contacts": {
        "requested": 1, "duplicates_removed": 0, "unknown": 0, "unknown_ids": [], "opted_out": 0, "accepted": 1
    }, "audience": null,
    "counters": {"pending": 0, "waiting": 0, "sent": 1, "failed": 0, "skipped": 0, "in_doubt": 0},
    "duplicates_prevented": {"request": 0, "replay": 0, "claim": 0, "reservation": 0},
    "scheduled_local": null, "quiet_hours": null, "expires_at": null, "requires_approval": false, "approved_at": null,
    "test": false, "message": {"text": "Hi {{ first_name | default('there') }}, we open at nine."},
    "jobs": [{
        "page_id": "page-1", "status": "completed", "reason": null, "contacts": 1, "resolving": false,
        "counters": {"pending": 0, "waiting": 0, "sent": 1, "failed": 0, "skipped": 0, "in_doubt": 0}, "due_at": null
    }]
})))]
pub enum BroadcastAnswer {
    /// The broadcast.
    Report(Box<BroadcastReport>),
    /// The answer to a dry run.
    Preview(Box<BroadcastPreview>),
}

/// The effect that a broadcast would have. Nothing of it is stored, and nothing is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({
    "dry_run": true,
    "contacts": {
        "requested": 3, "duplicates_removed": 0, "unknown": 0, "unknown_ids": [], "opted_out": 0, "accepted": 3
    },
    "complete": true, "pages": [{"page_id": "page-1", "contacts": 3, "seconds": 1}],
    "texts": [{"contact_id": "6001", "page_id": "page-1", "text": "Hi Ana.", "length": 7}],
    "longest": {"contact_id": "6003", "page_id": "page-1", "text": "Hi Maximiliane.", "length": 15},
    "warnings": [{
        "type": "fails", "message": "The message cannot be written for 1 contact: missing first_name.", "contacts": 1,
        "page_id": null
    }],
    "begins_at": "2026-12-01T01:00:00Z", "begins_local": null, "expected_seconds": 1, "write_units": 15
})))]
pub struct BroadcastPreview {
    /// Always true.
    pub dry_run: bool,
    /// The ids of the request by what acceptance would find; of an audience the contacts that match now.
    pub contacts: ContactCounts,
    /// False if the audience has more contacts than could be counted in ten seconds: everything is about those that were.
    pub complete: bool,
    /// The Pages that would send, sorted.
    pub pages: Vec<PagePreview>,
    /// The message as the first three contacts would get it; empty if the message has no text.
    pub texts: Vec<RenderedText>,
    /// The longest text that a contact would get, of an audience one of its first thousand; `null` if the message has no text.
    #[schema(required)]
    pub longest: Option<RenderedText>,
    /// Facts that may not be as the caller wishes them. The messages to an audience are written for its first thousand contacts, and so
    /// are the warnings about messages and windows.
    pub warnings: Vec<Warning>,
    /// The time at which the first message would be sent: after the quiet hours, if they are on at the time that is asked for.
    pub begins_at: Timestamp,
    /// The same by the clock of the request's time zone, with that zone; `null` if it named none.
    #[schema(required)]
    pub begins_local: Option<String>,
    /// The time from the first to the last message, in seconds, if no Page pauses, has other broadcasts to send, or comes into
    /// quiet hours.
    pub expected_seconds: u64,
    /// DynamoDB's write units for all of it, about.
    pub write_units: u64,
}

/// The part of one Page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PagePreview {
    /// The Page.
    pub page_id: PageId,
    /// The contacts that it would send to.
    pub contacts: u64,
    /// The time that it would take, in seconds.
    pub seconds: u64,
}

/// The message as one contact would get it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RenderedText {
    /// The contact.
    pub contact_id: ContactId,
    /// The Page that would send.
    pub page_id: PageId,
    /// The text.
    pub text: String,
    /// Its length in UTF-16 units, of which Messenger takes 1,999.
    pub length: usize,
}

/// Something that may not be as the caller wishes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Warning {
    /// The type.
    #[serde(rename = "type")]
    pub kind: WarningKind,
    /// The explanation.
    pub message: String,
    /// The contacts that it is about.
    pub contacts: u64,
    /// The Page that it is about; `null` if it is about the contacts of any.
    #[schema(required)]
    pub page_id: Option<PageId>,
}

/// The type of a warning. A later version may add others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WarningKind {
    /// The Page has no access token that can be read: its job would be halted.
    NoToken,
    /// The message cannot be written for these contacts, which would fail.
    Fails,
    /// The contacts last wrote to the Page more than 24 hours before they would get the message, which Messenger allows for some
    /// types of messages only.
    OutsideWindow,
    /// The broadcast would begin in its quiet hours, and wait for their end.
    QuietHours,
    /// The broadcast would expire before these contacts are reached.
    Expires,
    /// These contacts of a broadcast in `not_sent_in` have not been sent to yet: they match, and would get both.
    StillSending,
}
