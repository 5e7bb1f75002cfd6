//! Deliveries to one contact over HTTP: one in detail, and those of all broadcasts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use shared::app::App;
use shared::domain::delivery::{Delivery, State as DeliveryState};
use shared::domain::ids::{BroadcastId, ContactId, JobId};
use shared::store::broadcasts::Listing;

use crate::api::deliveries::{DeliveryEvidence, DeliveryReport};
use crate::api::lists::ListPart;
use crate::api::problems::{Invalid, NotFound};
use crate::broadcasts::{from_position, position, visible_report};
use crate::caller::Caller;
use crate::contacts;
use crate::list::{self, DEFAULT_LIMIT, MAX_LIMIT};
use crate::problem::Problem;
use crate::query::{NoParameters, Query};
use crate::request::{PathId, PathIds};

/// The number of concurrent reads.
const READS_AT_ONCE: usize = 16;

impl DeliveryEvidence {
    /// Returns a delivery of a job as it is shown.
    fn new(job: JobId, row: Delivery) -> Self {
        Self {
            broadcast_id: job.broadcast_id,
            last_attempt_at: row.reserved_at,
            next_attempt_at: match row.state {
                DeliveryState::Waiting { not_before, .. } => Some(not_before),
                _ => None,
            },
            next_lookup_at: row.lookup_at,
            unclear_attempt_at: row.earlier_doubt,
            refused_at: row.refused_at,
            arrived_after_refusal: row.arrived_as.is_some(),
            delivery: DeliveryReport::new(&job.page_id, row),
        }
    }
}

/// `GET /v1/broadcasts/{id}/deliveries/{contact_id}`: shows the delivery of a broadcast to one contact.
///
/// # Errors
/// If the contact has not been reached, or is none of the broadcast (404), or as [`visible_report`] says.
#[utoipa::path(
    get, path = "/v1/broadcasts/{id}/deliveries/{contact_id}", operation_id = "getDelivery", tag = "broadcasts",
    summary = "Show the delivery to one contact",
    description = "With what is kept of its attempts. There is none before the contact is reached.",
    params(
        ("id" = BroadcastId, Path, description = "The id of the broadcast.", example = "019ac2f07d3e7c51a0e0b5c4d3e2f1a0"),
        ("contact_id" = ContactId, Path, description = "The id of the contact.", example = "6001"),
    ),
    responses(
        (status = 200, description = "The delivery.", body = DeliveryEvidence),
        (status = 404, response = NotFound),
    ),
    security(("jwt" = ["broadcasts:read"]), ("iam" = [])),
)]
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathIds(id, contact_id): PathIds,
    _: NoParameters,
) -> Result<Json<DeliveryEvidence>, Problem> {
    let report = visible_report(&app, &caller, &id).await?;
    let unknown = || Problem::not_found("The broadcast has no delivery to this contact, or has not reached it yet.");
    let contact_id = ContactId::parse_stored(&contact_id).ok_or_else(unknown)?;
    let jobs = report.jobs.into_iter().map(|job| JobId {
        broadcast_id: report.summary.broadcast_id.clone(),
        page_id: job.page_id,
    });
    let deliveries = app.store.deliveries();
    let reads: Vec<_> = jobs
        .map(|job| {
            let (deliveries, contact_id) = (&deliveries, &contact_id);
            async move { deliveries.get(&job, contact_id).await.map(|row| Some((job, row?))) }
        })
        .collect();
    let found: Vec<_> = stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
    let (job, row) = found.into_iter().flatten().next().ok_or_else(unknown)?;
    Ok(Json(DeliveryEvidence::new(job, row)))
}

/// `GET /v1/contacts/{contact_id}/deliveries`: lists the deliveries to a contact, from the newest broadcast.
///
/// Deliveries have no index by contact, which would cost a write for each message. So each part asks the next jobs of the
/// contact's Page, and may be empty and still not be the last.
///
/// # Errors
/// If there is no such contact of a Page that the caller may use (404), a parameter is unknown or wrong (400), or DynamoDB does
/// not answer (503).
#[utoipa::path(
    get, path = "/v1/contacts/{contact_id}/deliveries", operation_id = "listContactDeliveries", tag = "contacts",
    summary = "List the deliveries to a contact, from the newest broadcast",
    description = "They are looked for in the jobs of the contact's Page, `limit` of them for a part, as of a moment ago. A part may be \
        empty and still have a `next_cursor`.",
    params(
        ("contact_id" = ContactId, Path, description = "The id of the contact.", example = "6001"),
        (
            "limit" = Option<u64>, Query, minimum = 1, maximum = 100, example = 50,
            description = "The number of jobs that are asked; 50 if absent.",
        ),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the part before.", example = "6vDnFMVNn0cxNzY0NTQ"),
    ),
    responses(
        (status = 200, description = "A part of the list.", body = ListPart<DeliveryEvidence>),
        (status = 400, response = Invalid),
        (status = 404, response = NotFound),
    ),
    security(("jwt" = ["broadcasts:read"]), ("iam" = [])),
)]
pub async fn list_of_contact(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(contact_id): PathId,
    mut query: Query,
) -> Result<Json<ListPart<DeliveryEvidence>>, Problem> {
    let list_id = query.list_id(&format!("contact\0{contact_id}"));
    let limit = query.take("limit", |value| list::limit(value, MAX_LIMIT));
    let after = query.take("cursor", |value| list::from_cursor(value, &list_id, position));
    query.finish()?;
    let contact_id = ContactId::parse_stored(&contact_id).ok_or_else(contacts::unknown)?;
    let contact = app.store.contacts().get(&contact_id).await?;
    let contact = contact.filter(|contact| caller.pages.allow(&contact.page_id));
    let page_id = contact.ok_or_else(contacts::unknown)?.page_id;

    let listing = Listing {
        page_id: Some(page_id.clone()),
        ..Listing::default()
    };
    let limit = i32::try_from(limit.unwrap_or(DEFAULT_LIMIT)).unwrap_or(i32::MAX);
    let (listed, last) = app.store.broadcasts().list(&listing, after.as_ref(), limit).await?;
    let jobs: Vec<_> = listed
        .into_iter()
        .map(|listed| JobId {
            broadcast_id: listed.broadcast_id,
            page_id: page_id.clone(),
        })
        .collect();
    let mut rows = app.store.deliveries().of_contact_lately(&contact_id, &jobs).await?;
    let items = jobs.into_iter().filter_map(|job| {
        let row = rows.remove(&job)?;
        Some(DeliveryEvidence::new(job, row))
    });
    Ok(Json(ListPart {
        items: items.collect(),
        next_cursor: last.map(|last| list::to_cursor(&list_id, from_position(&last))),
    }))
}
