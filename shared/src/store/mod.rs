//! The three tables. One function per transition: what it writes, on which condition, and what a refusal means.
//!
//! | table | key | items |
//! |---|---|---|
//! | contacts | `contact_id` | contacts |
//! | broadcasts | `pk`, `sk` | `broadcast#ID`, `broadcast`: the broadcast · `broadcast#ID`, `job#PAGE`: its jobs · `segments#SNAPSHOT`, number: segments · `request#HASH`, `request`: request keys · `page#PAGE`, `lease` and `looks`: Page leases · `mid#ID`, `mid`: messages that settled a delivery |
//! | deliveries | `job` (`broadcast/page`), `contact_id` | deliveries |
//!
//! *A lost answer is not a refusal*: every conditional write carries a random value of its own, and a refusal whose returned
//! item shows that value is a win.

pub mod broadcasts;
pub mod contacts;
pub mod deliveries;
pub mod doubts;
pub mod jobs;
pub mod pages;
pub mod requests;
pub mod segments;

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
};
use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Config;
use crate::metrics::Metrics;

/// The version of the items that are written first. Writes are updates of named attributes, which leave alone what a later
/// version has written, its number included.
const SCHEMA: u32 = 1;

/// Delivery rows, broadcasts and jobs outlive a job's segments by this, so that the report outlives the work.
const REPORT_OUTLIVES: Duration = Duration::from_secs(30 * 86_400);

/// The tables' client and names, what of the configuration is written into items, and who counts what was written.
#[derive(Clone)]
pub struct Store {
    client: Client,
    broadcasts: String,
    deliveries: String,
    contacts: String,
    /// The age at which a delivery in doubt is first looked up.
    first_look: Duration,
    /// How long after its due time a job can be worked on.
    retention: Duration,
    /// Counts what is written.
    metrics: Metrics,
}

/// An item as DynamoDB has it.
pub(crate) type Item = HashMap<String, AttributeValue>;

/// Why a table did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There was no answer that settles the matter: what was asked may or may not have happened.
    #[error("{operation}: no answer from DynamoDB that settles the matter")]
    Unsettled {
        /// What was asked.
        operation: &'static str,
        /// What came instead.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An item is not what this version writes.
    #[error("{operation}: an item cannot be read or written")]
    Malformed {
        /// What was asked.
        operation: &'static str,
        /// What is wrong.
        #[source]
        source: serde_dynamo::Error,
    },
    /// An item that must exist does not.
    #[error("{operation}: the item is gone")]
    Gone {
        /// What was asked.
        operation: &'static str,
    },
}

impl Store {
    /// The tables that the configuration names.
    pub fn new(client: Client, config: &Config, metrics: Metrics) -> Self {
        Self {
            client,
            broadcasts: config.broadcasts_table.clone(),
            deliveries: config.deliveries_table.clone(),
            contacts: config.contacts_table.clone(),
            first_look: config.doubt_checks.first().copied().unwrap_or_default(),
            retention: config.retention,
            metrics,
        }
    }
}

/// A value for an expression.
fn value(value: impl Serialize) -> Result<AttributeValue, Error> {
    serde_dynamo::to_attribute_value(value).map_err(|source| Error::Malformed {
        operation: "write a value",
        source,
    })
}

/// A time for an expression: milliseconds, as in items.
fn at(time: Timestamp) -> Result<AttributeValue, Error> {
    value(time.as_millisecond())
}

/// A time for DynamoDB's time to live: seconds.
fn expiry(time: Timestamp, later: Duration) -> i64 {
    let later = i64::try_from(later.as_secs()).unwrap_or(i64::MAX);
    time.as_second().saturating_add(later)
}

/// A call that the SDK finds incomplete before it makes it.
fn incomplete(operation: &'static str) -> impl FnOnce(BuildError) -> Error {
    move |error| Error::Unsettled {
        operation,
        source: Box::new(error),
    }
}

/// DynamoDB left a part of a batch undone, however often it was asked.
fn throttled(operation: &'static str) -> Error {
    Error::Unsettled {
        operation,
        source: "throttled".into(),
    }
}

fn to_item(operation: &'static str, item: impl Serialize) -> Result<Item, Error> {
    serde_dynamo::to_item(item).map_err(|source| Error::Malformed { operation, source })
}

fn from_item<T: DeserializeOwned>(operation: &'static str, item: Item) -> Result<T, Error> {
    serde_dynamo::from_item(item).map_err(|source| Error::Malformed { operation, source })
}

fn unsettled<E, R>(operation: &'static str) -> impl FnOnce(SdkError<E, R>) -> Error
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
async fn patiently<T, E, R, F>(call: impl FnMut() -> F) -> Result<T, SdkError<E, R>>
where
    F: Future<Output = Result<T, SdkError<E, R>>>,
    SdkError<E, R>: ProvideErrorMetadata,
{
    call.retry(patience())
        .when(|error| error.code().is_some_and(is_contention))
        .await
}

/// Makes a conditional update, and gives the new item if it was made or, if there is one, the item that refused it.
async fn conditionally(
    operation: &'static str,
    call: UpdateItemFluentBuilder,
) -> Result<Result<Item, Option<Item>>, Error> {
    let call =
        call.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
    match patiently(|| call.clone().send()).await {
        Ok(written) => Ok(Ok(written.attributes.unwrap_or_default())),
        Err(error) => match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(refusal)) => {
                Ok(Err(refusal.item.clone()))
            }
            _ => Err(unsettled(operation)(error)),
        },
    }
}

/// Commits a transaction, or tells for each of its items why not; in the order of the items.
///
/// `request_token` makes it one transaction however often the call is repeated.
async fn transact(
    store: &Store,
    operation: &'static str,
    items: Vec<TransactWriteItem>,
    request_token: &str,
) -> Result<Result<(), Vec<CancellationReason>>, Error> {
    let call = store
        .client
        .transact_write_items()
        .set_transact_items(Some(items))
        .client_request_token(request_token);
    let commit = || async {
        call.clone()
            .send()
            .await
            .map_err(|error| error.into_service_error())
    };
    let collided = |error: &TransactWriteItemsError| match error {
        TransactWriteItemsError::TransactionCanceledException(cancelled) => {
            let codes = || {
                cancelled
                    .cancellation_reasons()
                    .iter()
                    .filter_map(CancellationReason::code)
            };
            codes().any(is_contention) && !codes().any(|code| code == CONDITION_FAILED)
        }
        other => other.code().is_some_and(is_contention),
    };
    match commit.retry(patience()).when(collided).await {
        Ok(_) => Ok(Ok(())),
        Err(TransactWriteItemsError::TransactionCanceledException(cancelled))
            if cancelled.cancellation_reasons().iter().any(refused) =>
        {
            Ok(Err(cancelled.cancellation_reasons.unwrap_or_default()))
        }
        Err(error) => Err(Error::Unsettled {
            operation,
            source: Box::new(error),
        }),
    }
}

const CONDITION_FAILED: &str = "ConditionalCheckFailed";

/// Whether this item of a transaction refused it.
fn refused(reason: &CancellationReason) -> bool {
    reason.code() == Some(CONDITION_FAILED)
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

/// How long to wait before each further attempt.
fn pauses() -> impl Iterator<Item = Duration> {
    patience().build()
}

fn patience() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(1))
        .with_max_times(6)
        .with_jitter()
}
