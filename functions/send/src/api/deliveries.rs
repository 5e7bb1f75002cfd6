//! Deliveries: the outcome of a broadcast for each contact.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::domain::delivery::Status;
use shared::domain::ids::{BroadcastId, ContactId, PageId};
use utoipa::ToSchema;

/// The delivery of a broadcast to one contact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({
    "contact_id": "6001", "page_id": "page-1", "status": "sent", "message_id": "m_AbC", "attempts": 1,
    "updated_at": "2026-12-01T01:00:02.125Z"
})))]
pub struct DeliveryReport {
    /// The contact.
    pub contact_id: ContactId,
    /// The Page that sends.
    pub page_id: PageId,
    /// The state of the delivery.
    pub status: Status,
    /// Messenger's id of the message that the contact is known to have got.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub message_id: Option<String>,
    /// The reason why the message is not known to be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<String>,
    /// The attempts that were charged to the contact.
    pub attempts: u32,
    /// The time of the last change.
    pub updated_at: Timestamp,
    /// The reason in short, by which deliveries can be listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub code: Option<String>,
}

/// A delivery with what is kept of its attempts.
///
/// A row is one item, which each attempt changes: of earlier attempts it keeps what the protocol needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({
    "broadcast_id": "019ac2f07d3e7c51a0e0b5c4d3e2f1a0", "contact_id": "6001", "page_id": "page-1", "status": "in_doubt",
    "reason": "connection lost", "code": "connection lost", "attempts": 1, "updated_at": "2026-12-01T01:00:12.125Z",
    "last_attempt_at": "2026-12-01T01:00:02.125Z", "next_attempt_at": null, "next_lookup_at": "2026-12-01T01:01:02.125Z",
    "unclear_attempt_at": null, "refused_at": null, "arrived_after_refusal": false
})))]
pub struct DeliveryEvidence {
    /// The broadcast.
    pub broadcast_id: BroadcastId,
    /// The delivery as lists show it.
    #[serde(flatten)]
    pub delivery: DeliveryReport,
    /// The time at which the last attempt began.
    pub last_attempt_at: Timestamp,
    /// The time from which the next attempt may be made; `null` unless the delivery is `waiting`.
    #[schema(required)]
    pub next_attempt_at: Option<Timestamp>,
    /// The time at which Messenger is asked for the message; `null` unless the delivery is `in_doubt` and will be looked up.
    #[schema(required)]
    pub next_lookup_at: Option<Timestamp>,
    /// The beginning of the first attempt that may have arrived although another was made since.
    #[schema(required)]
    pub unclear_attempt_at: Option<Timestamp>,
    /// The time of the first refusal with an error that may concern every contact.
    #[schema(required)]
    pub refused_at: Option<Timestamp>,
    /// True if the message arrived although it is recorded as `failed` or `skipped`: its echo came later.
    pub arrived_after_refusal: bool,
}
