//! The answer to a request that a server refuses by itself: a problem document of RFC 9457.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

const CONTENT_TYPE: &str = "application/problem+json";
/// The time after which a caller is to repeat a request that was refused for now, in seconds.
const RETRY_SECONDS: u16 = 2;

/// A refusal. Its detail says what the caller or the operator can do.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// Returns a refusal with this status.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem {
            status,
            detail: detail.into(),
            header: None,
        }
    }

    /// Adds a header to the answer.
    pub fn with_header(self, name: HeaderName, value: HeaderValue) -> Problem {
        Problem {
            header: Some((name, value)),
            ..self
        }
    }

    /// Returns the whole answer as bytes, for a connection on which there is no request to answer.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (status, body) = (self.status, self.document());
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        );
        [head.into_bytes(), body.into_bytes()].concat()
    }

    fn document(&self) -> String {
        let document = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "errors": [],
        });
        document.to_string()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let content_type = [(header::CONTENT_TYPE, CONTENT_TYPE)];
        let mut answer = (self.status, content_type, self.document()).into_response();
        answer.headers_mut().extend(self.header);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers_mut().insert(header::RETRY_AFTER, RETRY_SECONDS.into());
        }
        answer
    }
}
