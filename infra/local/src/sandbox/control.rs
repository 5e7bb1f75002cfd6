//! What the sandbox shows and is told from outside, below `/sandbox`. Bodies are JSON.
//!
//! | | |
//! |---|---|
//! | `GET /summary` | the ledger in numbers, and how often was looked up |
//! | `GET /messages` | every message that a contact received from Oncecast |
//! | `POST /inbound` | a message from a contact: `{"page_id", "contact_id", "text"}` |
//! | `POST /messages` | puts a message that Oncecast did not send into a conversation: `{"page_id", "contact_id", "text", "from_contact"?, "at"?}`, `at` in milliseconds since 1970; answers with its `message_id` |
//! | `DELETE /messages` | empties the ledger and all conversations |
//! | `GET`, `PUT`, `DELETE /faults` | what goes wrong: `{"latency_ms"?, "faults": [{"on"?: "send", "lookup" or "echo", "contacts"?, "pages"?, "times"?, "latency_ms"?, "accept"?, "answer"}]}`; `answer` is `"ok"`, `"reset"`, `"hang"`, `{"error": {"code", "subcode"?, "message"?, "status"?}, "headers"?}` or `{"status", "body"}` |
//! | `DELETE /tokens/{page_id}` | revokes the Page's access token: calls are answered with 190/460 |
//! | `PUT /tokens/{page_id}` | `{"token": "…"}` gives the Page a new one, `{}` its old one back |
//! | `PUT`, `DELETE /app-secret` | `{"app_secret", "required"?: false}`: a call with a wrong `appsecret_proof` is refused, and if required one without |
//! | `PUT /conversations` | `{"visible_after_ms": 500}`: how old a message must be until look-ups find it |
//! | `PUT`, `DELETE /subscription` | who is told of messages by webhooks: `{"url", "app_secret", "verify_token"?}`; with a token the URL must pass Meta's verification first, else 400. At the start nobody is |
//! | `PUT /echoes` | `{"repeat"?: 1, "shuffle"?: false, "standby"?: false}`: how echoes come; a fault on `echo` makes them late (`latency_ms`) or loses them (any answer but `ok`) |

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Messenger;
use super::conversations::ForeignMessage;
use super::faults::Faults;
use super::ledger::{Received, Summary};
use super::webhooks::{Echoes, SubscribeError, Subscription};

type Shared = State<Arc<Messenger>>;

/// Everything below `/sandbox`.
pub fn routes() -> Router<Arc<Messenger>> {
    Router::new()
        .route("/summary", get(summary))
        .route(
            "/messages",
            get(messages).post(add_message).delete(forget_messages),
        )
        .route("/faults", get(faults).put(set_faults).delete(clear_faults))
        .route("/tokens/{page_id}", put(give_token).delete(revoke_token))
        .route("/app-secret", put(set_app_secret).delete(clear_app_secret))
        .route("/inbound", post(add_inbound))
        .route("/conversations", put(set_conversations))
        .route("/subscription", put(subscribe).delete(unsubscribe))
        .route("/echoes", put(set_echoes))
}

async fn summary(State(messenger): Shared) -> Json<Summary> {
    Json(messenger.contents().summary())
}

async fn messages(State(messenger): Shared) -> Json<Vec<Received>> {
    Json(messenger.contents().received.clone())
}

async fn add_message(State(messenger): Shared, Json(message): Json<ForeignMessage>) -> Json<Value> {
    let message_id = messenger.contents().add_foreign(message);
    Json(json!({ "message_id": message_id }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Inbound {
    page_id: String,
    contact_id: String,
    text: String,
}

async fn add_inbound(messenger: Shared, Json(inbound): Json<Inbound>) -> Json<Value> {
    let message = ForeignMessage {
        page_id: inbound.page_id,
        contact_id: inbound.contact_id,
        text: inbound.text,
        from_contact: true,
        at: None,
    };
    add_message(messenger, Json(message)).await
}

async fn forget_messages(State(messenger): Shared) -> StatusCode {
    messenger.contents().forget_messages();
    StatusCode::NO_CONTENT
}

async fn faults(State(messenger): Shared) -> Json<Faults> {
    Json(messenger.contents().faults.clone())
}

async fn set_faults(State(messenger): Shared, Json(faults): Json<Faults>) -> Json<Faults> {
    messenger.contents().faults = faults.clone();
    Json(faults)
}

async fn clear_faults(State(messenger): Shared) -> StatusCode {
    messenger.contents().faults = Faults::default();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    token: Option<String>,
}

async fn give_token(
    State(messenger): Shared,
    Path(page_id): Path<String>,
    Json(given): Json<Token>,
) -> StatusCode {
    let access = &mut messenger.contents().access;
    match given.token {
        Some(token) => {
            access.set_token(page_id, token.into());
            StatusCode::NO_CONTENT
        }
        None => done_or_not_found(access.set_revoked(&page_id, false)),
    }
}

async fn revoke_token(State(messenger): Shared, Path(page_id): Path<String>) -> StatusCode {
    done_or_not_found(messenger.contents().access.set_revoked(&page_id, true))
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

async fn set_app_secret(State(messenger): Shared, Json(app): Json<AppSecret>) -> StatusCode {
    let access = &mut messenger.contents().access;
    access.set_app_secret(Some(app.app_secret.into()), app.required);
    StatusCode::NO_CONTENT
}

async fn clear_app_secret(State(messenger): Shared) -> StatusCode {
    messenger.contents().access.set_app_secret(None, false);
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Conversations {
    visible_after_ms: u64,
}

async fn set_conversations(
    State(messenger): Shared,
    Json(conversations): Json<Conversations>,
) -> StatusCode {
    let mut contents = messenger.contents();
    contents.visible_after_ms = conversations.visible_after_ms;
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
    State(messenger): Shared,
    Json(subscriber): Json<Subscriber>,
) -> Result<StatusCode, (StatusCode, String)> {
    let refused = |error: SubscribeError| (StatusCode::BAD_REQUEST, error.to_string());
    let subscription =
        Subscription::new(subscriber.url, subscriber.app_secret.into()).map_err(refused)?;
    if let Some(verify_token) = subscriber.verify_token {
        subscription
            .verify(&verify_token.into())
            .await
            .map_err(refused)?;
    }
    messenger.subscribe(subscription);
    Ok(StatusCode::NO_CONTENT)
}

async fn unsubscribe(State(messenger): Shared) -> StatusCode {
    messenger.contents().webhooks.subscription = None;
    StatusCode::NO_CONTENT
}

async fn set_echoes(State(messenger): Shared, Json(echoes): Json<Echoes>) -> StatusCode {
    messenger.contents().webhooks.echoes = echoes;
    StatusCode::NO_CONTENT
}
