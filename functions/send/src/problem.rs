//! Errors as the caller sees them: RFC 9457 problem details, which never show internals.

use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use shared::runtime::secrets;
use shared::store;
use tracing::error;

use crate::api::problems::{Fault, Kind, PROBLEM_JSON, ProblemDetails};

/// The maximum number of faults that one answer lists.
const MAX_FAULTS: usize = 100;

/// The time after which a caller is to repeat a request that could not be completed, in seconds.
const RETRY_SECONDS: u16 = 2;

/// An answer that reports an error to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    kind: Kind,
    detail: String,
    faults: Vec<Fault>,
}

impl Problem {
    /// Returns a problem without faults.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            faults: Vec::new(),
        }
    }

    /// Returns a problem with status 400 that lists faults.
    pub fn invalid(faults: Vec<Fault>) -> Self {
        let detail = match faults.len() {
            1 => "The request has 1 fault; nothing was stored.".to_owned(),
            n => format!("The request has {n} faults; nothing was stored."),
        };
        Self {
            kind: Kind::InvalidRequest,
            detail,
            faults,
        }
    }

    /// Returns a problem with status 400 and one fault.
    pub fn fault(field: &str, message: impl Into<String>) -> Self {
        Self::invalid(vec![Fault::of(field, message)])
    }

    /// Returns the faults of the request.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Returns the problem with these faults.
    pub fn with(self, faults: Vec<Fault>) -> Self {
        Self { faults, ..self }
    }

    /// Returns a problem with status 404.
    pub fn not_found(detail: &str) -> Self {
        Self::new(Kind::NotFound, detail)
    }
}

/// Status 503: the request may or may not have taken effect. The reason goes to the log; the answer asks the caller to repeat
/// the request. Status 409 if repeating it is of no use: the attributes of many imports add up to more than an item holds.
impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        if matches!(error, store::Error::TooLarge { .. }) {
            let detail = "A contact with its stored attributes would be larger than 400 KB, and was not changed; others of the request \
                          may have been. Clear attributes that are not needed with \"attributes\": null.";
            return Self::new(Kind::ContactTooLarge, detail);
        }
        error!(
            error = &error as &dyn std::error::Error,
            "call to DynamoDB failed; the caller is asked to repeat the request"
        );
        Self::new(
            Kind::Unavailable,
            "The request could not be completed. Repeat it; with the same Idempotency-Key it takes effect at most once.",
        )
    }
}

/// Status 503: a configured secret could not be read. Meta repeats webhook calls that are answered so.
impl From<secrets::Error> for Problem {
    fn from(error: secrets::Error) -> Self {
        error!(
            error = &error as &dyn std::error::Error,
            "secret not read; the caller is asked to repeat the request"
        );
        let detail = "The request could not be checked. Repeat it.";
        Self::new(Kind::Unavailable, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.kind.status();
        let body = ProblemDetails {
            kind: self.kind.uri(),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            detail: self.detail,
            errors: self.faults.into_iter().take(MAX_FAULTS).collect(),
        };
        let mut answer = (status, Json(body)).into_response();
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if self.kind == Kind::Unavailable {
            headers.insert(header::RETRY_AFTER, RETRY_SECONDS.into());
        }
        answer
    }
}
