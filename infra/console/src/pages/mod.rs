//! The Pages.
//!
//! - `list`: the list
//! - `one`: one Page, its switch for sending, and the import of its contacts

mod list;
mod one;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use client::api::pages::PageReport;
use client::api::progress::TokenState;
use shared::domain::ids::PageId;
use shared::domain::sending::{SendingState, SendingSwitch};

use crate::Console;
use crate::fields::in_path;

/// Returns the views of the Pages.
pub fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/pages", get(list::show))
        .route("/pages/{id}", get(one::show))
        .route("/pages/{id}/checks", get(one::checks))
        .route("/pages/{id}/sending", post(one::switch))
        .route("/pages/{id}/import", post(one::import))
        .route("/pages/{id}/import/cancel", post(one::cancel_import))
}

/// Returns the path of a Page.
fn path(page_id: &PageId) -> String {
    format!("/pages/{}", in_path(page_id.as_str()))
}

/// Returns what keeps a Page from sending, with the class of its colour.
fn state(page: &PageReport) -> (&'static str, &'static str) {
    let switch = page.switch.as_ref().map_or(SendingState::On, |switch| switch.state);
    match (page.token, switch) {
        (TokenState::Missing, _) => ("failed", "no access token"),
        (TokenState::Refused, _) => ("failed", "token refused"),
        (_, SendingState::Off) => ("paused", "switched off"),
        (_, SendingState::Halt) => ("halted", "halts broadcasts"),
        (TokenState::Unknown, _) => ("waiting", "token not readable now"),
        (TokenState::Ok, _) if page.paused_until.is_some() => ("waiting", "limited by Messenger"),
        (TokenState::Ok, _) => ("completed", "ready"),
    }
}

/// Returns the reason of a switch that is off.
fn reason(switch: &SendingSwitch) -> Option<&str> {
    switch.reason.as_deref().filter(|_| switch.state != SendingState::On)
}
