//! What contacts really received: the truth that the demo and the tests count by.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::conversations::Calls;
use super::request::{MessagingType, NotificationType};

/// How many contacts a summary names.
const NAMED_CONTACTS: usize = 100;

/// A message that a contact received.
///
/// It is read from the request, and is in the ledger if the sandbox took it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Received {
    /// Who sent it.
    pub page_id: String,
    /// Who got it.
    pub contact_id: String,
    /// Why it was sent.
    pub messaging_type: MessagingType,
    /// What allowed it outside of the 24 hours.
    pub tag: Option<String>,
    /// Whether a telephone rang.
    pub notification_type: Option<NotificationType>,
    /// None for a message that is not a text.
    pub text: Option<String>,
    /// None for a message without one.
    pub attachment: Option<Value>,
    /// None for a message that is not made from an approved template.
    pub template: Option<Value>,
    /// Answers to tap on.
    pub quick_replies: Option<Value>,
    /// What the sender attached for its own use.
    pub metadata: Option<String>,
    /// What proved that the sender knew the app's secret.
    pub appsecret_proof: Option<String>,
    /// The id that Messenger gave it.
    pub message_id: String,
    /// When Messenger took it, in milliseconds since 1970.
    pub at: i64,
}

#[cfg(test)]
impl Received {
    /// A message to this contact.
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

/// An id as Messenger makes them.
pub fn new_message_id() -> String {
    format!("m_{}", Uuid::new_v4().simple())
}

/// The ledger in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Messages.
    pub received: usize,
    /// Contacts with at least one message.
    pub contacts: usize,
    /// Contacts with more than one message, the first hundred.
    pub contacts_twice: Vec<String>,
    /// The most messages within any one second.
    pub peak_per_second: usize,
    /// Look-ups in conversations, refused ones included.
    pub conversation_calls: usize,
    /// The most of them by one Page within any one second.
    pub peak_conversation_calls_per_second: usize,
}

/// Counts what was received, and how often was looked up.
pub fn summarize(received: &[Received], calls: &Calls) -> Summary {
    let mut messages: BTreeMap<&str, usize> = BTreeMap::new();
    for message in received {
        *messages.entry(&message.contact_id).or_default() += 1;
    }
    let contacts_twice = messages
        .iter()
        .filter(|(_, count)| **count > 1)
        .map(|(contact_id, _)| (*contact_id).to_owned())
        .take(NAMED_CONTACTS)
        .collect();
    Summary {
        received: received.len(),
        contacts: messages.len(),
        contacts_twice,
        peak_per_second: peak_per_second(received.iter().map(|message| message.at)),
        conversation_calls: calls.count(),
        peak_conversation_calls_per_second: calls.peak_per_second(),
    }
}

/// The most arrivals within any span of one second.
pub fn peak_per_second(arrivals: impl Iterator<Item = i64>) -> usize {
    let mut arrivals: Vec<i64> = arrivals.collect();
    arrivals.sort_unstable();
    let mut first = 0;
    let mut peak = 0;
    for (last, at) in arrivals.iter().enumerate() {
        while at - arrivals[first] >= 1_000 {
            first += 1;
        }
        peak = peak.max(last - first + 1);
    }
    peak
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_may_lie_across_two_seconds_of_the_clock() {
        assert_eq!(
            peak_per_second([0, 900, 1_000, 1_899, 1_900].into_iter()),
            3
        );
        assert_eq!(peak_per_second([].into_iter()), 0);
    }

    #[test]
    fn a_contact_with_two_messages_is_named() {
        let message = Received::to;
        let summary = summarize(
            &[message("ana"), message("ben"), message("ana")],
            &Calls::default(),
        );

        assert_eq!(summary.received, 3);
        assert_eq!(summary.contacts, 2);
        assert_eq!(summary.contacts_twice, ["ana"]);
    }
}
