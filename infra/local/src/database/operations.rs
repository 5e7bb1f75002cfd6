//! DynamoDB's operations by their names, made from dynoxide's Rust functions.

use std::collections::BTreeMap;

use dynoxide::actions::batch_execute_statement::{BatchExecuteStatementResponse, BatchStatementResponse};
use dynoxide::actions::execute_transaction::{ExecuteTransactionRequest, ParameterizedStatement};
use dynoxide::actions::transact_write_items::{TransactWriteItemsRequest, TransactWriteItemsResponse};
use dynoxide::types::Item;
use dynoxide::{Database, DynoxideError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The effect of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It changes tables.
    Tables,
    /// It changes items.
    Items,
    /// It changes nothing.
    Read,
}

impl Kind {
    /// Returns the kind of an operation; one that does not exist changes nothing.
    pub fn of(operation: &str) -> Kind {
        match operation {
            "CreateTable" | "UpdateTable" | "DeleteTable" | "UpdateTimeToLive" => Kind::Tables,
            "PutItem"
            | "UpdateItem"
            | "DeleteItem"
            | "BatchWriteItem"
            | "BatchExecuteStatement"
            | "TransactWriteItems" => Kind::Items,
            _ => Kind::Read,
        }
    }
}

/// Returns true if an operation is a read that need not show the latest writes. A batch that asks for a consistent read
/// of one of its tables gets one of all.
pub fn may_lag(operation: &str, body: &[u8]) -> bool {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Read {
        consistent_read: bool,
        request_items: BTreeMap<String, Read>,
    }
    match operation {
        "GetItem" | "Query" | "Scan" => {
            let read = serde_json::from_slice(body);
            read.is_ok_and(|read: Read| !read.consistent_read)
        }
        "BatchGetItem" => {
            let read = serde_json::from_slice(body);
            read.is_ok_and(|read: Read| !read.request_items.values().any(|table| table.consistent_read))
        }
        _ => false,
    }
}

/// Runs an operation, and returns its answer. It blocks, as dynoxide does everything behind one lock.
pub fn answer(database: &Database, operation: &str, body: &[u8]) -> Result<String, DynoxideError> {
    match operation {
        "CreateTable" => run(body, |call| database.create_table(call)),
        "UpdateTable" => run(body, |call| database.update_table(call)),
        "DeleteTable" => run(body, |call| database.delete_table(call)),
        "UpdateTimeToLive" => run(body, |call| database.update_time_to_live(call)),
        "PutItem" => run(body, |call| database.put_item(call)),
        "UpdateItem" => run(body, |call| database.update_item(call)),
        "DeleteItem" => run(body, |call| database.delete_item(call)),
        "BatchWriteItem" => run(body, |call| database.batch_write_item(call)),
        "BatchExecuteStatement" => batch_execute_statement(database, body),
        "TransactWriteItems" => run(body, |call| transact_write_items(database, call)),
        "DescribeTable" => run(body, |call| database.describe_table(call)),
        "DescribeTimeToLive" => run(body, |call| database.describe_time_to_live(call)),
        "ListTables" => run(body, |call| database.list_tables(call)),
        "GetItem" => run(body, |call| database.get_item(call)),
        "BatchGetItem" => run(body, |call| database.batch_get_item(call)),
        "TransactGetItems" => run(body, |call| database.transact_get_items(call)),
        "Query" => run(body, |call| database.query(call)),
        "Scan" => run(body, |call| database.scan(call)),
        _ => Err(DynoxideError::SerializationException(
            "this database has no such operation".to_owned(),
        )),
    }
}

/// Executes a batch of statements, each by itself.
///
/// They are tried together first: dynoxide commits each statement of a batch, but only once for a transaction, which has the same
/// effect if every statement succeeds, and none otherwise.
fn batch_execute_statement(database: &Database, body: &[u8]) -> Result<String, DynoxideError> {
    let together = run(body, |batch: StatementBatch| batch.execute_together(database));
    together.or_else(|_| run(body, |call| each(database.batch_execute_statement(call)?)))
}

/// A batch of statements as a transaction takes it. Of a caller that asks for units dynoxide is told so, as a transaction costs twice
/// as many.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StatementBatch {
    statements: Vec<ParameterizedStatement>,
    return_consumed_capacity: Option<String>,
}

impl StatementBatch {
    fn execute_together(self, database: &Database) -> Result<BatchExecuteStatementResponse, DynoxideError> {
        if self.return_consumed_capacity.is_some() {
            return Err(DynoxideError::ValidationException(
                "units are counted one by one".to_owned(),
            ));
        }
        let count = self.statements.len();
        let executed = database.execute_transaction(ExecuteTransactionRequest {
            transact_statements: self.statements,
            ..ExecuteTransactionRequest::default()
        })?;
        // A transaction that writes is answered without them.
        let items = executed.responses.unwrap_or_default().into_iter().map(|one| one.item);
        let mut responses: Vec<_> = items.map(response).collect();
        responses.resize_with(count, BatchStatementResponse::default);
        Ok(BatchExecuteStatementResponse {
            responses,
            consumed_capacity: None,
        })
    }
}

fn response(item: Option<Item>) -> BatchStatementResponse {
    let mut response = BatchStatementResponse::default();
    response.item = item;
    response
}

/// Returns the answer to a batch, or the failure of the storage of which dynoxide tells in one of its parts.
fn each(mut answer: BatchExecuteStatementResponse) -> Result<BatchExecuteStatementResponse, DynoxideError> {
    const FAILURE: &str = "InternalServerError";
    let errors = answer.responses.iter_mut().filter_map(|one| one.error.as_mut());
    match errors.into_iter().find(|error| error.code == FAILURE) {
        Some(error) => Err(DynoxideError::InternalServerError(std::mem::take(&mut error.message))),
        None => Ok(answer),
    }
}

/// Commits a transaction. Its token stays with [`Transactions`](super::transactions::Transactions).
fn transact_write_items(
    database: &Database,
    mut call: TransactWriteItemsRequest,
) -> Result<TransactWriteItemsResponse, DynoxideError> {
    call.client_request_token = None;
    database.transact_write_items(call)
}

fn run<C: DeserializeOwned, A: Serialize>(
    body: &[u8],
    operation: impl FnOnce(C) -> Result<A, DynoxideError>,
) -> Result<String, DynoxideError> {
    let malformed = |error: serde_json::Error| DynoxideError::SerializationException(error.to_string());
    let answer = operation(serde_json::from_slice(body).map_err(malformed)?)?;
    serde_json::to_string(&answer).map_err(malformed)
}
