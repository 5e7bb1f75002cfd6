//! Controls of a broadcast over HTTP: pause, resume, cancel.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use jiff::Timestamp;
use shared::app::App;
use shared::domain::control::{Control, Decision, JobChange};
use shared::domain::history::{Action, HistoryEntry};
use shared::domain::ids::{BroadcastId, PageId};
use shared::domain::job::Job;
use shared::store::history::History;
use shared::store::transactions::Controlled;
use shared::worker::announce::announce;
use tracing::info;

use crate::api::broadcasts::BroadcastReport;
use crate::api::controls::{Affected, ControlReport, ControlRequest};
use crate::api::problems::{Conflict, Invalid, Kind, NotFound, TooLarge, UnsupportedType};
use crate::broadcasts::location;
use crate::caller::Caller;
use crate::change::{TRIES, too_many_changes};
use crate::fields::{Faults, Fields};
use crate::invocation::record_broadcast;
use crate::problem::Problem;
use crate::query::{Query, flag};
use crate::request::{OptionalJsonBody, PathId};
use crate::stopped::mark_stopped;

/// `POST /v1/broadcasts/{id}/pause`: has nothing more sent until the broadcast is resumed.
///
/// # Errors
/// If the Page is none of the broadcast's (400); there is no such broadcast, or the caller may not see it (404); no job can obey (409); or
/// DynamoDB does not answer (503).
#[utoipa::path(
    post, path = "/v1/broadcasts/{id}/pause", operation_id = "pauseBroadcast", tag = "broadcasts",
    summary = "Pause a broadcast",
    description = "Within five seconds no new send starts; sends in flight are recorded. A job that a worker has is paused a moment \
        later: until then its `command` is `pause`. Jobs that are halted, cancelled or completed are left alone.",
    params(
        ("id" = BroadcastId, Path, description = "The id of the broadcast.", example = "019ac2f07d3e7c51a0e0b5c4d3e2f1a0"),
        ("dry_run" = Option<bool>, Query, description = "True: the answer says what would be affected, and nothing is changed.", example = true),
    ),
    request_body(content = Option<ControlRequest>, example = json!({"page_id": "page-1"})),
    responses(
        (
            status = 202, description = "The jobs are paused, or will be in a moment.", body = ControlReport,
            headers(("Location" = String, description = "The URL of the broadcast."))
        ),
        (status = 400, response = Invalid),
        (status = 404, response = NotFound),
        (status = 409, response = Conflict),
        (status = 413, response = TooLarge),
        (status = 415, response = UnsupportedType),
    ),
    security(("jwt" = ["broadcasts:write"]), ("iam" = [])),
)]
pub async fn pause(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId,
    query: Query,
    body: OptionalJsonBody,
) -> Result<Response, Problem> {
    carry_out(
        &app,
        &caller,
        &id,
        &Order::read((Control::Pause, Action::Pause), query, &body)?,
    )
    .await
}

/// `POST /v1/broadcasts/{id}/resume`: lets paused and halted jobs go on.
///
/// # Errors
/// If the Page is none of the broadcast's (400); there is no such broadcast, or the caller may not see it (404); no job can obey (409); or
/// DynamoDB does not answer (503).
#[utoipa::path(
    post, path = "/v1/broadcasts/{id}/resume", operation_id = "resumeBroadcast", tag = "broadcasts",
    summary = "Resume the paused and halted jobs of a broadcast",
    description = "A paused job goes on where it was; it is scheduled again if it was not due yet. Before you resume a halted job, \
        repair the cause. Other jobs are left alone.",
    params(
        ("id" = BroadcastId, Path, description = "The id of the broadcast.", example = "019ac2f07d3e7c51a0e0b5c4d3e2f1a0"),
        ("dry_run" = Option<bool>, Query, description = "True: the answer says what would be affected, and nothing is changed.", example = true),
    ),
    request_body(content = Option<ControlRequest>, example = json!({"page_id": "page-1"})),
    responses(
        (
            status = 202, description = "No job is paused or halted any more.", body = ControlReport,
            headers(("Location" = String, description = "The URL of the broadcast."))
        ),
        (status = 400, response = Invalid),
        (status = 404, response = NotFound),
        (status = 409, response = Conflict),
        (status = 413, response = TooLarge),
        (status = 415, response = UnsupportedType),
    ),
    security(("jwt" = ["broadcasts:write"]), ("iam" = [])),
)]
pub async fn resume(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId,
    query: Query,
    body: OptionalJsonBody,
) -> Result<Response, Problem> {
    carry_out(
        &app,
        &caller,
        &id,
        &Order::read((Control::Resume, Action::Resume), query, &body)?,
    )
    .await
}

/// `POST /v1/broadcasts/{id}/cancel`: has nothing more sent, for good.
///
/// # Errors
/// If the Page is none of the broadcast's (400); there is no such broadcast, or the caller may not see it (404); no job can obey (409); or
/// DynamoDB does not answer (503).
#[utoipa::path(
    post, path = "/v1/broadcasts/{id}/cancel", operation_id = "cancelBroadcast", tag = "broadcasts",
    summary = "Cancel a broadcast",
    description = "Within five seconds no new send starts; sends in flight are recorded. Every contact that is left is counted as \
        `skipped`, or as `in_doubt` where an earlier attempt may have arrived. Meanwhile the `command` of a job is `cancel`, and \
        its counters show the progress. Jobs that are completed are left alone. A cancelled job cannot be resumed.",
    params(
        ("id" = BroadcastId, Path, description = "The id of the broadcast.", example = "019ac2f07d3e7c51a0e0b5c4d3e2f1a0"),
        ("dry_run" = Option<bool>, Query, description = "True: the answer says what would be affected, and nothing is changed.", example = true),
    ),
    request_body(content = Option<ControlRequest>, example = json!({"page_id": "page-1"})),
    responses(
        (
            status = 202, description = "The jobs are cancelled, or will be in a moment.", body = ControlReport,
            headers(("Location" = String, description = "The URL of the broadcast."))
        ),
        (status = 400, response = Invalid),
        (status = 404, response = NotFound),
        (status = 409, response = Conflict),
        (status = 413, response = TooLarge),
        (status = 415, response = UnsupportedType),
    ),
    security(("jwt" = ["broadcasts:write"]), ("iam" = [])),
)]
pub async fn cancel(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId,
    query: Query,
    body: OptionalJsonBody,
) -> Result<Response, Problem> {
    carry_out(
        &app,
        &caller,
        &id,
        &Order::read((Control::Cancel, Action::Cancel), query, &body)?,
    )
    .await
}

/// A control as a request orders it.
struct Order {
    control: Control,
    action: Action,
    page_id: Option<PageId>,
    dry_run: bool,
}

impl Order {
    /// Reads the parameters and the body, if there is one.
    ///
    /// # Errors
    /// If they have faults (400).
    fn read(
        (control, action): (Control, Action),
        mut query: Query,
        OptionalJsonBody(body): &OptionalJsonBody,
    ) -> Result<Self, Problem> {
        let dry_run = query.take("dry_run", flag).unwrap_or_default();
        query.finish()?;
        let faults = Faults::default();
        let read = Fields::of(body, "", &["page_id"], &faults).map(|fields| ControlRequest {
            page_id: fields.parsed("page_id", fields.optional("page_id"), |id| {
                PageId::parse(id).map_err(str::to_owned)
            }),
        });
        let ControlRequest { page_id } = faults.or(read)?;
        Ok(Self {
            control,
            action,
            page_id,
            dry_run,
        })
    }

    /// Returns the problem of an order that none of these jobs can obey.
    fn problem(&self, jobs: &[Job]) -> Problem {
        let (kind, verb) = match self.control {
            Control::Pause => (Kind::NothingToPause, "pause"),
            Control::Resume => (Kind::NothingToResume, "resume"),
            Control::Cancel => (Kind::NothingToCancel, "cancel"),
            Control::Retry(_) => (Kind::NotCompleted, "retry"),
        };
        let states: Vec<_> = jobs.iter().map(state_of).collect();
        let detail = format!("Nothing is left to {verb}: {}.", states.join(", "));
        Problem::new(kind, detail)
    }
}

/// Returns the state of a job in words.
pub fn state_of(job: &Job) -> String {
    let Job { page_id, status, .. } = job;
    match job.stop {
        Some(stop) => format!("the job of Page {page_id} is {status}, with a command to {stop}"),
        None => format!("the job of Page {page_id} is {status}"),
    }
}

/// The jobs of a broadcast that an order means, and the changes to them.
struct Plan {
    changes: Vec<(Job, JobChange)>,
    affected: Affected,
}

impl Plan {
    /// Decides on each job.
    ///
    /// # Errors
    /// If the broadcast has no job of the Page (400), or no job can obey and none is in the wanted state (409).
    fn of(order: &Order, jobs: Vec<Job>, now: Timestamp) -> Result<Self, Problem> {
        let meant = of_page(jobs, order.page_id.as_ref())?;
        let (mut changes, mut is_impossible) = (Vec::new(), true);
        for job in &meant {
            match order.control.decide(job, now) {
                Decision::Change(change) => changes.push((job.clone(), change)),
                Decision::AlreadySo => is_impossible = false,
                Decision::Impossible => {}
            }
        }
        if changes.is_empty() && is_impossible {
            return Err(order.problem(&meant));
        }
        let contacts = changes.iter().map(|(job, _)| {
            let counters = job.counters();
            counters.pending + counters.outcomes.waiting
        });
        let affected = Affected {
            jobs: changes.len() as u64,
            contacts: contacts.sum(),
            resolving: changes.iter().any(|(job, _)| job.is_resolving()),
        };
        Ok(Self { changes, affected })
    }
}

/// Carries a control out: one transaction over its jobs, as they were read. If one of them has changed meanwhile, they are read
/// again.
///
/// # Errors
/// If the Page is none of the broadcast's (400); there is no such broadcast, or the caller may not see it (404); no job can obey,
/// and none is in the wanted state (409); or DynamoDB does not answer (503).
async fn carry_out(app: &App, caller: &Caller, id: &str, order: &Order) -> Result<Response, Problem> {
    for _ in 0..TRIES {
        let (id, jobs, history) = controlled_broadcast(app, caller, id).await?;
        let now = app.clock.now();
        let Plan { changes, affected } = Plan::of(order, jobs, now)?;
        let entry = HistoryEntry {
            time: now,
            caller: caller.name.clone(),
            action: order.action,
            page_id: order.page_id.clone(),
            jobs: affected.jobs,
            contacts: affected.contacts,
            details: None,
        };
        if order.dry_run || changes.is_empty() || write(app, &changes, &history, &entry).await? {
            let mut report = BroadcastReport::read(&app.store, &id).await?.ok_or_else(unknown)?;
            report.stopped = mark_stopped(app, &mut report.jobs).await?;
            let report = ControlReport {
                report,
                affected,
                dry_run: order.dry_run,
            };
            return Ok((StatusCode::ACCEPTED, location(&report.report), Json(report)).into_response());
        }
    }
    Err(too_many_changes())
}

fn unknown() -> Problem {
    Problem::not_found("There is no such broadcast.")
}

/// Reads the jobs and the history of the broadcast with the id of a path.
///
/// # Errors
/// If there is no such broadcast, or the caller may not see it (404 in both cases), or DynamoDB does not answer (503).
pub async fn controlled_broadcast(
    app: &App,
    caller: &Caller,
    id: &str,
) -> Result<(BroadcastId, Vec<Job>, History), Problem> {
    let id = BroadcastId::parse(id).ok_or_else(unknown)?;
    record_broadcast(&id);
    let found = app.store.broadcasts().get_with_history(&id).await?;
    let (_, jobs, history) = found.ok_or_else(unknown)?;
    if !jobs.iter().all(|job| caller.pages.allow(&job.page_id)) {
        return Err(unknown());
    }
    // An end is announced before an order takes it back.
    for job in &jobs {
        announce(app, job).await?;
    }
    Ok((id, jobs, history))
}

/// Returns the jobs of a broadcast that are meant: that of the Page, if one is named.
///
/// # Errors
/// If it has no such job (400).
pub fn of_page(mut jobs: Vec<Job>, page_id: Option<&PageId>) -> Result<Vec<Job>, Problem> {
    jobs.retain(|job| page_id.is_none_or(|page_id| job.page_id == *page_id));
    match jobs.is_empty() {
        true => Err(Problem::fault("/page_id", "must be a Page of the broadcast")),
        false => Ok(jobs),
    }
}

/// Writes a control of jobs that are to be changed, and wakes them; `false` if one has changed since it was read.
///
/// # Errors
/// If DynamoDB does not answer (503).
pub async fn write(
    app: &App,
    changes: &[(Job, JobChange)],
    history: &History,
    entry: &HistoryEntry,
) -> Result<bool, Problem> {
    let transactions = app.store.transactions();
    let woken = match transactions.control(changes, history, entry, entry.time).await? {
        Controlled::Written(woken) => woken,
        Controlled::Changed => return Ok(false),
    };
    for (job, change) in changes {
        info!(job.id = %job.id(), job.status = %job.status, change = ?change, "job changed by the operator");
    }
    join_all(woken.iter().map(|job| app.queue.wake(job))).await;
    Ok(true)
}
