//! Segments: numbered, immutable lists of a job's contacts.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::{PutRequest, TransactWriteItem, WriteRequest};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};

use super::calls::{Read, pauses, unsettled, with_retries};
use super::keys;
use super::statement::{Put, Update};
use super::tables::{Error, Item, SCHEMA, Store, expiry, to_item};
use crate::domain::backlog::Segment;
use crate::domain::ids::ContactId;
use crate::domain::job::Job;

/// Segments in one `BatchWriteItem`, which takes 25 puts and 16 MB; a full segment has up to 300 KB.
const BATCH: usize = 25;
/// Batches in flight at once. Each is some megabytes of memory.
const BATCHES_AT_ONCE: usize = 2;

/// The segments of a [`Store`].
pub struct Segments<'a>(pub(super) &'a Store);

#[derive(Serialize, Deserialize)]
struct Stored {
    schema: u32,
    contacts: Vec<ContactId>,
    #[serde(default, with = "millisecond::optional", skip_serializing_if = "Option::is_none")]
    due_at: Option<Timestamp>,
    expires_at: i64,
}

impl Segments<'_> {
    /// Writes the segments of a new job, under a snapshot that nothing refers to yet.
    ///
    /// # Errors
    /// If DynamoDB does not answer; some segments may then be written, which harms nobody.
    pub async fn write(&self, snapshot: &str, segments: &[Segment], retained_until: Timestamp) -> Result<(), Error> {
        let batches: Vec<_> = segments
            .chunks(BATCH)
            .map(|batch| self.write_batch(snapshot, batch, retained_until))
            .collect();
        stream::iter(batches)
            .buffer_unordered(BATCHES_AT_ONCE)
            .try_collect()
            .await
    }

    async fn write_batch(&self, snapshot: &str, batch: &[Segment], retained_until: Timestamp) -> Result<(), Error> {
        const OPERATION: &str = "write segments";
        let Self(store) = self;
        let mut puts = Vec::with_capacity(batch.len());
        for segment in batch {
            let put = PutRequest::builder().set_item(Some(item(OPERATION, snapshot, segment, retained_until)?));
            let put = put.build().map_err(Error::incomplete(OPERATION))?;
            puts.push(WriteRequest::builder().put_request(put).build());
        }
        let mut asked = HashMap::from([(store.broadcasts.clone(), puts)]);
        for pause in pauses() {
            let call = store.client.batch_write_item().set_request_items(Some(asked));
            let answer = with_retries(|| call.clone().send())
                .await
                .map_err(unsettled(OPERATION))?;
            asked = answer.unprocessed_items.unwrap_or_default();
            if asked.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
        }
        Err(Error::throttled(OPERATION))
    }

    /// Keeps the first segments of a job until this time.
    ///
    /// # Errors
    /// If DynamoDB does not answer; some segments may then be kept until this time and others not.
    pub async fn keep(&self, snapshot: &str, number: u32, retained_until: Timestamp) -> Result<(), Error> {
        const KEEP: &str = "SET expires_at = :expires_at";
        let Self(store) = self;
        let keep = |number| async move {
            let keep = Update::new(&store.broadcasts, keys::segment(snapshot, number), KEEP)
                .only_if("attribute_exists(pk)")
                .bind(":expires_at", expiry(retained_until, Duration::ZERO));
            store.update("keep a segment", keep).await.map(drop)
        };
        stream::iter((0..number).map(keep))
            .buffer_unordered(BATCH)
            .try_collect()
            .await
    }

    /// Reads one segment; `None` if its retention is over.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn get(&self, snapshot: &str, number: u32) -> Result<Option<Segment>, Error> {
        let Self(store) = self;
        let stored: Option<Stored> = store
            .get(
                "read a segment",
                &store.broadcasts,
                keys::segment(snapshot, number),
                Read::Consistent,
            )
            .await?;
        Ok(stored.map(|stored| Segment {
            number,
            contacts: stored.contacts,
            due_at: stored.due_at,
        }))
    }
}

/// The part of a transaction that appends a segment to a job's backlog.
pub(super) fn put(
    store: &Store,
    operation: &'static str,
    job: &Job,
    segment: &Segment,
) -> Result<TransactWriteItem, Error> {
    let item = item(operation, &job.snapshot, segment, job.retained_until)?;
    Put::new(&store.broadcasts, item).into_part(operation)
}

fn item(operation: &'static str, snapshot: &str, segment: &Segment, retained_until: Timestamp) -> Result<Item, Error> {
    let stored = Stored {
        schema: SCHEMA,
        contacts: segment.contacts.clone(),
        due_at: segment.due_at,
        expires_at: expiry(retained_until, Duration::ZERO),
    };
    let mut item = to_item(operation, stored)?;
    item.extend(keys::segment(snapshot, segment.number));
    Ok(item)
}
