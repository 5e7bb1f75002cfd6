//! Webhook events in Meta's form.

use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;
use serde_json::{Serializer, Value, json};

use crate::sandbox::conversations::message::ConversationMessage;
use crate::sandbox::received::Received;

/// The id of the app that sends through the sandbox.
const OWN_APP: u64 = 1_517_776_481_860_111;
/// The app id that Messenger gives for a message that a person wrote in the Page's inbox.
const PAGE_INBOX: u64 = 26_390_203_743_090;

/// Returns the echo of a message that Oncecast sent.
pub fn echo(message: &Received) -> Value {
    let mut body = json!({ "is_echo": true, "app_id": OWN_APP, "mid": message.message_id });
    if let Some(text) = &message.text {
        body["text"] = text.as_str().into();
    }
    if let Some(attachment) = &message.attachment {
        body["attachments"] = json!([attachment]);
    }
    if let Some(template) = &message.template {
        body["attachments"] = json!([{ "type": "template", "payload": template }]);
    }
    if let Some(metadata) = &message.metadata {
        body["metadata"] = metadata.as_str().into();
    }
    event(&message.page_id, &message.contact_id, message.at, body)
}

/// Returns the event of a message that Oncecast did not send.
pub fn foreign(page_id: &str, contact_id: &str, message: &ConversationMessage) -> Value {
    let mut body = json!({ "mid": message.id, "text": message.text });
    if message.from_contact {
        return event(contact_id, page_id, message.created_at, body);
    }
    body["is_echo"] = true.into();
    body["app_id"] = PAGE_INBOX.into();
    event(page_id, contact_id, message.created_at, body)
}

fn event(from: &str, to: &str, at: i64, message: Value) -> Value {
    json!({
        "sender": { "id": from },
        "recipient": { "id": to },
        "timestamp": at,
        "message": message,
    })
}

/// Serializes JSON as Meta does: each character that is not ASCII as `\u` and four lower-case hexadecimal digits per
/// UTF-16 unit.
///
/// # Errors
///
/// Fails if the value cannot be serialized.
pub fn escaped(value: &Value) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, Escaped))?;
    Ok(bytes)
}

struct Escaped;

impl Formatter for Escaped {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        for c in fragment.chars() {
            if c.is_ascii() {
                write!(writer, "{c}")?;
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_as_by_meta() {
        let body = escaped(&json!({ "text": "äöå \"😀\"\n" })).unwrap();

        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"text":"\u00e4\u00f6\u00e5 \"\ud83d\ude00\"\n"}"#
        );
    }
}
