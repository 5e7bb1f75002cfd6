//! The ledger in numbers: the messages that contacts really received, by which the demo and the tests judge.

use std::collections::BTreeMap;

use serde::Serialize;

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
}
