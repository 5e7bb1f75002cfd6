//! Messenger's Conversations API: what a Page and a contact have written to each other, and whether a message is among it.
//!
//! It shows no metadata, so a message is known by sender, receiver, time and text; details are shown of the newest twenty
//! only. Two calls a second for one Page.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer};

use crate::ids::{ContactId, PageId};
use crate::message::digest;
use crate::messenger::Messenger;
use crate::verdict::SendError;

/// Messenger's clock and ours may differ by this; besides, it shows whole seconds.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_secs(5);

/// A message of a conversation; what is `None` is not shown.
#[derive(Debug, Deserialize)]
struct Message {
    id: String,
    #[serde(default, deserialize_with = "metas_time")]
    created_time: Option<Timestamp>,
    #[serde(default)]
    from: Option<Party>,
    #[serde(default)]
    to: List<Party>,
    /// Empty for what is no text.
    #[serde(default)]
    message: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Party {
    id: String,
}

/// The Graph API's lists.
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

/// `2026-11-23T10:00:00+0000`
fn metas_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| Timestamp::strptime("%Y-%m-%dT%H:%M:%S%z", text).ok()))
}

/// A message to look for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Who sent it, if anybody did.
    pub page_id: &'a PageId,
    /// Who got it.
    pub contact_id: &'a ContactId,
    /// What it says.
    pub content: Content<'a>,
    /// When it was reserved.
    pub reserved_at: Timestamp,
}

/// What a wanted message says.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// A text, known by its [`digest`].
    Text(&'a str),
    /// An attachment: shown without a text.
    Attachment,
    /// An approved template: shown as a text that only Meta knows, or as an attachment.
    Template,
}

/// What a look-up came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Sight {
    /// These messages are like the wanted one, the oldest first.
    Like(Vec<(String, Timestamp)>),
    /// No message is.
    Absent,
    /// The view was cut off, or what is shown may or may not be it.
    Unclear(&'static str),
}

/// What a Page and a contact have written to each other, as far as it is shown.
#[derive(Debug)]
pub struct Conversation(List<Message>);

impl Messenger {
    /// The id of the Page's conversation with a contact, if they have one.
    pub async fn conversation_id(
        &self,
        contact_id: &ContactId,
    ) -> Result<Option<String>, SendError> {
        let query = [("platform", "messenger"), ("user_id", contact_id.as_str())];
        let path = [self.page_id.as_str(), "conversations"];
        let found: List<Party> = self.get(&path, &query).await?;
        Ok(found
            .data
            .into_iter()
            .next()
            .map(|conversation| conversation.id))
    }

    /// The newest messages of a conversation.
    pub async fn conversation(&self, id: &str) -> Result<Conversation, SendError> {
        const FIELDS: &str = "messages{id,created_time,from,to,message,attachments}";
        #[derive(Deserialize)]
        struct Shown {
            #[serde(default)]
            messages: List<Message>,
        }
        let shown: Shown = self.get(&[id], &[("fields", FIELDS)]).await?;
        Ok(Conversation(shown.messages))
    }
}

impl Conversation {
    /// Whether the wanted message is there.
    pub fn look_for(&self, wanted: &Wanted<'_>) -> Sight {
        let Self(shown) = self;
        let since = wanted.reserved_at - CLOCKS_DIFFER;
        let mut like = Vec::new();
        let mut unclear = None;
        for message in &shown.data {
            let Some(at) = message.created_time.filter(|at| *at >= since) else {
                continue;
            };
            let from_page = message.from.as_ref().map(|from| from.id.as_str());
            let to_contact = message.to.data.iter();
            if from_page != Some(wanted.page_id.as_str())
                || !to_contact
                    .into_iter()
                    .any(|to| to.id == wanted.contact_id.as_str())
            {
                continue;
            }
            let text = message.message.as_deref().unwrap_or_default();
            match wanted.content {
                Content::Text(wanted) if digest(text) == wanted => {}
                Content::Attachment | Content::Template if text.is_empty() => {}
                Content::Template => {
                    unclear = Some("a text is there that may be made from the template");
                    continue;
                }
                Content::Text(_) | Content::Attachment => continue,
            }
            like.push((message.id.clone(), at));
        }
        if !like.is_empty() {
            like.sort_by_key(|(_, at)| *at);
            return Sight::Like(like);
        }
        let times = shown.data.iter().filter_map(|message| message.created_time);
        let goes_back_far_enough = times.min().is_some_and(|oldest| oldest < since);
        let is_whole = shown.paging.next.is_none()
            && shown
                .data
                .iter()
                .all(|message| message.created_time.is_some());
        match unclear {
            Some(reason) => Sight::Unclear(reason),
            None if is_whole || goes_back_far_enough => Sight::Absent,
            None => Sight::Unclear("too many messages have been written since"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn message(id: &str, second: u32, text: &str) -> Value {
        json!({
            "id": id,
            "created_time": format!("2026-11-23T10:00:{second:02}+0000"),
            "from": {"id": "page", "name": "The Page"},
            "to": {"data": [{"id": "ana"}]},
            "message": text,
        })
    }

    /// Looks for the text "hi", or for what is no text, reserved ten seconds past ten.
    fn look(content: Content<'_>, shown: Value) -> Sight {
        let conversation = Conversation(serde_json::from_value(shown).unwrap());
        conversation.look_for(&Wanted {
            page_id: &PageId::parse("page").unwrap(),
            contact_id: &ContactId::parse("ana").unwrap(),
            content,
            reserved_at: "2026-11-23T10:00:10.9Z".parse().unwrap(),
        })
    }

    fn look_for_text(messages: &[Value]) -> Sight {
        look(Content::Text(&digest("hi")), json!({"data": messages}))
    }

    fn ids(sight: Sight) -> Vec<String> {
        match sight {
            Sight::Like(like) => like.into_iter().map(|(id, _)| id).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_message_is_known_by_its_text_and_time() {
        let messages = [message("m2", 20, "hi"), message("m1", 6, " hi\n")];
        assert_eq!(ids(look_for_text(&messages)), ["m1", "m2"]);
        for other in [
            message("m", 5, "hi"),
            message("m", 11, "Hi"),
            message("m", 11, ""),
        ] {
            assert_eq!(look_for_text(&[other]), Sight::Absent);
        }
    }

    #[test]
    fn a_message_of_others_is_no_evidence() {
        let mut from_contact = message("m", 11, "hi");
        from_contact["from"]["id"] = json!("ana");
        let mut to_another = message("m", 11, "hi");
        to_another["to"]["data"][0]["id"] = json!("ben");
        assert_eq!(look_for_text(&[from_contact, to_another]), Sight::Absent);
        assert_eq!(look_for_text(&[]), Sight::Absent);
    }

    #[test]
    fn a_view_that_is_cut_off_proves_nothing_unless_it_goes_back_far_enough() {
        let hidden = json!({"id": "m"});
        let cut = look_for_text(&[message("m2", 30, "bye"), hidden.clone()]);
        assert!(matches!(cut, Sight::Unclear(_)), "{cut:?}");
        let far_enough = look_for_text(&[message("m2", 30, "bye"), message("m1", 3, "hi"), hidden]);
        assert_eq!(far_enough, Sight::Absent);
        let more = json!({"data": [message("m", 30, "bye")], "paging": {"next": "https://…"}});
        assert!(matches!(
            look(Content::Text(&digest("hi")), more),
            Sight::Unclear(_)
        ));
    }

    #[test]
    fn what_is_no_text_is_known_by_that() {
        let shown = || json!({"data": [message("m2", 12, ""), message("m1", 11, "hi")]});
        assert_eq!(ids(look(Content::Attachment, shown())), ["m2"]);
        assert_eq!(ids(look(Content::Template, shown())), ["m2"]);
        let text = json!({"data": [message("m1", 11, "hi")]});
        assert_eq!(look(Content::Attachment, text.clone()), Sight::Absent);
        assert!(matches!(look(Content::Template, text), Sight::Unclear(_)));
    }
}
