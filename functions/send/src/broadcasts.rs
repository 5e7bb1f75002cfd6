//! Broadcasts over HTTP: asked for, and reported.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Serialize;
use shared::app::App;
use shared::delivery::{Delivery, Status};
use shared::ids::{BroadcastId, ContactId, JobId, PageId};
use shared::job::{JobStatus, Report};
use tracing::info;

use crate::accept::{Accepted, accept};
use crate::fields::word;
use crate::new_broadcast::NewBroadcast;
use crate::problem::Problem;
use crate::request::{IdempotencyKey, JsonBody, PathId, ReceivedAt};

/// Rows in one answer.
const MAX_ROWS: usize = 1_000;
/// Rows in one answer when nobody says how many.
const DEFAULT_ROWS: usize = 50;
/// Queries for one answer: a filter may find nothing for long.
const MAX_QUERIES: usize = 20;

/// `POST /v1/broadcasts`
pub async fn create(
    State(app): State<Arc<App>>,
    ReceivedAt(received): ReceivedAt,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let new = NewBroadcast::parse(&body)?;
    let Accepted { report, replayed } = accept(&app, new, key.as_deref(), received).await?;
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
    PathId(id): PathId,
) -> Result<Json<Report>, Problem> {
    Ok(Json(report(&app, &id).await?))
}

/// `POST /v1/broadcasts/{id}/resume`: halted jobs are queued again; those that go on by themselves are left alone.
pub async fn resume(
    State(app): State<Arc<App>>,
    PathId(id): PathId,
) -> Result<(StatusCode, Json<Report>), Problem> {
    let found = report(&app, &id).await?;
    if [JobStatus::Completed, JobStatus::Cancelled].contains(&found.status) {
        let detail = format!(
            "The broadcast is {}; nothing is left to resume.",
            found.status
        );
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    for job in found
        .jobs
        .iter()
        .filter(|job| job.status == JobStatus::Halted)
    {
        let job = JobId {
            broadcast_id: found.broadcast_id.clone(),
            page_id: job.page_id.clone(),
        };
        if let Some((epoch, wake_at)) = app.store.resume(&job, app.clock.now()).await? {
            info!(job.id = %job, job.status = "queued", "job resumed");
            app.queue.hint(&job, epoch, wake_at).await;
        }
    }
    Ok((StatusCode::ACCEPTED, Json(report(&app, &id).await?)))
}

async fn report(app: &App, id: &str) -> Result<Report, Problem> {
    let unknown = || Problem::not_found("There is no such broadcast.");
    let id = BroadcastId::parse(id).ok_or_else(unknown)?;
    app.store.report(&id).await?.ok_or_else(unknown)
}

/// A delivery as the API shows it.
#[derive(Serialize)]
pub struct DeliveryReport {
    contact_id: ContactId,
    page_id: PageId,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    attempts: u32,
    updated_at: Timestamp,
}

impl DeliveryReport {
    fn new(page_id: &PageId, row: Delivery) -> Self {
        Self {
            page_id: page_id.clone(),
            status: row.state.status(),
            message_id: row.state.message_id().map(str::to_owned),
            reason: row.state.reason().map(str::to_owned),
            attempts: row.attempts,
            updated_at: row.updated_at,
            contact_id: row.contact_id,
        }
    }
}

/// A part of a list.
#[derive(Serialize)]
pub struct ListPart<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}

/// `GET /v1/broadcasts/{id}/deliveries`
pub async fn deliveries(
    State(app): State<Arc<App>>,
    PathId(id): PathId,
    RawQuery(query): RawQuery,
) -> Result<Json<ListPart<DeliveryReport>>, Problem> {
    let asked = RowsAsked::parse(query.as_deref().unwrap_or_default())?;
    let report = report(&app, &id).await?;
    let mut items = Vec::new();
    let mut position = asked.from;
    let mut queries = 0;
    for page_id in report.jobs.into_iter().map(|job| job.page_id) {
        let mut after = match &position {
            Some(position) if position.page_id > page_id => continue,
            Some(position) if position.page_id == page_id => position.after.clone(),
            _ => None,
        };
        let job = JobId {
            broadcast_id: report.broadcast_id.clone(),
            page_id: page_id.clone(),
        };
        loop {
            if items.len() >= asked.limit || queries == MAX_QUERIES {
                let next_cursor = Some(Position { page_id, after }.to_cursor());
                return Ok(Json(ListPart { items, next_cursor }));
            }
            let limit = i32::try_from(asked.limit - items.len()).unwrap_or(i32::MAX);
            let (rows, last) = app
                .store
                .deliveries(&job, asked.status, after.as_ref(), limit)
                .await?;
            items.extend(
                rows.into_iter()
                    .map(|row| DeliveryReport::new(&page_id, row)),
            );
            queries += 1;
            after = last;
            if after.is_none() {
                break;
            }
        }
        position = None;
    }
    let next_cursor = None;
    Ok(Json(ListPart { items, next_cursor }))
}

/// What a list of deliveries is asked for.
struct RowsAsked {
    status: Option<Status>,
    limit: usize,
    from: Option<Position>,
}

impl RowsAsked {
    fn parse(query: &str) -> Result<Self, Problem> {
        let mut asked = Self {
            status: None,
            limit: DEFAULT_ROWS,
            from: None,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "status" => {
                    let status = word(
                        &value,
                        "reserved, sent, failed, skipped, waiting and in_doubt",
                    );
                    asked.status =
                        Some(status.map_err(|message| Problem::fault("status", message))?);
                }
                "limit" => {
                    let limit = value
                        .parse()
                        .ok()
                        .filter(|limit| (1..=MAX_ROWS).contains(limit));
                    let wrong = || {
                        Problem::fault("limit", format!("must be a number from 1 to {MAX_ROWS}"))
                    };
                    asked.limit = limit.ok_or_else(wrong)?;
                }
                "cursor" => {
                    let wrong = || Problem::fault("cursor", "must be a next_cursor of this list");
                    asked.from = Some(Position::from_cursor(&value).ok_or_else(wrong)?);
                }
                other => return Err(Problem::fault(other, "is not a parameter here")),
            }
        }
        Ok(asked)
    }
}

/// Where a list goes on: on this Page, after this contact.
struct Position {
    page_id: PageId,
    after: Option<ContactId>,
}

impl Position {
    /// Neither kind of id has a space.
    fn to_cursor(&self) -> String {
        let after = self
            .after
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        URL_SAFE_NO_PAD.encode(format!("{} {after}", self.page_id))
    }

    fn from_cursor(cursor: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        let (page_id, after) = text.split_once(' ')?;
        let after = match after {
            "" => None,
            after => Some(ContactId::parse(after).ok()?),
        };
        let page_id = PageId::parse(page_id).ok()?;
        Some(Self { page_id, after })
    }
}
