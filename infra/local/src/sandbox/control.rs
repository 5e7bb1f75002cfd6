//! The control API of the sandbox, below `/sandbox`: it shows the ledger and changes the settings. Bodies are JSON.
//!
//! | | |
//! |---|---|
//! | `GET /summary` | the ledger in numbers, and the number of lookups |
//! | `GET /messages` | every message that a contact received from Oncecast, in order of arrival; or those of a `page_id`, a `contact_id` or a `broadcast_id`, with a `limit` the last ones, with `before` those that arrived before the message with this id |
//! | `GET /broadcasts` | the messages of each broadcast in numbers, the one with the newest message first |
//! | `GET /conversations/{page_id}/{contact_id}` | the messages of a conversation as the contact sees them, oldest first |
//! | `POST /inbound` | adds a message from a contact: `{"page_id", "contact_id", "text"}` |
//! | `POST /messages` | adds a message that Oncecast did not send to a conversation: `{"page_id", "contact_id", "text", "from_contact"?, "at"?}`, `at` in milliseconds since 1970; answers with its `message_id` |
//! | `DELETE /messages` | empties the ledger and all conversations |
//! | `GET`, `PUT`, `DELETE /faults` | the injected faults: `{"latency_ms"?, "faults": [{"on"?: "send", "lookup", "list", "profile" or "echo", "contacts"?, "pages"?, "times"?, "latency_ms"?, "accept"?, "answer"}]}`; `answer` is `"ok"`, `"reset"`, `"hang"`, `{"error": {"code", "subcode"?, "message"?, "status"?}, "headers"?}` or `{"status", "body"}` |
//! | `POST /faults` | adds one of `faults` after the others |
//! | `DELETE /faults/{index}` | removes the fault at this place of the list |
//! | `GET /tokens` | the Pages: `{"PAGE": {"revoked": false}}` |
//! | `DELETE /tokens/{page_id}` | revokes the Page's access token; calls are then answered with error 190/460 |
//! | `PUT /tokens/{page_id}` | `{"token": "…"}` gives the Page a new access token, `{}` restores the revoked one |
//! | `PUT`, `DELETE /app-secret` | `{"app_secret", "required"?: false}`: a call with a wrong `appsecret_proof` is refused, and with `required` also a call without one |
//! | `PUT /conversations` | `{"visible_after_ms": 500}`: the age that a message must reach before lookups find it |
//! | `PUT /profiles` | `{"profiles"?: {"CONTACT": {"first_name", …}}, "refused_fields"?: ["timezone"]}`: adds or replaces the profiles of contacts, and sets the fields that the app may not read |
//! | `PUT /people/{page_id}` | the people who have a conversation with the Page: `{"count": 100000, "first"?: 0, "at_once"?: 100, "odd"?: []}`, with names in many scripts; `first` is the number of the first, so that two Pages may have the same, and `odd` conversations are shown unchanged. Faults `on` `list` concern the list |
//! | `DELETE /people/{page_id}/cursors` | forgets the cursors of the list, as Messenger does after some time |
//! | `PUT`, `DELETE /subscription` | the subscriber of webhooks: `{"url", "app_secret", "verify_token"?}`; with a token the URL must pass Meta's verification first, else 400. At the start there is no subscriber |
//! | `PUT /echoes` | `{"repeat"?: 1, "shuffle"?: false, "standby"?: false}`: the way in which echoes are sent; a fault on `echo` delays them (`latency_ms`) or loses them (any answer but `ok`) |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::conversations::message::ForeignMessage;
use super::conversations::people::People;
use super::faults::{Fault, Faults};
use super::inbox::{InboxMessage, LedgerQuery};
use super::ledger::{BroadcastSummary, Summary};
use super::received::Received;
use super::state::SandboxState;
use super::webhooks::{Echoes, SubscribeError, Subscription};

type SharedState = State<Arc<SandboxState>>;

/// Returns the routes below `/sandbox`.
pub fn routes() -> Router<Arc<SandboxState>> {
    Router::new()
        .route("/summary", get(summary))
        .route("/messages", get(messages).post(add_message).delete(forget_messages))
        .route("/broadcasts", get(broadcasts))
        .route("/conversations/{page_id}/{contact_id}", get(inbox))
        .route(
            "/faults",
            get(faults).put(set_faults).post(add_fault).delete(clear_faults),
        )
        .route("/faults/{index}", delete(remove_fault))
        .route("/tokens", get(tokens))
        .route("/tokens/{page_id}", put(give_token).delete(revoke_token))
        .route("/app-secret", put(set_app_secret).delete(clear_app_secret))
        .route("/inbound", post(add_inbound))
        .route("/conversations", put(set_conversations))
        .route("/profiles", put(set_profiles))
        .route("/people/{page_id}", put(set_people))
        .route("/people/{page_id}/cursors", delete(expire_cursors))
        .route("/subscription", put(subscribe).delete(unsubscribe))
        .route("/echoes", put(set_echoes))
}

async fn summary(State(state): SharedState) -> Json<Summary> {
    Json(state.contents().summary())
}

async fn messages(State(state): SharedState, Query(query): Query<LedgerQuery>) -> Json<Vec<Received>> {
    Json(query.select(&state.contents().received))
}

async fn broadcasts(State(state): SharedState) -> Json<Vec<BroadcastSummary>> {
    Json(state.contents().broadcasts.summaries())
}

async fn inbox(
    State(state): SharedState,
    Path((page_id, contact_id)): Path<(String, String)>,
) -> Json<Vec<InboxMessage>> {
    Json(state.contents().inbox(&page_id, &contact_id))
}

async fn add_message(State(state): SharedState, Json(message): Json<ForeignMessage>) -> Json<Value> {
    let message_id = state.contents().add_foreign(message);
    Json(json!({ "message_id": message_id }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Inbound {
    page_id: String,
    contact_id: String,
    text: String,
}

async fn add_inbound(state: SharedState, Json(inbound): Json<Inbound>) -> Json<Value> {
    let message = ForeignMessage {
        page_id: inbound.page_id,
        contact_id: inbound.contact_id,
        text: inbound.text,
        from_contact: true,
        at: None,
    };
    add_message(state, Json(message)).await
}

async fn forget_messages(State(state): SharedState) -> StatusCode {
    state.contents().forget_messages();
    StatusCode::NO_CONTENT
}

async fn faults(State(state): SharedState) -> Json<Faults> {
    Json(state.contents().faults.clone())
}

async fn set_faults(State(state): SharedState, Json(faults): Json<Faults>) -> Json<Faults> {
    state.contents().faults = faults.clone();
    Json(faults)
}

async fn add_fault(State(state): SharedState, Json(fault): Json<Fault>) -> StatusCode {
    state.contents().faults.faults.push(fault);
    StatusCode::NO_CONTENT
}

async fn remove_fault(State(state): SharedState, Path(index): Path<usize>) -> StatusCode {
    let faults = &mut state.contents().faults.faults;
    let found = index < faults.len();
    if found {
        faults.remove(index);
    }
    done_or_not_found(found)
}

async fn clear_faults(State(state): SharedState) -> StatusCode {
    state.contents().faults = Faults::default();
    StatusCode::NO_CONTENT
}

async fn tokens(State(state): SharedState) -> Json<BTreeMap<String, Value>> {
    let pages = state.contents().access.pages().into_iter();
    Json(
        pages
            .map(|(page_id, revoked)| (page_id, json!({ "revoked": revoked })))
            .collect(),
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    token: Option<String>,
}

async fn give_token(State(state): SharedState, Path(page_id): Path<String>, Json(given): Json<Token>) -> StatusCode {
    let access = &mut state.contents().access;
    match given.token {
        Some(token) => {
            access.set_token(page_id, token.into());
            StatusCode::NO_CONTENT
        }
        None => done_or_not_found(access.set_revoked(&page_id, false)),
    }
}

async fn revoke_token(State(state): SharedState, Path(page_id): Path<String>) -> StatusCode {
    done_or_not_found(state.contents().access.set_revoked(&page_id, true))
}

fn done_or_not_found(found: bool) -> StatusCode {
    if found {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::NOT_FOUND
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppSecret {
    app_secret: String,
    #[serde(default)]
    required: bool,
}

async fn set_app_secret(State(state): SharedState, Json(app): Json<AppSecret>) -> StatusCode {
    let access = &mut state.contents().access;
    access.set_app_secret(Some(app.app_secret.into()), app.required);
    StatusCode::NO_CONTENT
}

async fn clear_app_secret(State(state): SharedState) -> StatusCode {
    state.contents().access.set_app_secret(None, false);
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Conversations {
    visible_after_ms: u64,
}

async fn set_conversations(State(state): SharedState, Json(conversations): Json<Conversations>) -> StatusCode {
    let mut contents = state.contents();
    contents.visible_after_ms = conversations.visible_after_ms;
    StatusCode::NO_CONTENT
}

async fn set_people(State(state): SharedState, Path(page_id): Path<String>, Json(people): Json<People>) -> StatusCode {
    state.contents().set_people(&page_id, people);
    StatusCode::NO_CONTENT
}

async fn expire_cursors(State(state): SharedState, Path(page_id): Path<String>) -> StatusCode {
    done_or_not_found(state.contents().expire_cursors(&page_id))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewProfiles {
    #[serde(default)]
    profiles: BTreeMap<String, Map<String, Value>>,
    #[serde(default)]
    refused_fields: BTreeSet<String>,
}

async fn set_profiles(State(state): SharedState, Json(new): Json<NewProfiles>) -> StatusCode {
    let profiles = &mut state.contents().profiles;
    profiles.by_contact.extend(new.profiles);
    profiles.refused_fields = new.refused_fields;
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscriber {
    url: String,
    app_secret: String,
    verify_token: Option<String>,
}

async fn subscribe(
    State(state): SharedState,
    Json(subscriber): Json<Subscriber>,
) -> Result<StatusCode, (StatusCode, String)> {
    let refused = |error: SubscribeError| (StatusCode::BAD_REQUEST, error.to_string());
    let subscription = Subscription::new(subscriber.url, subscriber.app_secret.into()).map_err(refused)?;
    if let Some(verify_token) = subscriber.verify_token {
        subscription.verify(&verify_token.into()).await.map_err(refused)?;
    }
    state.subscribe(subscription);
    Ok(StatusCode::NO_CONTENT)
}

async fn unsubscribe(State(state): SharedState) -> StatusCode {
    state.contents().webhooks.subscription = None;
    StatusCode::NO_CONTENT
}

async fn set_echoes(State(state): SharedState, Json(echoes): Json<Echoes>) -> StatusCode {
    state.contents().webhooks.echoes = echoes;
    StatusCode::NO_CONTENT
}
