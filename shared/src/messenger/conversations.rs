//! Messenger's Conversations API: reads the conversation of a Page and a contact, and looks for a message in it.
//!
//! The API shows no metadata, so a message is recognized by sender, recipient, time and text. It shows details of the newest
//! twenty messages only. Sources:
//! <https://developers.facebook.com/documentation/business-messaging/messenger-platform/conversations>,
//! <https://developers.facebook.com/docs/graph-api/reference/message>

use jiff::{SignedDuration, Timestamp};

use crate::domain::digest::is_digest_of;
use crate::domain::ids::{ContactId, PageId};
use crate::messenger::MessengerClient;
use crate::messenger::errors::SendError;
use crate::messenger::json::Object;

/// The difference between Messenger's clock and ours up to which a message's time is evidence; besides, Messenger shows whole
/// seconds.
pub(crate) const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(5);
/// The difference between any two clocks up to which a message's time proves nothing false: a message that is older than a
/// reservation by less may be that of the reservation, or of another one.
pub(crate) const MAX_CLOCK_DIFFERENCE: SignedDuration = SignedDuration::from_mins(5);

/// A message as the conversation shows it. A field that is `None` is not shown, or cannot be read.
#[derive(Debug, Default)]
struct ShownMessage {
    id: Option<String>,
    created_at: Option<Timestamp>,
    /// The id of the sender.
    from: Option<String>,
    /// The ids of the recipients.
    to: Vec<Option<String>>,
    /// The text; empty if the message is not a text.
    text: Option<String>,
    /// `true` if nothing is shown but the id, as of every message beyond the newest twenty.
    is_hidden: bool,
}

impl ShownMessage {
    /// Reads a message. One that is no object is a message of which nothing can be read.
    fn parse(json: &str) -> Self {
        let Some(message) = Object::parse(json) else {
            return Self::default();
        };
        let id = |party: Object<'_>| party.text("id");
        let recipients = message.object("to").and_then(|to| to.list("data")).unwrap_or_default();
        Self {
            id: message.text("id"),
            created_at: message.text("created_time").and_then(|text| graph_time(&text)),
            from: message.object("from").and_then(id),
            to: recipients
                .iter()
                .map(|to| Object::parse(to.get()).and_then(id))
                .collect(),
            text: message.text("message"),
            is_hidden: message.has_only(&["id"]),
        }
    }

    /// Returns whether this is the message that the lookup looks for, as far as can be told: one field that differs suffices
    /// to tell that it is not, and every field is needed to tell that it is.
    fn is(&self, query: &LookupQuery<'_>) -> Match {
        let fields = [
            self.created_at.map(|at| at >= query.since()),
            self.from.as_deref().map(|from| from == query.page_id.as_str()),
            self.is_to(query.contact_id),
            self.text.as_deref().and_then(|text| match query.content {
                Content::Text(wanted) if is_digest_of(wanted, text) => Some(true),
                // A character may be lost that was ours.
                Content::Text(_) => (!text.contains(char::REPLACEMENT_CHARACTER)).then_some(false),
                Content::Attachment => Some(text.is_empty()),
                Content::Template => Some(true),
            }),
        ];
        let is_text = self.text.as_deref().is_some_and(|text| !text.is_empty());
        match (self.id.clone(), self.created_at) {
            _ if fields.contains(&Some(false)) => Match::No,
            (Some(id), Some(at)) if !fields.contains(&None) => match query.content {
                Content::Template if is_text => Match::Unclear("a text is there that may be made from the template"),
                Content::Text(_) | Content::Attachment | Content::Template => Match::Yes(id, at),
            },
            _ => Match::Unclear("a message is there that cannot be read"),
        }
    }

    /// Returns whether a contact is a recipient; `None` if the recipients are not shown, or one of them cannot be read.
    fn is_to(&self, contact_id: &ContactId) -> Option<bool> {
        if self.to.iter().flatten().any(|to| to == contact_id.as_str()) {
            return Some(true);
        }
        (!self.to.is_empty() && self.to.iter().all(Option::is_some)).then_some(false)
    }
}

/// The relation of a shown message to the one that is looked for.
enum Match {
    /// It is that message, with this id and time.
    Yes(String, Timestamp),
    /// It is another message.
    No,
    /// It may be that message; the reason in words.
    Unclear(&'static str),
}

/// Parses the Graph API's form of a time, `2026-11-23T10:00:00+0000`, or that of RFC 3339.
fn graph_time(text: &str) -> Option<Timestamp> {
    let time = Timestamp::strptime("%Y-%m-%dT%H:%M:%S%z", text);
    time.or_else(|_| text.parse()).ok()
}

/// The message that a lookup looks for.
#[derive(Clone, Copy, Debug)]
pub struct LookupQuery<'a> {
    /// The Page that may have sent it.
    pub page_id: &'a PageId,
    /// The contact that may have got it.
    pub contact_id: &'a ContactId,
    /// Its content.
    pub content: Content<'a>,
    /// The time of its reservation.
    pub reserved_at: Timestamp,
    /// The time before which Messenger was not asked.
    pub asked_at: Timestamp,
    /// The time by which Messenger had answered.
    pub now: Timestamp,
}

impl LookupQuery<'_> {
    /// Returns the time before which the message cannot have been sent, however the clocks differ.
    fn since(&self) -> Timestamp {
        self.reserved_at - MAX_CLOCK_DIFFERENCE
    }

    /// Returns whether Messenger's clock agrees with ours, if it answered at this time by its own.
    fn agrees_with(&self, answered_at: Timestamp) -> bool {
        (self.asked_at - CLOCK_TOLERANCE..=self.now + CLOCK_TOLERANCE).contains(&answered_at)
    }
}

/// The content by which a message is recognized.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// A text, recognized by its [`digest`](crate::domain::digest::digest).
    Text(&'a str),
    /// An attachment, which is shown without a text.
    Attachment,
    /// An approved template, which is shown as a text that only Meta knows, or as an attachment.
    Template,
}

/// The result of a lookup in a conversation.
#[derive(Debug, PartialEq, Eq)]
pub enum LookupResult {
    /// Messages match.
    Found {
        /// Their ids and times, the oldest first.
        matches: Vec<(String, Timestamp)>,
        /// The reason in words why further messages may match, if there may be such.
        unclear: Option<&'static str>,
    },
    /// No message matches.
    Absent,
    /// The view is cut off, or a message may or may not match; the reason in words.
    Unclear(&'static str),
}

/// The messages of a Page and a contact, as far as they are shown.
#[derive(Debug, Default)]
pub struct Conversation {
    /// The newest messages, as Messenger orders them.
    messages: Vec<ShownMessage>,
    /// `true` if there are older messages.
    is_cut_off: bool,
    /// The reason in words why messages of any time may be missing.
    unclear: Option<&'static str>,
    /// The time of the answer by Messenger's clock.
    answered_at: Option<Timestamp>,
}

/// The answer to the question for the conversation of a Page and a contact.
#[derive(Debug)]
pub enum FoundConversation {
    /// There is none, or it cannot be told: nothing more is to be read.
    Read(Conversation),
    /// The conversation with this id is to be read.
    Unread(String),
}

impl MessengerClient {
    /// Finds the Page's conversation with a contact: the first of the two calls of a lookup.
    ///
    /// # Errors
    /// If Messenger refuses the call, or does not answer it with a JSON object.
    pub async fn find_conversation(&self, contact_id: &ContactId) -> Result<FoundConversation, SendError> {
        let query = [("platform", "messenger"), ("user_id", contact_id.as_str())];
        let path = [self.page_id.as_str(), "conversations"];
        let (listed, answered_at) = self.get(&path, &query).await?;
        let conversation = match Conversations::parse(&listed) {
            Conversations::None => Conversation::default(),
            Conversations::One(id) => return Ok(FoundConversation::Unread(id)),
            Conversations::Unclear(reason) => Conversation::unclear(reason),
        };
        Ok(FoundConversation::Read(conversation.answered(answered_at)))
    }

    /// Reads the newest messages of a conversation: the second call of a lookup.
    ///
    /// # Errors
    /// If Messenger refuses the call, or does not answer it with a JSON object.
    pub async fn conversation(&self, id: &str) -> Result<Conversation, SendError> {
        const FIELDS: &str = "messages{id,created_time,from,to,message,attachments}";
        let (shown, answered_at) = self.get(&[id], &[("fields", FIELDS)]).await?;
        Ok(Conversation::parse(&shown).answered(answered_at))
    }
}

/// The list of a Page's conversations with a contact.
#[derive(Debug, PartialEq, Eq)]
enum Conversations {
    None,
    /// The one with this id.
    One(String),
    Unclear(&'static str),
}

impl Conversations {
    fn parse(json: &str) -> Self {
        let found = Object::parse(json).and_then(|listed| Some((listed.list("data")?, has_more(&listed))));
        match found.as_ref().map(|(data, has_more)| (&data[..], has_more)) {
            Some(([], false)) => Self::None,
            Some(([one], false)) => match Object::parse(one.get()).and_then(|one| one.text("id")) {
                Some(id) => Self::One(id),
                None => Self::Unclear("the conversation's id cannot be read"),
            },
            Some(_) => Self::Unclear("there are several conversations"),
            None => Self::Unclear("the list of conversations cannot be read"),
        }
    }
}

/// Returns whether a list of the Graph API goes on. It does, too, if that cannot be read.
pub(super) fn has_more(list: &Object<'_>) -> bool {
    match list.get("paging") {
        None => false,
        Some(paging) => Object::parse(paging.get()).is_none_or(|paging| paging.get("next").is_some()),
    }
}

impl Conversation {
    /// Returns the conversation as Messenger showed it at this time by its own clock, if that is known.
    fn answered(self, answered_at: Option<Timestamp>) -> Self {
        Self { answered_at, ..self }
    }

    fn unclear(reason: &'static str) -> Self {
        Self {
            unclear: Some(reason),
            ..Self::default()
        }
    }

    fn parse(json: &str) -> Self {
        let messages = Object::parse(json).and_then(|shown| shown.object("messages"));
        let shown = messages.and_then(|messages| Some((messages.list("data")?, has_more(&messages))));
        match shown {
            Some((messages, is_cut_off)) => Self {
                messages: messages
                    .iter()
                    .map(|message| ShownMessage::parse(message.get()))
                    .collect(),
                is_cut_off,
                ..Self::default()
            },
            None => Self::unclear("the conversation's messages cannot be read"),
        }
    }

    /// Looks for a message. `Absent` means that the conversation is shown back to the reservation, and that every message in
    /// it is known to be another; what cannot be read is `Unclear`, and so is a view that is cut off earlier, and any view if
    /// the clocks differ. The matches include messages that are a little older than the reservation.
    pub fn find(&self, query: &LookupQuery<'_>) -> LookupResult {
        if self.answered_at.is_some_and(|at| !query.agrees_with(at)) {
            return LookupResult::Unclear("Messenger's clock and ours differ by more than 5 s");
        }
        // The oldest messages may be hidden; one that is hidden before others is odd, and may be any.
        let last_shown = self.messages.iter().rposition(|message| !message.is_hidden);
        let (shown, hidden) = self.messages.split_at(last_shown.map_or(0, |last| last + 1));
        let (mut matches, mut unclear) = (Vec::new(), self.unclear);
        for message in shown {
            match message.is(query) {
                Match::Yes(id, at) => matches.push((id, at)),
                Match::No => {}
                Match::Unclear(reason) => unclear = Some(reason),
            }
        }
        let oldest = shown.iter().filter_map(|message| message.created_at).min();
        let is_whole = !self.is_cut_off && hidden.is_empty();
        if !is_whole && oldest.is_none_or(|oldest| oldest >= query.since()) {
            unclear = unclear.or(Some("too many messages have been written since"));
        }
        matches.sort_by_key(|(_, at)| *at);
        match unclear {
            _ if !matches.is_empty() => LookupResult::Found { matches, unclear },
            Some(reason) => LookupResult::Unclear(reason),
            None => LookupResult::Absent,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::digest::digest;

    /// Returns a message of so many seconds after ten.
    fn message(id: &str, second: i64, text: &str) -> Value {
        let ten: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
        json!({
            "id": id,
            "created_time": (ten + SignedDuration::from_secs(second)).strftime("%Y-%m-%dT%H:%M:%S+0000").to_string(),
            "from": {"id": "page", "name": "The Page"},
            "to": {"data": [{"id": "ana"}]},
            "message": text,
        })
    }

    /// Looks for content that was reserved ten seconds past ten.
    fn find(content: Content<'_>, messages: Value) -> LookupResult {
        find_in(content, &json!({"id": "t_1", "messages": messages}).to_string())
    }

    fn find_in(content: Content<'_>, shown: &str) -> LookupResult {
        find_conversation(&Conversation::parse(shown), content)
    }

    fn find_conversation(conversation: &Conversation, content: Content<'_>) -> LookupResult {
        conversation.find(&LookupQuery {
            page_id: &PageId::parse("page").unwrap(),
            contact_id: &ContactId::parse("ana").unwrap(),
            content,
            reserved_at: "2026-11-23T10:00:10.9Z".parse().unwrap(),
            asked_at: "2026-11-23T10:02:40Z".parse().unwrap(),
            now: "2026-11-23T10:02:42Z".parse().unwrap(),
        })
    }

    fn find_text(messages: &[Value]) -> LookupResult {
        find(Content::Text(&digest("hi")), json!({"data": messages}))
    }

    fn ids(result: LookupResult) -> Vec<String> {
        match result {
            LookupResult::Found { matches, .. } => matches.into_iter().map(|(id, _)| id).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn message_is_recognized_by_text_and_time() {
        let messages = [message("m2", 20, "hi"), message("m1", -289, " hi\n")];
        assert_eq!(ids(find_text(&messages)), ["m1", "m2"]);
        for other in [message("m", -290, "hi"), message("m", 11, "Hi"), message("m", 11, "")] {
            assert_eq!(find_text(&[other]), LookupResult::Absent);
        }
    }

    #[test]
    fn message_of_another_sender_or_recipient_does_not_match() {
        let mut from_contact = message("m", 11, "hi");
        from_contact["from"]["id"] = json!("ana");
        let mut to_another = message("m", 11, "hi");
        to_another["to"]["data"][0]["id"] = json!("ben");
        assert_eq!(find_text(&[from_contact, to_another]), LookupResult::Absent);
        assert_eq!(find_text(&[]), LookupResult::Absent);
    }

    #[test]
    fn view_that_is_cut_off_proves_absence_only_if_it_goes_back_far_enough() {
        let hidden = json!({"id": "m"});
        let cut = find_text(&[message("m2", 30, "bye"), hidden.clone()]);
        assert!(matches!(cut, LookupResult::Unclear(_)), "{cut:?}");
        let far_enough = find_text(&[message("m2", 30, "bye"), message("m1", -300, "hi"), hidden]);
        assert_eq!(far_enough, LookupResult::Absent);
        let more = json!({"data": [message("m", 30, "bye")], "paging": {"next": "https://…"}});
        assert!(matches!(
            find(Content::Text(&digest("hi")), more),
            LookupResult::Unclear(_)
        ));
    }

    #[test]
    fn attachment_and_template_match_by_the_lack_of_a_text() {
        let shown = || json!({"data": [message("m2", 12, ""), message("m1", 11, "hi")]});
        assert_eq!(ids(find(Content::Attachment, shown())), ["m2"]);
        assert_eq!(ids(find(Content::Template, shown())), ["m2"]);
        let text = json!({"data": [message("m1", 11, "hi")]});
        assert_eq!(find(Content::Attachment, text.clone()), LookupResult::Absent);
        assert!(matches!(find(Content::Template, text), LookupResult::Unclear(_)));
    }

    #[test]
    fn odd_message_spoils_no_other_and_is_never_taken_for_absent() {
        let ours = || message("m2", 12, "hi");
        let odd = |change: fn(&mut Value)| {
            let mut odd = message("m3", 14, "hi");
            change(&mut odd);
            odd
        };
        for odd in [
            json!(5),
            json!({"id": "m3"}),
            odd(|message| message["created_time"] = json!("yesterday")),
            odd(|message| message["from"] = json!([])),
            odd(|message| message["to"] = json!({"data": []})),
            odd(|message| message["to"]["data"][0] = json!(null)),
            odd(|message| message["message"] = json!({"text": "hi"})),
            odd(|message| message["message"] = json!("h\u{FFFD}")),
            odd(|message| message["id"] = json!(null)),
        ] {
            let older = message("m1", 3, "bye");
            let unclear = find_text(&[odd.clone(), older.clone()]);
            assert!(matches!(unclear, LookupResult::Unclear(_)), "{odd}: {unclear:?}");
            let found = find_text(&[odd.clone(), ours(), older]);
            assert!(
                matches!(&found, LookupResult::Found { matches, unclear: Some(_) } if matches[0].0 == "m2"),
                "{odd}: {found:?}"
            );
        }
        // A field that differs tells that it is another message, whatever the others are.
        let another = odd(|message| (message["created_time"], message["message"]) = (json!(null), json!("bye")));
        assert_eq!(find_text(&[another]), LookupResult::Absent);
        let unlike =
            r#"{"id": "m3", "created_time": "2026-11-23T10:00:12+00:00", "from": {"id": "ana"}, "message": "\ud83d"}"#;
        let of_contact = format!(r#"{{"messages": {{"data": [{unlike}]}}}}"#);
        assert_eq!(find_in(Content::Text(&digest("hi")), &of_contact), LookupResult::Absent);
        let of_page = of_contact.replace(r#""ana""#, r#""page""#);
        let unclear = find_in(Content::Text(&digest("hi")), &of_page);
        assert!(matches!(unclear, LookupResult::Unclear(_)), "{unclear:?}");
    }

    #[test]
    fn match_does_not_hide_that_the_view_is_cut_off() {
        let more = json!({"data": [message("m", 30, "hi")], "paging": {"next": "https://…"}});
        let found = find(Content::Text(&digest("hi")), more);
        assert!(
            matches!(found, LookupResult::Found { unclear: Some(_), .. }),
            "{found:?}"
        );
    }

    #[test]
    fn view_proves_nothing_if_the_clocks_differ() {
        let find_answered_at = |time: &str| {
            let shown = json!({"messages": {"data": [message("m1", 11, "hi")]}}).to_string();
            let conversation = Conversation {
                answered_at: Some(time.parse().unwrap()),
                ..Conversation::parse(&shown)
            };
            find_conversation(&conversation, Content::Text(&digest("hi")))
        };
        for agreeing in ["2026-11-23T10:02:35Z", "2026-11-23T10:02:47Z"] {
            assert_eq!(ids(find_answered_at(agreeing)), ["m1"]);
        }
        for other in ["2026-11-23T10:02:34Z", "2026-11-23T10:02:48Z"] {
            assert!(matches!(find_answered_at(other), LookupResult::Unclear(_)), "{other}");
        }
    }

    #[test]
    fn view_that_cannot_be_read_proves_no_absence() {
        for shown in ["{}", r#"{"messages": null}"#, r#"{"messages": {"data": {}}}"#] {
            let unclear = find_in(Content::Attachment, shown);
            assert!(matches!(unclear, LookupResult::Unclear(_)), "{shown}: {unclear:?}");
        }
        for listed in [
            "{}",
            r#"{"data": null}"#,
            r#"{"data": [5]}"#,
            r#"{"data": [{"id": "t_1"}, {"id": "t_2"}]}"#,
            r#"{"data": [], "paging": {"next": "https://…"}}"#,
            r#"{"data": [], "paging": 5}"#,
        ] {
            let conversations = Conversations::parse(listed);
            assert!(
                matches!(conversations, Conversations::Unclear(_)),
                "{listed}: {conversations:?}"
            );
        }
        assert_eq!(Conversations::parse(r#"{"data": []}"#), Conversations::None);
        let one = r#"{"data": [{"id": 17, "name": "\ud83d"}], "paging": {"cursors": {}}}"#;
        assert_eq!(Conversations::parse(one), Conversations::One("17".to_owned()));
    }
}
