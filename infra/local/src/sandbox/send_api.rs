//! `POST /v25.0/{page_id}/messages`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Messenger;
use super::faults::{GraphError, Operation};
use super::request::Fields;

/// Takes a message for a contact.
pub async fn send_message(
    State(messenger): State<Arc<Messenger>>,
    Path(page_id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
) -> Result<Response, GraphError> {
    let _in_flight = messenger.enter();
    let fields = Fields::read(&headers, &uri, &body);
    messenger
        .contents()
        .access
        .check(&page_id, &fields.credentials)?;
    let message = fields.into_message(&page_id, messenger.contents().now_ms())?;
    let answer = json!({ "recipient_id": message.contact_id, "message_id": message.message_id });
    let treatment = {
        let mut contents = messenger.contents();
        let treatment = contents
            .faults
            .take(Operation::Send, &page_id, &message.contact_id);
        // Before the latency: whoever gives up waiting has sent the message all the same.
        if treatment.accept {
            contents.accept(message);
        }
        treatment
    };
    Ok(treatment.answer(Json(answer).into_response()).await)
}
