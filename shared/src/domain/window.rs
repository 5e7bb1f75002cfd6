//! The 24 hours after a contact's last message to a Page, in which Messenger takes messages of any content.
//! Source: <https://developers.facebook.com/documentation/business-messaging/messenger-platform/send-messages>

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::message::MessagingType;

/// The time after the contact's last message.
const WINDOW: SignedDuration = SignedDuration::from_hours(24);
/// The end of that time in which nothing is sent any more: clocks differ, and a send takes time.
const MARGIN: SignedDuration = SignedDuration::from_mins(30);

/// The treatment of contacts that have not written to the Page for 24 hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutsideWindow {
    /// They are skipped: Messenger would refuse the message.
    #[default]
    Skip,
    /// They are sent to all the same.
    Send,
}

/// Returns `true` if Messenger would refuse a message of this type, because the contact's last interaction was too long ago. An
/// unknown one may have been a moment ago.
pub fn is_over(messaging_type: MessagingType, last_interaction_at: Option<Timestamp>, now: Timestamp) -> bool {
    let needs_window = match messaging_type {
        MessagingType::Response | MessagingType::Update => true,
        MessagingType::MessageTag | MessagingType::Utility => false,
    };
    let is_long_ago = |at: Timestamp| now.duration_since(at) >= WINDOW - MARGIN;
    needs_window && last_interaction_at.is_some_and(is_long_ago)
}
