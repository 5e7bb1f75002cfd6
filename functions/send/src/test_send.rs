//! Sends of a message to testers, which show it as contacts would get it.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use shared::app::App;
use shared::domain::ids::{ContactId, JobId};
use shared::domain::job::JobStatus;

use crate::accept::{Accepted, accept_test};
use crate::api::broadcasts::NewBroadcast;
use crate::api::deliveries::DeliveryReport;
use crate::api::problems::{Invalid, TooLarge, Unprocessable, UnsupportedType};
use crate::api::test_sends::{TestReport, TestSend};
use crate::broadcasts::location;
use crate::caller::Caller;
use crate::fields::Faults;
use crate::problem::Problem;
use crate::query::NoParameters;
use crate::request::{IdempotencyKey, JsonBody, ReceivedAt};

/// The maximum number of testers of one request.
const MAX_TESTERS: usize = 5;

/// `POST /v1/broadcasts/test`: sends a message to testers, and answers with the outcome for each.
///
/// It is a broadcast of its own, sent within the request like any small one, and left out of lists.
///
/// # Errors
/// If the body has faults or an id is not that of a tester (400), or as [`accept`](crate::accept::accept).
#[utoipa::path(
    post, path = "/v1/broadcasts/test", operation_id = "testBroadcast", tag = "broadcasts",
    summary = "Send a message to testers",
    description = "Up to five contacts with `tester` get the message at once, whatever time, quiet hours or approval the broadcast will \
        have. It is a small broadcast of its own, which lists leave out. Each request sends, unless it repeats an `Idempotency-Key`.",
    params((
        "Idempotency-Key" = Option<String>, Header, nullable = false, min_length = 1, max_length = 255, pattern = "^[!-~]+$", example = "test-1",
        description = "The caller's own name for the request. A repetition is answered with the outcome of the first, and sends nothing.",
    )),
    request_body = TestSend,
    responses(
        (
            status = 200, description = "The message was sent, or refused, for each tester.", body = TestReport,
            headers(("Location" = String, description = "The URL of the broadcast."))
        ),
        (
            status = 202, description = "Some outcomes are not known yet: their Page is busy or pauses.", body = TestReport,
            headers(("Location" = String, description = "The URL of the broadcast."))
        ),
        (status = 400, response = Invalid),
        (status = 413, response = TooLarge),
        (status = 415, response = UnsupportedType),
        (status = 422, response = Unprocessable),
    ),
    security(("jwt" = ["broadcasts:write"]), ("iam" = [])),
)]
pub async fn send(
    State(app): State<Arc<App>>,
    caller: Caller,
    ReceivedAt(received): ReceivedAt,
    IdempotencyKey(key): IdempotencyKey,
    _: NoParameters,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let new = parse(&app, &caller, &body).await?;
    let ids = unique(&new.contact_ids);
    let Accepted { report, .. } = accept_test(&app, &caller, new, key.as_deref(), received).await?;
    let status = match report.summary.status {
        JobStatus::Completed => StatusCode::OK,
        _ => StatusCode::ACCEPTED,
    };
    let location = location(&report);
    let mut deliveries = Vec::new();
    for job in &report.jobs {
        for id in &ids {
            let job_id = JobId {
                broadcast_id: report.summary.broadcast_id.clone(),
                page_id: job.page_id.clone(),
            };
            let row = app.store.deliveries().get(&job_id, id).await?;
            deliveries.extend(row.map(|row| DeliveryReport::new(&job.page_id, row)));
        }
    }
    let answer = TestReport {
        broadcast: report,
        deliveries,
    };
    Ok((status, location, Json(answer)).into_response())
}

/// Parses a request, all of whose contacts must be testers.
async fn parse(app: &App, caller: &Caller, body: &Value) -> Result<NewBroadcast, Problem> {
    const KNOWN: [&str; 8] = [
        "contact_ids",
        "message",
        "allow_literal_braces",
        "messaging_type",
        "tag",
        "notification_type",
        "name",
        "metadata",
    ];
    let faults = Faults::default();
    let read = NewBroadcast::read(body, &KNOWN, &caller.pages, &faults);
    let ids = body.get("contact_ids").and_then(Value::as_array).map_or(0, Vec::len);
    if ids > MAX_TESTERS {
        faults.add(
            "/contact_ids",
            format!("must have at most {MAX_TESTERS} testers, and has {ids}"),
        );
    } else if let Some(new) = &read {
        let contacts = app.store.contacts().get_all(&unique(&new.contact_ids)).await?;
        for (n, id) in new.contact_ids.iter().enumerate() {
            let contact = contacts.get(id).filter(|contact| caller.pages.allow(&contact.page_id));
            let fault = match contact {
                None => "is not a known contact",
                Some(contact) if !contact.tester => "is not a tester: set \"tester\": true on the contact",
                Some(contact) if contact.opted_out => "has opted out",
                Some(_) => continue,
            };
            faults.add(format!("/contact_ids/{n}"), fault);
        }
    }
    faults.or(read)
}

/// Removes repetitions: the first occurrence stands.
fn unique(ids: &[ContactId]) -> Vec<ContactId> {
    let mut seen = HashSet::new();
    ids.iter().filter(|id| seen.insert(*id)).cloned().collect()
}
