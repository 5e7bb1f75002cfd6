//! The Send API: `POST /v25.0/{page_id}/messages`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::faults::{GraphError, Operation};
use super::request::Fields;
use super::state::SandboxState;

/// Accepts a message for a contact, unless an injected fault says otherwise.
///
/// # Errors
///
/// Answers with an error of the Graph API if the token, the proof or the message is not valid.
pub async fn send_message(
    State(state): State<Arc<SandboxState>>,
    Path(page_id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
) -> Result<Response, GraphError> {
    let _in_flight = state.enter();
    let fields = Fields::read(&headers, &uri, &body);
    state.contents().access.check(&page_id, &fields.credentials)?;
    let message = fields.into_message(&page_id, state.contents().now_ms())?;
    let answer = json!({ "recipient_id": message.contact_id, "message_id": message.message_id });
    let treatment = {
        let mut contents = state.contents();
        let treatment = contents.faults.take(Operation::Send, &page_id, &message.contact_id);
        // The delivery precedes the latency, because a caller that stops waiting has sent its message all the same.
        if treatment.accept {
            contents.deliver(message);
        }
        treatment
    };
    Ok(treatment.answer(Json(answer).into_response()).await)
}
