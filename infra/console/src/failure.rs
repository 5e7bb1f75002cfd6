//! Failures as pages: the event, and the remedy.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use client::Error;

use crate::frame::{Chrome, Section};

/// A request that is not answered as it was meant.
#[derive(Debug)]
pub struct Failure {
    /// The status of the answer.
    pub status: StatusCode,
    /// The event, in a line.
    pub title: String,
    /// The details, a line each.
    pub lines: Vec<String>,
}

impl Failure {
    /// Returns a failure with this status.
    pub fn new(status: StatusCode, title: impl Into<String>) -> Self {
        Self {
            status,
            title: title.into(),
            lines: Vec::new(),
        }
    }

    /// Adds a line, such as what to do.
    pub fn and(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// Returns the failure of a page that is not there.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("There is no such {what}"))
            .and("It may have expired, or the address is not complete.")
    }

    /// Returns true if the API refused what the visitor wrote, so that the form is shown again.
    pub fn is_about_the_form(&self) -> bool {
        let of_forms = [
            StatusCode::BAD_REQUEST,
            StatusCode::CONFLICT,
            StatusCode::PAYLOAD_TOO_LARGE,
            StatusCode::UNPROCESSABLE_ENTITY,
        ];
        of_forms.contains(&self.status)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused {
                status,
                problem,
                request_id,
                ..
            } => {
                let faults = problem
                    .errors
                    .iter()
                    .map(|fault| format!("{}: {}", fault.field, fault.message));
                let request = request_id.filter(|_| status.is_server_error());
                let request = request.map(|id| format!("The API's log names this request {id}."));
                Self {
                    status,
                    title: problem.detail.clone(),
                    lines: faults.chain(request).collect(),
                }
            }
            Error::Unanswered { .. } => Self::new(StatusCode::BAD_GATEWAY, "The API does not answer")
                .and("Wait a moment and reload the page. If it goes on, look whether Oncecast runs."),
            Error::NotSigned(error) => Self::new(StatusCode::BAD_GATEWAY, error.to_string())
                .and("Renew the credentials in the terminal, and start the console again."),
            Error::Request(_) | Error::NotTheApi { .. } | Error::Clock { .. } | Error::Unreadable { .. } => {
                Self::new(StatusCode::BAD_GATEWAY, error.to_string())
            }
        }
    }
}

#[derive(Template)]
#[template(path = "failure.html")]
struct FailureView<'a> {
    chrome: Chrome,
    failure: &'a Failure,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let view = FailureView {
            chrome: Chrome::bare(Section::None),
            failure: &self,
        };
        // The template fails if a value does, and none does.
        let html = view.render().unwrap_or_else(|_| self.title.clone());
        (self.status, Html(html)).into_response()
    }
}
