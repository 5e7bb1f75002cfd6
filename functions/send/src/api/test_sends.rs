//! Sends to testers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::domain::ids::ContactId;
use shared::domain::message::{Message, MessagingType, NotificationType, Tag};
use utoipa::ToSchema;

use super::broadcasts::BroadcastReport;
use super::deliveries::DeliveryReport;
use super::messages::MessageForm;

/// A request to send a message to testers. Its fields are those of a broadcast.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({
    "contact_ids": ["6001"], "message": {"text": "Hi {{ first_name | default('there') }}, we open at nine."}
})))]
pub struct TestSend {
    /// The contacts, each with `tester`.
    #[schema(min_items = 1, max_items = 5)]
    pub contact_ids: Vec<ContactId>,
    /// The message.
    #[schema(value_type = MessageForm)]
    pub message: Message,
    /// True if texts that look like placeholders of another system are sent as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_literal_braces: Option<bool>,
    /// The purpose of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messaging_type: Option<MessagingType>,
    /// The reason that allows a message outside of the 24-hour window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// The kind of notification on the contact's device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notification_type: Option<NotificationType>,
    /// The name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub name: Option<String>,
    /// The caller's own notes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
}

impl TestSend {
    /// Returns the request to send a message, with the default of every other field.
    pub fn new(contact_ids: Vec<ContactId>, message: Message) -> Self {
        Self {
            contact_ids,
            message,
            allow_literal_braces: None,
            messaging_type: None,
            tag: None,
            notification_type: None,
            name: None,
            metadata: None,
        }
    }
}

/// The outcome of a send to testers: the small broadcast that sends the message, and its deliveries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({
    "broadcast_id": "019ac2f07d3e7c51a0e0b5c4d3e2f1a0", "name": null, "metadata": {}, "status": "completed",
    "created_at": "2026-12-01T01:00:00Z", "page_ids": ["page-1"], "scheduled_at": null,
    "contacts": {
        "requested": 1, "duplicates_removed": 0, "unknown": 0, "unknown_ids": [], "opted_out": 0, "accepted": 1
    }, "audience": null,
    "counters": {"pending": 0, "waiting": 0, "sent": 1, "failed": 0, "skipped": 0, "in_doubt": 0},
    "duplicates_prevented": {"request": 0, "replay": 0, "claim": 0, "reservation": 0},
    "scheduled_local": null, "quiet_hours": null, "expires_at": null, "requires_approval": false, "approved_at": null, "test": true,
    "jobs": [{
        "page_id": "page-1", "status": "completed", "reason": null, "contacts": 1, "resolving": false,
        "counters": {"pending": 0, "waiting": 0, "sent": 1, "failed": 0, "skipped": 0, "in_doubt": 0}, "due_at": null
    }],
    "deliveries": [{
        "contact_id": "6001", "page_id": "page-1", "status": "sent", "message_id": "m_AbC", "attempts": 1,
        "updated_at": "2026-12-01T01:00:02.125Z"
    }]
})))]
pub struct TestReport {
    /// The broadcast.
    #[serde(flatten)]
    pub broadcast: BroadcastReport,
    /// The outcome for each tester that was reached so far.
    pub deliveries: Vec<DeliveryReport>,
}
