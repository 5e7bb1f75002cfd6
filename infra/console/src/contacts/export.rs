//! The contacts of the list as a CSV file, which can be imported.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse as _;
use bytes::{Bytes, BytesMut};
use client::ContactQuery;
use client::contact_file::CsvExport;
use futures_util::stream;
use tokio::task::spawn_blocking;

use crate::failure::Failure;
use crate::fields::Fields;
use crate::page::Answer;
use crate::session::Visitor;

/// The contacts that are asked for at once.
const PART: u32 = 10_000;
/// The bytes of a file that are read at once.
const CHUNK: usize = 64 * 1024;

/// Answers with the file of all contacts that match. Its header is known when the last of them was read.
pub async fn show(visitor: Visitor, fields: Fields) -> Answer {
    let mut query = ContactQuery {
        limit: Some(PART),
        ..super::query(&fields)?
    };
    let mut export = CsvExport::new().map_err(no_room)?;
    loop {
        let part = visitor.client.contacts_csv(&query).await?;
        let added = spawn_blocking(move || export.add(&part.csv).map(|()| export));
        export = added
            .await
            .map_err(io::Error::other)
            .and_then(|added| added)
            .map_err(no_room)?;
        query.cursor = part.next_cursor;
        if query.cursor.is_none() {
            break;
        }
    }
    let file = spawn_blocking(move || whole(export)).await;
    let file = file.map_err(io::Error::other).and_then(|file| file).map_err(no_room)?;
    Ok(attachment(file, "contacts.csv"))
}

/// Writes the parts as one file.
fn whole(export: CsvExport) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    export.write(|rows| file.write_all(rows))?;
    file.rewind()?;
    Ok(file)
}

/// Answers with a CSV file that the browser saves.
pub fn attachment(file: File, name: &str) -> axum::response::Response {
    let chunks = stream::try_unfold(Some(file), async |file| {
        let Some(mut file) = file else { return Ok(None) };
        let read = spawn_blocking(move || {
            let mut chunk = BytesMut::zeroed(CHUNK);
            file.read(&mut chunk)
                .map(|length| (chunk.split_to(length).freeze(), file))
        });
        let (chunk, file) = read.await.map_err(io::Error::other)??;
        io::Result::<Option<(Bytes, _)>>::Ok((!chunk.is_empty()).then_some((chunk, Some(file))))
    });
    let about = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    (about, Body::from_stream(chunks)).into_response()
}

fn no_room(error: io::Error) -> Failure {
    Failure::new(
        StatusCode::INSUFFICIENT_STORAGE,
        format!("The file cannot be written: {error}"),
    )
    .and("It waits in the directory of temporary files (TMPDIR) of the machine on which the console runs.")
}
