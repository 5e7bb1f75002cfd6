//! The deliveries of a broadcast over HTTP, as JSON and as CSV: one row for each contact that was reached so far.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use shared::app::App;
use shared::domain::delivery::{Delivery, Status};
use shared::domain::ids::{BroadcastId, JobId, PageId};
use shared::store::delivery_filter::DeliveryFilter;

use crate::api::broadcasts::BroadcastReport;
use crate::api::deliveries::DeliveryReport;
use crate::api::lists::ListPart;
use crate::api::problems::{Invalid, NotFound};
use crate::broadcasts::visible_report;
use crate::caller::Caller;
use crate::csv_answer::{csv_answer, csv_file};
use crate::csv_cells::marked;
use crate::fields::{time, word};
use crate::list::{self, Budget, DEFAULT_LIMIT, MAX_QUERIED_ITEMS, PagePosition, next_cursor};
use crate::negotiation::Form;
use crate::problem::Problem;
use crate::query::Query;
use crate::reasons;
use crate::request::PathId;

/// The maximum number of rows in one answer of JSON.
const MAX_ROWS: usize = 1_000;
/// The maximum number of rows in one answer of CSV.
const MAX_CSV_ROWS: usize = 10_000;
/// The maximum size of one answer in bytes, by [`DeliveryReport::max_bytes`]. Lambda refuses more than 6 MB
/// (<https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>).
const MAX_BYTES: usize = 5_000_000;

/// The addition to the reason of a delivery that is recorded as not sent, and whose echo came later.
const ARRIVED: &str = "its echo came later: the contact has got the message";

/// The columns of CSV.
const COLUMNS: [&str; 8] = [
    "contact_id",
    "page_id",
    "status",
    "message_id",
    "reason",
    "attempts",
    "updated_at",
    "code",
];

/// `GET /v1/broadcasts/{id}/deliveries`: lists deliveries, sorted by Page and contact.
///
/// # Errors
/// If a parameter is unknown or wrong (400), the CSV cannot be written (500), or as [`visible_report`] says.
#[utoipa::path(
    get, path = "/v1/broadcasts/{id}/deliveries", operation_id = "listDeliveries", tag = "broadcasts",
    summary = "List the deliveries of a broadcast",
    description = "One for each contact that was reached so far, sorted by Page and contact; as CSV with the header `Accept: text/csv`. \
        A `failed` or `skipped` delivery with a `message_id` did arrive, as its reason says.",
    params(
        ("id" = BroadcastId, Path, description = "The id of the broadcast.", example = "019ac2f07d3e7c51a0e0b5c4d3e2f1a0"),
        ("status" = Option<Status>, Query, description = "The state of the deliveries that are listed; all if absent.", example = "in_doubt"),
        (
            "reason" = Option<String>, Query, nullable = false, example = "551",
            description = "The code of their reason, as the report of the broadcast and `code` of a delivery show it. Messenger's code \
                without a subcode stands for all of its subcodes.",
        ),
        ("page_id" = Option<PageId>, Query, description = "The Page that sends.", example = "page-1"),
        (
            "updated_after" = Option<Timestamp>, Query, example = "2026-12-01T00:00:00Z",
            description = "The time after which they changed last.",
        ),
        (
            "updated_before" = Option<Timestamp>, Query, example = "2026-12-02T00:00:00Z",
            description = "The time before which they changed last.",
        ),
        (
            "limit" = Option<u64>, Query, minimum = 1, maximum = 1_000, example = 50,
            description = "The number of items; 50 if absent. CSV has up to 10,000, also if absent.",
        ),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the part before.", example = "cGFnZS0xIDYwMDE"),
    ),
    responses(
        (
            status = 200, description = "A part of the list.",
            content(
                (ListPart<DeliveryReport> = "application/json"),
                (String = "text/csv", example = "contact_id,page_id,status,message_id,reason,attempts,updated_at,code\r\n\
                    6001,page-1,sent,m_AbC,,1,2026-12-01T01:00:02.125Z,\r\n"),
            ),
            headers(("X-Next-Cursor" = String, description = "CSV only: the cursor of the next part, if there is one."))
        ),
        (status = 400, response = Invalid),
        (status = 404, response = NotFound),
    ),
    security(("jwt" = ["broadcasts:read"]), ("iam" = [])),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId,
    Extension(form): Extension<Form>,
    query: Query,
) -> Result<Response, Problem> {
    let as_csv = form == Form::Csv;
    let query = DeliveryQuery::parse(query, &id, as_csv)?;
    let part = read(&app, visible_report(&app, &caller, &id).await?, query).await?;
    if !as_csv {
        return Ok(Json(part).into_response());
    }
    let next_cursor = part.next_cursor.map(next_cursor);
    Ok((next_cursor, csv_answer(to_csv(&part.items))?).into_response())
}

/// Reads rows Page by Page, until the answer is full or its time is over.
async fn read(app: &App, report: BroadcastReport, query: DeliveryQuery) -> Result<ListPart<DeliveryReport>, Problem> {
    let (mut items, mut bytes, mut budget) = (Vec::<DeliveryReport>::new(), 0, Budget::begin());
    let deliveries = app.store.deliveries();
    let pages = report.jobs.into_iter().map(|job| job.page_id);
    for page_id in pages.filter(|page_id| query.page_id.as_ref().is_none_or(|only| only == page_id)) {
        let Some(mut after) = PagePosition::on(query.from.as_ref(), &page_id) else {
            continue;
        };
        let job = JobId {
            broadcast_id: report.summary.broadcast_id.clone(),
            page_id: page_id.clone(),
        };
        loop {
            let is_full = items.len() >= query.limit || bytes >= MAX_BYTES;
            if is_full || budget.is_spent() {
                let next_cursor = Some(list::to_cursor(&query.list_id, PagePosition { page_id, after }));
                return Ok(ListPart { items, next_cursor });
            }
            let limit = (query.limit - items.len()).min(MAX_QUERIED_ITEMS);
            let limit = i32::try_from(limit).unwrap_or(i32::MAX);
            budget.spend_query();
            let (rows, last) = deliveries.list(&job, &query.filter, after.as_ref(), limit).await?;
            after = last;
            for row in rows {
                let item = DeliveryReport::new(&page_id, row);
                bytes += item.max_bytes();
                items.push(item);
                if bytes >= MAX_BYTES {
                    after = items.last().map(|item| item.contact_id.clone());
                    break;
                }
            }
            if after.is_none() {
                break;
            }
        }
    }
    let next_cursor = None;
    Ok(ListPart { items, next_cursor })
}

impl DeliveryReport {
    /// Returns a delivery of a job of this Page as it is shown.
    pub fn new(page_id: &PageId, row: Delivery) -> Self {
        Self {
            page_id: page_id.clone(),
            status: row.state.status(),
            message_id: row.message_id().map(str::to_owned),
            reason: row.state.reason().map(|reason| match row.arrived_as {
                Some(_) => format!("{reason}; {ARRIVED}"),
                None => reason.to_owned(),
            }),
            attempts: row.attempts,
            updated_at: row.updated_at,
            code: row.code,
            contact_id: row.contact_id,
        }
    }

    /// Returns an upper bound of the row's bytes, as JSON or as CSV, in the answer of the function: a JSON document whose
    /// body is a string, in which quotation marks and control characters are escaped once more.
    fn max_bytes(&self) -> usize {
        const ALL_BUT_TEXTS: usize = 200;
        let page_id = self.page_id.to_string();
        let texts = [
            self.contact_id.as_str(),
            &page_id,
            self.message_id.as_deref().unwrap_or_default(),
            self.reason.as_deref().unwrap_or_default(),
            self.code.as_deref().unwrap_or_default(),
        ];
        let escaped_twice = |byte| match byte {
            b'"' | b'\\' => 4,
            0..=0x1F => 7,
            _ => 1,
        };
        let bytes = texts.into_iter().flat_map(str::bytes);
        ALL_BUT_TEXTS + bytes.map(escaped_twice).sum::<usize>()
    }
}

fn to_csv(items: &[DeliveryReport]) -> Result<Vec<u8>, csv::Error> {
    let text = |text: &str| marked(text).into_owned();
    let optional = |value: &Option<String>| text(value.as_deref().unwrap_or_default());
    let rows = items.iter().map(|item| {
        [
            text(item.contact_id.as_str()),
            text(item.page_id.as_str()),
            item.status.to_string(),
            optional(&item.message_id),
            optional(&item.reason),
            item.attempts.to_string(),
            item.updated_at.to_string(),
            optional(&item.code),
        ]
    });
    csv_file(COLUMNS, rows)
}

/// The parameters of a list of deliveries.
struct DeliveryQuery {
    list_id: String,
    page_id: Option<PageId>,
    filter: DeliveryFilter,
    limit: usize,
    from: Option<PagePosition>,
}

impl DeliveryQuery {
    fn parse(mut query: Query, id: &str, as_csv: bool) -> Result<Self, Problem> {
        let (default, max) = if as_csv {
            (MAX_CSV_ROWS, MAX_CSV_ROWS)
        } else {
            (DEFAULT_LIMIT, MAX_ROWS)
        };
        let list_id = query.list_id(&format!("deliveries\0{id}"));
        let status = |value: &str| word(value, "reserved, sent, failed, skipped, waiting and in_doubt");
        let filter = DeliveryFilter {
            status: query.take("status", status),
            code: query.take("reason", reasons::code),
            updated_after: query.take("updated_after", time),
            updated_before: query.take("updated_before", time),
        };
        let page_id = query.take("page_id", |value| PageId::parse(value).map_err(str::to_owned));
        let limit = query.take("limit", |value| list::limit(value, max));
        let cursor = |value: &str| list::from_cursor(value, &list_id, PagePosition::parse);
        let from = query.take("cursor", cursor);
        query.finish()?;
        Ok(Self {
            list_id,
            page_id,
            filter,
            limit: limit.unwrap_or(default),
            from,
        })
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use shared::domain::ids::ContactId;

    use super::*;

    #[test]
    fn row_fits_into_its_counted_bytes() {
        for text in ["", "x", "\"", "\\", "\u{1}", "\r\n", "🙂", "=,\""] {
            let item = DeliveryReport {
                contact_id: ContactId::parse(&"\"".repeat(128)).unwrap(),
                page_id: PageId::parse(&"-".repeat(64)).unwrap(),
                status: Status::Reserved,
                message_id: Some(text.repeat(100)),
                reason: Some(text.repeat(100)),
                attempts: u32::MAX,
                updated_at: Timestamp::MAX,
                code: Some(text.repeat(100)),
            };
            let counted = item.max_bytes();

            let in_answer = |body: &str| serde_json::to_string(body).unwrap().len();
            let json = in_answer(&serde_json::to_string(&item).unwrap());
            let without = String::from_utf8(to_csv(&[]).unwrap()).unwrap();
            let csv = String::from_utf8(to_csv(&[item]).unwrap()).unwrap();
            let csv = in_answer(&csv) - in_answer(&without);

            assert!(json <= counted && csv <= counted, "{text:?}: {json}, {csv}");
        }
    }
}
