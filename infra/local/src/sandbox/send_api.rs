//! `POST /v25.0/{page_id}/messages`, and what the sandbox does in place of a good answer.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret;
use serde_json::json;
use uuid::Uuid;

use super::Messenger;
use super::faults::{Answer, GraphError};
use super::request::{Fields, SendRequest};

/// Marks an answer that must not be sent: the connection is closed instead.
#[derive(Debug, Clone, Copy)]
pub struct Unanswered;

pub async fn send_message(
    State(messenger): State<Arc<Messenger>>,
    Path(page_id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
) -> Response {
    let _in_flight = messenger.enter();
    let fields = Fields::read(&headers, &uri, &body);
    let token = messenger.tokens.get(&page_id);
    if token.is_none() || token.map(ExposeSecret::expose_secret) != fields.token.as_deref() {
        return refusal(&GraphError::new(190, "Invalid OAuth access token."));
    }
    let request = match fields.into_request() {
        Ok(request) => request,
        Err(error) => return refusal(&error),
    };
    let treatment = messenger
        .contents()
        .faults
        .take(&page_id, &request.contact_id);
    let contact_id = request.contact_id.clone();
    // Before the latency: whoever gives up waiting has sent the message all the same.
    let message_id = if treatment.accept {
        messenger.receive(page_id, request)
    } else {
        new_message_id()
    };
    if !treatment.latency.is_zero() {
        tokio::time::sleep(treatment.latency).await;
    }
    match treatment.answer {
        Answer::Ok => {
            Json(json!({ "recipient_id": contact_id, "message_id": message_id })).into_response()
        }
        Answer::Reset => {
            let mut response = StatusCode::NO_CONTENT.into_response();
            response.extensions_mut().insert(Unanswered);
            response
        }
        Answer::Hang => std::future::pending().await,
        Answer::Error { error, headers } => {
            let mut response = refusal(&error);
            for (name, value) in headers {
                if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
                    response.headers_mut().insert(name, value);
                }
            }
            response
        }
        Answer::Raw { status, body } => (status_code(status), body).into_response(),
    }
}

/// An error as the Graph API words it.
fn refusal(error: &GraphError) -> Response {
    let mut body = json!({
        "message": error.message,
        "type": "OAuthException",
        "code": error.code,
        "fbtrace_id": Uuid::new_v4().simple().to_string(),
    });
    if let Some(subcode) = error.subcode {
        body["error_subcode"] = subcode.into();
    }
    (status_code(error.status), Json(json!({ "error": body }))).into_response()
}

fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn new_message_id() -> String {
    format!("m_{}", Uuid::new_v4().simple())
}

impl Messenger {
    /// Writes the message into the ledger, as the contact's phone would.
    fn receive(&self, page_id: String, request: SendRequest) -> String {
        let message_id = new_message_id();
        self.contents().received.push(super::Received {
            page_id,
            contact_id: request.contact_id,
            messaging_type: request.messaging_type,
            tag: request.tag,
            notification_type: request.notification_type,
            text: request.text,
            attachment: request.attachment,
            template: request.template,
            quick_replies: request.quick_replies,
            metadata: request.metadata,
            appsecret_proof: request.appsecret_proof,
            message_id: message_id.clone(),
            at: jiff::Timestamp::now().as_millisecond(),
        });
        message_id
    }
}
