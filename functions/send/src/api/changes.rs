//! Changes of a broadcast that is not due yet.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use shared::domain::message::{Message, MessagingType, NotificationType, Tag};
use shared::domain::schedule::{QuietHours, Zone};
use shared::domain::window::OutsideWindow;
use utoipa::ToSchema;

use super::messages::MessageForm;

/// The changes of a broadcast: a field that is absent is kept, `null` clears it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({
    "message": {"text": "Hi {{ first_name | default('there') }}, we open at ten."}, "scheduled_at": "2026-12-01T10:00",
    "time_zone": "Asia/Manila", "quiet_hours": null
})))]
pub struct BroadcastChange {
    /// The message, as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<MessageForm>)]
    pub message: Option<Message>,
    /// True if texts of the new message that look like placeholders of another system are sent as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_literal_braces: Option<bool>,
    /// The purpose of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messaging_type: Option<MessagingType>,
    /// The reason that allows a message outside of the 24-hour window.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Tag>)]
    pub tag: Option<Option<Tag>>,
    /// The kind of notification on the contact's device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notification_type: Option<NotificationType>,
    /// The time at which sending begins, in the form of a new broadcast's. It cannot be cleared.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, examples("2026-12-01T10:00"))]
    pub scheduled_at: Option<Timestamp>,
    /// The time zone (IANA) of `scheduled_at` and `expires_at`; the one that the broadcast has, if it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Zone>)]
    pub time_zone: Option<Option<Zone>>,
    /// The hours of each day in which nothing is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<QuietHours>)]
    pub quiet_hours: Option<Option<QuietHours>>,
    /// The time after which nothing is sent any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, examples("2026-12-01T18:00"))]
    pub expires_at: Option<Option<Timestamp>>,
    /// The name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200)]
    pub name: Option<Option<String>>,
    /// The caller's own notes, as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// The treatment of contacts that are known not to have written to the Page for 24 hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outside_window: Option<OutsideWindow>,
}
