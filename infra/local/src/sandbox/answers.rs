//! The answers of the sandbox: errors in the form of the Graph API, and the answers of injected faults.

use axum::Json;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use uuid::Uuid;

use super::faults::{Answer, GraphError, Treatment};

/// The mark of an answer that must not be sent because the connection is to be closed instead.
#[derive(Debug, Clone, Copy)]
pub struct Unanswered;

impl Treatment {
    /// Returns the answer after the fault's latency. `usual` is the answer without a fault.
    pub async fn answer(self, usual: Response) -> Response {
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
        match self.answer {
            Answer::Ok => usual,
            Answer::Reset => {
                let mut response = StatusCode::NO_CONTENT.into_response();
                response.extensions_mut().insert(Unanswered);
                response
            }
            Answer::Hang => std::future::pending().await,
            Answer::Error { error, headers } => {
                let mut response = error.into_response();
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
}

impl IntoResponse for GraphError {
    fn into_response(self) -> Response {
        let mut body = json!({
            "message": self.message,
            "type": "OAuthException",
            "code": self.code,
            "fbtrace_id": Uuid::new_v4().simple().to_string(),
        });
        if let Some(subcode) = self.subcode {
            body["error_subcode"] = subcode.into();
        }
        (status_code(self.status), Json(json!({ "error": body }))).into_response()
    }
}

fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
