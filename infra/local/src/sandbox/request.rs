//! A request of the Send API, checked against Messenger's documented limits:
//! <https://developers.facebook.com/docs/messenger-platform/reference/send-api>.

use axum::http::{HeaderMap, Uri, header};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::access::Credentials;
use super::faults::GraphError;
use super::received::{MessagingType, NotificationType, Received, new_message_id};

/// The length that `text` must stay below, in UTF-16 units.
const TEXT_LIMIT: usize = 2_000;
/// The length that `metadata` must stay below, in characters.
const METADATA_LIMIT: usize = 1_000;
/// Message tags that Messenger has refused since April 2026.
const DEAD_TAGS: [&str; 3] = ["ACCOUNT_UPDATE", "CONFIRMED_EVENT_UPDATE", "POST_PURCHASE_UPDATE"];

/// The fields of a request, and the credentials of its sender.
pub struct Fields {
    pub credentials: Credentials,
    body: Result<Map<String, Value>, GraphError>,
}

impl Fields {
    /// Reads a JSON or form body, and the credentials from header, query or body.
    pub fn read(headers: &HeaderMap, uri: &Uri, body: &[u8]) -> Fields {
        let body = if is_form(headers) {
            Ok(form_fields(body))
        } else {
            serde_json::from_slice(body).map_err(|_| invalid("the body is not a JSON object"))
        };
        Fields {
            credentials: Credentials::read(headers, uri, body.as_ref().ok()),
            body,
        }
    }

    /// Returns the message of the request, after the checks that Messenger makes before it considers the contact.
    ///
    /// # Errors
    ///
    /// Fails with error 100 if a field is missing, unknown in its value or out of range.
    pub fn into_message(self, page_id: &str, now_ms: i64) -> Result<Received, GraphError> {
        let body: SendBody =
            serde_json::from_value(Value::Object(self.body?)).map_err(|error| invalid(format!("(#100) {error}")))?;
        body.check()?;
        Ok(Received {
            page_id: page_id.to_owned(),
            contact_id: body.recipient.id,
            messaging_type: body.messaging_type,
            tag: body.tag,
            notification_type: body.notification_type,
            text: body.message.text,
            attachment: body.message.attachment,
            template: body.message.template,
            quick_replies: body.message.quick_replies,
            metadata: body.message.metadata,
            appsecret_proof: self.credentials.appsecret_proof,
            message_id: new_message_id(),
            at: now_ms,
        })
    }
}

#[derive(Debug, Deserialize)]
struct SendBody {
    recipient: Recipient,
    messaging_type: MessagingType,
    tag: Option<String>,
    notification_type: Option<NotificationType>,
    message: MessageBody,
}

#[derive(Debug, Deserialize)]
struct Recipient {
    id: String,
}

#[derive(Debug, Deserialize)]
struct MessageBody {
    text: Option<String>,
    attachment: Option<Value>,
    template: Option<Value>,
    quick_replies: Option<Value>,
    metadata: Option<String>,
}

impl SendBody {
    fn check(&self) -> Result<(), GraphError> {
        let message = &self.message;
        let contents = [
            message.text.is_some(),
            message.attachment.is_some(),
            message.template.is_some(),
        ];
        if contents.into_iter().filter(|present| *present).count() != 1 {
            return Err(invalid("(#100) a message has a text, an attachment or a template"));
        }
        if message.template.is_some() && self.messaging_type != MessagingType::Utility {
            return Err(invalid("(#100) a template needs the messaging type UTILITY"));
        }
        if self.messaging_type == MessagingType::MessageTag && self.tag.is_none() {
            return Err(invalid("(#100) the messaging type MESSAGE_TAG needs a tag"));
        }
        if let Some(tag) = self.tag.as_deref().filter(|tag| DEAD_TAGS.contains(tag)) {
            return Err(invalid(format!("(#100) the message tag {tag} is no longer supported")));
        }
        let text = message.text.as_deref();
        if text.is_some_and(|text| text.is_empty() || text.encode_utf16().count() >= TEXT_LIMIT) {
            return Err(invalid("(#100) the length of param message[text] is out of range"));
        }
        let metadata = message.metadata.as_deref().unwrap_or_default();
        if metadata.chars().count() >= METADATA_LIMIT {
            return Err(invalid("(#100) the param message[metadata] is too long"));
        }
        Ok(())
    }
}

fn invalid(message: impl Into<String>) -> GraphError {
    GraphError::new(100, message)
}

fn is_form(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"))
}

/// Returns the fields of a form. A field that contains a JSON object becomes that object; any other value stays text.
fn form_fields(body: &[u8]) -> Map<String, Value> {
    form_urlencoded::parse(body)
        .map(|(name, text)| {
            let object = serde_json::from_str(&text).ok().filter(Value::is_object);
            (
                name.into_owned(),
                object.unwrap_or_else(|| Value::String(text.into_owned())),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: &Value) -> Result<Received, GraphError> {
        let body = body.to_string();
        Fields::read(&HeaderMap::new(), &Uri::from_static("/"), body.as_bytes()).into_message("page", 0)
    }

    #[test]
    fn limits_are_those_of_messenger() {
        let with_text = |text: String| {
            json!({
                "recipient": {"id": "6001"}, "messaging_type": "UPDATE", "message": {"text": text}
            })
        };
        let code = |result: Result<Received, GraphError>| result.map_err(|error| error.code);

        assert!(read(&with_text("é".repeat(1_999))).is_ok());
        assert_eq!(code(read(&with_text("é".repeat(2_000)))), Err(100));
        assert_eq!(code(read(&with_text("😀".repeat(1_000)))), Err(100));
        assert_eq!(code(read(&with_text(String::new()))), Err(100));
        assert_eq!(code(read(&json!({"recipient": {"id": "6001"}}))), Err(100));
        assert_eq!(code(read(&json!("text"))), Err(100));
    }

    #[test]
    fn form_is_read_like_json() {
        let mut headers = HeaderMap::new();
        let form = "application/x-www-form-urlencoded".parse().unwrap();
        headers.insert(header::CONTENT_TYPE, form);
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("recipient", r#"{"id":"6001"}"#)
            .append_pair("messaging_type", "UPDATE")
            .append_pair("message", r#"{"text":"hi","metadata":"key"}"#)
            .append_pair("access_token", "secret")
            .finish();

        let fields = Fields::read(&headers, &Uri::from_static("/"), body.as_bytes());

        assert_eq!(fields.credentials.token.as_deref(), Some("secret"));
        let message = fields.into_message("page", 0).unwrap();
        assert_eq!(message.contact_id, "6001");
        assert_eq!(message.metadata.as_deref(), Some("key"));
    }
}
