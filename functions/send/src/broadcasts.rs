//! Broadcasts over HTTP: create, show, list, resume.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use shared::app::App;
use shared::domain::ids::{BroadcastId, JobId};
use shared::domain::job::JobStatus;
use shared::store::broadcasts::Listed;
use shared::store::jobs::WakeUp;
use tracing::info;

use crate::accept::{Accepted, accept};
use crate::api::broadcasts::{BroadcastReport, BroadcastSummary, NewBroadcast};
use crate::api::lists::ListPart;
use crate::api::problems::{Conflict, Invalid, NotFound, TooLarge, Unprocessable, UnsupportedType};
use crate::caller::Caller;
use crate::invocation::record_broadcast;
use crate::list::{self, DEFAULT_LIMIT};
use crate::problem::Problem;
use crate::request::{IdempotencyKey, JsonBody, PathId, ReceivedAt};

/// The maximum number of broadcasts in one answer.
const MAX_LIMIT: usize = 100;
/// The number of concurrent reads for one answer.
const READS_AT_ONCE: usize = 8;

/// `POST /v1/broadcasts`: accepts a broadcast.
///
/// # Errors
/// If the body has faults (400), or as [`accept`] says.
#[utoipa::path(
    post, path = "/v1/broadcasts", operation_id = "createBroadcast", tag = "broadcasts",
    summary = "Send a message to many contacts",
    description = "A broadcast to few contacts is sent within the request and answered with 200 and its outcome. A larger one, or \
        one that is not finished within 20 seconds, is answered with 202 and continues by itself.",
    params((
        "Idempotency-Key" = Option<String>, Header, nullable = false, min_length = 1, max_length = 255, pattern = "^[!-~]+$", example = "opening-hours-1",
        description = "The caller's own name for the request. A repetition is answered with the broadcast of the first request, and \
            sends nothing. Without it the body identifies the request, for five minutes.",
    )),
    request_body = NewBroadcast,
    responses(
        (
            status = 200, description = "The broadcast was sent within the request.", body = BroadcastReport,
            headers(("Idempotent-Replayed" = String, description = "`true` if the request is a repetition."))
        ),
        (
            status = 202, description = "The broadcast is accepted, and continues by itself.", body = BroadcastReport,
            headers(("Idempotent-Replayed" = String, description = "`true` if the request is a repetition."))
        ),
        (status = 400, response = Invalid),
        (status = 404, response = NotFound),
        (status = 413, response = TooLarge),
        (status = 415, response = UnsupportedType),
        (status = 422, response = Unprocessable),
    ),
    security(("jwt" = ["broadcasts:write"]), ("iam" = [])),
)]
pub async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    ReceivedAt(received): ReceivedAt,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let new = NewBroadcast::parse(&body)?;
    let Accepted { report, replayed } = accept(&app, &caller, new, key.as_deref(), received).await?;
    let status = match report.done_inline {
        true => StatusCode::OK,
        false => StatusCode::ACCEPTED,
    };
    let mut answer = (status, Json(report)).into_response();
    if replayed {
        let name = HeaderName::from_static("idempotent-replayed");
        answer.headers_mut().insert(name, HeaderValue::from_static("true"));
    }
    Ok(answer)
}

/// `GET /v1/broadcasts/{id}`: reports on a broadcast.
///
/// # Errors
/// As [`visible_report`].
#[utoipa::path(
    get, path = "/v1/broadcasts/{id}", operation_id = "getBroadcast", tag = "broadcasts",
    summary = "Report on a broadcast",
    description = "The status, the counters as of the last checkpoint, and the jobs.",
    params(("id" = BroadcastId, Path, description = "The id of the broadcast.", example = "019ac2f07d3e7c51a0e0b5c4d3e2f1a0")),
    responses(
        (status = 200, description = "The report.", body = BroadcastReport),
        (status = 404, response = NotFound),
    ),
    security(("jwt" = ["broadcasts:read"]), ("iam" = [])),
)]
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId,
) -> Result<Json<BroadcastReport>, Problem> {
    Ok(Json(visible_report(&app, &caller, &id).await?))
}

/// `POST /v1/broadcasts/{id}/resume`: requeues the halted jobs. Jobs that go on by themselves are left alone.
///
/// # Errors
/// If the broadcast is completed or cancelled (409), or as [`visible_report`] says.
#[utoipa::path(
    post, path = "/v1/broadcasts/{id}/resume", operation_id = "resumeBroadcast", tag = "broadcasts",
    summary = "Resume the halted jobs of a broadcast",
    description = "Jobs that are not halted are left alone. Repair the cause first.",
    params(("id" = BroadcastId, Path, description = "The id of the broadcast.", example = "019ac2f07d3e7c51a0e0b5c4d3e2f1a0")),
    responses(
        (status = 202, description = "No job is halted any more.", body = BroadcastReport),
        (status = 404, response = NotFound),
        (status = 409, response = Conflict),
    ),
    security(("jwt" = ["broadcasts:write"]), ("iam" = [])),
)]
pub async fn resume(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId,
) -> Result<(StatusCode, Json<BroadcastReport>), Problem> {
    let found = visible_report(&app, &caller, &id).await?;
    if [JobStatus::Completed, JobStatus::Cancelled].contains(&found.summary.status) {
        let detail = format!("The broadcast is {}; nothing is left to resume.", found.summary.status);
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    for job in found.jobs.iter().filter(|job| job.status == JobStatus::Halted) {
        let job = JobId {
            broadcast_id: found.summary.broadcast_id.clone(),
            page_id: job.page_id.clone(),
        };
        let resumed = app.store.jobs().resume_if_halted(&job, app.clock.now()).await?;
        if let Some(WakeUp { epoch, wake_at }) = resumed {
            info!(job.id = %job, job.status = "queued", "job resumed");
            app.queue.wake(&job, epoch, wake_at).await;
        }
    }
    Ok((StatusCode::ACCEPTED, Json(visible_report(&app, &caller, &id).await?)))
}

/// Reads the broadcast with the id of a path.
///
/// # Errors
/// If there is no such broadcast, or the caller may not see it (404 in both cases), or DynamoDB does not answer (503).
pub async fn visible_report(app: &App, caller: &Caller, id: &str) -> Result<BroadcastReport, Problem> {
    let unknown = || Problem::not_found("There is no such broadcast.");
    let id = BroadcastId::parse(id).ok_or_else(unknown)?;
    record_broadcast(&id);
    let report = BroadcastReport::read(&app.store, &id).await?;
    report.filter(|report| caller.may_see(report)).ok_or_else(unknown)
}

/// `GET /v1/broadcasts`: lists broadcasts from the newest.
///
/// The index gives the ids and their order, each broadcast its own status. A broadcast that is gone by then is left out, as
/// is one that the caller may not see. So a part may be empty and still not be the last.
///
/// # Errors
/// If a parameter is unknown or wrong (400), or DynamoDB does not answer (503).
#[utoipa::path(
    get, path = "/v1/broadcasts", operation_id = "listBroadcasts", tag = "broadcasts",
    summary = "List broadcasts, newest first",
    description = "A part may be empty and still have a `next_cursor`.",
    params(
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 100, example = 50, description = "The number of items; 50 if absent."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the part before.", example = "MTc2NDU0"),
    ),
    responses(
        (status = 200, description = "A part of the list.", body = ListPart<BroadcastSummary>),
        (status = 400, response = Invalid),
    ),
    security(("jwt" = ["broadcasts:read"]), ("iam" = [])),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<ListPart<BroadcastSummary>>, Problem> {
    let (mut limit, mut after) = (DEFAULT_LIMIT, None);
    for (name, value) in form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes()) {
        match &*name {
            "limit" => limit = list::limit(&value, MAX_LIMIT)?,
            "cursor" => after = Some(list::from_cursor(&value, position)?),
            other => return Err(list::unknown_parameter(other)),
        }
    }
    let limit = i32::try_from(limit).unwrap_or(i32::MAX);
    let (listed, last) = app.store.broadcasts().list(after.as_ref(), limit).await?;
    let reads: Vec<_> = listed
        .iter()
        .map(|listed| BroadcastReport::read(&app.store, &listed.broadcast_id))
        .collect();
    let reports: Vec<_> = stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
    let reports = reports.into_iter().flatten();
    let reports = reports.filter(|report| caller.may_see(report));
    Ok(Json(ListPart {
        items: reports.map(|report| report.summary).collect(),
        next_cursor: last.map(|last| {
            let created_at = last.created_at.as_millisecond();
            list::to_cursor(format_args!("{created_at} {}", last.broadcast_id))
        }),
    }))
}

/// Parses the position that a cursor of the list encodes: the time in milliseconds of the epoch, and the id.
pub fn position(text: &str) -> Option<Listed> {
    let (created_at, broadcast_id) = text.split_once(' ')?;
    Some(Listed {
        created_at: Timestamp::from_millisecond(created_at.parse().ok()?).ok()?,
        broadcast_id: BroadcastId::parse(broadcast_id)?,
    })
}
