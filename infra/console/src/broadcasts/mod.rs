//! The broadcasts.
//!
//! - `list`: the list
//! - `one`: one broadcast, as it is now

pub mod list;
pub mod one;

use client::api::broadcasts::BroadcastSummary;

/// Returns the name of a broadcast, or else the beginning of its id.
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
