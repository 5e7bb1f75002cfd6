//! Broadcasts over HTTP: asked for, and reported.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use shared::app::App;
use shared::ids::{BroadcastId, JobId};
use shared::job::{JobStatus, Report, Summary};
use shared::store::broadcasts::Listed;
use tracing::info;

use crate::accept::{Accepted, accept};
use crate::caller::Caller;
use crate::list::{self, DEFAULT_LIMIT, ListPart};
use crate::new_broadcast::NewBroadcast;
use crate::problem::Problem;
use crate::request::{IdempotencyKey, JsonBody, PathId, ReceivedAt};

/// Broadcasts in one answer.
const MAX_LIMIT: usize = 100;
/// Broadcasts read at once.
const READS_AT_ONCE: usize = 8;

/// `POST /v1/broadcasts`
pub async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    ReceivedAt(received): ReceivedAt,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let new = NewBroadcast::parse(&body)?;
    let Accepted { report, replayed } =
        accept(&app, &caller, new, key.as_deref(), received).await?;
    let status = match report.done_inline {
        true => StatusCode::OK,
        false => StatusCode::ACCEPTED,
    };
    let mut answer = (status, Json(report)).into_response();
    if replayed {
        let name = HeaderName::from_static("idempotent-replayed");
        answer
            .headers_mut()
            .insert(name, axum::http::HeaderValue::from_static("true"));
    }
    Ok(answer)
}

/// `GET /v1/broadcasts/{id}`
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId,
) -> Result<Json<Report>, Problem> {
    Ok(Json(report(&app, &caller, &id).await?))
}

/// `POST /v1/broadcasts/{id}/resume`: halted jobs are queued again; those that go on by themselves are left alone.
pub async fn resume(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId,
) -> Result<(StatusCode, Json<Report>), Problem> {
    let found = report(&app, &caller, &id).await?;
    if [JobStatus::Completed, JobStatus::Cancelled].contains(&found.summary.status) {
        let detail = format!(
            "The broadcast is {}; nothing is left to resume.",
            found.summary.status
        );
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    for job in found
        .jobs
        .iter()
        .filter(|job| job.status == JobStatus::Halted)
    {
        let job = JobId {
            broadcast_id: found.summary.broadcast_id.clone(),
            page_id: job.page_id.clone(),
        };
        if let Some((epoch, wake_at)) = app.store.resume(&job, app.clock.now()).await? {
            info!(job.id = %job, job.status = "queued", "job resumed");
            app.queue.hint(&job, epoch, wake_at).await;
        }
    }
    Ok((
        StatusCode::ACCEPTED,
        Json(report(&app, &caller, &id).await?),
    ))
}

/// The broadcast with the id of a path, if the caller may know of it.
pub async fn report(app: &App, caller: &Caller, id: &str) -> Result<Report, Problem> {
    let unknown = || Problem::not_found("There is no such broadcast.");
    let id = BroadcastId::parse(id).ok_or_else(unknown)?;
    let report = app.store.report(&id).await?;
    report
        .filter(|report| caller.may_see(report))
        .ok_or_else(unknown)
}

/// `GET /v1/broadcasts`
///
/// The index says which and in what order, each broadcast itself how it stands; one that is gone by then is left out, as is
/// one that is not for the caller to see. So a part may be empty, and go on.
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<ListPart<Summary>>, Problem> {
    let (mut limit, mut after) = (DEFAULT_LIMIT, None);
    for (name, value) in form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes()) {
        match &*name {
            "limit" => limit = list::limit(&value, MAX_LIMIT)?,
            "cursor" => after = Some(list::from_cursor(&value, position)?),
            other => return Err(list::unknown_parameter(other)),
        }
    }
    let limit = i32::try_from(limit).unwrap_or(i32::MAX);
    let (listed, last) = app.store.list_broadcasts(after.as_ref(), limit).await?;
    let reports: Vec<_> = listed
        .iter()
        .map(|listed| app.store.report(&listed.broadcast_id))
        .collect();
    let reports: Vec<_> = stream::iter(reports)
        .buffered(READS_AT_ONCE)
        .try_collect()
        .await?;
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

/// Where the list goes on, as its cursors have it.
fn position(text: &str) -> Option<Listed> {
    let (created_at, broadcast_id) = text.split_once(' ')?;
    Some(Listed {
        created_at: Timestamp::from_millisecond(created_at.parse().ok()?).ok()?,
        broadcast_id: BroadcastId::parse(broadcast_id)?,
    })
}
