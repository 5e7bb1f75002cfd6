//! Broadcasts: the request for one, and the reports on it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::domain::audience::{Audience, AudienceName};
use shared::domain::command::JobCommand;
use shared::domain::ids::{BroadcastId, ContactId, PageId};
use shared::domain::job::{ContactCounts, Counters, JobStatus, Priority};
use shared::domain::message::{Message, MessagingType, NotificationType, Tag};
use shared::domain::schedule::{QuietHours, Zone};
use shared::domain::window::OutsideWindow;
use utoipa::ToSchema;

use super::audiences::AudienceChoice;
use super::history::HistoryReport;
use super::messages::MessageForm;
use super::progress::ProgressReport;
use super::reasons::ReasonReport;

/// The maximum number of ids in one request.
pub const MAX_CONTACT_IDS: usize = 100_000;

/// The order of a list of broadcasts: by the time of their requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum BroadcastOrder {
    /// From the newest.
    #[serde(rename = "-created_at")]
    NewestFirst,
    /// From the oldest.
    #[serde(rename = "created_at")]
    OldestFirst,
}

/// A request to send one message to many contacts.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({
    "contact_ids": ["6001", "6002", "6001"],
    "message": {"text": "Hi {{ first_name | default('there') }}, we open at nine."},
    "scheduled_at": null, "name": "Opening hours", "metadata": {"campaign": "spring"}
})))]
pub struct NewBroadcast {
    /// The contacts, on up to 90 Pages. Repeated ids are removed and counted; unknown and opted-out contacts are counted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(min_items = 1, max_items = 100_000, value_type = Option<Vec<ContactId>>, nullable = false)]
    pub contact_ids: Vec<ContactId>,
    /// The contacts by what is known of them, in place of `contact_ids`. They are found when the broadcast starts, on up to 90 Pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<AudienceChoice>,
    /// The name of the broadcast for those who read its reports; Messenger never sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub name: Option<String>,
    /// The caller's own notes, which reports repeat and Messenger never sees: up to 20 strings of at most 500 characters, by keys of
    /// at most 40.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub metadata: BTreeMap<String, String>,
    /// The message, one for each contact.
    #[schema(value_type = MessageForm)]
    pub message: Message,
    /// True if texts that look like placeholders of another system are sent as they are; they are a fault otherwise.
    #[schema(value_type = Option<bool>, default = false)]
    pub allow_literal_braces: bool,
    /// The purpose of the message. A template has `UTILITY`, and nothing else has.
    #[schema(value_type = Option<MessagingType>, default = "UPDATE")]
    pub messaging_type: MessagingType,
    /// The reason that allows a message outside of the 24-hour window, with `MESSAGE_TAG` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// The kind of notification on the contact's device.
    #[schema(value_type = Option<NotificationType>, default = "REGULAR")]
    pub notification_type: NotificationType,
    /// The time at which sending begins, up to 366 days ahead; at once if it is absent. With an offset, or without one by the clock
    /// of `time_zone`. A time that a change of the clock skips is later by as much as that skips; of a repeated one the first counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, examples("2026-12-01T09:00", "2026-12-01T09:00:00+08:00"))]
    pub scheduled_at: Option<Timestamp>,
    /// The time zone (IANA) of `scheduled_at` and `expires_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<Zone>,
    /// The hours of each day in which nothing is sent: the broadcast waits for their end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quiet_hours: Option<QuietHours>,
    /// The time after which nothing is sent any more: contacts that are left are skipped. Written as `scheduled_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, examples("2026-12-01T18:00"))]
    pub expires_at: Option<Timestamp>,
    /// True if another caller must approve the broadcast before it is sent.
    #[schema(value_type = Option<bool>, default = false)]
    pub requires_approval: bool,
    /// The treatment of contacts that are known not to have written to the Page for 24 hours, with `RESPONSE` and `UPDATE`.
    #[schema(value_type = Option<OutsideWindow>, default = "skip")]
    pub outside_window: OutsideWindow,
    /// The urgency beside other broadcasts of the same Pages. A job of at most 25 contacts is sent at once in any case; with
    /// `high` a larger one is, too, instead of after the large ones before it.
    #[serde(default)]
    pub priority: Priority,
}

impl NewBroadcast {
    /// Returns the request to send a message at once, with the default of every other field.
    pub fn new(contact_ids: Vec<ContactId>, message: Message) -> Self {
        Self {
            contact_ids,
            audience: None,
            name: None,
            metadata: BTreeMap::new(),
            message,
            allow_literal_braces: false,
            messaging_type: MessagingType::Update,
            tag: None,
            notification_type: NotificationType::Regular,
            scheduled_at: None,
            time_zone: None,
            quiet_hours: None,
            expires_at: None,
            requires_approval: false,
            outside_window: OutsideWindow::Skip,
            priority: Priority::Normal,
        }
    }

    /// Returns the request to send a message to an audience at once, with the default of every other field.
    pub fn to_audience(audience: AudienceChoice, message: Message) -> Self {
        Self {
            audience: Some(audience),
            ..Self::new(Vec::new(), message)
        }
    }
}

/// A broadcast with its jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({
    "broadcast_id": "019ac2f07d3e7c51a0e0b5c4d3e2f1a0", "name": "Opening hours", "metadata": {"campaign": "spring"},
    "status": "queued", "created_at": "2026-12-01T01:00:00Z", "page_ids": ["page-1"],
    "scheduled_at": null,
    "contacts": {
        "requested": 3, "duplicates_removed": 1, "unknown": 0, "unknown_ids": [], "opted_out": 0, "accepted": 2
    }, "audience": null,
    "counters": {"pending": 2, "waiting": 0, "sent": 0, "failed": 0, "skipped": 0, "in_doubt": 0},
    "duplicates_prevented": {"request": 1, "replay": 0, "claim": 0, "reservation": 0},
    "scheduled_local": null, "quiet_hours": null, "expires_at": null, "requires_approval": false, "approved_at": null,
    "test": false, "message": {"text": "Hi {{ first_name | default('there') }}, we open at nine."},
    "jobs": [{
        "page_id": "page-1", "status": "queued", "reason": null, "contacts": 2, "resolving": false,
        "counters": {"pending": 2, "waiting": 0, "sent": 0, "failed": 0, "skipped": 0, "in_doubt": 0}, "reasons": [],
        "due_at": null, "command": null, "stopped": null
    }],
    "reasons": [], "history": [], "stopped": null
})))]
pub struct BroadcastReport {
    /// The broadcast without its jobs.
    #[serde(flatten)]
    pub summary: BroadcastSummary,
    /// The message as the request gave it, with its variables.
    #[serde(default)]
    #[schema(required, value_type = MessageForm)]
    pub message: Message,
    /// The jobs, sorted by Page.
    pub jobs: Vec<JobReport>,
    /// The contacts of all jobs that are not known to have got the message, by reason, as of the last checkpoints.
    pub reasons: Vec<ReasonReport>,
    /// The switch that keeps a job of the broadcast from being sent; `null` if sending is on.
    #[schema(required)]
    pub stopped: Option<Stopped>,
    /// True if the request itself worked the broadcast off and was answered with 200.
    #[serde(skip)]
    pub done_inline: bool,
    /// The orders for the broadcast since it was accepted: the latest hundred, from the oldest.
    pub history: Vec<HistoryReport>,
    /// The speed, the expected end and the state of the Pages, in the answer to `GET` only. The `ETag` does not cover it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub progress: Option<ProgressReport>,
    /// The limit of messages per second and Page for a message of this kind.
    #[serde(skip)]
    pub rate: Option<NonZeroU32>,
}

/// A broadcast without its jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({
    "broadcast_id": "019ac2f07d3e7c51a0e0b5c4d3e2f1a0", "name": "Opening hours", "metadata": {"campaign": "spring"},
    "status": "completed", "created_at": "2026-12-01T01:00:00Z", "page_ids": ["page-1"],
    "scheduled_at": null,
    "contacts": {
        "requested": 3, "duplicates_removed": 1, "unknown": 0, "unknown_ids": [], "opted_out": 0, "accepted": 2
    }, "audience": null,
    "counters": {"pending": 0, "waiting": 0, "sent": 2, "failed": 0, "skipped": 0, "in_doubt": 0},
    "duplicates_prevented": {"request": 1, "replay": 0, "claim": 0, "reservation": 0},
    "scheduled_local": null, "quiet_hours": null, "expires_at": null, "requires_approval": false, "approved_at": null,
    "test": false
})))]
pub struct BroadcastSummary {
    /// The identity of the broadcast.
    pub broadcast_id: BroadcastId,
    /// The name that the request gave it; `null` if none.
    #[schema(required)]
    pub name: Option<String>,
    /// The notes that the request gave it.
    pub metadata: BTreeMap<String, String>,
    /// The first of these that one of the jobs has: processing, queued, waiting, paused, scheduled, `awaiting_approval`,
    /// halted, cancelled, completed.
    pub status: JobStatus,
    /// The time at which the request was received.
    pub created_at: Timestamp,
    /// The Pages that send, sorted.
    #[serde(default)]
    #[schema(required)]
    pub page_ids: Vec<PageId>,
    /// The time at which sending begins; `null` if it begins at once.
    #[schema(required)]
    pub scheduled_at: Option<Timestamp>,
    /// The ids of the request by what acceptance found. Of an audience, `requested` are the contacts that were looked at so far, and
    /// `accepted` those of them that it has.
    pub contacts: ContactCounts,
    /// The audience that the contacts are found by; `null` if the request named them.
    #[schema(required)]
    pub audience: Option<AudienceReport>,
    /// The sum of the counters of the jobs.
    pub counters: Counters,
    /// The sum of the duplicates that each layer prevented, over all jobs.
    pub duplicates_prevented: DuplicatesPrevented,
    /// `scheduled_at` by the clock of the request's time zone, with that zone (RFC 9557); `null` if it named none.
    #[schema(required, examples("2026-12-01T09:00:00+08:00[Asia/Manila]"))]
    pub scheduled_local: Option<String>,
    /// The hours of each day in which nothing is sent; `null` if there are none.
    #[schema(required)]
    pub quiet_hours: Option<QuietHours>,
    /// The time after which nothing is sent any more; `null` if there is none.
    #[schema(required)]
    pub expires_at: Option<Timestamp>,
    /// True if another caller than the one who made the broadcast must approve it.
    pub requires_approval: bool,
    /// The time at which the broadcast was approved; `null` if it is not.
    #[schema(required)]
    pub approved_at: Option<Timestamp>,
    /// True for a send to testers.
    pub test: bool,
}

/// The audience of a broadcast.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({"name": "vips", "filters": {"tags_any": ["vip"]}, "resolved": true})))]
pub struct AudienceReport {
    /// The name under which it was saved; `null` if it was not.
    #[schema(required)]
    pub name: Option<AudienceName>,
    /// The filters, as they were when the request was received.
    pub filters: Audience,
    /// True if all of its contacts are known: those of `contacts` and of the jobs. A broadcast that was cancelled or expired before
    /// stays without.
    pub resolved: bool,
}

/// Duplicates that did not happen, by the layer that removed or prevented them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DuplicatesPrevented {
    /// Ids repeated in the request.
    pub request: u64,
    /// Requests repeated.
    pub replay: u64,
    /// Claims that a live lease refused.
    pub claim: u64,
    /// Contacts that were settled already when a worker tried to reserve them.
    pub reservation: u64,
}

/// The part of a broadcast for one Page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobReport {
    /// The Page that sends.
    pub page_id: PageId,
    /// The status of the job.
    pub status: JobStatus,
    /// The reason why the job is halted, or `quiet_hours` while it waits for their end; `null` otherwise.
    #[schema(required)]
    pub reason: Option<String>,
    /// Contacts accepted for this Page.
    pub contacts: u64,
    /// True if an audience is not resolved: contacts are still to join, or would have joined before the job was cancelled or
    /// expired.
    pub resolving: bool,
    /// Those contacts by state, as of the last checkpoint.
    pub counters: Counters,
    /// Those that are not known to have got the message, by reason. They add up to `failed`, `skipped` and `in_doubt`.
    pub reasons: Vec<ReasonReport>,
    /// The time at which a job that is `scheduled` or `waiting` goes on; `null` otherwise.
    #[schema(required)]
    pub due_at: Option<Timestamp>,
    /// The command that a worker is still to carry out; `null` if there is none.
    #[schema(required)]
    pub command: Option<JobCommand>,
    /// The switch that keeps the job from being sent; `null` if sending is on, or the job at its end.
    #[schema(required)]
    pub stopped: Option<Stopped>,
}

/// The switch for sending that keeps jobs waiting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({"by": null, "at": "2026-12-01T01:00:00Z", "reason": "wrong text", "page_id": null})))]
pub struct Stopped {
    /// The caller that set it, if it was authenticated.
    #[schema(required)]
    pub by: Option<String>,
    /// The time at which it was set, if that is recorded.
    #[schema(required)]
    pub at: Option<Timestamp>,
    /// The reason that the operator gave, if it gave one.
    #[schema(required)]
    pub reason: Option<String>,
    /// The Page for which it was set; `null` for all.
    #[schema(required)]
    pub page_id: Option<PageId>,
}
