//! The state of the sandbox, which its routes share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::runtime::clock::Clock;

use super::access::Access;
use super::conversations::calls::LookupCalls;
use super::conversations::message::{ConversationMessage, ForeignMessage};
use super::conversations::people::People;
use super::faults::Faults;
use super::inbox::InboxMessage;
use super::ledger::{self, Broadcasts, Summary};
use super::profiles::Profiles;
use super::received::Received;
use super::webhooks::{Subscription, Webhooks};

/// The state that the routes share.
#[derive(Debug)]
pub struct SandboxState {
    contents: Mutex<Contents>,
    in_flight: AtomicUsize,
    peak_in_flight: AtomicUsize,
}

impl SandboxState {
    /// Returns the state of a sandbox without messages. `tokens` are the Page access tokens by Page id.
    pub fn new(tokens: BTreeMap<String, String>, webhooks: Webhooks, clock: Clock) -> SandboxState {
        SandboxState {
            contents: Mutex::new(Contents::new(tokens, webhooks, clock)),
            in_flight: AtomicUsize::new(0),
            peak_in_flight: AtomicUsize::new(0),
        }
    }

    /// Locks the contents.
    pub fn contents(&self) -> MutexGuard<'_, Contents> {
        // Each change is a single statement, so a panic elsewhere leaves no change incomplete.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends all later events to this subscriber.
    pub fn subscribe(&self, subscription: Subscription) {
        self.contents().webhooks.subscription = Some(Arc::new(subscription));
    }

    /// Counts a send as in flight until the returned value is dropped, by an answer or because the caller has
    /// disconnected.
    pub fn enter(&self) -> InFlight<'_> {
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak_in_flight.fetch_max(now, Ordering::SeqCst);
        InFlight(&self.in_flight)
    }

    /// Returns the largest number of sends that were in flight at the same time.
    pub fn peak_in_flight(&self) -> usize {
        self.peak_in_flight.load(Ordering::SeqCst)
    }
}

/// A send in flight; dropping it ends the count.
pub struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The messages of the sandbox, and its settings.
#[derive(Debug)]
pub struct Contents {
    clock: Clock,
    pub access: Access,
    /// The messages that contacts received from Oncecast, in order of arrival.
    pub received: Vec<Received>,
    /// The same messages in numbers, by broadcast.
    pub broadcasts: Broadcasts,
    /// The messages that Oncecast did not send, by Page and contact.
    foreign: BTreeMap<(String, String), Vec<ConversationMessage>>,
    /// The people who have a conversation with each Page, for its list of conversations.
    pub people: BTreeMap<String, People>,
    /// The time for which a message stays hidden from lookups, in milliseconds.
    pub visible_after_ms: u64,
    pub calls: LookupCalls,
    pub profiles: Profiles,
    pub faults: Faults,
    pub webhooks: Webhooks,
}

impl Contents {
    fn new(tokens: BTreeMap<String, String>, webhooks: Webhooks, clock: Clock) -> Contents {
        Contents {
            clock,
            access: Access::new(tokens),
            received: Vec::new(),
            broadcasts: Broadcasts::default(),
            foreign: BTreeMap::new(),
            people: BTreeMap::new(),
            visible_after_ms: 0,
            calls: LookupCalls::default(),
            profiles: Profiles::default(),
            faults: Faults::default(),
            webhooks,
        }
    }

    /// Returns the time in milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.clock.now().as_millisecond()
    }

    /// Delivers a message to its contact, and sends the echo to the subscriber.
    pub fn deliver(&mut self, message: Received) {
        self.webhooks.notify_received(&message, &mut self.faults);
        self.broadcasts.count(&message);
        self.received.push(message);
    }

    /// Adds a message that Oncecast did not send to its conversation, and sends its event to the subscriber. Returns
    /// the message's id.
    pub fn add_foreign(&mut self, message: ForeignMessage) -> String {
        let conversation = (message.page_id.clone(), message.contact_id.clone());
        let message = ConversationMessage::foreign(message, self.now_ms());
        let id = message.id.clone();
        let (page_id, contact_id) = (&conversation.0, &conversation.1);
        self.webhooks
            .notify_foreign(page_id, contact_id, &message, &mut self.faults);
        self.foreign.entry(conversation).or_default().push(message);
        id
    }

    /// Returns the messages of a conversation that lookups find now, newest first.
    pub fn conversation(&self, page_id: &str, contact_id: &str) -> Vec<ConversationMessage> {
        let received = self
            .received
            .iter()
            .filter(|message| message.page_id == page_id && message.contact_id == contact_id)
            .map(ConversationMessage::received);
        let key = (page_id.to_owned(), contact_id.to_owned());
        let foreign = self.foreign.get(&key).into_iter().flatten().cloned();
        let visible = self.now_ms().saturating_sub_unsigned(self.visible_after_ms);
        let mut messages: Vec<ConversationMessage> = received
            .chain(foreign)
            .filter(|message| message.arrived_at <= visible)
            .collect();
        messages.sort_by_key(|message| message.created_at);
        messages.reverse();
        messages
    }

    /// Returns a conversation as the contact sees it, oldest message first.
    pub fn inbox(&self, page_id: &str, contact_id: &str) -> Vec<InboxMessage> {
        let is_of = |message: &&Received| message.page_id == page_id && message.contact_id == contact_id;
        let received = self.received.iter().filter(is_of).map(InboxMessage::from);
        let key = (page_id.to_owned(), contact_id.to_owned());
        let foreign = self.foreign.get(&key).into_iter().flatten().map(InboxMessage::from);
        let mut messages: Vec<_> = received.chain(foreign).collect();
        messages.sort_by_key(|message| message.at);
        messages
    }

    /// Gives the Page these people, and forgets the cursors of the list.
    pub fn set_people(&mut self, page_id: &str, people: People) {
        let people = match self.people.get(page_id) {
            Some(before) => people.after(before),
            None => people,
        };
        self.people.insert(page_id.to_owned(), people);
    }

    /// Forgets the cursors of the list of the Page's conversations; `false` if it has no people.
    pub fn expire_cursors(&mut self, page_id: &str) -> bool {
        let people = self.people.get_mut(page_id);
        people.map(People::expire_cursors).is_some()
    }

    /// Returns the ledger in numbers.
    pub fn summary(&self) -> Summary {
        ledger::summarize(&self.received, &self.calls)
    }

    /// Empties the ledger and all conversations.
    pub fn forget_messages(&mut self) {
        self.received.clear();
        self.broadcasts = Broadcasts::default();
        self.foreign.clear();
    }
}
