//! Broadcasts, each read with its jobs in one query.

use aws_sdk_dynamodb::types::TransactWriteItem;
use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};

use super::calls::{Conditional, Read};
use super::keys::{self, from_partition};
use super::statement::{Put, Query, Update, millis};
use super::tables::{Error, SCHEMA, Store, from_item, to_item};
use crate::domain::ids::{BroadcastId, ContactId};
use crate::domain::job::{Broadcast, Job};

/// The broadcasts of a [`Store`].
pub struct Broadcasts<'a>(pub(super) &'a Store);

/// The position of a broadcast in the list of all. Several may be of one millisecond, so the time alone is no cursor.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Listed {
    /// The time at which its request was received.
    #[serde(with = "millisecond::required")]
    pub created_at: Timestamp,
    /// Its id.
    #[serde(rename = "pk", deserialize_with = "from_partition")]
    pub broadcast_id: BroadcastId,
}

#[derive(Serialize)]
struct StoredBroadcast<'a> {
    schema: u32,
    /// The partition of the index of broadcasts by time.
    listed: &'a str,
    expires_at: i64,
    #[serde(flatten)]
    broadcast: &'a Broadcast,
}

impl Broadcasts<'_> {
    /// Reads a broadcast: the message and how it is sent.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or the item is unreadable.
    pub async fn get(&self, broadcast_id: &BroadcastId) -> Result<Option<Broadcast>, Error> {
        let Self(store) = self;
        store
            .get(
                "read a broadcast",
                &store.broadcasts,
                keys::broadcast(broadcast_id),
                Read::Consistent,
            )
            .await
    }

    /// Reads a broadcast and its jobs as of one moment: one strongly consistent query, never mixed with rows.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or an item is unreadable.
    pub async fn get_with_jobs(&self, broadcast_id: &BroadcastId) -> Result<Option<(Broadcast, Vec<Job>)>, Error> {
        const OPERATION: &str = "read a broadcast and its jobs";
        let Self(store) = self;
        let query = Query::table(&store.broadcasts, "pk = :pk").bind(":pk", keys::broadcast_partition(broadcast_id));
        // A broadcast and its jobs, at most 90 of under 1 KB, are one page.
        let (items, _) = store.query_items(OPERATION, query).await?;
        let (mut broadcast, mut jobs) = (None, Vec::new());
        for item in items {
            let sort_key = item.get("sk").and_then(|sk| sk.as_s().ok());
            if sort_key.is_some_and(|sk| sk == keys::BROADCAST) {
                broadcast = Some(from_item(OPERATION, item)?);
            } else {
                jobs.push(from_item(OPERATION, item)?);
            }
        }
        Ok(broadcast.map(|broadcast| (broadcast, jobs)))
    }

    /// Lists broadcasts from the newest, from after `after`, at most `limit`; and the position to go on after, unless that
    /// was all.
    ///
    /// The index lags: it may miss a new broadcast for a moment, and name one that is gone.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn list(&self, after: Option<&Listed>, limit: i32) -> Result<(Vec<Listed>, Option<Listed>), Error> {
        const OPERATION: &str = "list broadcasts";
        let Self(store) = self;
        let after = after.map(|after| {
            let position = ListedKey {
                listed: keys::BROADCAST,
                created_at: millis(after.created_at),
            };
            let mut key = to_item(OPERATION, position)?;
            key.extend(keys::broadcast(&after.broadcast_id));
            Ok(key)
        });
        let query = Query::index(&store.broadcasts, "recent", "listed = :listed")
            .bind(":listed", keys::BROADCAST)
            .newest_first()
            .limit(limit)
            .after(after.transpose()?);
        let (listed, last) = store.query_page(OPERATION, query).await?;
        Ok((listed, last.map(|key| from_item(OPERATION, key)).transpose()?))
    }

    /// Marks a broadcast as worked off by its own request: a repetition of that is answered with 200, too.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn mark_done_inline(&self, broadcast_id: &BroadcastId) -> Result<(), Error> {
        self.change(broadcast_id, "SET done_inline = :value", true).await
    }

    /// Counts a request that was answered with this broadcast instead of making another.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn count_replay(&self, broadcast_id: &BroadcastId) -> Result<(), Error> {
        self.change(broadcast_id, "ADD replays :value", 1).await
    }

    /// Takes a contact out of the unknown ids that a broadcast lists, of which `seen` are as they were read. Returns whether it
    /// was among them; their number stays.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn erase_unknown(
        &self,
        broadcast_id: &BroadcastId,
        seen: &[String],
        contact_id: &ContactId,
    ) -> Result<bool, Error> {
        const ERASE: &str = "SET contacts.unknown_ids = :others";
        const IF_UNCHANGED: &str = "contacts.unknown_ids = :seen";
        const OPERATION: &str = "erase an unknown id";
        let Self(store) = self;
        let (mut seen, mut erased) = (seen.to_vec(), false);
        while seen.iter().any(|id| id == contact_id.as_str()) {
            let others: Vec<_> = seen.iter().filter(|id| *id != contact_id.as_str()).collect();
            let erase = Update::new(&store.broadcasts, keys::broadcast(broadcast_id), ERASE)
                .only_if(IF_UNCHANGED)
                .bind(":others", others)
                .bind(":seen", &seen);
            erased = true;
            // Refused: gone, or another erasure has taken an id out, or this one, whose answer was lost.
            match store.update(OPERATION, erase).await? {
                Conditional::Written(_) | Conditional::Refused(None) => break,
                Conditional::Refused(Some(item)) => {
                    let broadcast: Broadcast = from_item(OPERATION, item)?;
                    seen = broadcast.contacts.unknown_ids;
                }
            }
        }
        Ok(erased)
    }

    /// Changes what the protocol does not depend on, if the broadcast is still kept.
    async fn change(
        &self,
        broadcast_id: &BroadcastId,
        expression: &'static str,
        value: impl Serialize,
    ) -> Result<(), Error> {
        let Self(store) = self;
        let update = Update::new(&store.broadcasts, keys::broadcast(broadcast_id), expression)
            .only_if("attribute_exists(pk)")
            .bind(":value", value);
        match store.update("change a broadcast", update).await? {
            Conditional::Written(_) | Conditional::Refused(_) => Ok(()),
        }
    }
}

#[derive(Serialize)]
struct ListedKey<'a> {
    listed: &'a str,
    created_at: i64,
}

/// The part of a commit that creates the broadcast.
pub(super) fn put(
    store: &Store,
    operation: &'static str,
    broadcast: &Broadcast,
    expires_at: i64,
) -> Result<TransactWriteItem, Error> {
    let stored = StoredBroadcast {
        schema: SCHEMA,
        listed: keys::BROADCAST,
        expires_at,
        broadcast,
    };
    let mut item = to_item(operation, stored)?;
    item.extend(keys::broadcast(&broadcast.broadcast_id));
    Put::new(&store.broadcasts, item).into_part(operation)
}
