//! The ledger in numbers: the messages that contacts really received, by which the demo and the tests judge.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use shared::domain::delivery::Metadata;

use super::conversations::calls::LookupCalls;
use super::peak::peak_per_second;
use super::received::Received;

/// The maximal number of contacts that a summary names.
const NAMED_CONTACTS: usize = 100;

/// The ledger in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The number of messages.
    pub received: usize,
    /// The number of contacts with at least one message.
    pub contacts: usize,
    /// Contacts with more than one message, up to a hundred.
    pub contacts_twice: Vec<String>,
    /// The largest number of messages within any one second.
    pub peak_per_second: usize,
    /// The number of calls of the Conversations API, including refused ones.
    pub conversation_calls: usize,
    /// The largest number of those calls by one Page within any one second.
    pub peak_conversation_calls_per_second: usize,
}

/// Counts the received messages and the lookups.
pub fn summarize(received: &[Received], calls: &LookupCalls) -> Summary {
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

/// The messages of each broadcast, counted as they arrive: a ledger of 100,000 messages is too long to be read for each page.
#[derive(Debug, Default)]
pub struct Broadcasts(HashMap<String, Counted>);

/// The messages of one broadcast.
#[derive(Debug, Default)]
struct Counted {
    by_contact: HashMap<String, usize>,
    messages: usize,
    contacts_twice: usize,
    last_at: i64,
}

/// The messages of one broadcast in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BroadcastSummary {
    /// The broadcast.
    pub broadcast_id: String,
    /// The number of messages.
    pub messages: usize,
    /// The number of contacts with at least one message.
    pub contacts: usize,
    /// The number of contacts with more than one message.
    pub contacts_twice: usize,
    /// The time of the last message, in milliseconds since 1970.
    pub last_at: i64,
}

impl Broadcasts {
    /// Counts a message for the broadcast that its metadata names. Other messages belong to none.
    pub fn count(&mut self, message: &Received) {
        let Some(Metadata { job, .. }) = message.metadata.as_deref().and_then(Metadata::parse) else {
            return;
        };
        let counted = self.0.entry(job.broadcast_id.to_string()).or_default();
        let messages = counted.by_contact.entry(message.contact_id.clone()).or_default();
        *messages += 1;
        counted.contacts_twice += usize::from(*messages == 2);
        counted.messages += 1;
        counted.last_at = message.at;
    }

    /// Returns the numbers of each broadcast, the one with the newest message first.
    pub fn summaries(&self) -> Vec<BroadcastSummary> {
        let summary = |(broadcast_id, counted): (&String, &Counted)| BroadcastSummary {
            broadcast_id: broadcast_id.clone(),
            messages: counted.messages,
            contacts: counted.by_contact.len(),
            contacts_twice: counted.contacts_twice,
            last_at: counted.last_at,
        };
        let mut summaries: Vec<_> = self.0.iter().map(summary).collect();
        summaries.sort_by_key(|summary| Reverse((summary.last_at, summary.broadcast_id.clone())));
        summaries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contact_with_two_messages_is_named() {
        let message = Received::to;
        let summary = summarize(
            &[message("ana"), message("ben"), message("ana")],
            &LookupCalls::default(),
        );

        assert_eq!(summary.received, 3);
        assert_eq!(summary.contacts, 2);
        assert_eq!(summary.contacts_twice, ["ana"]);
    }

    #[test]
    fn messages_are_counted_by_broadcast() {
        let mut broadcasts = Broadcasts::default();
        let first = "019ac2f07d3e7c51a0e0b5c4d3e2f1a1";
        let second = "019ac2f07d3e7c51a0e0b5c4d3e2f1a2";
        for (at, broadcast_id, contact_id) in [
            (1, first, "ana"),
            (2, first, "ben"),
            (3, second, "ana"),
            (4, first, "ana"),
        ] {
            broadcasts.count(&Received {
                metadata: Some(format!("oncecast/1 {broadcast_id} page 1 {contact_id}")),
                at,
                ..Received::to(contact_id)
            });
        }
        broadcasts.count(&Received::to("eve"));

        let summary = |broadcast_id: &str, messages, contacts, contacts_twice, last_at| BroadcastSummary {
            broadcast_id: broadcast_id.to_owned(),
            messages,
            contacts,
            contacts_twice,
            last_at,
        };
        assert_eq!(
            broadcasts.summaries(),
            [summary(first, 3, 2, 1, 4), summary(second, 1, 1, 0, 3)]
        );
    }
}
