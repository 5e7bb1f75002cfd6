//! Changes of a broadcast that is not due yet: what it says and when; never its contacts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use futures_util::future::try_join_all;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use shared::app::App;
use shared::domain::history::{Action, HistoryEntry};
use shared::domain::ids::BroadcastId;
use shared::domain::job::{Broadcast, Job, JobStatus};
use shared::store::history::History;
use shared::store::transactions::Changed;
use tracing::info;

use crate::api::broadcasts::BroadcastReport;
use crate::api::changes::BroadcastChange;
use crate::api::problems::{Conflict, Invalid, Kind, NotFound, TooLarge, UnsupportedType};
use crate::broadcasts::visible_report;
use crate::caller::Caller;
use crate::fields::{Faults, Fields};
use crate::invocation::record_broadcast;
use crate::new_broadcast::Terms;
use crate::problem::Problem;
use crate::query::NoParameters;
use crate::request::{JsonBody, PathId, ReceivedAt};

/// The number of times that a change is tried while others change the broadcast at the same moment.
pub const TRIES: usize = 5;

/// `PATCH /v1/broadcasts/{id}`: changes a broadcast until it is due.
///
/// One transaction decides the race with the claim of a job: see [`change_if_not_begun`].
///
/// # Errors
/// If the body has faults (400), a job is due or has begun (409), or there is no such broadcast (404).
///
/// [`change_if_not_begun`]: shared::store::transactions::Transactions::change_if_not_begun
#[utoipa::path(
    patch, path = "/v1/broadcasts/{id}", operation_id = "changeBroadcast", tag = "broadcasts",
    summary = "Change a broadcast that is not due yet",
    description = "A field that is absent is kept, `null` clears it. The contacts are fixed. A broadcast can be changed while all of its \
        jobs are `scheduled`, `awaiting_approval`, or `paused` before their first run; one that needs approval needs it anew.",
    params(("id" = BroadcastId, Path, description = "The id of the broadcast.", example = "019ac2f07d3e7c51a0e0b5c4d3e2f1a0")),
    request_body = BroadcastChange,
    responses(
        (status = 200, description = "The broadcast is changed.", body = BroadcastReport),
        (status = 400, response = Invalid),
        (status = 404, response = NotFound),
        (status = 409, response = Conflict),
        (status = 413, response = TooLarge),
        (status = 415, response = UnsupportedType),
    ),
    security(("jwt" = ["broadcasts:write"]), ("iam" = [])),
)]
pub async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId,
    _: NoParameters,
    ReceivedAt(received): ReceivedAt,
    JsonBody(body): JsonBody,
) -> Result<Json<BroadcastReport>, Problem> {
    for _ in 0..TRIES {
        let (seen, jobs, history) = visible_broadcast(&app, &caller, &id).await?;
        let now = app.clock.now();
        check_not_begun(&jobs, now)?;
        let changed = changed(&seen, &body, received)?;
        keep_segments(&app, &jobs, &changed).await?;
        let fields = body.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
        let entry = entry(
            &caller,
            Action::Change,
            &jobs,
            Some(fields.collect::<Vec<_>>().join(", ")),
            now,
        );
        let transactions = app.store.transactions();
        let change = transactions.change_if_not_begun((&seen, &jobs, &history), &changed, &entry, now);
        if change.await? == Changed::Made {
            info!("broadcast changed before it was due");
            return Ok(Json(visible_report(&app, &caller, &id).await?));
        }
    }
    Err(too_many_changes())
}

/// Reads a broadcast and its jobs.
///
/// # Errors
/// As [`visible_report`].
pub async fn visible_broadcast(
    app: &App,
    caller: &Caller,
    id: &str,
) -> Result<(Broadcast, Vec<Job>, History), Problem> {
    let unknown = || Problem::not_found("There is no such broadcast.");
    let id = BroadcastId::parse(id).ok_or_else(unknown)?;
    record_broadcast(&id);
    let found = app.store.broadcasts().get_with_history(&id).await?;
    let may_see = |jobs: &[Job]| jobs.iter().all(|job| caller.pages.allow(&job.page_id));
    found.filter(|(_, jobs, _)| may_see(jobs)).ok_or_else(unknown)
}

/// Returns the entry of the history for an order of a caller for these jobs.
pub fn entry(caller: &Caller, action: Action, jobs: &[Job], details: Option<String>, now: Timestamp) -> HistoryEntry {
    HistoryEntry {
        time: now,
        caller: caller.name.clone(),
        action,
        page_id: None,
        jobs: jobs.len() as u64,
        contacts: jobs.iter().map(|job| job.contacts).sum(),
        details,
    }
}

/// Returns the problem of a change that others have prevented at every try.
pub fn too_many_changes() -> Problem {
    let detail = "The broadcast is being changed by others. Repeat the request.";
    Problem::new(Kind::Unavailable, detail)
}

/// Checks that no job has been claimed or is due: the same condition as that of the transaction.
fn check_not_begun(jobs: &[Job], now: Timestamp) -> Result<(), Problem> {
    let has_begun = |job: &&Job| {
        let is_held = match job.status {
            JobStatus::Scheduled => job.due_at.is_some_and(|due_at| due_at > now),
            JobStatus::Paused | JobStatus::AwaitingApproval => true,
            _ => false,
        };
        job.epoch > 0 || !is_held
    };
    match jobs.iter().find(has_begun) {
        None => Ok(()),
        Some(job) => {
            let due = if job.status == JobStatus::Scheduled {
                "due"
            } else {
                "not to be changed any more"
            };
            let detail = format!("The broadcast is {due}: its job for {} is {}.", job.page_id, job.status);
            Err(Problem::new(Kind::AlreadyBegun, detail))
        }
    }
}

/// Returns a broadcast with the changes of a body. They are checked as a request for a broadcast is, together with what they leave.
fn changed(seen: &Broadcast, body: &Value, received: Timestamp) -> Result<Broadcast, Problem> {
    let faults = Faults::default();
    let read = read(seen, body, received, &faults);
    let terms = faults.or(read)?;
    Ok(Broadcast {
        name: terms.name,
        metadata: terms.metadata,
        message: terms.message,
        envelope: terms.envelope,
        scheduled_at: terms.times.scheduled_at,
        time_zone: terms.times.time_zone,
        quiet_hours: terms.times.quiet_hours,
        expires_at: terms.times.expires_at,
        outside_window: terms.outside_window,
        ..seen.clone()
    })
}

fn read(seen: &Broadcast, body: &Value, received: Timestamp, faults: &Faults) -> Option<Terms> {
    let given = Fields::of(body, "", Terms::FIELDS, faults)?;
    let body = body.as_object()?;
    if body.is_empty() {
        faults.add("", "must have a field");
    }
    if given.has("scheduled_at") && given.optional("scheduled_at").is_none() && seen.scheduled_at.is_some() {
        given.fault("scheduled_at", "must be a time");
    }
    let has_time = ["scheduled_at", "expires_at"]
        .iter()
        .any(|name| given.optional(name).is_some());
    if given.optional("time_zone").is_some() && !has_time {
        given.fault("time_zone", "is allowed only with scheduled_at or expires_at");
    }
    let merged = merged(seen, body);
    let fields = Fields::of(&merged, "", Terms::FIELDS, faults)?;
    let terms = Terms::read(&fields, faults)?;
    // What was accepted before may have passed since.
    if given.has("scheduled_at") {
        terms.times.check_start(received, faults);
    }
    if ["scheduled_at", "expires_at", "quiet_hours"]
        .iter()
        .any(|name| given.has(name))
    {
        terms.times.check_end(received, faults);
    }
    Some(terms)
}

/// Returns a broadcast as the request for it would be now, with the changes of a body in place of its fields.
fn merged(seen: &Broadcast, body: &Map<String, Value>) -> Value {
    let mut merged = json!({
        "message": seen.message,
        "messaging_type": seen.envelope.messaging_type,
        "tag": seen.envelope.tag,
        "notification_type": seen.envelope.notification_type,
        "scheduled_at": seen.scheduled_at,
        "time_zone": seen.time_zone,
        "quiet_hours": seen.quiet_hours,
        "expires_at": seen.expires_at,
        "name": seen.name,
        "metadata": seen.metadata,
        "outside_window": seen.outside_window,
        // A message that was accepted is not judged again.
        "allow_literal_braces": !body.contains_key("message"),
    });
    let known = body.iter().filter(|(name, _)| Terms::FIELDS.contains(&name.as_str()));
    for (name, value) in known {
        merged[name] = value.clone();
    }
    merged
}

/// Has the segments of a broadcast live longer if it is sent later. They do no harm if the change is not made.
async fn keep_segments(app: &App, jobs: &[Job], changed: &Broadcast) -> Result<(), Problem> {
    let Some(due_at) = changed.scheduled_at else {
        return Ok(());
    };
    let retained_until = due_at + app.config.retention;
    let segments = app.store.segments();
    let shorter = jobs.iter().filter(|job| job.retained_until < retained_until);
    let kept = shorter.map(|job| segments.keep(&job.snapshot, job.segments, retained_until));
    try_join_all(kept).await?;
    Ok(())
}
