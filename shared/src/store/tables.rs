//! The tables' client and names, errors, and the forms of items.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::domain::ids::PageId;
use crate::runtime::config::Config;
use crate::runtime::metrics::Metrics;

/// The version of newly written items. Writes are updates of named attributes, which leave alone whatever a later version
/// has written, its number included.
pub(super) const SCHEMA: u32 = 1;

/// The time by which deliveries, broadcasts and jobs outlive a job's segments, so that the report outlives the work.
pub(super) const REPORT_OUTLIVES: Duration = Duration::from_secs(30 * 86_400);

/// The three tables: their client and names, the settings that are written into items, and the counters of what was written.
#[derive(Clone)]
pub struct Store {
    pub(super) client: Client,
    pub(super) broadcasts: String,
    pub(super) deliveries: String,
    pub(super) contacts: String,
    /// The age at which a delivery in doubt is first looked up.
    pub(super) first_lookup: Duration,
    /// The time after its due time during which a job can be worked on.
    pub(super) retention: Duration,
    pub(super) metrics: Metrics,
    /// The ids of the tables as they were read last, and the time of that.
    ids: Arc<Mutex<Option<(Timestamp, TableIds)>>>,
    /// The Pages that this process has added to the list of Pages.
    pub(super) noted_pages: Arc<Mutex<HashSet<PageId>>>,
    /// The times at which this process has written that it heard a Page's webhook.
    pub(super) heard_pages: Arc<Mutex<HashMap<PageId, Timestamp>>>,
}

/// The ids that DynamoDB gave the three tables when they were created or restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableIds {
    pub(super) contacts: String,
    pub(super) broadcasts: String,
    pub(super) deliveries: String,
}

/// An item, a key, or the values of a statement, as DynamoDB has them.
pub(crate) type Item = HashMap<String, AttributeValue>;

/// A failed operation on a table.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There was no answer that settles the matter: the operation may or may not have been carried out.
    #[error("{operation}: no answer from DynamoDB that settles the matter")]
    Unsettled {
        /// The operation.
        operation: &'static str,
        /// The last error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An item is not what this version writes.
    #[error("{operation}: an item cannot be read or written")]
    Malformed {
        /// The operation.
        operation: &'static str,
        /// The problem.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The item would be larger than the 400 KB that DynamoDB stores. Nothing was written.
    #[error("{operation}: the item would be larger than 400 KB")]
    TooLarge {
        /// The operation.
        operation: &'static str,
    },
    /// An item that must exist does not.
    #[error("{operation}: the item is gone")]
    Gone {
        /// The operation.
        operation: &'static str,
    },
}

impl Error {
    /// A value that cannot be written.
    pub(super) fn unwritable(operation: &'static str, problem: String) -> Self {
        Self::Malformed {
            operation,
            source: problem.into(),
        }
    }

    /// A call that the SDK finds incomplete before it makes it.
    pub(super) fn incomplete(operation: &'static str) -> impl FnOnce(BuildError) -> Self {
        move |error| Self::Unsettled {
            operation,
            source: Box::new(error),
        }
    }

    /// A batch of which DynamoDB left a part undone at every attempt.
    pub(super) fn throttled(operation: &'static str) -> Self {
        Self::Unsettled {
            operation,
            source: "throttled".into(),
        }
    }
}

impl Store {
    /// The tables that the configuration names.
    pub fn new(client: Client, config: &Config, metrics: Metrics) -> Self {
        Self {
            client,
            broadcasts: config.broadcasts_table.clone(),
            deliveries: config.deliveries_table.clone(),
            contacts: config.contacts_table.clone(),
            first_lookup: config.doubt_checks.first().copied().unwrap_or_default(),
            retention: config.retention,
            metrics,
            ids: Arc::default(),
            noted_pages: Arc::default(),
            heard_pages: Arc::default(),
        }
    }

    /// The ids of the tables as they were read last, and the time of that.
    pub(super) fn known_ids(&self) -> Option<(Timestamp, TableIds)> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers the ids of the tables, or forgets them.
    pub(super) fn know_ids(&self, ids: Option<(Timestamp, TableIds)>) {
        *self.ids.lock().unwrap_or_else(PoisonError::into_inner) = ids;
    }
}

/// A time for DynamoDB's time to live: seconds since the epoch.
pub(super) fn expiry(time: Timestamp, later: Duration) -> i64 {
    let later = i64::try_from(later.as_secs()).unwrap_or(i64::MAX);
    time.as_second().saturating_add(later)
}

pub(super) fn to_item(operation: &'static str, item: impl Serialize) -> Result<Item, Error> {
    serde_dynamo::to_item(item).map_err(|error| Error::Malformed {
        operation,
        source: Box::new(error),
    })
}

pub(super) fn from_item<T: DeserializeOwned>(operation: &'static str, item: Item) -> Result<T, Error> {
    serde_dynamo::from_item(item).map_err(|error| Error::Malformed {
        operation,
        source: Box::new(error),
    })
}
