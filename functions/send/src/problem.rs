//! Errors as the caller sees them: RFC 9457 problem details that never show internals.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use shared::{secrets, store};
use tracing::error;

/// Faults that one answer lists.
const MAX_FAULTS: usize = 100;

/// An answer other than the one that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    faults: Vec<Fault>,
}

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Where: a JSON pointer into the body, a line and column of CSV, or the name of a parameter or header.
    pub field: String,
    /// What is wrong there.
    pub message: String,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    errors: &'a [Fault],
}

impl Problem {
    /// A problem without faults of its own.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            faults: Vec::new(),
        }
    }

    /// 400: what is wrong, and where.
    pub fn invalid(faults: Vec<Fault>) -> Self {
        let detail = match faults.len() {
            1 => "The request has 1 fault; nothing was stored.".to_owned(),
            n => format!("The request has {n} faults; nothing was stored."),
        };
        Self {
            status: StatusCode::BAD_REQUEST,
            detail,
            faults,
        }
    }

    /// 400 for one fault.
    pub fn fault(field: &str, message: impl Into<String>) -> Self {
        let (field, message) = (field.to_owned(), message.into());
        Self::invalid(vec![Fault { field, message }])
    }

    /// 404.
    pub fn not_found(detail: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }
}

/// 503: what was asked may or may not have happened. The log has the reason, the caller has what to do.
impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        error!(
            error = &error as &dyn std::error::Error,
            "request not answered"
        );
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "The request could not be completed. Repeat it; with the same Idempotency-Key it takes effect once at most.",
        )
    }
}

/// 503: what is configured to be there could not be read. Meta repeats what is answered so.
impl From<secrets::Error> for Problem {
    fn from(error: secrets::Error) -> Self {
        error!(error = &error as &dyn std::error::Error, "secret not read");
        let detail = "The request could not be checked. Repeat it.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
            errors: self.faults.get(..MAX_FAULTS).unwrap_or(&self.faults),
        };
        let mut answer = (self.status, Json(body)).into_response();
        let json = header::HeaderValue::from_static("application/problem+json");
        answer.headers_mut().insert(header::CONTENT_TYPE, json);
        answer
    }
}
