//! The deliveries of a broadcast over HTTP, as JSON and as CSV: what became of whom.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use csv::{Terminator, WriterBuilder};
use jiff::Timestamp;
use serde::Serialize;
use shared::app::App;
use shared::delivery::{Delivery, Status};
use shared::ids::{ContactId, JobId, PageId};
use shared::job::Report;
use tracing::error;

use crate::broadcasts::report;
use crate::caller::Caller;
use crate::fields::word;
use crate::list::{self, DEFAULT_LIMIT, ListPart};
use crate::problem::Problem;
use crate::request::{AcceptsCsv, PathId};

/// Rows in one answer of JSON.
const MAX_ROWS: usize = 1_000;
/// Rows in one answer of CSV.
const MAX_CSV_ROWS: usize = 10_000;
/// Rows in one query: a database that is busy sending as well must answer each within a call's 2 s.
const MAX_QUERIED_ROWS: usize = 1_000;
/// Bytes in one answer, by [`DeliveryReport::bytes`]; Lambda refuses 6 MB.
const MAX_BYTES: usize = 5_000_000;
/// Queries for one answer: each of 90 Pages takes one, a megabyte of rows takes one, and a filter may find nothing for long.
const MAX_QUERIES: usize = 128;
/// After this no further query is made: API Gateway waits 29 s.
const MAX_TIME: Duration = Duration::from_secs(15);

const COLUMNS: [&str; 7] = [
    "contact_id",
    "page_id",
    "status",
    "message_id",
    "reason",
    "attempts",
    "updated_at",
];

/// `GET /v1/broadcasts/{id}/deliveries`
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId,
    AcceptsCsv(as_csv): AcceptsCsv,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let asked = Asked::parse(query.as_deref().unwrap_or_default(), as_csv)?;
    let part = read(&app, report(&app, &caller, &id).await?, asked).await?;
    if !as_csv {
        return Ok(Json(part).into_response());
    }
    let body = to_csv(&part.items).map_err(|error| {
        error!(
            error = &error as &dyn std::error::Error,
            "list not written as CSV"
        );
        let detail = "The list could not be written as CSV.";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    })?;
    let content_type = [(header::CONTENT_TYPE, "text/csv; charset=utf-8")];
    let next_cursor = part.next_cursor.map(|cursor| [("x-next-cursor", cursor)]);
    Ok((content_type, next_cursor, body).into_response())
}

/// The rows that are asked for, Page by Page, until an answer is full.
async fn read(
    app: &App,
    report: Report,
    asked: Asked,
) -> Result<ListPart<DeliveryReport>, Problem> {
    let ends = Instant::now() + MAX_TIME;
    let (mut items, mut bytes, mut queries) = (Vec::<DeliveryReport>::new(), 0, 0);
    let mut position = asked.from;
    for page_id in report.jobs.into_iter().map(|job| job.page_id) {
        let mut after = match &position {
            Some(position) if position.page_id > page_id => continue,
            Some(position) if position.page_id == page_id => position.after.clone(),
            _ => None,
        };
        let job = JobId {
            broadcast_id: report.summary.broadcast_id.clone(),
            page_id: page_id.clone(),
        };
        loop {
            let full = items.len() >= asked.limit || bytes >= MAX_BYTES;
            if full || queries == MAX_QUERIES || Instant::now() >= ends {
                let next_cursor = Some(list::to_cursor(Position { page_id, after }));
                return Ok(ListPart { items, next_cursor });
            }
            let limit = (asked.limit - items.len()).min(MAX_QUERIED_ROWS);
            let limit = i32::try_from(limit).unwrap_or(i32::MAX);
            let (rows, last) = app
                .store
                .deliveries(&job, asked.status, after.as_ref(), limit)
                .await?;
            queries += 1;
            after = last;
            for row in rows {
                let item = DeliveryReport::new(&page_id, row);
                bytes += item.bytes();
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
        position = None;
    }
    let next_cursor = None;
    Ok(ListPart { items, next_cursor })
}

/// A delivery as the API shows it.
#[derive(Serialize)]
struct DeliveryReport {
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

    /// What it takes at most, as JSON or as CSV, in the JSON text that a function's answer is put into.
    fn bytes(&self) -> usize {
        const ALL_BUT_TEXTS: usize = 200;
        let page_id = self.page_id.to_string();
        let texts = [
            self.contact_id.as_str(),
            &page_id,
            self.message_id.as_deref().unwrap_or_default(),
            self.reason.as_deref().unwrap_or_default(),
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
    let mut writer = WriterBuilder::new()
        .terminator(Terminator::CRLF)
        .from_writer(Vec::new());
    writer.write_record(COLUMNS)?;
    for item in items {
        writer.write_record([
            defused(item.contact_id.as_str()),
            defused(&item.page_id.to_string()),
            item.status.to_string(),
            defused(item.message_id.as_deref().unwrap_or_default()),
            defused(item.reason.as_deref().unwrap_or_default()),
            item.attempts.to_string(),
            item.updated_at.to_string(),
        ])?;
    }
    writer
        .into_inner()
        .map_err(|error| error.into_error().into())
}

/// A cell that a spreadsheet shows, where it would have run it as a formula.
fn defused(cell: &str) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{cell}")
    } else {
        cell.to_owned()
    }
}

/// What a list of deliveries is asked for.
struct Asked {
    status: Option<Status>,
    limit: usize,
    from: Option<Position>,
}

impl Asked {
    fn parse(query: &str, as_csv: bool) -> Result<Self, Problem> {
        let (limit, max) = if as_csv {
            (MAX_CSV_ROWS, MAX_CSV_ROWS)
        } else {
            (DEFAULT_LIMIT, MAX_ROWS)
        };
        let mut asked = Self {
            status: None,
            limit,
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
                "limit" => asked.limit = list::limit(&value, max)?,
                "cursor" => asked.from = Some(list::from_cursor(&value, Position::parse)?),
                other => return Err(list::unknown_parameter(other)),
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
    fn parse(text: &str) -> Option<Self> {
        let (page_id, after) = text.split_once(' ')?;
        let after = match after {
            "" => None,
            after => Some(ContactId::parse(after).ok()?),
        };
        let page_id = PageId::parse(page_id).ok()?;
        Some(Self { page_id, after })
    }
}

/// Neither kind of id has a space.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.after.as_ref().map_or("", ContactId::as_str);
        write!(f, "{} {after}", self.page_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_that_a_spreadsheet_would_run_are_defused() {
        for cell in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"] {
            assert_eq!(defused(cell), format!("'{cell}"));
        }
        for cell in ["", "6001", "a=1", "'=1", "m_-1"] {
            assert_eq!(defused(cell), cell);
        }
    }

    #[test]
    fn a_row_never_takes_more_than_it_was_counted_for() {
        for text in ["", "x", "\"", "\\", "\u{1}", "\r\n", "🙂", "=,\""] {
            let item = DeliveryReport {
                contact_id: ContactId::parse(&"\"".repeat(128)).unwrap(),
                page_id: PageId::parse(&"-".repeat(64)).unwrap(),
                status: Status::Reserved,
                message_id: Some(text.repeat(100)),
                reason: Some(text.repeat(100)),
                attempts: u32::MAX,
                updated_at: Timestamp::MAX,
            };
            let counted = item.bytes();

            let in_answer = |body: &str| serde_json::to_string(body).unwrap().len();
            let json = in_answer(&serde_json::to_string(&item).unwrap());
            let without = String::from_utf8(to_csv(&[]).unwrap()).unwrap();
            let csv = String::from_utf8(to_csv(&[item]).unwrap()).unwrap();
            let csv = in_answer(&csv) - in_answer(&without);

            assert!(json <= counted && csv <= counted, "{text:?}: {json}, {csv}");
        }
    }
}
