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

use super::group_commit::GroupCommit;
use super::operations::{Kind, answer, may_lag};
use super::replica::Replica;
use super::storage::Storage;
use super::transactions::Transactions;

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
    /// Syncs what is written, unless SQLite does or there is no file.
    pub group_commit: Option<Arc<GroupCommit>>,
    /// Told about the success of writes.
    pub storage: Storage,
    /// The last transactions.
    pub transactions: Arc<Transactions>,
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
        let swept = match &self.replica {
            Some(replica) => replica.sweep_ttl(&self.database),
            None => self.database.sweep_ttl(),
        };
        // An expired item may come back after a loss of power.
        if let Some(group_commit) = &self.group_commit {
            group_commit.written();
        }
        swept
    }

    /// Runs an operation, and returns its answer once all that it may have seen has reached the disk.
    async fn durable_answer(&self, operation: &str, body: Bytes) -> Result<String, DynoxideError> {
        if let Some(group_commit) = &self.group_commit {
            group_commit.check()?;
        }
        let answer = self.answer(operation, body).await;
        let writes = Kind::of(operation) != Kind::Read;
        match &answer {
            Ok(_) if writes => self.storage.written(),
            Ok(_) => {}
            Err(error) => self.storage.failed(error),
        }
        if let Some(group_commit) = &self.group_commit {
            let is_refused = answer.as_ref().is_err_and(|error| error.status_code() < 500);
            if writes && !is_refused {
                group_commit.written();
            }
            let reached = group_commit.reach_disk().await;
            reached.inspect_err(|error| self.storage.failed(error))?;
        }
        answer
    }

    async fn answer(&self, operation: &str, body: Bytes) -> Result<String, DynoxideError> {
        match &self.replica {
            Some(replica) if may_lag(operation, &body) => {
                let (replica, operation) = (Arc::clone(replica), operation.to_owned());
                let read = spawn_blocking(move || replica.read(&operation, &body)).await;
                read.unwrap_or_else(|error| Err(DynoxideError::InternalServerError(error.to_string())))
            }
            _ if operation == "TransactWriteItems" => {
                let transaction = body.clone();
                self.transactions.run(&body, || self.answer_now(operation, transaction))
            }
            _ => self.answer_now(operation, body),
        }
    }

    fn answer_now(&self, operation: &str, body: Bytes) -> Result<String, DynoxideError> {
        match &self.replica {
            Some(replica) => replica.pass_on(&self.database, operation, body),
            None => answer(&self.database, operation, &body),
        }
    }
}

async fn call(State(served): State<Served>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get(TARGET).and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.strip_prefix(TARGET_PREFIX));
    let operation = operation.unwrap_or_default();
    let (status, body) = match served.durable_answer(operation, body).await {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => {
            let status = StatusCode::from_u16(error.status_code());
            (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), error.to_json())
        }
    };
    (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response()
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures_util::future::poll_immediate;

    use super::*;

    const TABLE: &str = r#"{
        "TableName": "table", "BillingMode": "PAY_PER_REQUEST", "KeySchema": [{"AttributeName": "k", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "k", "AttributeType": "S"}]
    }"#;
    const PUT: &str =
        r#"{"TableName": "table", "Item": {"k": {"S": "a"}}, "ConditionExpression": "attribute_not_exists(k)"}"#;
    const GET: &str = r#"{"TableName": "table", "Key": {"k": {"S": "a"}}}"#;

    fn served() -> (Served, Arc<GroupCommit>) {
        let commit = Arc::new(GroupCommit::default());
        let served = Served {
            database: Database::memory().unwrap(),
            replica: None,
            group_commit: Some(Arc::clone(&commit)),
            storage: Storage::default(),
            transactions: Arc::default(),
        };
        (served, commit)
    }

    #[tokio::test]
    async fn no_answer_leaves_before_what_it_may_have_seen_is_on_the_disk() {
        let (served, commit) = served();
        let call = |operation: &'static str, body: &'static str| {
            let served = served.clone();
            Box::pin(async move { served.durable_answer(operation, Bytes::from(body)).await })
        };
        let mut waiting = [
            call("CreateTable", TABLE),
            call("PutItem", PUT),
            // Refused, and a read: they show the write before.
            call("PutItem", PUT),
            call("GetItem", GET),
        ];
        for call in &mut waiting {
            let answer = poll_immediate(call).await;
            assert!(answer.is_none(), "{answer:?}");
        }

        tokio::spawn(async move { commit.run(|| Ok(())).await });

        let [table, put, refused, read] = waiting;
        assert!(table.await.is_ok() && put.await.is_ok());
        assert_eq!(refused.await.unwrap_err().status_code(), 400);
        assert!(read.await.unwrap().contains("Item"));
    }

    #[tokio::test]
    async fn nothing_is_read_or_written_after_a_failed_sync() {
        let (served, commit) = served();
        let running = Arc::clone(&commit);
        tokio::spawn(async move { running.run(|| Err(io::Error::other("lost page"))).await });
        commit.written();
        assert!(commit.reach_disk().await.is_err());

        let error = served.durable_answer("CreateTable", Bytes::from(TABLE)).await;

        assert_eq!(error.unwrap_err().status_code(), 500);
        assert_eq!(served.database.table_count().unwrap(), 0);
    }
}
