//! The messages as a person looks at them: a part of the ledger, and a conversation as the contact sees it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::conversations::message::ConversationMessage;
use super::received::Received;

/// The part of the ledger that is meant: all of it by default.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LedgerQuery {
    /// The Page that sent the messages.
    page_id: Option<String>,
    /// The contact that received them.
    contact_id: Option<String>,
    /// The broadcast that their metadata names.
    broadcast_id: Option<String>,
    /// The id of a message: those that arrived before it are meant.
    before: Option<String>,
    /// The maximal number of messages, of which the last to arrive are meant.
    limit: Option<usize>,
}

impl LedgerQuery {
    /// Returns this part of the ledger, in order of arrival.
    pub fn select(&self, received: &[Received]) -> Vec<Received> {
        let before = self.before.as_ref();
        let end = before.and_then(|id| received.iter().position(|message| message.message_id == *id));
        let wanted = |wanted: &Option<String>, id: &str| wanted.as_deref().is_none_or(|wanted| wanted == id);
        let mut selected: Vec<Received> = received[..end.unwrap_or(received.len())]
            .iter()
            .rev()
            .filter(|message| wanted(&self.page_id, &message.page_id) && wanted(&self.contact_id, &message.contact_id))
            .filter(|message| wanted(&self.broadcast_id, broadcast_of(message)))
            .take(self.limit.unwrap_or(usize::MAX))
            .cloned()
            .collect();
        selected.reverse();
        selected
    }
}

/// Returns the broadcast that the metadata of a message names, or nothing.
fn broadcast_of(message: &Received) -> &str {
    let words = message.metadata.as_deref().unwrap_or_default();
    words.split(' ').nth(1).unwrap_or_default()
}

/// A message of a conversation as the contact sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InboxMessage {
    /// The id that Messenger gave the message.
    pub message_id: String,
    /// True if the contact wrote it, false if the Page did.
    pub from_contact: bool,
    /// The text, if the message has one.
    pub text: Option<String>,
    /// The attachment as it was sent, if the message has one.
    pub attachment: Option<Value>,
    /// The approved template from which the message is made, if there is one.
    pub template: Option<Value>,
    /// The answers that the contact can tap on.
    pub quick_replies: Option<Value>,
    /// The time of the message, in milliseconds since 1970.
    pub at: i64,
}

impl From<&Received> for InboxMessage {
    fn from(message: &Received) -> InboxMessage {
        InboxMessage {
            message_id: message.message_id.clone(),
            from_contact: false,
            text: message.text.clone(),
            attachment: message.attachment.clone(),
            template: message.template.clone(),
            quick_replies: message.quick_replies.clone(),
            at: message.at,
        }
    }
}

impl From<&ConversationMessage> for InboxMessage {
    fn from(message: &ConversationMessage) -> InboxMessage {
        InboxMessage {
            message_id: message.id.clone(),
            from_contact: message.from_contact,
            text: Some(message.text.clone()),
            attachment: None,
            template: None,
            quick_replies: None,
            at: message.created_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_of_the_ledger_is_the_last_to_arrive_in_order() {
        let ledger = [("m1", "ana"), ("m2", "ben"), ("m3", "ana"), ("m4", "ana")].map(|(id, contact_id)| Received {
            message_id: id.to_owned(),
            metadata: Some(format!("oncecast/1 broadcast-{id} page 1 {contact_id}")),
            ..Received::to(contact_id)
        });
        let ids = |query: Value| {
            let query: LedgerQuery = serde_json::from_value(query).unwrap();
            let selected = query.select(&ledger);
            Vec::from_iter(selected.into_iter().map(|message| message.message_id))
        };

        assert_eq!(ids(serde_json::json!({})), ["m1", "m2", "m3", "m4"]);
        assert_eq!(ids(serde_json::json!({"limit": 2})), ["m3", "m4"]);
        assert_eq!(ids(serde_json::json!({"limit": 2, "before": "m3"})), ["m1", "m2"]);
        assert_eq!(ids(serde_json::json!({"contact_id": "ana", "limit": 2})), ["m3", "m4"]);
        assert_eq!(ids(serde_json::json!({"page_id": "another"})), [""; 0]);
        assert_eq!(ids(serde_json::json!({"broadcast_id": "broadcast-m2"})), ["m2"]);
    }
}
