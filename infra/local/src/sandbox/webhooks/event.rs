//! Webhook events in Meta's words, and how they are written and signed.

use std::io;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::ser::Formatter;
use serde_json::{Serializer, Value, json};
use sha2::Sha256;

use crate::sandbox::conversations::Message;
use crate::sandbox::ledger::Received;

/// The app that sends through the sandbox.
const OWN_APP: u64 = 1_517_776_481_860_111;
/// The app that Messenger names when a person has written in the Page's inbox.
const PAGE_INBOX: u64 = 26_390_203_743_090;

/// What Messenger tells of a message that Oncecast sent.
pub fn echo(message: &Received) -> Value {
    let mut told = json!({ "is_echo": true, "app_id": OWN_APP, "mid": message.message_id });
    if let Some(text) = &message.text {
        told["text"] = text.as_str().into();
    }
    if let Some(attachment) = &message.attachment {
        told["attachments"] = json!([attachment]);
    }
    if let Some(template) = &message.template {
        told["attachments"] = json!([{ "type": "template", "payload": template }]);
    }
    if let Some(metadata) = &message.metadata {
        told["metadata"] = metadata.as_str().into();
    }
    event(&message.page_id, &message.contact_id, message.at, told)
}

/// What it tells of a message that Oncecast did not send.
pub fn foreign(page_id: &str, contact_id: &str, message: &Message) -> Value {
    let mut told = json!({ "mid": message.id, "text": message.text });
    if message.from_contact {
        return event(contact_id, page_id, message.created_at, told);
    }
    told["is_echo"] = true.into();
    told["app_id"] = PAGE_INBOX.into();
    event(page_id, contact_id, message.created_at, told)
}

fn event(from: &str, to: &str, at: i64, message: Value) -> Value {
    json!({
        "sender": { "id": from },
        "recipient": { "id": to },
        "timestamp": at,
        "message": message,
    })
}

/// Writes JSON as Meta does: what is not ASCII as `\u` and four lower-case digits.
pub fn escaped(value: &Value) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, Escaped))?;
    Ok(bytes)
}

struct Escaped;

impl Formatter for Escaped {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
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

/// The hexadecimal HMAC-SHA256: of a body for its signature, of a token for the proof that comes with it.
pub fn hmac(secret: &SecretString, bytes: &[u8]) -> String {
    let key = secret.expose_secret().as_bytes();
    // A key may have any length, so there is always one.
    let mac = Hmac::<Sha256>::new_from_slice(key).map(|mac| mac.chain_update(bytes).finalize());
    let mac = mac.map(|mac| mac.into_bytes()).unwrap_or_default();
    mac.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_as_meta_escapes_it() {
        let body = escaped(&json!({ "text": "äöå \"😀\"\n" })).unwrap();

        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"text":"\u00e4\u00f6\u00e5 \"\ud83d\ude00\"\n"}"#
        );
    }

    #[test]
    fn the_hmac_is_that_of_rfc_4231() {
        let key = SecretString::from("Jefe");

        assert_eq!(
            hmac(&key, b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
