//! Broadcasts over HTTP: create, show, list.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use shared::app::App;
use shared::domain::ids::{BroadcastId, PageId};
use shared::domain::job::JobStatus;
use shared::store::broadcasts::{Listed, Listing};

use crate::accept::{Accepted, accept};
use crate::api::broadcasts::{BroadcastOrder, BroadcastReport, BroadcastSummary, NewBroadcast};
use crate::api::lists::ListPart;
use crate::api::previews::BroadcastAnswer;
use crate::api::problems::{Invalid, NotFound, TooLarge, Unprocessable, UnsupportedType};
use crate::api::progress::ProgressReport;
use crate::caller::Caller;
use crate::etag::{EntityTag, IfNoneMatch};
use crate::fields::{time, word};
use crate::invocation::record_broadcast;
use crate::list::{self, DEFAULT_LIMIT, MAX_LIMIT};
use crate::preview::preview;
use crate::problem::Problem;
use crate::query::{NoParameters, Query, flag};
use crate::report::Progress;
use crate::request::{IdempotencyKey, JsonBody, PathId, ReceivedAt};
use crate::stopped::mark_stopped;

/// `POST /v1/broadcasts`: accepts a broadcast, or shows what it would do.
///
/// # Errors
/// If the body or a parameter has faults (400), or as [`accept`] says.
#[utoipa::path(
    post, path = "/v1/broadcasts", operation_id = "createBroadcast", tag = "broadcasts",
    summary = "Send a message to many contacts",
    description = "A broadcast to few contacts is sent within the request and answered with 200 and its outcome. A larger one, or \
        one that is not finished within 20 seconds, or one to an audience, is answered with 202 and continues by itself.",
    params(
        (
            "Idempotency-Key" = Option<String>, Header, nullable = false, min_length = 1, max_length = 255, pattern = "^[!-~]+$", example = "opening-hours-1",
            description = "The caller's own name for the request. A repetition is answered with the broadcast of the first request, and \
                sends nothing. Without it the body identifies the request, for five minutes.",
        ),
        (
            "dry_run" = Option<bool>, Query, example = false,
            description = "True for a preview: what the broadcast would do. Nothing is stored, and nothing sent.",
        ),
    ),
    request_body = NewBroadcast,
    responses(
        (
            status = 200, description = "The broadcast was sent within the request; or, after a dry run, its preview.", body = BroadcastAnswer,
            headers(("Location" = String, description = "The URL of the broadcast."), ("Idempotent-Replayed" = String, description = "`true` if the request is a repetition."))
        ),
        (
            status = 202, description = "The broadcast is accepted, and continues by itself.", body = BroadcastReport,
            headers(("Location" = String, description = "The URL of the broadcast."), ("Idempotent-Replayed" = String, description = "`true` if the request is a repetition."))
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
    mut query: Query,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let is_dry_run = query.take("dry_run", flag).unwrap_or_default();
    query.finish()?;
    let new = NewBroadcast::parse(&body, &caller.pages)?;
    // As large as what was read from it, and not needed any more.
    drop(body);
    if is_dry_run {
        return Ok(Json(preview(&app, &caller, &new, received).await?).into_response());
    }
    let Accepted { mut report, replayed } = accept(&app, &caller, new, key.as_deref(), received).await?;
    // The broadcast is accepted, whatever is known of the switch.
    report.stopped = mark_stopped(&app, &mut report.jobs).await.unwrap_or_default();
    let status = match report.done_inline {
        true => StatusCode::OK,
        false => StatusCode::ACCEPTED,
    };
    let mut answer = (status, location(&report), Json(report)).into_response();
    if replayed {
        let name = HeaderName::from_static("idempotent-replayed");
        answer.headers_mut().insert(name, HeaderValue::from_static("true"));
    }
    Ok(answer)
}

/// Returns the header that names the URL of a broadcast.
pub fn location(report: &BroadcastReport) -> [(HeaderName, String); 1] {
    [(
        header::LOCATION,
        format!("/v1/broadcasts/{}", report.summary.broadcast_id),
    )]
}

/// `GET /v1/broadcasts/{id}`: reports on a broadcast. A caller that has the report already is told so (304), and pays little:
/// the jobs alone are read then, as of a moment ago.
///
/// # Errors
/// If there is a parameter, or `If-None-Match` is no list of entity tags (400), or as [`visible_report`] says.
#[utoipa::path(
    get, path = "/v1/broadcasts/{id}", operation_id = "getBroadcast", tag = "broadcasts",
    summary = "Report on a broadcast",
    description = "The status, the counters as of the last checkpoint, and the jobs. A caller that polls sends the `ETag` of the report \
        that it has.",
    params(
        ("id" = BroadcastId, Path, description = "The id of the broadcast.", example = "019ac2f07d3e7c51a0e0b5c4d3e2f1a0"),
        (
            "If-None-Match" = Option<String>, Header, nullable = false, example = "W/\"5d41402abc4b2a76b9719d911017c592\"",
            description = "The entity tags of the reports that the caller has, or `*`.",
        ),
    ),
    responses(
        (
            status = 200, description = "The report.", body = BroadcastReport,
            headers(("ETag" = String, description = "The weak entity tag of the report."))
        ),
        (
            status = 304, description = "The caller has the report, as of a moment ago.",
            headers(("ETag" = String, description = "The weak entity tag of the report."))
        ),
        (status = 400, response = Invalid),
        (status = 404, response = NotFound),
    ),
    security(("jwt" = ["broadcasts:read"]), ("iam" = [])),
)]
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId,
    _: NoParameters,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    if !known.is_absent()
        && let Some(id) = BroadcastId::parse(&id)
    {
        record_broadcast(&id);
        let progress = Progress::read(&app.store, &id).await?;
        let mut progress = progress.filter(|progress| caller.may_see(&progress.jobs));
        if let Some(progress) = &mut progress {
            mark_stopped(&app, &mut progress.jobs).await?;
        }
        let tag = progress.map(|progress| progress.tag(&id));
        if let Some(tag) = tag.filter(|tag| known.matches(tag)) {
            return Ok(not_modified(&tag));
        }
    }
    let mut report = visible_report(&app, &caller, &id).await?;
    let tag = report.tag();
    if known.matches(&tag) {
        return Ok(not_modified(&tag));
    }
    report.progress = Some(ProgressReport::read(&app, &report).await?);
    Ok(([(header::ETAG, tag.to_string())], Json(report)).into_response())
}

fn not_modified(tag: &EntityTag) -> Response {
    (StatusCode::NOT_MODIFIED, [(header::ETAG, tag.to_string())]).into_response()
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
    let report = report.filter(|report| caller.may_see(&report.jobs));
    let mut report = report.ok_or_else(unknown)?;
    report.stopped = mark_stopped(app, &mut report.jobs).await?;
    Ok(report)
}

/// `GET /v1/broadcasts`: lists broadcasts by time, from the newest unless the request asks for the oldest first.
///
/// The index gives the ids and their order, each broadcast its own status, as of a moment ago. A broadcast that is gone by then
/// is left out, as is one that the caller may not see, or that has another status than is asked for. So a part may be empty and
/// still not be the last.
///
/// # Errors
/// If a parameter is unknown or wrong (400), or DynamoDB does not answer (503).
#[utoipa::path(
    get, path = "/v1/broadcasts", operation_id = "listBroadcasts", tag = "broadcasts",
    summary = "List broadcasts by time",
    description = "As of a moment ago. A filter is applied to the items of a part, which may be empty and still have a `next_cursor`.",
    params(
        ("status" = Option<JobStatus>, Query, description = "The status of the broadcasts that are listed; any if absent.", example = "halted"),
        ("page_id" = Option<PageId>, Query, description = "A Page of which one of their jobs is.", example = "page-1"),
        (
            "created_after" = Option<Timestamp>, Query, example = "2026-12-01T00:00:00Z",
            description = "The time after which their requests were received.",
        ),
        (
            "sort" = Option<BroadcastOrder>, Query, example = "-created_at",
            description = "The order of the list: by the time of the request, newest first (`-created_at`, also if absent) or oldest first.",
        ),
        ("tests" = Option<bool>, Query, example = false, description = "True to list sends to testers, too."),
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
    mut query: Query,
) -> Result<Json<ListPart<BroadcastSummary>>, Problem> {
    const STATUSES: &str =
        "processing, queued, waiting, paused, scheduled, awaiting_approval, halted, cancelled and completed";
    let list_id = query.list_id("broadcasts");
    let status: Option<JobStatus> = query.take("status", |value| word(value, STATUSES));
    let listing = Listing {
        page_id: query.take("page_id", |value| PageId::parse(value).map_err(str::to_owned)),
        created_after: query.take("created_after", time),
        oldest_first: query.take("sort", is_oldest_first).unwrap_or_default(),
    };
    let with_tests = query.take("tests", flag).unwrap_or_default();
    let limit = query.take("limit", |value| list::limit(value, MAX_LIMIT));
    let after = query.take("cursor", |value| list::from_cursor(value, &list_id, position));
    query.finish()?;
    let limit = i32::try_from(limit.unwrap_or(DEFAULT_LIMIT)).unwrap_or(i32::MAX);
    let broadcasts = app.store.broadcasts();
    let (listed, last) = broadcasts.list(&listing, after.as_ref(), limit).await?;
    let ids: Vec<_> = listed.into_iter().map(|listed| listed.broadcast_id).collect();
    let found = broadcasts.all_with_jobs_lately(&ids).await?.into_iter();
    let reports = found.map(|(broadcast, jobs)| BroadcastReport::new(broadcast, &jobs));
    let reports = reports.filter(|report| caller.may_see(&report.jobs));
    let summaries = reports.map(|report| report.summary);
    Ok(Json(ListPart {
        items: summaries
            .filter(|summary| status.is_none_or(|status| status == summary.status))
            .filter(|summary| with_tests || !summary.test)
            .collect(),
        next_cursor: last.map(|last| list::to_cursor(&list_id, from_position(&last))),
    }))
}

/// Parses the order of the list.
fn is_oldest_first(value: &str) -> Result<bool, String> {
    let order: BroadcastOrder = word(value, "-created_at and created_at")?;
    Ok(order == BroadcastOrder::OldestFirst)
}

/// Writes a position as [`position`] reads it.
pub fn from_position(position: &Listed) -> String {
    format!("{} {}", position.created_at.as_millisecond(), position.broadcast_id)
}

/// Parses the position that a cursor of the list encodes: the time in milliseconds of the epoch, and the id.
pub fn position(text: &str) -> Option<Listed> {
    let (created_at, broadcast_id) = text.split_once(' ')?;
    Some(Listed {
        created_at: Timestamp::from_millisecond(created_at.parse().ok()?).ok()?,
        broadcast_id: BroadcastId::parse(broadcast_id)?,
    })
}
