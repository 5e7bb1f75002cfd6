//! DynamoDB's operations as HTTP requests, made from dynoxide's Rust functions.
//!
//! dynoxide has a server of its own. It lets every web page call it (`Access-Control-Allow-Origin: *`) and cannot be put
//! behind the checks of [`Server`](crate::server::Server). It also keeps the error of SQLite to itself.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use dynoxide::{Database, DynoxideError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::storage::Storage;

/// The limit for the body of a request. It is DynamoDB's own limit:
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html>.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

const CONTENT_TYPE: &str = "application/x-amz-json-1.0";
const TARGET: &str = "x-amz-target";
const TARGET_PREFIX: &str = "DynamoDB_20120810.";

/// Returns the operations of a database. They report to `storage` whether writes reach it.
pub fn router(database: Database, storage: Storage) -> Router {
    Router::new()
        .route("/", post(call))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state((database, storage))
}

async fn call(State((database, storage)): State<(Database, Storage)>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get(TARGET).and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.strip_prefix(TARGET_PREFIX));
    let (status, body) = match answer(&database, operation.unwrap_or_default(), &body) {
        Ok(Answer { body, is_write }) => {
            if is_write {
                storage.written();
            }
            (StatusCode::OK, body)
        }
        Err(error) => {
            storage.failed(&error);
            let status = StatusCode::from_u16(error.status_code());
            (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), error.to_json())
        }
    };
    (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response()
}

struct Answer {
    body: String,
    is_write: bool,
}

/// Runs an operation. It blocks, as dynoxide does everything behind one lock.
fn answer(database: &Database, operation: &str, body: &[u8]) -> Result<Answer, DynoxideError> {
    match operation {
        "CreateTable" => write(body, |call| database.create_table(call)),
        "UpdateTable" => write(body, |call| database.update_table(call)),
        "DeleteTable" => write(body, |call| database.delete_table(call)),
        "UpdateTimeToLive" => write(body, |call| database.update_time_to_live(call)),
        "PutItem" => write(body, |call| database.put_item(call)),
        "UpdateItem" => write(body, |call| database.update_item(call)),
        "DeleteItem" => write(body, |call| database.delete_item(call)),
        "BatchWriteItem" => write(body, |call| database.batch_write_item(call)),
        "TransactWriteItems" => write(body, |call| database.transact_write_items(call)),
        "DescribeTable" => read(body, |call| database.describe_table(call)),
        "DescribeTimeToLive" => read(body, |call| database.describe_time_to_live(call)),
        "ListTables" => read(body, |call| database.list_tables(call)),
        "GetItem" => read(body, |call| database.get_item(call)),
        "BatchGetItem" => read(body, |call| database.batch_get_item(call)),
        "TransactGetItems" => read(body, |call| database.transact_get_items(call)),
        "Query" => read(body, |call| database.query(call)),
        "Scan" => read(body, |call| database.scan(call)),
        _ => Err(DynoxideError::SerializationException(
            "this database has no such operation".to_owned(),
        )),
    }
}

fn write<C: DeserializeOwned, A: Serialize>(
    body: &[u8],
    operation: impl FnOnce(C) -> Result<A, DynoxideError>,
) -> Result<Answer, DynoxideError> {
    let answer = read(body, operation)?;
    Ok(Answer {
        is_write: true,
        ..answer
    })
}

fn read<C: DeserializeOwned, A: Serialize>(
    body: &[u8],
    operation: impl FnOnce(C) -> Result<A, DynoxideError>,
) -> Result<Answer, DynoxideError> {
    let malformed = |error: serde_json::Error| DynoxideError::SerializationException(error.to_string());
    let answer = operation(serde_json::from_slice(body).map_err(malformed)?)?;
    Ok(Answer {
        body: serde_json::to_string(&answer).map_err(malformed)?,
        is_write: false,
    })
}
