//! Broadcasts, each read with its jobs in one query.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::TransactWriteItem;
use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::calls::{BATCH_GET, Conditional, Read};
use super::history::History;
use super::keys::{self, from_partition};
use super::statement::{Put, Query, Update, millis};
use super::tables::{Error, Item, REPORT_OUTLIVES, SCHEMA, Store, from_item, to_item};
use crate::domain::ids::{BroadcastId, ContactId, JobId, PageId, Pages};
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

/// The broadcasts that a list has.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The Page that one of their jobs is of; `None` for all broadcasts.
    pub page_id: Option<PageId>,
    /// The time after which their requests were received.
    pub created_after: Option<Timestamp>,
    /// True if the list begins with the oldest.
    pub oldest_first: bool,
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
        let found = self.get_with_history(broadcast_id).await?;
        Ok(found.map(|(broadcast, jobs, _)| (broadcast, jobs)))
    }

    /// Reads a broadcast, its jobs and its history as of one moment, as [`Broadcasts::get_with_jobs`] does.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or an item is unreadable.
    pub async fn get_with_history(
        &self,
        broadcast_id: &BroadcastId,
    ) -> Result<Option<(Broadcast, Vec<Job>, History)>, Error> {
        const OPERATION: &str = "read a broadcast and its jobs";
        let Self(store) = self;
        let query = Query::table(&store.broadcasts, "pk = :pk").bind(":pk", keys::broadcast_partition(broadcast_id));
        // A broadcast, its jobs, at most 90 of under 2 KB, and its history, which is bounded, are one page.
        let (items, _) = store.query_items(OPERATION, query).await?;
        let (mut broadcast, mut jobs, mut history) = (None, Vec::new(), History::default());
        for item in items {
            let sort_key = item.get("sk").and_then(|sk| sk.as_s().ok());
            if sort_key.is_some_and(|sk| sk == keys::BROADCAST) {
                broadcast = Some(from_item(OPERATION, item)?);
            } else if sort_key.is_some_and(|sk| sk.starts_with(keys::HISTORY_PREFIX)) {
                history.push(OPERATION, item)?;
            } else {
                jobs.push(from_item(OPERATION, item)?);
            }
        }
        Ok(broadcast.map(|broadcast| (broadcast, jobs, history)))
    }

    /// Reads the jobs of a broadcast as of a moment ago, at half the cost: half a read unit for up to five Pages.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or an item is unreadable.
    pub async fn jobs_lately(&self, broadcast_id: &BroadcastId) -> Result<Vec<Job>, Error> {
        const JOBS: &str = "pk = :pk AND begins_with(sk, :job)";
        let Self(store) = self;
        let query = Query::table(&store.broadcasts, JOBS)
            .bind(":pk", keys::broadcast_partition(broadcast_id))
            .bind(":job", keys::JOB_PREFIX)
            .lagging();
        let (jobs, _) = store.query_page("read the jobs of a broadcast", query).await?;
        Ok(jobs)
    }

    /// Returns `true` if the deliveries of a broadcast of one of these Pages are kept until this time. Without them nobody can say
    /// who has got it: an audience of those who have not would be everybody.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or an item is unreadable.
    pub async fn keeps_deliveries(
        &self,
        broadcast_id: &BroadcastId,
        pages: &Pages,
        until: Timestamp,
    ) -> Result<bool, Error> {
        let found = self.get_with_jobs(broadcast_id).await?;
        let jobs = found.map_or_else(Vec::new, |(_, jobs)| jobs);
        let are_kept = jobs.iter().all(|job| job.retained_until + REPORT_OUTLIVES > until);
        Ok(are_kept && jobs.iter().any(|job| pages.allow(&job.page_id)))
    }

    /// Reads broadcasts with their jobs as of a moment ago, in this order, as far as they exist. The jobs of a broadcast may be
    /// of different moments.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or an item is unreadable.
    pub async fn all_with_jobs_lately(&self, ids: &[BroadcastId]) -> Result<Vec<(Broadcast, Vec<Job>)>, Error> {
        let keys = ids.iter().map(keys::broadcast).collect();
        let found: Vec<Broadcast> = self.batch_lately("read broadcasts", keys).await?;
        let job_ids = found.iter().flat_map(|broadcast| {
            broadcast.page_ids.iter().map(|page_id| JobId {
                broadcast_id: broadcast.broadcast_id.clone(),
                page_id: page_id.clone(),
            })
        });
        let keys = job_ids.map(|job| keys::job(&job)).collect();
        let mut jobs = HashMap::<_, Vec<Job>>::new();
        for job in self.batch_lately::<Job>("read the jobs of broadcasts", keys).await? {
            jobs.entry(job.broadcast_id.clone()).or_default().push(job);
        }
        let found = found
            .into_iter()
            .map(|broadcast| (broadcast.broadcast_id.clone(), broadcast));
        let mut found: HashMap<_, _> = found.collect();
        let mut all = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(broadcast) = found.remove(id) else {
                continue;
            };
            let jobs = jobs.remove(id).unwrap_or_default();
            // Otherwise the Pages are not stored, or not every replica has every job yet.
            let is_whole = !jobs.is_empty() && jobs.len() == broadcast.page_ids.len();
            match is_whole {
                true => all.push((broadcast, jobs)),
                false => all.extend(self.get_with_jobs(id).await?),
            }
        }
        Ok(all)
    }

    async fn batch_lately<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        keys: Vec<Item>,
    ) -> Result<Vec<T>, Error> {
        let Self(store) = self;
        let mut items = Vec::with_capacity(keys.len());
        for keys in keys.chunks(BATCH_GET) {
            let batch = store.batch_get(operation, &store.broadcasts, keys.to_vec(), None, Read::Eventual);
            items.append(&mut batch.await?);
        }
        Ok(items)
    }

    /// Lists broadcasts by time, from after `after`, at most `limit`; and the position to go on after, unless that
    /// was all.
    ///
    /// The index lags: it may miss a new broadcast for a moment, and name one that is gone.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn list(
        &self,
        of: &Listing,
        after: Option<&Listed>,
        limit: i32,
    ) -> Result<(Vec<Listed>, Option<Listed>), Error> {
        const OPERATION: &str = "list broadcasts";
        const ALL: &str = "listed = :of";
        const ALL_SINCE: &str = "listed = :of AND created_at > :since";
        const OF_PAGE: &str = "page_id = :of";
        const OF_PAGE_SINCE: &str = "page_id = :of AND created_at > :since";
        let Self(store) = self;
        let table = &store.broadcasts;
        let mut query = match (&of.page_id, of.created_after) {
            (None, None) => Query::index(table, "recent", ALL),
            (None, Some(_)) => Query::index(table, "recent", ALL_SINCE),
            (Some(_), None) => Query::index(table, "page_jobs", OF_PAGE),
            (Some(_), Some(_)) => Query::index(table, "page_jobs", OF_PAGE_SINCE),
        };
        if let Some(since) = of.created_after {
            query = query.bind(":since", millis(since));
        }
        query = match &of.page_id {
            None => query.bind(":of", keys::BROADCAST),
            Some(page_id) => query.bind(":of", page_id),
        };
        let after = after.map(|after| of.key(OPERATION, after)).transpose()?;
        if !of.oldest_first {
            query = query.newest_first();
        }
        let (listed, last) = store.query_page(OPERATION, query.limit(limit).after(after)).await?;
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

impl Listing {
    /// The key of a position in the index of the list.
    fn key(&self, operation: &'static str, at: &Listed) -> Result<Item, Error> {
        #[derive(Serialize)]
        struct Indexed<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            listed: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            page_id: Option<&'a PageId>,
            created_at: i64,
        }
        let page_id = self.page_id.as_ref();
        let indexed = Indexed {
            listed: page_id.is_none().then_some(keys::BROADCAST),
            page_id,
            created_at: millis(at.created_at),
        };
        let mut key = to_item(operation, indexed)?;
        key.extend(match page_id {
            None => keys::broadcast(&at.broadcast_id),
            Some(page_id) => keys::job(&JobId {
                broadcast_id: at.broadcast_id.clone(),
                page_id: page_id.clone(),
            }),
        });
        Ok(key)
    }
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
