//! A message as the Conversations API shows it, whoever wrote it.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::sandbox::ledger::{Received, new_message_id};

/// A message that Oncecast did not send: written by a person in the Page's inbox, or by the contact.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignMessage {
    /// The Page that it was sent from, or to.
    pub page_id: String,
    /// Whom the Page talks with.
    pub contact_id: String,
    /// What was written.
    pub text: String,
    /// Whether the contact wrote it; absent: somebody in the Page's inbox did.
    #[serde(default)]
    pub from_contact: bool,
    /// When, in milliseconds since 1970; absent: now.
    #[serde(default)]
    pub at: Option<i64>,
}

/// A message of a conversation.
#[derive(Debug, Clone)]
pub struct Message {
    pub id: String,
    pub from_contact: bool,
    pub text: String,
    /// As the Conversations API shows it.
    attachment: Option<Value>,
    pub created_at: i64,
    /// When the sandbox took it: look-ups find it only some time later.
    pub arrived_at: i64,
}

impl Message {
    /// One that it did not send, taken now.
    pub fn foreign(message: ForeignMessage, now: i64) -> Message {
        Message {
            id: new_message_id(),
            from_contact: message.from_contact,
            text: message.text,
            attachment: None,
            created_at: message.at.unwrap_or(now),
            arrived_at: now,
        }
    }

    /// One that Oncecast sent.
    pub fn received(message: &Received) -> Message {
        let attachment = message.attachment.as_ref().map(shown_attachment);
        let template = || Some(json!({ "generic_template": message.template.as_ref()? }));
        Message {
            id: message.message_id.clone(),
            from_contact: false,
            text: message.text.clone().unwrap_or_default(),
            attachment: attachment.or_else(template),
            created_at: message.at,
            arrived_at: message.at,
        }
    }

    /// All that Messenger tells of it.
    pub fn details(&self, page_id: &str, contact_id: &str) -> Map<String, Value> {
        let person = |id: &str| json!({ "id": id, "name": format!("Name of {id}") });
        let (from, to) = if self.from_contact {
            (contact_id, page_id)
        } else {
            (page_id, contact_id)
        };
        let mut details = Map::from_iter([
            ("id".to_owned(), self.id.clone().into()),
            (
                "created_time".to_owned(),
                created_time(self.created_at).into(),
            ),
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

/// An attachment is shown by kind, and not in the words of the send.
fn shown_attachment(sent: &Value) -> Value {
    let url = &sent["payload"]["url"];
    match sent["type"].as_str() {
        Some("image") => json!({ "mime_type": "image/jpeg", "image_data": { "url": url } }),
        Some("video") => json!({ "mime_type": "video/mp4", "video_data": { "url": url } }),
        Some("template") => json!({ "generic_template": sent["payload"] }),
        _ => json!({ "mime_type": "application/octet-stream", "file_url": url }),
    }
}

/// Whole seconds, with the offset as Meta writes it.
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
    fn a_time_is_written_as_meta_does() {
        assert_eq!(created_time(1_795_428_000_999), "2026-11-23T10:00:00+0000");
    }
}
