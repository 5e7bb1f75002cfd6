//! The broadcasts.
//!
//! - `list`: the list
//! - `one`: one broadcast, as it is now; `minutes`: the messages of each minute; `lookup`: the next lookup of its deliveries in doubt
//! - `orders`: the orders for a broadcast that its state allows
//! - `actions`: pause, resume, cancel and approve; `retry`; `change`

mod actions;
mod change;
mod list;
mod lookup;
mod minutes;
mod one;
mod orders;
mod retry;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use client::api::broadcasts::BroadcastSummary;
use shared::domain::ids::BroadcastId;

use crate::Console;
use crate::failure::Failure;

/// Returns the views of the broadcasts.
pub fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/", get(list::show))
        .route("/broadcasts/{id}", get(one::show))
        .route("/broadcasts/{id}/lookup", get(lookup::show))
        .route("/broadcasts/{id}/retry", get(retry::ask).post(retry::order))
        .route("/broadcasts/{id}/change", get(change::ask).post(change::order))
        .route("/broadcasts/{id}/{order}", get(actions::ask).post(actions::order))
}

/// Returns the name of a broadcast, or else the end of its id.
pub fn name(summary: &BroadcastSummary) -> String {
    let id = summary.broadcast_id.to_string();
    summary
        .name
        .clone()
        .unwrap_or_else(|| format!("Broadcast {}", short(&id)))
}

/// Returns the end of an id, by which broadcasts of the same time differ.
pub fn short(id: &str) -> &str {
    id.get(id.len().saturating_sub(8)..).unwrap_or(id)
}

/// Parses the id of a path.
///
/// # Errors
///
/// Fails with status 404 if the text is no id.
pub fn parse_id(id: &str) -> Result<BroadcastId, Failure> {
    BroadcastId::parse(id).ok_or_else(|| Failure::not_found("broadcast"))
}

/// Returns the failure to read a broadcast.
pub fn missing(error: client::Error) -> Failure {
    match error.status() {
        Some(StatusCode::NOT_FOUND) => Failure::not_found("broadcast"),
        _ => error.into(),
    }
}
