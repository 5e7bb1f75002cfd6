//! Messenger's Conversations API: reads the conversation of a Page and a contact, and looks for a message in it.
//!
//! The API shows no metadata, so a message is recognized by sender, recipient, time and text. It shows details of the newest
//! twenty messages only, and takes two calls a second per Page. Sources:
//! <https://developers.facebook.com/documentation/business-messaging/messenger-platform/conversations>,
//! <https://developers.facebook.com/docs/graph-api/reference/message>

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer};

use crate::domain::digest::is_digest_of;
use crate::domain::ids::{ContactId, PageId};
use crate::messenger::MessengerClient;
use crate::messenger::errors::SendError;

/// The difference that is allowed between Messenger's clock and ours; besides, Messenger shows whole seconds.
pub(crate) const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(5);

/// A message as the conversation shows it; a field that is `None` is not shown.
#[derive(Debug, Deserialize)]
struct ShownMessage {
    id: String,
    #[serde(default, deserialize_with = "graph_time")]
    created_time: Option<Timestamp>,
    #[serde(default)]
    from: Option<Party>,
    #[serde(default)]
    to: List<Party>,
    /// The text; empty if the message is not a text.
    #[serde(default)]
    message: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Party {
    id: String,
}

/// A list of the Graph API.
#[derive(Debug, Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
struct List<T> {
    #[serde(default = "Vec::new")]
    data: Vec<T>,
    #[serde(default)]
    paging: Paging,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self {
            data: Vec::new(),
            paging: Paging::default(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct Paging {
    #[serde(default)]
    next: Option<String>,
}

/// Parses the Graph API's form of a time: `2026-11-23T10:00:00+0000`.
fn graph_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| Timestamp::strptime("%Y-%m-%dT%H:%M:%S%z", text).ok()))
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
    /// The ids and times of the messages that match, the oldest first.
    Found(Vec<(String, Timestamp)>),
    /// No message matches.
    Absent,
    /// The view is cut off, or a message may or may not match; the reason in words.
    Unclear(&'static str),
}

/// The messages of a Page and a contact, as far as they are shown.
#[derive(Debug)]
pub struct Conversation(List<ShownMessage>);

impl MessengerClient {
    /// Returns the id of the Page's conversation with a contact, if there is one.
    ///
    /// # Errors
    /// If Messenger refuses the call or does not answer it.
    pub async fn conversation_id(&self, contact_id: &ContactId) -> Result<Option<String>, SendError> {
        let query = [("platform", "messenger"), ("user_id", contact_id.as_str())];
        let path = [self.page_id.as_str(), "conversations"];
        let found: List<Party> = self.get(&path, &query).await?;
        Ok(found.data.into_iter().next().map(|conversation| conversation.id))
    }

    /// Reads the newest messages of a conversation.
    ///
    /// # Errors
    /// If Messenger refuses the call or does not answer it.
    pub async fn conversation(&self, id: &str) -> Result<Conversation, SendError> {
        const FIELDS: &str = "messages{id,created_time,from,to,message,attachments}";
        #[derive(Deserialize)]
        struct Shown {
            #[serde(default)]
            messages: List<ShownMessage>,
        }
        let shown: Shown = self.get(&[id], &[("fields", FIELDS)]).await?;
        Ok(Conversation(shown.messages))
    }
}

impl Conversation {
    /// Looks for a message. `Absent` means that the conversation is shown back to the reservation and holds no match; a view
    /// that is cut off earlier is `Unclear`.
    pub fn find(&self, query: &LookupQuery<'_>) -> LookupResult {
        let Self(shown) = self;
        let since = query.reserved_at - CLOCK_TOLERANCE;
        let mut matches = Vec::new();
        let mut unclear = None;
        for message in &shown.data {
            let Some(at) = message.created_time.filter(|at| *at >= since) else {
                continue;
            };
            let from_page = message.from.as_ref().map(|from| from.id.as_str());
            let to_contact = message.to.data.iter();
            if from_page != Some(query.page_id.as_str())
                || !to_contact.into_iter().any(|to| to.id == query.contact_id.as_str())
            {
                continue;
            }
            let text = message.message.as_deref().unwrap_or_default();
            match query.content {
                Content::Text(wanted) if is_digest_of(wanted, text) => {}
                Content::Attachment | Content::Template if text.is_empty() => {}
                Content::Template => {
                    unclear = Some("a text is there that may be made from the template");
                    continue;
                }
                Content::Text(_) | Content::Attachment => continue,
            }
            matches.push((message.id.clone(), at));
        }
        if !matches.is_empty() {
            matches.sort_by_key(|(_, at)| *at);
            return LookupResult::Found(matches);
        }
        let times = shown.data.iter().filter_map(|message| message.created_time);
        let goes_back_far_enough = times.min().is_some_and(|oldest| oldest < since);
        let is_whole = shown.paging.next.is_none() && shown.data.iter().all(|message| message.created_time.is_some());
        match unclear {
            Some(reason) => LookupResult::Unclear(reason),
            None if is_whole || goes_back_far_enough => LookupResult::Absent,
            None => LookupResult::Unclear("too many messages have been written since"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::digest::digest;

    fn message(id: &str, second: u32, text: &str) -> Value {
        json!({
            "id": id,
            "created_time": format!("2026-11-23T10:00:{second:02}+0000"),
            "from": {"id": "page", "name": "The Page"},
            "to": {"data": [{"id": "ana"}]},
            "message": text,
        })
    }

    /// Looks for content that was reserved ten seconds past ten.
    fn find(content: Content<'_>, shown: Value) -> LookupResult {
        let conversation = Conversation(serde_json::from_value(shown).unwrap());
        conversation.find(&LookupQuery {
            page_id: &PageId::parse("page").unwrap(),
            contact_id: &ContactId::parse("ana").unwrap(),
            content,
            reserved_at: "2026-11-23T10:00:10.9Z".parse().unwrap(),
        })
    }

    fn find_text(messages: &[Value]) -> LookupResult {
        find(Content::Text(&digest("hi")), json!({"data": messages}))
    }

    fn ids(result: LookupResult) -> Vec<String> {
        match result {
            LookupResult::Found(matches) => matches.into_iter().map(|(id, _)| id).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn message_is_recognized_by_text_and_time() {
        let messages = [message("m2", 20, "hi"), message("m1", 6, " hi\n")];
        assert_eq!(ids(find_text(&messages)), ["m1", "m2"]);
        for other in [message("m", 5, "hi"), message("m", 11, "Hi"), message("m", 11, "")] {
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
        let far_enough = find_text(&[message("m2", 30, "bye"), message("m1", 3, "hi"), hidden]);
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
}
