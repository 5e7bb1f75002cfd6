//! The deliveries of a broadcast as one CSV file, which is written while the API is asked for the parts.

use axum::body::Body;
use axum::extract::Path;
use axum::http::header;
use axum::response::IntoResponse as _;
use bytes::Bytes;
use client::{Client, CsvPart, DeliveryQuery, Error};
use futures_util::stream;
use shared::domain::ids::BroadcastId;

use super::query;
use crate::broadcasts::{missing, parse_id};
use crate::fields::Fields;
use crate::page::Answer;
use crate::session::Visitor;

/// The rows that the API is asked for at once.
const PART: u32 = 10_000;

/// Answers with the deliveries that match the filters of the query.
///
/// The first part is read before the answer begins, so that a refusal has its status. If a later one fails, the answer breaks off:
/// the browser tells that the file is not whole.
pub async fn download(visitor: Visitor, Path(id): Path<String>, fields: Fields) -> Answer {
    let id = parse_id(&id)?;
    let query = DeliveryQuery {
        limit: Some(PART),
        ..query(&fields)?
    };
    let first = visitor.client.deliveries_csv(&id, &query).await.map_err(missing)?;
    let name = format!("attachment; filename=\"deliveries-{id}.csv\"");
    let about = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, name.as_str()),
    ];
    let parts = Parts {
        client: visitor.client,
        id,
        query,
        read: Some(first),
    };
    Ok((about, Body::from_stream(stream::try_unfold(parts, Parts::next))).into_response())
}

/// The parts of the file that are left.
struct Parts {
    client: Client,
    id: BroadcastId,
    /// The query of the next part; without a cursor after the last.
    query: DeliveryQuery,
    /// The first part, until it is written.
    read: Option<CsvPart>,
}

impl Parts {
    /// Returns the next part, without the header that the first one had.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Error> {
        let (part, begin) = match self.read.take() {
            Some(first) => (first, 0),
            None if self.query.cursor.is_none() => return Ok(None),
            None => {
                let part = self.client.deliveries_csv(&self.id, &self.query).await;
                let part = part.inspect_err(|error| tracing::warn!(error = %error, "a CSV file breaks off"))?;
                let end_of_header = part.csv.iter().position(|byte| *byte == b'\n');
                let begin = end_of_header.map_or(part.csv.len(), |end| end + 1);
                (part, begin)
            }
        };
        self.query.cursor = part.next_cursor;
        let rows = Bytes::from(part.csv).slice(begin..);
        Ok(Some((rows, self)))
    }
}
