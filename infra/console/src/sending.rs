//! The switch for sending: the button that stops everything.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect};
use axum::routing::get;
use client::api::sending::{SendingChange, SendingReport};
use shared::domain::sending::SendingState;

use crate::Console;
use crate::failure::Failure;
use crate::frame::{Chrome, Section};
use crate::page::{Answer, html, refused};
use crate::session::{Form, Visitor};

/// Returns the view of the switch.
pub fn routes() -> Router<Arc<Console>> {
    Router::new().route("/sending", get(show).post(change))
}

#[derive(Template)]
#[template(path = "sending.html")]
struct SendingView {
    chrome: Chrome,
    csrf: String,
    sending: SendingReport,
    reason: String,
    fault: Option<Failure>,
}

impl SendingView {
    fn is_on(&self) -> bool {
        self.sending.all_pages == SendingState::On
    }
}

/// Shows the switch and its history.
async fn show(State(console): State<Arc<Console>>, visitor: Visitor) -> Answer {
    let (chrome, sending) = tokio::join!(console.chrome(&visitor, Section::None), visitor.client.sending(None));
    html(&SendingView {
        chrome,
        csrf: visitor.csrf,
        sending: sending?,
        reason: String::new(),
        fault: None,
    })
}

/// Sets the switch.
async fn change(State(console): State<Arc<Console>>, visitor: Visitor, Form(fields): Form) -> Answer {
    let state = fields.word("state");
    let state: SendingState = state.ok_or_else(|| Failure::new(StatusCode::BAD_REQUEST, "Choose on or off"))?;
    let change = SendingChange {
        state,
        reason: fields.get("reason").map(str::to_owned),
        page_id: None,
    };
    let failure = match visitor.client.change_sending(&change).await {
        Ok(_) => return Ok(Redirect::to("/sending").into_response()),
        Err(error) => Failure::from(error),
    };
    if !failure.is_about_the_form() {
        return Err(failure);
    }
    let (chrome, sending) = tokio::join!(console.chrome(&visitor, Section::None), visitor.client.sending(None));
    refused(&SendingView {
        chrome,
        csrf: visitor.csrf,
        sending: sending?,
        reason: fields.raw("reason").to_owned(),
        fault: Some(failure),
    })
}
