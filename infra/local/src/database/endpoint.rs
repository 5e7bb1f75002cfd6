//! DynamoDB's operations as HTTP requests.
//!
//! dynoxide has a server of its own. It lets every web page call it (`Access-Control-Allow-Origin: *`) and cannot be put
//! behind the checks of [`Server`](crate::server::Server). It also keeps the error of SQLite to itself.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use dynoxide::{Database, DynoxideError};
use tokio::task::spawn_blocking;

use super::operations::{Kind, answer, may_lag};
use super::replica::Replica;
use super::storage::Storage;

/// The limit for the body of a request. It is DynamoDB's own limit:
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html>.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

const CONTENT_TYPE: &str = "application/x-amz-json-1.0";
const TARGET: &str = "x-amz-target";
const TARGET_PREFIX: &str = "DynamoDB_20120810.";

/// A database, with its replica if reads lag.
#[derive(Clone)]
pub struct Served {
    pub database: Database,
    pub replica: Option<Arc<Replica>>,
    /// Told about the success of writes.
    pub storage: Storage,
}

impl Served {
    /// Returns the operations as routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/", post(call))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .with_state(self)
    }

    /// Removes the items past their TTL, and returns their number. It blocks.
    pub fn sweep_ttl(&self) -> Result<usize, DynoxideError> {
        match &self.replica {
            Some(replica) => replica.sweep_ttl(&self.database),
            None => self.database.sweep_ttl(),
        }
    }

    async fn answer(&self, operation: &str, body: Bytes) -> Result<String, DynoxideError> {
        match &self.replica {
            Some(replica) if may_lag(operation, &body) => {
                let (replica, operation) = (Arc::clone(replica), operation.to_owned());
                let read = spawn_blocking(move || replica.read(&operation, &body)).await;
                read.unwrap_or_else(|error| Err(DynoxideError::InternalServerError(error.to_string())))
            }
            Some(replica) => replica.pass_on(&self.database, operation, body),
            None => answer(&self.database, operation, &body),
        }
    }
}

async fn call(State(served): State<Served>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get(TARGET).and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.strip_prefix(TARGET_PREFIX));
    let operation = operation.unwrap_or_default();
    let (status, body) = match served.answer(operation, body).await {
        Ok(body) => {
            if Kind::of(operation) != Kind::Read {
                served.storage.written();
            }
            (StatusCode::OK, body)
        }
        Err(error) => {
            served.storage.failed(&error);
            let status = StatusCode::from_u16(error.status_code());
            (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), error.to_json())
        }
    };
    (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response()
}
