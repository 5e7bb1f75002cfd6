//! Events, each stored once under its id. On AWS a Pipe reads them from the table's stream as they are created. On one machine
//! they are an outbox: those that are still to be delivered are in a partition of the index `wake`, by the time of the next
//! attempt.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::Deserialize;

use super::calls::{Conditional, Read};
use super::keys;
use super::statement::{Query, Update, millis};
use super::tables::{Error, REPORT_OUTLIVES, SCHEMA, Store, expiry};
use crate::domain::event::{BroadcastEvent, EventData, EventType};
use crate::domain::ids::BroadcastId;
use crate::domain::job::Broadcast;

/// Time to live may have taken the event, and nothing is to be left of it.
const IF_THERE: &str = "attribute_exists(pk)";

/// The events of a [`Store`].
pub struct Events<'a>(pub(super) &'a Store);

/// An event that is still to be delivered.
#[derive(Clone, Debug)]
pub struct Undelivered {
    /// The event.
    pub event: BroadcastEvent,
    /// The attempts that have failed.
    pub attempts: u32,
    /// The time of the next attempt.
    pub next_at: Timestamp,
}

#[derive(Deserialize)]
struct Stored {
    event_id: String,
    #[serde(rename = "type")]
    kind: EventType,
    timestamp: Timestamp,
    broadcast_id: BroadcastId,
    /// Not `page_id`, by which two indexes hold jobs: it may be empty.
    about_page: String,
    #[serde(default)]
    attempts: u32,
    /// `None` once the event is delivered, or given up.
    #[serde(default, with = "millisecond::optional")]
    wake_at: Option<Timestamp>,
}

impl Events<'_> {
    /// Stores an event of a broadcast, unless it is stored. Returns `true` if it is new.
    ///
    /// # Errors
    /// If DynamoDB does not answer; the event may be stored, and a repetition changes nothing.
    pub async fn put_if_new(&self, broadcast: &Broadcast, event: &BroadcastEvent) -> Result<bool, Error> {
        let Self(store) = self;
        let written = store
            .update("announce an event", new_event(store, broadcast, event))
            .await?;
        Ok(matches!(written, Conditional::Written(_)))
    }

    /// Lists the ids of the events of which the next attempt is due by a time, from the longest overdue. The index lags.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn due(&self, by: Timestamp) -> Result<Vec<String>, Error> {
        const DUE: &str = "wake_shard = :shard AND wake_at <= :by";
        #[derive(Deserialize)]
        struct Key {
            pk: String,
        }
        let Self(store) = self;
        let query = Query::index(&store.broadcasts, "wake", DUE)
            .bind(":shard", keys::EVENTS_SHARD)
            .bind(":by", millis(by));
        let found: Vec<Key> = store.query_all("list events to deliver", query, usize::MAX).await?;
        let ids = found.into_iter().filter_map(|key| keys::event_id(&key.pk));
        Ok(ids.collect())
    }

    /// Reads an event that is still to be delivered, as of now.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or the item is unreadable.
    pub async fn undelivered(&self, id: &str) -> Result<Option<Undelivered>, Error> {
        let Self(store) = self;
        let read = store.get("read an event", &store.broadcasts, keys::event(id), Read::Consistent);
        let stored: Option<Stored> = read.await?;
        Ok(stored.and_then(|stored| {
            Some(Undelivered {
                attempts: stored.attempts,
                next_at: stored.wake_at?,
                event: BroadcastEvent {
                    id: stored.event_id,
                    kind: stored.kind,
                    timestamp: stored.timestamp,
                    data: EventData {
                        broadcast_id: stored.broadcast_id,
                        page_id: stored.about_page,
                    },
                },
            })
        }))
    }

    /// Has an event tried again at this time.
    ///
    /// # Errors
    /// If DynamoDB does not answer: the event stays due.
    pub async fn try_again_at(&self, event: &Undelivered, next_at: Timestamp) -> Result<(), Error> {
        let Self(store) = self;
        let update = Update::new(
            &store.broadcasts,
            keys::event(&event.event.id),
            "SET wake_at = :wake_at, attempts = :attempts",
        );
        let update = update
            .only_if(IF_THERE)
            .bind(":wake_at", millis(next_at))
            .bind(":attempts", event.attempts + 1);
        store.update("postpone an event", update).await.map(drop)
    }

    /// Takes an event out of the outbox. It stays stored, so that it is not announced anew.
    ///
    /// # Errors
    /// If DynamoDB does not answer: the event stays due, and is delivered again.
    pub async fn finish(&self, event: &Undelivered) -> Result<(), Error> {
        let Self(store) = self;
        let key = keys::event(&event.event.id);
        let update = Update::new(&store.broadcasts, key, "REMOVE wake_shard, wake_at").only_if(IF_THERE);
        store.update("finish an event", update).await.map(drop)
    }
}

/// An update that stores an event, unless it is stored. It is kept as long as the report of its broadcast.
pub(super) fn new_event<'s>(store: &'s Store, broadcast: &Broadcast, event: &BroadcastEvent) -> Update<'s> {
    const PUT: &str = "SET event_id = :id, #type = :type, #timestamp = :timestamp, broadcast_id = :broadcast_id, \
                       about_page = :page, wake_shard = :shard, wake_at = :wake_at, expires_at = :expires_at, \
                       #schema = :schema";
    const IF_NEW: &str = "attribute_not_exists(pk)";
    let BroadcastEvent {
        id,
        kind,
        timestamp,
        data,
    } = event;
    let due = broadcast.scheduled_at.unwrap_or(broadcast.created_at);
    let kept: Duration = store.retention + REPORT_OUTLIVES;
    Update::new(&store.broadcasts, keys::event(id), PUT)
        .only_if(IF_NEW)
        .bind(":id", id)
        .bind(":type", kind)
        .bind(":timestamp", timestamp)
        .bind(":broadcast_id", &data.broadcast_id)
        .bind(":page", &data.page_id)
        .bind(":shard", keys::EVENTS_SHARD)
        .bind(":wake_at", millis(*timestamp))
        .bind(":expires_at", expiry(due, kept))
        .bind(":schema", SCHEMA)
}
