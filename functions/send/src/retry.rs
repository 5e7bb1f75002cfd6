//! Retries over HTTP: completed jobs send again to contacts that are not known to have got the message.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use shared::app::App;
use shared::domain::command::RetryCommand;
use shared::domain::control::{Control, Decision};
use shared::domain::delivery::Status;
use shared::domain::history::{Action, HistoryEntry};
use shared::domain::ids::{BroadcastId, PageId};
use shared::domain::job::{Job, JobStatus};
use shared::domain::reasons::NotSent;

use crate::api::controls::{RetriedJob, RetryReport, RetryRequest};
use crate::api::problems::{Conflict, Invalid, Kind, NotFound, TooLarge, UnsupportedType};
use crate::caller::Caller;
use crate::change::{TRIES, too_many_changes};
use crate::controls::{controlled_broadcast, of_page, state_of, write};
use crate::fields::{Faults, Fields, nearest};
use crate::problem::Problem;
use crate::query::{Query, flag};
use crate::reasons;
use crate::request::{OptionalJsonBody, PathId};

/// The maximum number of reasons in a request: a job counts by no more.
const MAX_REASONS: usize = 30;

/// The contacts of one job that a retry is for.
#[derive(Clone, Copy, Default)]
struct Reopened {
    all: u64,
    in_doubt: u64,
}

/// `POST /v1/broadcasts/{id}/retry`: sends again to contacts that are not known to have got the message.
///
/// # Errors
/// If the parameters or the body have faults, or the Page is none of the broadcast's (400); there is no such broadcast, or the
/// caller may not see it (404); a job that is meant is not completed (409); or DynamoDB does not answer (503).
#[utoipa::path(
    post, path = "/v1/broadcasts/{id}/retry", operation_id = "retryBroadcast", tag = "broadcasts",
    summary = "Send again to contacts that got no message",
    description = "Contacts of completed jobs, by status and reason: the failed ones unless others are named. Contacts in doubt may have \
        got the message, so they must be named, and `may_get_it_twice` counts them. A contact whose message is known to have arrived \
        is left out. Cancelled jobs are left alone.",
    params(
        ("id" = BroadcastId, Path, description = "The id of the broadcast.", example = "019ac2f07d3e7c51a0e0b5c4d3e2f1a0"),
        ("dry_run" = Option<bool>, Query, description = "True: the answer says what would be sent again, and nothing is changed.", example = true),
    ),
    request_body(content = Option<RetryRequest>, example = json!({"statuses": ["failed"], "reasons": ["551"]})),
    responses(
        (
            status = 202, description = "The contacts are sent to again.", body = RetryReport,
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
pub async fn retry(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId,
    mut query: Query,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    let dry_run = query.take("dry_run", flag).unwrap_or_default();
    query.finish()?;
    let RetryRequest {
        statuses,
        reasons,
        page_id,
    } = read(&body)?;
    let command = RetryCommand { statuses, reasons };
    for _ in 0..TRIES {
        let (id, jobs, history) = controlled_broadcast(&app, &caller, &id).await?;
        let jobs = meant(jobs, page_id.as_ref())?;
        let now = app.clock.now();
        let mut changes = Vec::new();
        let mut report = RetryReport {
            broadcast_id: id,
            reopened: 0,
            may_get_it_twice: 0,
            jobs: Vec::new(),
            dry_run,
        };
        for job in jobs {
            let decision = Control::Retry(command.clone()).decide(&job, now);
            if decision == Decision::Impossible {
                return Err(not_completed(&job));
            }
            let reopened = count(&app, &job, &command).await?;
            report.reopened += reopened.all;
            report.may_get_it_twice += reopened.in_doubt;
            report.jobs.push(RetriedJob {
                page_id: job.page_id.clone(),
                reopened: reopened.all,
            });
            if let (Decision::Change(change), 1..) = (decision, reopened.all) {
                changes.push((job, change));
            }
        }
        report.jobs.sort_by(|one, other| one.page_id.cmp(&other.page_id));
        let entry = HistoryEntry {
            time: now,
            caller: caller.name.clone(),
            action: Action::Retry,
            page_id: page_id.clone(),
            jobs: changes.len() as u64,
            contacts: report.reopened,
            details: Some(command.to_string()),
        };
        if dry_run || changes.is_empty() || write(&app, &changes, &history, &entry).await? {
            let location = [(header::LOCATION, format!("/v1/broadcasts/{}", report.broadcast_id))];
            return Ok((StatusCode::ACCEPTED, location, Json(report)).into_response());
        }
    }
    Err(too_many_changes())
}

/// Reads the body, if there is one.
///
/// # Errors
/// If it has faults (400).
fn read(body: &Value) -> Result<RetryRequest, Problem> {
    let (faults, default) = (Faults::default(), RetryRequest::default());
    let read = Fields::of(body, "", &["statuses", "reasons", "page_id"], &faults).map(|fields| RetryRequest {
        statuses: words(&fields, &faults, "statuses", status).unwrap_or(default.statuses),
        reasons: words(&fields, &faults, "reasons", reasons::code).unwrap_or_default(),
        page_id: fields.parsed("page_id", fields.optional("page_id"), |id| {
            PageId::parse(id).map_err(str::to_owned)
        }),
    });
    faults.or(read)
}

/// Reads a list of words without its repetitions; `None` if it is absent.
fn words<T: PartialEq>(
    fields: &Fields<'_>,
    faults: &Faults,
    name: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    let list = fields.list(name, fields.optional(name))?;
    if !(1..=MAX_REASONS).contains(&list.len()) {
        fields.fault(name, format!("must have 1 to {MAX_REASONS} items"));
    }
    let mut words = Vec::new();
    for (index, word) in list.iter().enumerate() {
        let parsed = word
            .as_str()
            .ok_or_else(|| "must be a string".to_owned())
            .and_then(&parse);
        match parsed {
            Ok(word) if words.contains(&word) => {}
            Ok(word) => words.push(word),
            Err(fault) => faults.add(format!("/{name}/{index}"), fault),
        }
    }
    Some(words)
}

/// Parses the status of contacts that may be sent to again.
fn status(text: &str) -> Result<NotSent, String> {
    const STATUSES: [&str; 3] = ["failed", "skipped", "in_doubt"];
    serde_json::from_value(Value::from(text)).map_err(|_| match (text, nearest(text, STATUSES)) {
        ("sent", _) => "must not be sent: those contacts have got the message".to_owned(),
        (_, Some(near)) => format!("must be failed, skipped or in_doubt; {near:?} is one"),
        (_, None) => "must be failed, skipped or in_doubt".to_owned(),
    })
}

/// Returns the jobs that a retry means. Cancelled jobs are none of them, unless there are no others.
///
/// # Errors
/// If the broadcast has no job of the Page (400).
fn meant(jobs: Vec<Job>, page_id: Option<&PageId>) -> Result<Vec<Job>, Problem> {
    let mut jobs = of_page(jobs, page_id)?;
    if jobs.iter().any(|job| job.status != JobStatus::Cancelled) {
        jobs.retain(|job| job.status != JobStatus::Cancelled);
    }
    Ok(jobs)
}

fn not_completed(job: &Job) -> Problem {
    let detail = match job.status {
        JobStatus::Completed => format!(
            "The job of Page {} was completed too long ago: its time of retention is over.",
            job.page_id
        ),
        _ => format!("Only completed jobs can be retried, and {}.", state_of(job)),
    };
    Problem::new(Kind::NotCompleted, detail)
}

/// Counts the contacts of a completed job that a retry is for: by the totals of the job, or by its rows if those do not tell.
async fn count(app: &App, job: &Job, command: &RetryCommand) -> Result<Reopened, Problem> {
    let in_doubt = RetryCommand {
        statuses: vec![NotSent::InDoubt],
        ..command.clone()
    };
    let in_doubt = match command.statuses.contains(&NotSent::InDoubt) {
        true => job.count_for(&in_doubt),
        false => Some(0),
    };
    if let (Some(all), Some(in_doubt)) = (job.count_for(command), in_doubt) {
        return Ok(Reopened { all, in_doubt });
    }
    let (mut counted, mut after) = (Reopened::default(), None);
    loop {
        let deliveries = app.store.deliveries();
        let (rows, last) = deliveries.named_by_retry(&job.id(), command, after.as_ref()).await?;
        counted.all += rows.len() as u64;
        let in_doubt = rows.iter().filter(|row| row.state.status() == Status::InDoubt);
        counted.in_doubt += in_doubt.count() as u64;
        after = last;
        if after.is_none() {
            return Ok(counted);
        }
    }
}
