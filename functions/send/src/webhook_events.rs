//! The events of a webhook call, read one by one: an event that cannot be read spoils no other, and of an event only what is
//! needed is read.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::value::RawValue;
use shared::domain::consent::{Consent, Words};
use shared::domain::delivery::Metadata;
use shared::domain::ids::{ContactId, PageId};
use shared::messenger::json::{self, Object};

/// The word with which the metadata of our messages begins, however JSON escapes what follows.
const OUR_WORD: &str = "oncecast";

/// The kinds of events, besides messages and opt-ins, that a contact causes.
const INTERACTIONS: [&str; 3] = ["postback", "reaction", "referral"];

/// An event that concerns a delivery or a contact.
#[derive(Debug)]
pub enum Event {
    /// A message of Oncecast was sent.
    Echo(Echo),
    /// A contact did something that Messenger reports.
    Interaction(Interaction),
    /// The event, or the list that holds it, cannot be read.
    Unreadable(Unreadable),
}

/// A message of a contact to its Page, a reaction, the use of a button or a link of the Page, or an opt-in.
#[derive(Debug)]
pub struct Interaction {
    /// The contact.
    pub contact_id: ContactId,
    /// The contact's Page, if the event names one.
    pub page_id: Option<PageId>,
    /// The time of the event.
    pub at: Timestamp,
    /// The change that the contact asks for, if its message is wholly one of the words for it. The text itself is not kept.
    pub consent: Option<Consent>,
}

/// The words by which contacts opt out and in.
#[derive(Clone, Copy)]
pub struct ConsentWords<'a> {
    /// Those by which they opt out.
    pub opt_out: &'a Words,
    /// Those by which they opt in again.
    pub opt_in: &'a Words,
}

impl ConsentWords<'_> {
    fn consent(self, text: &str) -> Option<Consent> {
        if self.opt_out.have(text) {
            return Some(Consent::OptOut);
        }
        self.opt_in.have(text).then_some(Consent::OptIn)
    }
}

/// The report of a message that carries our metadata.
#[derive(Debug)]
pub struct Echo {
    /// The metadata.
    pub metadata: Metadata,
    /// Messenger's id of the message; never empty.
    pub message_id: String,
    /// The Page that the event is reported for, if the call names it.
    page_id: Option<String>,
    sender: String,
    recipient: String,
}

/// An event, or a list of events, that cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    /// `true` if it contains the beginning of our metadata where an echo has it.
    pub may_be_our_echo: bool,
    /// The time at which Meta says that it sent the event; `None` if that cannot be read either.
    pub sent_at: Option<Timestamp>,
}

impl Echo {
    /// Returns true if the event is reported for this Page, and the Page is the sender.
    pub fn is_from(&self, page_id: &PageId) -> bool {
        let is = |id: &String| id == page_id.as_str();
        self.page_id.iter().all(is) && is(&self.sender)
    }

    /// Returns true if this contact is the recipient.
    pub fn is_to(&self, contact_id: &ContactId) -> bool {
        self.recipient == contact_id.as_str()
    }
}

/// Reads the body of a call. Events of kinds that concern neither a delivery nor a contact are left out.
pub fn read(body: &[u8], words: ConsentWords<'_>) -> Vec<Event> {
    let body = json::document(body);
    let unreadable = || vec![Entry::default().unreadable(names_us(&body))];
    let Some(call) = Object::parse(&body) else {
        return unreadable();
    };
    match (call.get("entry"), call.list("entry")) {
        (None, _) => Vec::new(),
        (Some(_), None) => unreadable(),
        (Some(_), Some(entries)) => {
            // An app may report events of Instagram, too, whose people have no Page.
            let is_of_page = call.text("object").is_none_or(|object| object == "page");
            let events = |entry| events(entry, is_of_page, words);
            entries.into_iter().flat_map(events).collect()
        }
    }
}

/// Returns the Pages that a call is about.
pub fn pages(body: &[u8]) -> BTreeSet<PageId> {
    let body = json::document(body);
    let Some(call) = Object::parse(&body) else {
        return BTreeSet::new();
    };
    let is_of_page = call.text("object").is_none_or(|object| object == "page");
    let entries = call.list("entry").filter(|_| is_of_page).unwrap_or_default();
    let id = |entry: &RawValue| PageId::parse(&Object::parse(entry.get())?.text("id")?).ok();
    entries.into_iter().filter_map(id).collect()
}

/// Returns the events of one entry: `messaging`, and `standby` while another app controls the conversation.
fn events(json: &RawValue, is_of_page: bool, words: ConsentWords<'_>) -> Vec<Event> {
    let Some(fields) = Object::parse(json.get()) else {
        return vec![Entry::default().unreadable(names_us(json.get()))];
    };
    let entry = Entry {
        is_of_page,
        page_id: fields.text("id"),
        sent_at: fields
            .integer("time")
            .and_then(|at| Timestamp::from_millisecond(at).ok()),
    };
    let mut events = Vec::new();
    for list in ["messaging", "standby"].into_iter().filter_map(|name| fields.get(name)) {
        match json::list(list.get()) {
            Some(list) => events.extend(list.into_iter().filter_map(|event| entry.event(event, words))),
            None => events.push(entry.unreadable(names_us(list.get()))),
        }
    }
    events
}

fn names_us(json: &str) -> bool {
    json.contains(OUR_WORD)
}

/// The fields that the events of one Page share.
#[derive(Default)]
struct Entry {
    /// True unless the call says that it is about something other than Pages.
    is_of_page: bool,
    page_id: Option<String>,
    sent_at: Option<Timestamp>,
}

impl Entry {
    fn unreadable(&self, may_be_our_echo: bool) -> Event {
        Event::Unreadable(Unreadable {
            may_be_our_echo,
            sent_at: self.sent_at,
        })
    }

    /// Reads one event; `None` if it is of another kind.
    fn event(&self, json: &RawValue, words: ConsentWords<'_>) -> Option<Event> {
        let Some(event) = Object::parse(json.get()) else {
            return Some(self.unreadable(names_us(json.get())));
        };
        let Some(message) = event.get("message") else {
            let is_interaction = INTERACTIONS.iter().any(|kind| event.get(kind).is_some()) || is_opt_in(&event);
            return is_interaction.then(|| self.interaction(&event, None));
        };
        let Some(fields) = Object::parse(message.get()) else {
            return Some(self.unreadable(names_us(message.get())));
        };
        if is_ours(&fields) {
            let echo = self.echo(&event, &fields).map(Event::Echo);
            return Some(echo.unwrap_or_else(|| self.unreadable(true)));
        }
        let consent = || fields.text("text").and_then(|text| words.consent(&text));
        (!fields.is_true("is_echo")).then(|| self.interaction(&event, consent()))
    }

    /// Reads an echo, of which these four values are the whole proof: metadata, message id, sender and recipient.
    fn echo(&self, event: &Object<'_>, message: &Object<'_>) -> Option<Echo> {
        Some(Echo {
            metadata: Metadata::parse(&message.text("metadata")?)?,
            message_id: message.text("mid").filter(|mid| !mid.is_empty())?,
            page_id: self.page_id.clone(),
            sender: event.object("sender")?.text("id")?,
            recipient: event.object("recipient")?.text("id")?,
        })
    }

    /// Returns the Page of an event that this sender caused. Entry and recipient must agree on it, and a Page that acts by itself
    /// is no contact.
    fn page_of(&self, event: &Object<'_>, sender: &str) -> Option<PageId> {
        let recipient = event.object("recipient").and_then(|recipient| recipient.text("id"));
        let page_id = self.page_id.as_ref().or(recipient.as_ref())?;
        let agrees = recipient.as_ref().is_none_or(|recipient| recipient == page_id);
        let page_id = PageId::parse(page_id).ok()?;
        (self.is_of_page && agrees && sender != page_id.as_str()).then_some(page_id)
    }

    fn interaction(&self, event: &Object<'_>, consent: Option<Consent>) -> Event {
        let read = || {
            let sender = event.object("sender")?.text("id")?;
            Some(Event::Interaction(Interaction {
                contact_id: ContactId::parse(&sender).ok()?,
                page_id: self.page_of(event, &sender),
                at: Timestamp::from_millisecond(event.integer("timestamp")?).ok()?,
                consent,
            }))
        };
        read().unwrap_or_else(|| self.unreadable(false))
    }
}

/// Returns whether a contact opts in. An opt-in by a checkbox names nobody yet, and one to marketing messages may be its end.
fn is_opt_in(event: &Object<'_>) -> bool {
    const STOP: &str = "STOP NOTIFICATIONS";
    let is_end = |opt_in: Object<'_>| {
        opt_in
            .text("notification_messages_status")
            .is_some_and(|status| status == STOP)
    };
    event.get("sender").is_some() && event.get("optin").is_some() && !event.object("optin").is_some_and(is_end)
}

/// Returns whether a message carries our metadata, in a form that this version writes; metadata that cannot be read counts as
/// ours if it contains our word.
fn is_ours(message: &Object<'_>) -> bool {
    match (message.get("metadata"), message.text("metadata")) {
        (_, Some(text)) => Metadata::is_like(&text),
        (Some(json), None) => names_us(json.get()),
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = "oncecast/1 0123456789abcdef0123456789abcdef 1002003004005 1 7000000000000001";

    /// Returns what is read: `echo`, `interaction`, or `unreadable`, with a mark if the event may be our echo.
    fn kinds(body: &str) -> Vec<&'static str> {
        let kind = |event: &Event| match event {
            Event::Echo(_) => "echo",
            Event::Interaction(_) => "interaction",
            Event::Unreadable(Unreadable {
                may_be_our_echo: true, ..
            }) => "unreadable echo",
            Event::Unreadable(_) => "unreadable",
        };
        let none = Words::default();
        let words = ConsentWords {
            opt_out: &none,
            opt_in: &none,
        };
        read(body.as_bytes(), words).iter().map(kind).collect()
    }

    fn call(events: &str) -> String {
        format!(r#"{{"object": "page", "entry": [{{"id": "1002003004005", "time": 5, "messaging": {events}}}]}}"#)
    }

    fn echo() -> String {
        format!(
            r#"{{"sender": {{"id": "1002003004005"}}, "recipient": {{"id": "7000000000000001"}},
                "message": {{"is_echo": true, "mid": "m_1", "metadata": "{METADATA}"}}}}"#
        )
    }

    #[test]
    fn odd_neighbour_spoils_no_echo() {
        for (odd, kind) in [
            (
                r#"{"sender": {"id": "7"}, "timestamp": 5, "message": {"mid": "m", "text": "ok \ud83d"}}"#,
                Some("interaction"),
            ),
            (
                r#"{"sender": {"id": 7}, "timestamp": "5", "message": {"text": "\udc00"}}"#,
                Some("interaction"),
            ),
            (r#"{"sender": {"id": 7}, "postback": {}}"#, Some("unreadable")),
            (r#"{"timestamp": 5, "message": {}}"#, Some("unreadable")),
            (r#"{"message": "text"}"#, Some("unreadable")),
            (
                r#"{"message": {"is_echo": true, "metadata": {"of": "another app"}, "mid": 5}}"#,
                None,
            ),
            (r#"{"\ud83d": 1e999, "read": {"watermark": 1e999}}"#, None),
            ("5", Some("unreadable")),
            ("null", Some("unreadable")),
        ] {
            let expected: Vec<_> = kind.into_iter().chain(["echo"]).collect();
            assert_eq!(kinds(&call(&format!("[{odd}, {}]", echo()))), expected, "{odd}");
        }
        let entries = format!(
            r#"{{"entry": [5, {{"messaging": {{}}}}, {{"messaging": null, "standby": [{}]}}, {{"changes": []}}]}}"#,
            echo()
        );
        assert_eq!(kinds(&entries), ["unreadable", "unreadable", "echo"]);
    }

    #[test]
    fn echo_is_read_in_whatever_types() {
        let of_number = |id: &str| (format!(r#""{id}""#), id.to_owned());
        for (usual, other) in [
            of_number("1002003004005"),
            of_number("7000000000000001"),
            (r#""m_1""#.to_owned(), "17".to_owned()),
            (
                r#""is_echo": true"#.to_owned(),
                r#""is_echo": "true", "text": "\ud83d""#.to_owned(),
            ),
            (r#""is_echo": true"#.to_owned(), r#""timestamp": null"#.to_owned()),
            ("oncecast/1".to_owned(), r"oncecast\/1".to_owned()),
        ] {
            let call = call(&format!("[{}]", echo()));
            assert!(call.contains(&usual));
            assert_eq!(kinds(&call.replace(&usual, &other)), ["echo"], "{other}");
        }
    }

    #[test]
    fn unreadable_event_with_our_metadata_may_be_our_echo() {
        for (usual, odd) in [
            (r#""mid": "m_1""#, r#""mid": """#),
            (r#""mid": "m_1""#, r#""mid": {}"#),
            (r#""mid": "m_1""#, r#""mid": "\ud83d""#),
            (r#""sender""#, r#""from""#),
            (r#"{"id": "7000000000000001"}"#, "null"),
            ("oncecast/1 0123", r"oncecast/1 \ud83d0123"),
            ("oncecast/1 0123", "oncecast/1 xyz"),
        ] {
            let call = call(&format!("[{}]", echo()));
            assert!(call.contains(usual));
            assert_eq!(kinds(&call.replace(usual, odd)), ["unreadable echo"], "{odd}");
        }
        assert_eq!(kinds(&call(&echo())), ["unreadable echo"], "no list");
        assert_eq!(kinds(&echo()[1..]), ["unreadable echo"], "no JSON");
        // Another version's, and a text that mentions us.
        assert_eq!(
            kinds(&call(&format!("[{}]", echo().replace("oncecast/1", "oncecast/2")))),
            [] as [&str; 0]
        );
        let mention = r#"[{"sender": {"id": "7"}, "timestamp": 5, "message": {"text": "oncecast/1 \ud83d"}}]"#;
        assert_eq!(kinds(&call(mention)), ["interaction"]);
    }

    #[test]
    fn metadata_begins_with_our_word() {
        assert!(Metadata::parse(METADATA).is_some() && Metadata::is_like(METADATA));
        assert!(METADATA.starts_with(OUR_WORD));
    }

    #[test]
    fn call_without_events_has_nothing_to_read() {
        for body in [
            "{}",
            r#"{"entry": null}"#,
            r#"{"entry": [{"id": 5, "changes": [{}]}, {"messaging": [{}]}]}"#,
        ] {
            assert_eq!(kinds(body), [] as [&str; 0], "{body}");
        }
        for body in ["", "nonsense", "[]", r#"{"entry": {}}"#] {
            assert_eq!(kinds(body), ["unreadable"], "{body}");
        }
    }
}
