//! The import of a Page's contacts from its conversations, over HTTP: start, progress, cancel.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use shared::app::App;
use shared::domain::control::{Control, Decision};
use shared::domain::ids::PageId;
use shared::domain::job::{Job, JobStatus};
use shared::domain::reasons::code_of;
use shared::messenger::MessengerClient;
use shared::messenger::errors::Verdict;
use shared::messenger::meanings::remedy_for_list;
use shared::store::imports::Started;
use shared::worker::calls::{Calls, Turn};
use tracing::{info, warn};

use crate::api::conversations::PageImport;
use crate::api::problems::{Conflict, Kind, NotFound};
use crate::caller::Caller;
use crate::change::{TRIES, too_many_changes};
use crate::problem::Problem;
use crate::query::NoParameters;
use crate::request::PathId;

/// `POST /v1/pages/{page_id}/import`: begins an import of the Page's contacts, unless one is under way.
///
/// # Errors
/// If the caller may not use the Page (404), the Page has no access token or Messenger refuses to list its conversations (409), or
/// DynamoDB does not answer (503).
#[utoipa::path(
    post, path = "/v1/pages/{page_id}/import", operation_id = "startPageImport", tag = "contacts",
    summary = "Import the contacts of a Page from its conversations",
    description = "Everybody who has a conversation with the Page becomes a contact, with the name that Messenger shows. What is \
        known of a contact stays. An import reads the whole list, 100 conversations in a call and two calls a second; it sends \
        nothing. If one is under way, the answer is about that one.",
    params(("page_id" = PageId, Path, description = "The id of the Page.", example = "page-1")),
    responses(
        (
            status = 202, description = "The import begins, or is under way.", body = PageImport,
            headers(("Location" = String, description = "The URL of the import."))
        ),
        (status = 404, response = NotFound),
        (status = 409, response = Conflict),
    ),
    security(("jwt" = ["contacts:write"]), ("iam" = [])),
)]
pub async fn start(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId,
    _: NoParameters,
) -> Result<Response, Problem> {
    let page_id = page_of(&caller, &id)?;
    let imports = app.store.imports();
    let known = imports.get(&page_id).await?;
    let job = match known.filter(|job| !is_over(job)) {
        Some(job) => job,
        None => {
            check_access(&app, &page_id).await?;
            match imports.start_if_over(&page_id, app.clock.now()).await? {
                Started::Now(job) => {
                    info!(job.id = %job.id(), "import begins");
                    app.queue.wake(&job).await;
                    *job
                }
                Started::Before(job) => *job,
            }
        }
    };
    Ok(accepted(&job))
}

/// `GET /v1/pages/{page_id}/import`: shows the last import of the Page.
///
/// # Errors
/// If there was none, or the caller may not use the Page (404), or DynamoDB does not answer (503).
#[utoipa::path(
    get, path = "/v1/pages/{page_id}/import", operation_id = "getPageImport", tag = "contacts",
    summary = "Show the last import of a Page",
    description = "Its progress or its end, as of the last checkpoint.",
    params(("page_id" = PageId, Path, description = "The id of the Page.", example = "page-1")),
    responses(
        (status = 200, description = "The last import.", body = PageImport),
        (status = 404, response = NotFound),
    ),
    security(("jwt" = ["contacts:write"]), ("iam" = [])),
)]
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId,
    _: NoParameters,
) -> Result<Json<PageImport>, Problem> {
    let page_id = page_of(&caller, &id)?;
    let job = app.store.imports().get(&page_id).await?.ok_or_else(no_import)?;
    Ok(Json(report(&job)))
}

/// `POST /v1/pages/{page_id}/import/cancel`: ends the import of the Page.
///
/// # Errors
/// If there was none, or the caller may not use the Page (404), it is completed (409), or DynamoDB does not answer (503).
#[utoipa::path(
    post, path = "/v1/pages/{page_id}/import/cancel", operation_id = "cancelPageImport", tag = "contacts",
    summary = "Cancel the import of a Page",
    description = "The contacts that were imported so far stay. A worker that has the import ends it a moment later: until then its \
        `command` is `cancel`. Another import begins at the beginning of the list.",
    params(("page_id" = PageId, Path, description = "The id of the Page.", example = "page-1")),
    responses(
        (
            status = 202, description = "The import is cancelled, or will be in a moment.", body = PageImport,
            headers(("Location" = String, description = "The URL of the import."))
        ),
        (status = 404, response = NotFound),
        (status = 409, response = Conflict),
    ),
    security(("jwt" = ["contacts:write"]), ("iam" = [])),
)]
pub async fn cancel(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId,
    _: NoParameters,
) -> Result<Response, Problem> {
    let page_id = page_of(&caller, &id)?;
    let imports = app.store.imports();
    for _ in 0..TRIES {
        let now = app.clock.now();
        let job = imports.get(&page_id).await?.ok_or_else(no_import)?;
        match Control::Cancel.decide(&job, now) {
            Decision::Change(change) => {
                if imports.change_if_unchanged(&job, &change, now).await? {
                    info!(job.id = %job.id(), job.status = %job.status, "import cancelled by the operator");
                }
            }
            Decision::AlreadySo => {
                // Also if the answer to the change was lost: a repeated wake-up is harmless.
                if job.status == JobStatus::Queued {
                    app.queue.wake(&job).await;
                }
                return Ok(accepted(&job));
            }
            Decision::Impossible => {
                let detail = "Nothing is left to cancel: the import is completed.";
                return Err(Problem::new(Kind::NothingToCancel, detail));
            }
        }
    }
    Err(too_many_changes())
}

/// Reads the id of a Page that the caller may use.
///
/// # Errors
/// If it may not, or the id is none (404).
fn page_of(caller: &Caller, id: &str) -> Result<PageId, Problem> {
    let page_id = PageId::parse(id).ok();
    let page_id = page_id.filter(|page_id| caller.pages.allow(page_id));
    page_id.ok_or_else(|| Problem::not_found("There is no such Page."))
}

fn no_import() -> Problem {
    Problem::not_found("There was no import of this Page.")
}

fn is_over(job: &Job) -> bool {
    matches!(
        job.status,
        JobStatus::Completed | JobStatus::Cancelled | JobStatus::Halted
    )
}

/// Checks that Messenger lists the Page's conversations, by a call for one of them. A call that is not to be made now, or gets no
/// answer, refuses nothing: the import makes it again.
///
/// # Errors
/// If the Page has no access token, or Messenger refuses (409).
async fn check_access(app: &App, page_id: &PageId) -> Result<(), Problem> {
    let refused = |detail: String| Err(Problem::new(Kind::PageNotReadable, detail));
    let access = match app.secrets.access(page_id).await {
        Ok(access) => access,
        Err(error) if error.may_pass() => return Err(error.into()),
        Err(error) => {
            warn!(page.id = %page_id, error = &error as &dyn std::error::Error, "no access: the Page's contacts cannot be imported");
            let detail = format!("There is no access token of Page {page_id}. Add one, then start the import.");
            return refused(detail);
        }
    };
    let Ok(messenger) = MessengerClient::new(&app.config, page_id, access) else {
        return Ok(());
    };
    if let Turn::NotBefore(_) = Calls::new(app, page_id).wait().await? {
        return Ok(());
    }
    let Err(error) = messenger.people(None, 1).await else {
        return Ok(());
    };
    match error.verdict() {
        Verdict::Later | Verdict::RateLimited(_) | Verdict::InDoubt => Ok(()),
        Verdict::Never | Verdict::Stop | Verdict::StopIfConfirmed => {
            if error.refuses_token() {
                app.secrets.forget_token(page_id);
            }
            let code = code_of(&error.to_string());
            let remedy = remedy_for_list(&code);
            refused(format!(
                "Messenger refuses to list the conversations of Page {page_id}, with the code {code}. {remedy}"
            ))
        }
    }
}

/// Returns the answer to an order for an import.
fn accepted(job: &Job) -> Response {
    let location = [(header::LOCATION, format!("/v1/pages/{}/import", job.page_id))];
    (StatusCode::ACCEPTED, location, Json(report(job))).into_response()
}

/// Reports on an import.
fn report(job: &Job) -> PageImport {
    let progress = job.import.clone().unwrap_or_default();
    let waits_for = match (job.status, progress.limited, progress.failed) {
        (JobStatus::Waiting, 0, 0) => Some("the calls for the Page pause"),
        (JobStatus::Waiting, 0, _) => Some("Messenger did not answer"),
        (JobStatus::Waiting, _, _) => Some("Messenger limits the calls for the Page"),
        _ => None,
    };
    let reason = job.reason.clone().or(waits_for.map(str::to_owned));
    let is_ended = matches!(job.status, JobStatus::Completed | JobStatus::Cancelled);
    let ended_at = job.may_send_until.filter(|_| is_ended);
    let remedy = reason.as_deref().filter(|_| job.status == JobStatus::Halted);
    PageImport {
        page_id: job.page_id.clone(),
        status: job.status,
        remedy: remedy.map(|reason| remedy_for_list(&code_of(reason)).to_owned()),
        reason,
        conversations: progress.conversations,
        unreadable: progress.unreadable,
        created: progress.created,
        known: progress.known,
        on_another_page: progress.on_another_page,
        started_over: progress.started_over,
        command: job.command(),
        due_at: job.due_at.filter(|_| job.status == JobStatus::Waiting),
        started_at: job.created_at,
        updated_at: progress.updated_at,
        ended_at: ended_at.and_then(|at| Timestamp::from_millisecond(at).ok()),
    }
}
