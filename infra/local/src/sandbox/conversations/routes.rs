//! The routes of the Conversations API.

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

use super::message::ConversationMessage;
use super::people::ListQuery;
use crate::sandbox::access::Credentials;
use crate::sandbox::faults::{GraphError, Operation, Treatment};
use crate::sandbox::state::SandboxState;

/// The number of messages in one answer.
const PAGE: usize = 25;
/// The number of messages of a conversation that are shown with details. Older messages are shown with their id only.
const WITH_DETAILS: usize = 20;
/// The fields of a message.
const FIELDS: [&str; 6] = ["id", "created_time", "from", "to", "message", "attachments"];

/// A conversation, named by Page and contact. Its id encodes both, so that the sandbox need not remember ids. To
/// callers the id is opaque.
#[derive(Debug, PartialEq, Eq)]
struct Conversation(String, String);

impl Conversation {
    fn id(&self) -> String {
        let Conversation(page_id, contact_id) = self;
        format!("t_{}", BASE64_URL_SAFE_NO_PAD.encode(format!("{page_id} {contact_id}")))
    }

    fn of_id(id: &str) -> Option<Conversation> {
        let names = BASE64_URL_SAFE_NO_PAD.decode(id.strip_prefix("t_")?).ok()?;
        let (page_id, contact_id) = std::str::from_utf8(&names).ok()?.split_once(' ')?;
        Some(Conversation(page_id.to_owned(), contact_id.to_owned()))
    }
}

/// The query of [`find`].
#[derive(Debug, Deserialize)]
pub struct FindQuery {
    platform: Option<String>,
    user_id: Option<String>,
    fields: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

/// Answers `GET /v25.0/{page_id}/conversations?platform=messenger&user_id={contact_id}` with the conversation, if there
/// is one; without `user_id` with a part of the list of the Page's people, by `fields`, `limit` and `after`.
///
/// # Errors
///
/// Answers with an error of the Graph API if the query or the token is not valid, or at the rate limit.
pub async fn find(
    State(state): State<Arc<SandboxState>>,
    Path(page_id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
    Query(query): Query<FindQuery>,
) -> Result<Response, GraphError> {
    if query.platform.as_deref().unwrap_or("messenger") != "messenger" {
        let message = "(#100) the sandbox has conversations of Messenger only";
        return Err(GraphError::new(100, message));
    }
    let Some(contact_id) = query.user_id else {
        let (treatment, people) = {
            let mut contents = state.contents();
            contents
                .access
                .check(&page_id, &Credentials::read(&headers, &uri, None))?;
            let now = contents.now_ms();
            contents.calls.admit(&page_id, now)?;
            let people = contents.people.get(&page_id).cloned().unwrap_or_default();
            (contents.faults.take(Operation::List, &page_id, ""), people)
        };
        let query = ListQuery {
            fields: query.fields,
            limit: query.limit,
            after: query.after,
        };
        let usual = match people.list(&page_id, &query, &headers) {
            Ok(listing) => Json(listing).into_response(),
            Err(error) => error.into_response(),
        };
        return Ok(treatment.answer(usual).await);
    };
    let conversation = Conversation(page_id, contact_id);
    let treatment = admit(&state, &conversation, &Credentials::read(&headers, &uri, None))?;
    let known = !state
        .contents()
        .conversation(&conversation.0, &conversation.1)
        .is_empty();
    let data: Vec<Value> = known.then(|| json!({ "id": conversation.id() })).into_iter().collect();
    let answer = Json(json!({ "data": data }));
    Ok(treatment.answer(answer.into_response()).await)
}

/// The query of [`read`] and [`messages`].
#[derive(Debug, Deserialize)]
pub struct ReadQuery {
    /// The fields that are asked for.
    pub fields: Option<String>,
    after: Option<String>,
}

/// Answers `GET /v25.0/{conversation_id}?fields=messages{id,created_time,from,to,message,attachments}` with the newest
/// messages of the conversation.
///
/// # Errors
///
/// Answers with an error of the Graph API if the conversation or a field does not exist, the token is not valid, or at
/// the rate limit.
pub async fn read(
    State(state): State<Arc<SandboxState>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
    Query(query): Query<ReadQuery>,
) -> Result<Response, GraphError> {
    let conversation = Conversation::of_id(&id).ok_or_else(|| unknown(&id))?;
    let treatment = admit(&state, &conversation, &Credentials::read(&headers, &uri, None))?;
    let fields = match query.fields.as_deref() {
        None => None,
        Some(fields) => {
            let of_messages = fields.strip_prefix("messages{");
            let of_messages = of_messages.and_then(|fields| fields.strip_suffix('}'));
            Some(parse_fields(of_messages.ok_or_else(|| GraphError::no_field(fields))?)?)
        }
    };
    let messages = messages_of(&state, &conversation)?;
    let mut answer = json!({ "id": id });
    if let Some(fields) = fields {
        answer["messages"] = listing(&conversation, &messages, &fields, None, &headers);
    }
    Ok(treatment.answer(Json(answer).into_response()).await)
}

/// Answers `GET /v25.0/{conversation_id}/messages?fields=…&after=…`, the URL of `paging.next`, with further messages.
///
/// # Errors
///
/// Answers with an error of the Graph API if the conversation or a field does not exist, the token is not valid, or at
/// the rate limit.
pub async fn messages(
    State(state): State<Arc<SandboxState>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
    Query(query): Query<ReadQuery>,
) -> Result<Response, GraphError> {
    let conversation = Conversation::of_id(&id).ok_or_else(|| unknown(&id))?;
    let treatment = admit(&state, &conversation, &Credentials::read(&headers, &uri, None))?;
    let fields = parse_fields(query.fields.as_deref().unwrap_or("id,created_time"))?;
    let messages = messages_of(&state, &conversation)?;
    let after = query.after.as_deref();
    let answer = listing(&conversation, &messages, &fields, after, &headers);
    Ok(treatment.answer(Json(answer).into_response()).await)
}

/// Checks the token and then the rate of a lookup, and returns its treatment by the injected faults.
fn admit(state: &SandboxState, conversation: &Conversation, caller: &Credentials) -> Result<Treatment, GraphError> {
    let Conversation(page_id, contact_id) = conversation;
    let mut contents = state.contents();
    contents.access.check(page_id, caller)?;
    let now = contents.now_ms();
    contents.calls.admit(page_id, now)?;
    Ok(contents.faults.take(Operation::Lookup, page_id, contact_id))
}

fn messages_of(state: &SandboxState, conversation: &Conversation) -> Result<Vec<ConversationMessage>, GraphError> {
    let messages = state.contents().conversation(&conversation.0, &conversation.1);
    if messages.is_empty() {
        return Err(unknown(&conversation.id()));
    }
    Ok(messages)
}

/// Returns one page of messages: those after the message with the id `after`, or else the newest.
fn listing(
    conversation: &Conversation,
    messages: &[ConversationMessage],
    fields: &BTreeSet<&str>,
    after: Option<&str>,
    headers: &HeaderMap,
) -> Value {
    let Conversation(page_id, contact_id) = conversation;
    let shown = |(position, message): (usize, &ConversationMessage)| {
        let mut details = message.details(page_id, contact_id);
        details.retain(|name, _| name == "id" || position < WITH_DETAILS && fields.contains(&**name));
        Value::Object(details)
    };
    let position = after.and_then(|after| messages.iter().position(|message| message.id == after));
    let start = position.map_or(0, |position| position + 1);
    let data: Vec<Value> = messages.iter().enumerate().skip(start).take(PAGE).map(shown).collect();
    let mut listing = json!({ "data": data });
    let (Some(first), Some(last)) = (data.first(), data.last()) else {
        return listing;
    };
    listing["paging"] = json!({ "cursors": { "before": first["id"], "after": last["id"] } });
    if start + data.len() < messages.len() {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("fields", &Vec::from_iter(fields.iter().copied()).join(","))
            .append_pair("after", last["id"].as_str().unwrap_or_default())
            .finish();
        let (host, id) = (host.unwrap_or_default(), conversation.id());
        listing["paging"]["next"] = format!("http://{host}/v25.0/{id}/messages?{query}").into();
    }
    listing
}

/// Returns the names of the fields. An unknown name is an error, because a misspelt field would merely be missing from
/// the answer.
fn parse_fields(fields: &str) -> Result<BTreeSet<&str>, GraphError> {
    let fields: BTreeSet<&str> = fields.split(',').collect();
    match fields.iter().find(|field| !FIELDS.contains(field)) {
        Some(field) => Err(GraphError::no_field(field)),
        None => Ok(fields),
    }
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
    fn id_identifies_its_conversation() {
        let conversation = Conversation("page".to_owned(), "ana/6001 €".to_owned());

        assert_eq!(Conversation::of_id(&conversation.id()).as_ref(), Some(&conversation));
        assert_eq!(Conversation::of_id("t_nonsense"), None);
        assert_eq!(Conversation::of_id("page"), None);
    }
}
