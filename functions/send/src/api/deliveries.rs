//! Deliveries: the outcome of a broadcast for each contact.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::domain::delivery::Status;
use shared::domain::ids::{ContactId, PageId};
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
}
