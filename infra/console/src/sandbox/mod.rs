//! The sandbox: what contacts see of the messages, and what goes wrong on request.
//!
//! - `messages`: every message that arrived
//! - `inbox`: a conversation as the contact sees it
//! - `faults`: the faults that are switched on
//! - `samples`: contacts to try things out with
//! - `control`: the sandbox's own API

mod control;
mod faults;
mod inbox;
mod messages;
mod samples;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use client::BroadcastQuery;
use client::api::broadcasts::BroadcastSummary;
use shared::domain::job::JobStatus;

use crate::Console;
use crate::failure::Failure;
use crate::session::Visitor;

pub use control::Sandbox;

/// The broadcasts whose names are known to the views, from the newest.
const NAMED: u32 = 50;

/// Returns the views of the sandbox.
pub fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/sandbox", get(messages::show))
        .route("/sandbox/forget", get(messages::ask_forget).post(messages::forget))
        .route("/sandbox/inbox", get(inbox::show).post(inbox::write))
        .route("/sandbox/faults", get(faults::show).post(faults::add))
        .route("/sandbox/faults/off", post(faults::remove))
        .route("/sandbox/contacts", post(samples::create))
        .route("/sandbox/tokens", post(faults::change_token))
}

impl Console {
    fn sandbox(&self) -> Result<&Sandbox, Failure> {
        self.sandbox.as_ref().ok_or_else(|| {
            Failure::new(StatusCode::NOT_FOUND, "There is no sandbox here").and(
                "Messages go to Messenger itself, or the sandbox belongs to another console: that of `oncecast up`.",
            )
        })
    }
}

/// Returns the newest broadcasts. The views of the sandbox work without them, for a caller who may not read them.
async fn newest(visitor: &Visitor) -> Vec<BroadcastSummary> {
    let query = BroadcastQuery {
        limit: Some(NAMED),
        ..BroadcastQuery::default()
    };
    visitor
        .client
        .broadcasts(&query)
        .await
        .map_or_else(|_| Vec::new(), |part| part.items)
}

/// Returns true if messages may arrive without anybody's doing.
fn is_sending(broadcasts: &[BroadcastSummary]) -> bool {
    let is_under_way = |status| matches!(status, JobStatus::Processing | JobStatus::Queued | JobStatus::Waiting);
    broadcasts.iter().any(|broadcast| is_under_way(broadcast.status))
}
