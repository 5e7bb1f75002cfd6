//! A message that a contact received, as the ledger holds it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// A message that a contact received from Oncecast.
///
/// It is built from the request, and is in the ledger if the sandbox delivered it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Received {
    /// The Page that sent the message.
    pub page_id: String,
    /// The contact that received the message.
    pub contact_id: String,
    /// The declared purpose of the message.
    pub messaging_type: MessagingType,
    /// The message tag, which allows a message outside of the 24-hour window.
    pub tag: Option<String>,
    /// The kind of notification on the contact's device.
    pub notification_type: Option<NotificationType>,
    /// The text, if the message has one.
    pub text: Option<String>,
    /// The attachment, if the message has one.
    pub attachment: Option<Value>,
    /// The approved template from which the message is made, if there is one.
    pub template: Option<Value>,
    /// The answers that the contact can tap on.
    pub quick_replies: Option<Value>,
    /// The data that the sender attached for its own use.
    pub metadata: Option<String>,
    /// The proof that the sender knows the app secret.
    pub appsecret_proof: Option<String>,
    /// The id that Messenger gave the message.
    pub message_id: String,
    /// The time at which Messenger accepted the message, in milliseconds since 1970.
    pub at: i64,
}

#[cfg(test)]
impl Received {
    /// Returns a message to this contact.
    pub fn to(contact_id: &str) -> Received {
        Received {
            page_id: "page".to_owned(),
            contact_id: contact_id.to_owned(),
            messaging_type: MessagingType::Update,
            tag: None,
            notification_type: None,
            text: None,
            attachment: None,
            template: None,
            quick_replies: None,
            metadata: None,
            appsecret_proof: None,
            message_id: "m".to_owned(),
            at: 0,
        }
    }
}

/// The declared purpose of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MessagingType {
    Response,
    Update,
    MessageTag,
    Utility,
}

/// The kind of notification on the contact's device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NotificationType {
    Regular,
    SilentPush,
    NoPush,
}

/// Returns a new message id in Messenger's form.
pub fn new_message_id() -> String {
    format!("m_{}", Uuid::new_v4().simple())
}
