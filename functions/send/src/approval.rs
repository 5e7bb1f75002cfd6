//! The approval of a broadcast by another caller than the one who made it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use shared::app::App;
use shared::domain::history::Action;
use shared::domain::ids::BroadcastId;
use shared::domain::job::{Broadcast, JobStatus};
use shared::store::transactions::Changed;
use tracing::info;

use crate::api::broadcasts::BroadcastReport;
use crate::api::problems::{Conflict, Kind, NotFound};
use crate::broadcasts::{location, visible_report};
use crate::caller::Caller;
use crate::change::{TRIES, entry, too_many_changes, visible_broadcast};
use crate::problem::Problem;
use crate::query::NoParameters;
use crate::request::PathId;

/// `POST /v1/broadcasts/{id}/approve`: lets a broadcast be sent that waits for approval.
///
/// # Errors
/// If the caller made the broadcast or changed it last (403), it does not wait for approval (409), or there is no such broadcast (404).
#[utoipa::path(
    post, path = "/v1/broadcasts/{id}/approve", operation_id = "approveBroadcast", tag = "broadcasts",
    summary = "Approve a broadcast",
    description = "Another caller than the one who made the broadcast, or changed it last, lets it be sent: at once, or at its time. \
        Callers without authentication are one caller. A broadcast that is approved already is left alone.",
    params(("id" = BroadcastId, Path, description = "The id of the broadcast.", example = "019ac2f07d3e7c51a0e0b5c4d3e2f1a0")),
    responses(
        (
            status = 202, description = "The broadcast is approved.", body = BroadcastReport,
            headers(("Location" = String, description = "The URL of the broadcast."))
        ),
        (status = 404, response = NotFound),
        (status = 409, response = Conflict),
    ),
    security(("jwt" = ["broadcasts:write"]), ("iam" = [])),
)]
pub async fn approve(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId,
    _: NoParameters,
) -> Result<Response, Problem> {
    for _ in 0..TRIES {
        let (seen, mut jobs, history) = visible_broadcast(&app, &caller, &id).await?;
        jobs.retain(|job| job.status == JobStatus::AwaitingApproval);
        if jobs.is_empty() && seen.approved_at.is_none() {
            let detail = "The broadcast does not wait for approval.";
            return Err(Problem::new(Kind::NothingToApprove, detail));
        }
        check_other(&seen, &caller)?;
        let transactions = app.store.transactions();
        if !jobs.is_empty() {
            let now = app.clock.now();
            let (seen, entry) = (
                (&seen, &*jobs, &history),
                entry(&caller, Action::Approve, &jobs, None, now),
            );
            let (changed, due) = transactions.approve_if_unchanged(seen, &entry, now).await?;
            if changed == Changed::Meanwhile {
                continue;
            }
            info!("broadcast approved");
            join_all(due.iter().map(|job| app.queue.wake(job))).await;
        }
        let report = visible_report(&app, &caller, &id).await?;
        return Ok((StatusCode::ACCEPTED, location(&report), Json(report)).into_response());
    }
    Err(too_many_changes())
}

/// Checks that the caller is not the one whose broadcast is to be approved.
fn check_other(broadcast: &Broadcast, caller: &Caller) -> Result<(), Problem> {
    let changed_by = &broadcast.changed_by;
    let is_own_change = changed_by.is_some() && *changed_by == caller.name;
    let detail = match (broadcast.created_by == caller.name, is_own_change) {
        (false, false) => return Ok(()),
        (true, _) if caller.name.is_none() => {
            "Another caller must approve the broadcast; all callers without authentication are one."
        }
        (true, _) => "You made the broadcast: another caller must approve it.",
        (false, true) => "You changed the broadcast last: another caller must approve it.",
    };
    Err(Problem::new(Kind::Forbidden, detail))
}
