//! Segments: numbered, immutable lists of a job's contacts, in the broadcasts table.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::{Put, PutRequest, TransactWriteItem, WriteRequest};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};

use super::{
    Error, Item, SCHEMA, Store, expiry, from_item, incomplete, patiently, pauses, throttled,
    to_item, unsettled, value,
};
use crate::ids::ContactId;
use crate::line::Segment;

/// A full segment has up to 300 KB, and a batch may have 16 MB: DynamoDB's 25 puts fit.
const BATCH: usize = 25;
/// Calls at once.
const CALLS_AT_ONCE: usize = 4;

#[derive(Serialize, Deserialize)]
struct Stored {
    pk: String,
    sk: String,
    schema: u32,
    contacts: Vec<ContactId>,
    #[serde(
        default,
        with = "millisecond::optional",
        skip_serializing_if = "Option::is_none"
    )]
    due_at: Option<Timestamp>,
    expires_at: i64,
}

fn partition(snapshot: &str) -> String {
    format!("segments#{snapshot}")
}

fn sort_key(number: u32) -> String {
    format!("{number:06}")
}

fn stored(snapshot: &str, segment: &Segment, retained_until: Timestamp) -> Result<Item, Error> {
    to_item(
        "write a segment",
        Stored {
            pk: partition(snapshot),
            sk: sort_key(segment.number),
            schema: SCHEMA,
            contacts: segment.contacts.clone(),
            due_at: segment.due_at,
            expires_at: expiry(retained_until, Duration::ZERO),
        },
    )
}

impl Store {
    /// Writes the segments that a job is accepted with, under a snapshot that nothing refers to yet.
    pub async fn write_segments(
        &self,
        snapshot: &str,
        segments: &[Segment],
        retained_until: Timestamp,
    ) -> Result<(), Error> {
        let batches: Vec<_> = segments
            .chunks(BATCH)
            .map(|batch| self.write_batch(snapshot, batch, retained_until))
            .collect();
        stream::iter(batches)
            .buffer_unordered(CALLS_AT_ONCE)
            .try_collect()
            .await
    }

    async fn write_batch(
        &self,
        snapshot: &str,
        batch: &[Segment],
        retained_until: Timestamp,
    ) -> Result<(), Error> {
        const OPERATION: &str = "write segments";
        let mut puts = Vec::with_capacity(batch.len());
        for segment in batch {
            let item = stored(snapshot, segment, retained_until)?;
            let put = PutRequest::builder().set_item(Some(item)).build();
            let put = put.map_err(incomplete(OPERATION))?;
            puts.push(WriteRequest::builder().put_request(put).build());
        }
        let mut asked = HashMap::from([(self.broadcasts.clone(), puts)]);
        for pause in pauses() {
            let call = self
                .client
                .batch_write_item()
                .set_request_items(Some(asked));
            let answer = patiently(|| call.clone().send())
                .await
                .map_err(unsettled(OPERATION))?;
            asked = answer.unprocessed_items.unwrap_or_default();
            if asked.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
        }
        Err(throttled(OPERATION))
    }

    /// One segment, or nothing if retention took it.
    pub async fn segment(&self, snapshot: &str, number: u32) -> Result<Option<Segment>, Error> {
        const OPERATION: &str = "read a segment";
        let call = self
            .client
            .get_item()
            .table_name(&self.broadcasts)
            .key("pk", value(partition(snapshot))?)
            .key("sk", value(sort_key(number))?)
            .consistent_read(true);
        let found = patiently(|| call.clone().send())
            .await
            .map_err(unsettled(OPERATION))?;
        let Some(item) = found.item else {
            return Ok(None);
        };
        let stored: Stored = from_item(OPERATION, item)?;
        Ok(Some(Segment {
            number,
            contacts: stored.contacts,
            due_at: stored.due_at,
        }))
    }

    /// The part of a checkpoint that appends a segment.
    pub(super) fn put_segment(
        &self,
        snapshot: &str,
        segment: &Segment,
        retained_until: Timestamp,
    ) -> Result<TransactWriteItem, Error> {
        let put = Put::builder()
            .table_name(&self.broadcasts)
            .set_item(Some(stored(snapshot, segment, retained_until)?));
        let put = put.build().map_err(incomplete("append a segment"))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }
}
