//! The Conversations API: what a Page and a contact have written to each other, whoever wrote it.
//!
//! As Messenger's, it shows neither `metadata` nor the app that sent a message, whole seconds only, and details of the
//! newest messages only.

mod calls;
mod message;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Credentials;
use super::faults::{GraphError, Operation, Treatment};
use super::{Contents, Messenger};

pub use self::calls::Calls;
pub use self::message::{ForeignMessage, Message};

/// Messages in one answer.
const PAGE: usize = 25;
/// Messages of a conversation that are shown with details; of older ones only the id is.
const WITH_DETAILS: usize = 20;
/// What may be asked of a message.
const FIELDS: [&str; 6] = ["id", "created_time", "from", "to", "message", "attachments"];

impl Contents {
    /// Puts a message into a conversation, and tells the subscriber; its id.
    pub fn add_foreign(&mut self, message: ForeignMessage) -> String {
        let conversation = (message.page_id.clone(), message.contact_id.clone());
        let message = Message::foreign(message, self.now_ms());
        let id = message.id.clone();
        let (page_id, contact_id) = (&conversation.0, &conversation.1);
        self.webhooks
            .tell_foreign(page_id, contact_id, &message, &mut self.faults);
        self.foreign.entry(conversation).or_default().push(message);
        id
    }

    /// What look-ups find by now, newest first.
    fn conversation(&self, conversation: &Conversation) -> Vec<Message> {
        let Conversation(page_id, contact_id) = conversation;
        let received = self
            .received
            .iter()
            .filter(|message| message.page_id == *page_id && message.contact_id == *contact_id)
            .map(Message::received);
        let key = (page_id.clone(), contact_id.clone());
        let foreign = self.foreign.get(&key).into_iter().flatten().cloned();
        let visible = self.now_ms().saturating_sub_unsigned(self.visible_after_ms);
        let mut messages: Vec<Message> = received
            .chain(foreign)
            .filter(|message| message.arrived_at <= visible)
            .collect();
        messages.sort_by_key(|message| message.created_at);
        messages.reverse();
        messages
    }
}

/// Which conversation: Page and contact. They are its id, so that ids need no memory; callers must take it as it is.
#[derive(Debug, PartialEq, Eq)]
struct Conversation(String, String);

impl Conversation {
    fn id(&self) -> String {
        let Conversation(page_id, contact_id) = self;
        format!(
            "t_{}",
            BASE64_URL_SAFE_NO_PAD.encode(format!("{page_id} {contact_id}"))
        )
    }

    fn of_id(id: &str) -> Option<Conversation> {
        let names = BASE64_URL_SAFE_NO_PAD.decode(id.strip_prefix("t_")?).ok()?;
        let (page_id, contact_id) = std::str::from_utf8(&names).ok()?.split_once(' ')?;
        Some(Conversation(page_id.to_owned(), contact_id.to_owned()))
    }
}

#[derive(Debug, Deserialize)]
pub struct Find {
    platform: Option<String>,
    user_id: Option<String>,
}

/// `GET /v25.0/{page_id}/conversations?platform=messenger&user_id={contact_id}`: the one conversation, if there is one.
pub async fn find(
    State(messenger): State<Arc<Messenger>>,
    Path(page_id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
    Query(query): Query<Find>,
) -> Result<Response, GraphError> {
    let platform = query.platform.as_deref().unwrap_or("messenger");
    let (Some(contact_id), "messenger") = (query.user_id, platform) else {
        let message = "(#100) the sandbox finds conversations of Messenger by user_id only";
        return Err(GraphError::new(100, message));
    };
    let conversation = Conversation(page_id, contact_id);
    let treatment = messenger.admit(&conversation, &Credentials::read(&headers, &uri, None))?;
    let known = !messenger.contents().conversation(&conversation).is_empty();
    let data: Vec<Value> = known
        .then(|| json!({ "id": conversation.id() }))
        .into_iter()
        .collect();
    let answer = Json(json!({ "data": data }));
    Ok(treatment.answer(answer.into_response()).await)
}

#[derive(Debug, Deserialize)]
pub struct Read {
    fields: Option<String>,
    after: Option<String>,
}

/// `GET /v25.0/{conversation_id}?fields=messages{id,created_time,from,to,message,attachments}`: its newest messages.
pub async fn read(
    State(messenger): State<Arc<Messenger>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
    Query(query): Query<Read>,
) -> Result<Response, GraphError> {
    let conversation = Conversation::of_id(&id).ok_or_else(|| unknown(&id))?;
    let treatment = messenger.admit(&conversation, &Credentials::read(&headers, &uri, None))?;
    let fields = match query.fields.as_deref() {
        None => None,
        Some(fields) => {
            let of_messages = fields.strip_prefix("messages{");
            let of_messages = of_messages.and_then(|fields| fields.strip_suffix('}'));
            Some(parse_fields(of_messages.ok_or_else(|| no_field(fields))?)?)
        }
    };
    let messages = messenger.messages_of(&conversation)?;
    let mut answer = json!({ "id": id });
    if let Some(fields) = fields {
        answer["messages"] = listing(&conversation, &messages, &fields, None, &headers);
    }
    Ok(treatment.answer(Json(answer).into_response()).await)
}

/// `GET /v25.0/{conversation_id}/messages?fields=…&after=…`: where `paging.next` leads.
pub async fn messages(
    State(messenger): State<Arc<Messenger>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
    Query(query): Query<Read>,
) -> Result<Response, GraphError> {
    let conversation = Conversation::of_id(&id).ok_or_else(|| unknown(&id))?;
    let treatment = messenger.admit(&conversation, &Credentials::read(&headers, &uri, None))?;
    let fields = parse_fields(query.fields.as_deref().unwrap_or("id,created_time"))?;
    let messages = messenger.messages_of(&conversation)?;
    let after = query.after.as_deref();
    let answer = listing(&conversation, &messages, &fields, after, &headers);
    Ok(treatment.answer(Json(answer).into_response()).await)
}

impl Messenger {
    /// Lets a look-up in, or says why not: first the token, then the rate, then what was asked to go wrong.
    fn admit(
        &self,
        conversation: &Conversation,
        caller: &Credentials,
    ) -> Result<Treatment, GraphError> {
        let Conversation(page_id, contact_id) = conversation;
        let mut contents = self.contents();
        contents.access.check(page_id, caller)?;
        let now = contents.now_ms();
        contents.calls.admit(page_id, now)?;
        Ok(contents.faults.take(Operation::Lookup, page_id, contact_id))
    }

    fn messages_of(&self, conversation: &Conversation) -> Result<Vec<Message>, GraphError> {
        let messages = self.contents().conversation(conversation);
        if messages.is_empty() {
            return Err(unknown(&conversation.id()));
        }
        Ok(messages)
    }
}

/// One page of messages, after the one named.
fn listing(
    conversation: &Conversation,
    messages: &[Message],
    fields: &BTreeSet<&str>,
    after: Option<&str>,
    headers: &HeaderMap,
) -> Value {
    let Conversation(page_id, contact_id) = conversation;
    let shown = |(place, message): (usize, &Message)| {
        let mut details = message.details(page_id, contact_id);
        details.retain(|name, _| name == "id" || place < WITH_DETAILS && fields.contains(&**name));
        Value::Object(details)
    };
    let place = after.and_then(|after| messages.iter().position(|message| message.id == after));
    let start = place.map_or(0, |place| place + 1);
    let data: Vec<Value> = messages
        .iter()
        .enumerate()
        .skip(start)
        .take(PAGE)
        .map(shown)
        .collect();
    let mut listing = json!({ "data": data });
    let (Some(first), Some(last)) = (data.first(), data.last()) else {
        return listing;
    };
    listing["paging"] = json!({ "cursors": { "before": first["id"], "after": last["id"] } });
    if start + data.len() < messages.len() {
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("fields", &Vec::from_iter(fields.iter().copied()).join(","))
            .append_pair("after", last["id"].as_str().unwrap_or_default())
            .finish();
        let (host, id) = (host.unwrap_or_default(), conversation.id());
        listing["paging"]["next"] = format!("http://{host}/v25.0/{id}/messages?{query}").into();
    }
    listing
}

/// The names, which must be known: a misspelt one would only be missing from the answer.
fn parse_fields(fields: &str) -> Result<BTreeSet<&str>, GraphError> {
    let fields: BTreeSet<&str> = fields.split(',').collect();
    match fields.iter().find(|field| !FIELDS.contains(field)) {
        Some(field) => Err(no_field(field)),
        None => Ok(fields),
    }
}

fn no_field(field: &str) -> GraphError {
    let message = format!("(#100) Tried accessing nonexisting field ({field})");
    GraphError::new(100, message)
}

fn unknown(id: &str) -> GraphError {
    GraphError {
        subcode: Some(33),
        ..GraphError::new(
            100,
            format!("Unsupported get request. Object with ID '{id}' does not exist"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_its_conversation() {
        let conversation = Conversation("page".to_owned(), "ana/6001 €".to_owned());

        assert_eq!(
            Conversation::of_id(&conversation.id()).as_ref(),
            Some(&conversation)
        );
        assert_eq!(Conversation::of_id("t_nonsense"), None);
        assert_eq!(Conversation::of_id("page"), None);
    }
}
