//! A message as the Conversations API shows it, sent by Oncecast or not.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::sandbox::received::{Received, new_message_id};

/// A message that Oncecast did not send, but a person in the Page's inbox or the contact.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignMessage {
    /// The Page of the conversation.
    pub page_id: String,
    /// The contact of the conversation.
    pub contact_id: String,
    /// The text of the message.
    pub text: String,
    /// True if the contact wrote the message; by default a person in the Page's inbox did.
    #[serde(default)]
    pub from_contact: bool,
    /// The time of the message in milliseconds since 1970; by default now.
    #[serde(default)]
    pub at: Option<i64>,
}

/// A message of a conversation.
#[derive(Debug, Clone)]
pub struct ConversationMessage {
    pub id: String,
    pub from_contact: bool,
    pub text: String,
    /// The attachment in the form of the Conversations API.
    attachment: Option<Value>,
    /// The time of the message in milliseconds since 1970.
    pub created_at: i64,
    /// The time of the message's arrival at the sandbox, in milliseconds since 1970. Lookups may find the message only
    /// some time later.
    pub arrived_at: i64,
}

impl ConversationMessage {
    /// Returns a message that Oncecast did not send and that arrives now.
    pub fn foreign(message: ForeignMessage, now: i64) -> ConversationMessage {
        ConversationMessage {
            id: new_message_id(),
            from_contact: message.from_contact,
            text: message.text,
            attachment: None,
            created_at: message.at.unwrap_or(now),
            arrived_at: now,
        }
    }

    /// Returns a message that Oncecast sent.
    pub fn received(message: &Received) -> ConversationMessage {
        let attachment = message.attachment.as_ref().map(shown_attachment);
        let template = || Some(json!({ "generic_template": message.template.as_ref()? }));
        ConversationMessage {
            id: message.message_id.clone(),
            from_contact: false,
            text: message.text.clone().unwrap_or_default(),
            attachment: attachment.or_else(template),
            created_at: message.at,
            arrived_at: message.at,
        }
    }

    /// Returns all fields that the Conversations API shows.
    pub fn details(&self, page_id: &str, contact_id: &str) -> Map<String, Value> {
        let person = |id: &str| json!({ "id": id, "name": format!("Name of {id}") });
        let (from, to) = if self.from_contact {
            (contact_id, page_id)
        } else {
            (page_id, contact_id)
        };
        let mut details = Map::from_iter([
            ("id".to_owned(), self.id.clone().into()),
            ("created_time".to_owned(), created_time(self.created_at).into()),
            ("from".to_owned(), person(from)),
            ("to".to_owned(), json!({ "data": [person(to)] })),
            ("message".to_owned(), self.text.clone().into()),
        ]);
        if let Some(attachment) = &self.attachment {
            details.insert("attachments".to_owned(), json!({ "data": [attachment] }));
        }
        details
    }
}

/// Returns an attachment in the form of the Conversations API, which depends on its type and differs from the form of a
/// send.
fn shown_attachment(sent: &Value) -> Value {
    let url = &sent["payload"]["url"];
    match sent["type"].as_str() {
        Some("image") => json!({ "mime_type": "image/jpeg", "image_data": { "url": url } }),
        Some("video") => json!({ "mime_type": "video/mp4", "video_data": { "url": url } }),
        Some("template") => json!({ "generic_template": sent["payload"] }),
        _ => json!({ "mime_type": "application/octet-stream", "file_url": url }),
    }
}

/// Returns a time in whole seconds, with the offset in Meta's form.
fn created_time(at: i64) -> String {
    Timestamp::from_millisecond(at)
        .unwrap_or_default()
        .strftime("%Y-%m-%dT%H:%M:%S+0000")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn created_time_has_metas_form() {
        assert_eq!(created_time(1_795_428_000_999), "2026-11-23T10:00:00+0000");
    }
}
