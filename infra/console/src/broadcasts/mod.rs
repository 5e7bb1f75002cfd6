//! The broadcasts.
//!
//! - `list`: the list
//! - `one`: one broadcast, as it is now; `minutes`: the messages of each minute; `lookup`: the next lookup of its deliveries in doubt
//! - `orders`: the orders for a broadcast that its state allows
//! - `actions`: pause, resume, cancel and approve; `retry`; `change`

pub mod actions;
pub mod change;
pub mod list;
pub mod lookup;
mod minutes;
pub mod one;
mod orders;
pub mod retry;

use axum::http::StatusCode;
use client::api::broadcasts::BroadcastSummary;
use shared::domain::ids::BroadcastId;

use crate::failure::Failure;

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
