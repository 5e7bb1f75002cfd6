//! The message as Messenger's Send API takes it: the message object, and the fields that go with it in every call.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The sends per second and Page that Messenger takes of audio and video. Source:
/// <https://developers.facebook.com/documentation/business-messaging/messenger-platform/overview/rate-limiting>
const MEDIA_PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);

/// Messenger's message object: a text, an attachment or a template. Only the text is rendered for each contact.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The text: the source of a [`Template`](crate::domain::template::Template).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// A file, picture, audio or video, by URL or by id, or one of Messenger's own templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<serde_json::Value>,
    /// A template that Meta has approved, for `UTILITY` messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<serde_json::Value>,
    /// The replies that the contact can tap on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quick_replies: Vec<serde_json::Value>,
}

impl Message {
    /// Returns the limit of sends per second and Page for a message of this kind; `None` if only the general limit holds.
    ///
    /// Messenger takes fewer messages with audio or video than others.
    pub fn most_per_second(&self) -> Option<NonZeroU32> {
        let kind = self.attachment.as_ref()?.get("type")?.as_str()?;
        ["audio", "video"].contains(&kind).then_some(MEDIA_PER_SECOND)
    }
}

/// The fields that go with the message in every call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The purpose of the message, in Messenger's words.
    pub messaging_type: MessagingType,
    /// The reason that allows a `MESSAGE_TAG` message outside of the 24-hour window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// The kind of notification on the contact's device.
    pub notification_type: NotificationType,
}

/// Messenger's `messaging_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MessagingType {
    /// A reply, within 24 hours.
    Response,
    /// A message that the contact did not ask for, within 24 hours.
    Update,
    /// A message outside of the 24 hours, as the tag allows.
    MessageTag,
    /// An approved template, at any time.
    Utility,
}

/// Messenger's `tag`; Meta withdrew the other tags on 27 April 2026.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Tag {
    /// A reply by a human within seven days.
    HumanAgent,
}

/// Messenger's `notification_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NotificationType {
    /// Sound or vibration.
    Regular,
    /// A notification on the screen only.
    SilentPush,
    /// No notification.
    NoPush,
}
