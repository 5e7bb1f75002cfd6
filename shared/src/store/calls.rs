//! Calls to DynamoDB: each statement is made here, and tried again while it is throttled.
//!
//! *A lost answer is not a refusal*: every conditional write carries a random value of its own, and a refusal whose returned
//! item shows that value is a win.

use std::borrow::Cow;
use std::time::Duration;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{BatchStatementRequest, CancellationReason, KeysAndAttributes, TransactWriteItem};
use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use serde::de::DeserializeOwned;

use super::statement::{Delete, Query, Update, names};
use super::tables::{Error, Item, Store, from_item};

/// The most keys that DynamoDB takes in one `BatchGetItem`.
pub(super) const BATCH_GET: usize = 100;
/// The most statements that DynamoDB takes in one `BatchExecuteStatement`.
pub(super) const BATCH_EXECUTE: usize = 25;
/// The code of a refused condition in a transaction.
const CONDITION_FAILED: &str = "ConditionalCheckFailed";

/// The end of a conditional write.
pub(super) enum Conditional {
    /// The write was made; the new item or the one of before if an update returns it, or the deleted one.
    Written(Item),
    /// The condition did not hold for this item, if there is one.
    Refused(Option<Item>),
}

/// The end of a transaction.
pub(super) enum Transaction {
    /// All of it was written.
    Written,
    /// Nothing was written; a reason for each part, in their order.
    Refused(Vec<CancellationReason>),
}

/// The replica that answers a read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// The current state.
    Consistent,
    /// A state of a moment ago, at half the cost.
    Eventual,
}

impl Store {
    /// Reads one item.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        table: &str,
        key: Item,
        read: Read,
    ) -> Result<Option<T>, Error> {
        let call = self
            .client
            .get_item()
            .table_name(table)
            .set_key(Some(key))
            .consistent_read(read == Read::Consistent);
        let found = with_retries(|| call.clone().send())
            .await
            .map_err(unsettled(operation))?;
        found.item.map(|item| from_item(operation, item)).transpose()
    }

    /// Reads one page of a query, and the key to go on after, unless that was all.
    pub(super) async fn query_page<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        query: Query<'_>,
    ) -> Result<(Vec<T>, Option<Item>), Error> {
        let (items, last) = self.query_items(operation, query).await?;
        let items = items
            .into_iter()
            .map(|item| from_item(operation, item))
            .collect::<Result<_, _>>()?;
        Ok((items, last))
    }

    /// Reads one page of a query whose items are of several kinds.
    pub(super) async fn query_items(
        &self,
        operation: &'static str,
        query: Query<'_>,
    ) -> Result<(Vec<Item>, Option<Item>), Error> {
        let expressions = [query.key_condition].into_iter().chain(query.filter.as_deref());
        let names = names(expressions.chain(query.projection));
        let call = self
            .client
            .query()
            .table_name(query.table)
            .set_index_name(query.index.map(str::to_owned))
            .key_condition_expression(query.key_condition)
            .set_filter_expression(query.filter.map(Cow::into_owned))
            .set_projection_expression(query.projection.map(str::to_owned))
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(query.bindings.into_values(operation)?)
            .scan_index_forward(!query.newest_first)
            .set_limit(query.limit)
            .set_exclusive_start_key(query.after)
            .consistent_read(!query.lags);
        let found = with_retries(|| call.clone().send())
            .await
            .map_err(unsettled(operation))?;
        Ok((found.items.unwrap_or_default(), found.last_evaluated_key))
    }

    /// Reads a query page by page, until it holds at least so many items or its end is reached.
    pub(super) async fn query_all<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        query: Query<'_>,
        enough: usize,
    ) -> Result<Vec<T>, Error> {
        let (mut items, mut after) = (Vec::new(), None);
        loop {
            let page = query.clone().after(after);
            let (mut more, last) = self.query_page(operation, page).await?;
            items.append(&mut more);
            after = last;
            if after.is_none() || items.len() >= enough {
                return Ok(items);
            }
        }
    }

    /// Reads the next items of a whole table as of a moment ago, and the key to go on after, unless that was all.
    pub(super) async fn scan_page<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        table: &str,
        after: Option<Item>,
        limit: i32,
    ) -> Result<(Vec<T>, Option<Item>), Error> {
        let call = self
            .client
            .scan()
            .table_name(table)
            .limit(limit)
            .set_exclusive_start_key(after);
        let found = with_retries(|| call.clone().send())
            .await
            .map_err(unsettled(operation))?;
        let items = found.items.unwrap_or_default().into_iter();
        let items = items.map(|item| from_item(operation, item)).collect::<Result<_, _>>()?;
        Ok((items, found.last_evaluated_key))
    }

    /// Reads the items of at most [`BATCH_GET`] keys, as far as they exist.
    pub(super) async fn batch_get<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        table: &str,
        keys: Vec<Item>,
        projection: Option<&str>,
        read: Read,
    ) -> Result<Vec<T>, Error> {
        let keys = KeysAndAttributes::builder()
            .set_keys(Some(keys))
            .set_projection_expression(projection.map(str::to_owned))
            .set_expression_attribute_names(names(projection))
            .consistent_read(read == Read::Consistent);
        let keys = keys.build().map_err(Error::incomplete(operation))?;
        let mut asked = [(table.to_owned(), keys)].into();
        let (mut items, mut pauses) = (Vec::new(), pauses());
        loop {
            let call = self.client.batch_get_item().set_request_items(Some(asked));
            let answer = with_retries(|| call.clone().send())
                .await
                .map_err(unsettled(operation))?;
            for item in answer.responses.unwrap_or_default().into_values().flatten() {
                items.push(from_item(operation, item)?);
            }
            asked = answer.unprocessed_keys.unwrap_or_default();
            if asked.is_empty() {
                return Ok(items);
            }
            let pause = pauses.next().ok_or_else(|| Error::throttled(operation))?;
            tokio::time::sleep(pause).await;
        }
    }

    /// Executes a batch of at most [`BATCH_EXECUTE`] statements of PartiQL that write, each by itself. Returns for each of them, in
    /// their order, if it was carried out.
    pub(super) async fn batch_execute(
        &self,
        operation: &'static str,
        statements: Vec<BatchStatementRequest>,
    ) -> Result<Vec<bool>, Error> {
        let count = statements.len();
        let call = self.client.batch_execute_statement().set_statements(Some(statements));
        let answer = with_retries(|| call.clone().send())
            .await
            .map_err(unsettled(operation))?;
        let mut is_done: Vec<_> = answer.responses().iter().map(|one| one.error.is_none()).collect();
        is_done.resize(count, false);
        Ok(is_done)
    }

    /// Makes an update.
    pub(super) async fn update(&self, operation: &'static str, update: Update<'_>) -> Result<Conditional, Error> {
        let call = update.into_request(operation, &self.client)?;
        match with_retries(|| call.clone().send()).await {
            Ok(written) => Ok(Conditional::Written(written.attributes.unwrap_or_default())),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(refusal)) => {
                    Ok(Conditional::Refused(refusal.item.clone()))
                }
                _ if exceeds_item_size(&error) => Err(Error::TooLarge { operation }),
                _ => Err(unsettled(operation)(error)),
            },
        }
    }

    /// Makes a delete. A delete without a condition is made also if there is no such item; the deleted item is then empty.
    pub(super) async fn delete(&self, operation: &'static str, delete: Delete<'_>) -> Result<Conditional, Error> {
        let call = delete.into_request(operation, &self.client)?;
        match with_retries(|| call.clone().send()).await {
            Ok(deleted) => Ok(Conditional::Written(deleted.attributes.unwrap_or_default())),
            Err(error) => match error.as_service_error() {
                Some(DeleteItemError::ConditionalCheckFailedException(refusal)) => {
                    Ok(Conditional::Refused(refusal.item.clone()))
                }
                _ => Err(unsettled(operation)(error)),
            },
        }
    }

    /// Commits a transaction. `request_token` makes it one transaction however often the call is repeated.
    pub(super) async fn transact(
        &self,
        operation: &'static str,
        parts: Vec<TransactWriteItem>,
        request_token: &str,
    ) -> Result<Transaction, Error> {
        let call = self
            .client
            .transact_write_items()
            .set_transact_items(Some(parts))
            .client_request_token(request_token);
        let commit = || Box::pin(async { call.clone().send().await.map_err(SdkError::into_service_error) });
        match commit.retry(backoff()).when(has_collided).await {
            Ok(_) => Ok(Transaction::Written),
            Err(TransactWriteItemsError::TransactionCanceledException(cancelled))
                if cancelled.cancellation_reasons().iter().any(is_refusal) =>
            {
                Ok(Transaction::Refused(cancelled.cancellation_reasons.unwrap_or_default()))
            }
            Err(error) => Err(Error::Unsettled {
                operation,
                source: Box::new(error),
            }),
        }
    }
}

/// Returns whether a transaction met another, and none of its conditions was refused.
fn has_collided(error: &TransactWriteItemsError) -> bool {
    let TransactWriteItemsError::TransactionCanceledException(cancelled) = error else {
        return error.code().is_some_and(is_contention);
    };
    let reasons = cancelled.cancellation_reasons();
    let collided = |reason: &CancellationReason| reason.code().is_some_and(is_contention);
    reasons.iter().any(collided) && !reasons.iter().any(is_refusal)
}

/// Returns whether this part of a transaction refused it.
pub(super) fn is_refusal(reason: &CancellationReason) -> bool {
    reason.code() == Some(CONDITION_FAILED)
}

/// An error for a call whose effect is unknown.
pub(super) fn unsettled<E, R>(operation: &'static str) -> impl FnOnce(SdkError<E, R>) -> Error
where
    E: std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    move |error| Error::Unsettled {
        operation,
        source: Box::new(error),
    }
}

/// Tries a call again while it is throttled or collides with a transaction, beyond what the SDK does by itself: neither is
/// a refusal.
pub(super) async fn with_retries<T, E, R, F>(mut call: impl FnMut() -> F) -> Result<T, SdkError<E, R>>
where
    F: Future<Output = Result<T, SdkError<E, R>>>,
    SdkError<E, R>: ProvideErrorMetadata,
{
    // Boxed, since a call takes some kilobytes, for which every future that makes one would have room, for each of them.
    let call = || Box::pin(call());
    call.retry(backoff())
        .when(|error| error.code().is_some_and(is_contention))
        .await
}

/// Returns true if an item would be too large; DynamoDB tells it by the text of the message only.
fn exceeds_item_size(error: &impl ProvideErrorMetadata) -> bool {
    const TOO_LARGE: &str = "has exceeded the maximum allowed size";
    error.message().is_some_and(|message| message.contains(TOO_LARGE))
}

fn is_contention(code: &str) -> bool {
    matches!(
        code,
        "TransactionConflict"
            | "TransactionConflictException"
            | "TransactionInProgressException"
            | "ThrottlingError"
            | "ThrottlingException"
            | "ProvisionedThroughputExceeded"
            | "ProvisionedThroughputExceededException"
            | "RequestLimitExceeded"
    )
}

/// The waits between the attempts at a batch of which DynamoDB left a part undone.
pub(super) fn pauses() -> impl Iterator<Item = Duration> {
    backoff().build()
}

fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(1))
        .with_max_times(6)
        .with_jitter()
}
