//! The speed of jobs, minute by minute, and the pauses of their Pages, as a report shows them. Nothing else relies on either.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::calls::{BATCH_GET, Read};
use super::keys;
use super::statement::Update;
use super::tables::{Error, REPORT_OUTLIVES, SCHEMA, Store, expiry};
use crate::domain::ids::{BroadcastId, JobId, PageId};
use crate::domain::job::Job;
use crate::domain::sending::PageState;

/// The minutes that are kept, counted back from the newest.
const KEPT_MINUTES: i64 = 60;

/// The progress of jobs, of a [`Store`].
pub struct Progress<'a>(pub(super) &'a Store);

/// A minute of a job: its number since the epoch, and the messages that were sent in it.
pub type Minute = (i64, u64);

/// The progress of a job and the state of its Page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageProgress {
    /// The minutes in which the job sent messages, from the oldest; at most an hour of them.
    pub minutes: Vec<Minute>,
    /// The state of the Page.
    pub page: PageState,
}

/// An item of either kind.
#[derive(Deserialize)]
struct Stored {
    pk: String,
    #[serde(default)]
    minutes: Vec<Minute>,
    #[serde(flatten)]
    page: PageState,
}

impl Progress<'_> {
    /// Adds messages to a minute of a job: a read and a write. A worker that writes at the same time may undo it, so the numbers
    /// are about right.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn add(&self, job: &Job, (minute, sent): Minute) -> Result<(), Error> {
        const SET: &str = "SET minutes = :minutes, expires_at = :expires_at, #schema = if_not_exists(#schema, :schema)";
        const OPERATION: &str = "keep the progress of a job";
        let Self(store) = self;
        let key = keys::minutes(&job.id());
        let found = store.get(OPERATION, &store.broadcasts, key.clone(), Read::Consistent);
        let found: Option<Stored> = found.await?;
        let mut minutes: BTreeMap<_, _> = found.into_iter().flat_map(|stored| stored.minutes).collect();
        *minutes.entry(minute).or_default() += sent;
        minutes.retain(|at, _| *at > minute - KEPT_MINUTES);
        let minutes: Vec<Minute> = minutes.into_iter().collect();
        let set = Update::new(&store.broadcasts, key, SET)
            .bind(":minutes", minutes)
            .bind(":expires_at", expiry(job.retained_until, REPORT_OUTLIVES))
            .bind(":schema", SCHEMA);
        store.update(OPERATION, set).await.map(drop)
    }

    /// Reads the progress of a broadcast on these Pages as of a moment ago: two items for each, at half the cost.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or an item is unreadable.
    pub async fn lately(
        &self,
        broadcast_id: &BroadcastId,
        pages: &[PageId],
    ) -> Result<BTreeMap<PageId, PageProgress>, Error> {
        let Self(store) = self;
        let keys_of = |page_id: &PageId| {
            let job = JobId {
                broadcast_id: broadcast_id.clone(),
                page_id: page_id.clone(),
            };
            [keys::minutes(&job), keys::page_lease(page_id, keys::PAGE_SENDING)]
        };
        let all: Vec<_> = pages.iter().flat_map(keys_of).collect();
        let mut found = BTreeMap::new();
        for keys in all.chunks(BATCH_GET) {
            let batch = store.batch_get("read progress", &store.broadcasts, keys.to_vec(), None, Read::Eventual);
            let batch: Vec<Stored> = batch.await?;
            found.extend(batch.into_iter().map(|stored| (stored.pk.clone(), stored)));
        }
        let progress = pages.iter().map(|page_id| {
            let [minutes, page] = keys_of(page_id).map(|key| {
                let partition = key.get("pk").and_then(|pk| pk.as_s().ok().cloned());
                partition.and_then(|partition| found.get(&partition))
            });
            let progress = PageProgress {
                minutes: minutes.map(|stored| stored.minutes.clone()).unwrap_or_default(),
                page: page.map(|stored| stored.page.clone()).unwrap_or_default(),
            };
            (page_id.clone(), progress)
        });
        Ok(progress.collect())
    }
}
