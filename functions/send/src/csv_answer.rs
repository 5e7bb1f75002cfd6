//! Answers in CSV (RFC 4180).

use axum::http::header;
use axum::response::IntoResponse;
use csv::{Terminator, WriterBuilder};
use tracing::error;

use crate::api::problems::Kind;
use crate::problem::Problem;

/// Writes a file with these columns and rows.
///
/// # Errors
/// If a row has another number of cells than there are columns.
pub fn csv_file<C, R>(columns: C, rows: impl IntoIterator<Item = R>) -> Result<Vec<u8>, csv::Error>
where
    C: IntoIterator<Item: AsRef<[u8]>>,
    R: IntoIterator<Item: AsRef<[u8]>>,
{
    let mut writer = WriterBuilder::new()
        .terminator(Terminator::CRLF)
        .from_writer(Vec::new());
    writer.write_record(columns)?;
    for row in rows {
        writer.write_record(row)?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

/// Returns the answer with a file.
///
/// # Errors
/// If the file could not be written (500).
pub fn csv_answer(file: Result<Vec<u8>, csv::Error>) -> Result<impl IntoResponse + use<>, Problem> {
    let content_type = [(header::CONTENT_TYPE, "text/csv; charset=utf-8")];
    file.map(|file| (content_type, file)).map_err(|error| {
        let error = &error as &dyn std::error::Error;
        error!(error, "answer not written as CSV");
        Problem::new(Kind::Internal, "The answer could not be written as CSV.")
    })
}
