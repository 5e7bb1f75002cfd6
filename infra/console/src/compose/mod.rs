//! A new broadcast: one form, which is checked by a dry run before it is sent.
//!
//! - `faults`: what is wrong with the fields of the form
//! - `recipients`: the fields that tell who gets it
//! - `form`: the whole form as a request of the API
//! - `view`: the page with the form
//! - `preview`: the message as contacts would get it, while it is written
//! - `send`: the check, the send, and the other buttons of the form

mod faults;
mod form;
mod preview;
mod recipients;
mod send;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::Console;

/// Returns the views of a new broadcast.
pub fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/new", get(view::show).post(send::submit))
        .route("/new/preview", post(preview::show))
}
