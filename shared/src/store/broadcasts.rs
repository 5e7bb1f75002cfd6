//! Broadcasts: committed whole or not at all, and reported from one query.

use std::hash::{DefaultHasher, Hash, Hasher};

use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};
use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::requests::{Answered, RequestKey};
use super::{
    Error, REPORT_OUTLIVES, SCHEMA, Store, at, expiry, from_item, incomplete, patiently, refused,
    to_item, transact, unsettled, value,
};
use crate::ids::{BroadcastId, JobId};
use crate::job::{Broadcast, Job, Report};

/// Partitions of the `wake` index.
pub(super) const WAKE_SHARDS: u64 = 8;

pub(super) const BROADCAST_SORT_KEY: &str = "broadcast";

/// What became of a commit.
#[derive(Debug)]
pub enum Committed {
    /// The broadcast exists.
    New,
    /// The request was answered before.
    Taken(Answered),
}

#[derive(Serialize)]
struct StoredBroadcast<'a> {
    pk: String,
    sk: &'a str,
    schema: u32,
    /// The partition of the index of broadcasts by time.
    listed: &'a str,
    expires_at: i64,
    #[serde(flatten)]
    broadcast: &'a Broadcast,
}

#[derive(Serialize)]
struct StoredJob<'a> {
    pk: String,
    sk: String,
    schema: u32,
    /// The partition of the `wake` index; there as long as `wake_at` is.
    wake_shard: String,
    /// What the last checkpoint is known by; none yet.
    checkpoint_id: &'a str,
    expires_at: i64,
    #[serde(flatten)]
    job: &'a Job,
}

/// Where a broadcast stands among all. Of one millisecond there may be several, so the time alone is no place to go on from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Listed {
    /// When its request was received.
    #[serde(with = "millisecond::required")]
    pub created_at: Timestamp,
    /// Its identity.
    #[serde(rename = "pk", deserialize_with = "from_partition")]
    pub broadcast_id: BroadcastId,
}

const PARTITION_PREFIX: &str = "broadcast#";

pub(super) fn partition(broadcast_id: &BroadcastId) -> String {
    format!("{PARTITION_PREFIX}{broadcast_id}")
}

fn from_partition<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BroadcastId, D::Error> {
    let partition = String::deserialize(deserializer)?;
    let id = partition.strip_prefix(PARTITION_PREFIX);
    id.and_then(BroadcastId::parse)
        .ok_or_else(|| D::Error::custom("is no broadcast's partition"))
}

pub(super) fn job_sort_key(job: &JobId) -> String {
    format!("job#{}", job.page_id)
}

pub(super) fn wake_shard(job: &JobId) -> String {
    let mut hasher = DefaultHasher::new();
    job.hash(&mut hasher);
    (hasher.finish() % WAKE_SHARDS).to_string()
}

impl Store {
    /// Takes the request key and creates the broadcast and its jobs, all or nothing. From here on it will be sent.
    pub async fn commit(
        &self,
        key: &RequestKey,
        received: Timestamp,
        broadcast: &Broadcast,
        jobs: &[Job],
    ) -> Result<Committed, Error> {
        const OPERATION: &str = "commit a broadcast";
        let pk = partition(&broadcast.broadcast_id);
        let kept_until = jobs
            .iter()
            .map(|job| job.retained_until)
            .max()
            .unwrap_or(received);
        let expires_at = expiry(kept_until, REPORT_OUTLIVES);
        let mut parts = vec![
            self.put_request(key, &broadcast.broadcast_id, received)?,
            self.put(&StoredBroadcast {
                pk: pk.clone(),
                sk: BROADCAST_SORT_KEY,
                schema: SCHEMA,
                listed: BROADCAST_SORT_KEY,
                expires_at,
                broadcast,
            })?,
        ];
        for job in jobs {
            parts.push(self.put(&StoredJob {
                pk: pk.clone(),
                sk: job_sort_key(&job.id()),
                schema: SCHEMA,
                wake_shard: wake_shard(&job.id()),
                checkpoint_id: "",
                expires_at,
                job,
            })?);
        }
        let Err(reasons) =
            transact(self, OPERATION, parts, &broadcast.broadcast_id.to_string()).await?
        else {
            return Ok(Committed::New);
        };
        let refusal = reasons
            .into_iter()
            .find(refused)
            .and_then(|reason| reason.item);
        let answered = Self::answered_from(refusal.unwrap_or_default())?;
        if answered.broadcast_id == broadcast.broadcast_id {
            return Ok(Committed::New);
        }
        Ok(Committed::Taken(answered))
    }

    fn put(&self, item: &impl Serialize) -> Result<TransactWriteItem, Error> {
        let item = to_item("commit a broadcast", item)?;
        let put = Put::builder()
            .table_name(&self.broadcasts)
            .set_item(Some(item));
        let put = put.build().map_err(incomplete("commit a broadcast"))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    /// What is sent, and how.
    pub async fn broadcast(&self, broadcast_id: &BroadcastId) -> Result<Option<Broadcast>, Error> {
        const OPERATION: &str = "read a broadcast";
        let call = self
            .client
            .get_item()
            .table_name(&self.broadcasts)
            .key("pk", value(partition(broadcast_id))?)
            .key("sk", value(BROADCAST_SORT_KEY)?)
            .consistent_read(true);
        let found = patiently(|| call.clone().send())
            .await
            .map_err(unsettled(OPERATION))?;
        found
            .item
            .map(|item| from_item(OPERATION, item))
            .transpose()
    }

    /// A broadcast as the API shows it.
    pub async fn report(&self, broadcast_id: &BroadcastId) -> Result<Option<Report>, Error> {
        let found = self.broadcast_and_jobs(broadcast_id).await?;
        Ok(found.map(|(broadcast, jobs)| Report::new(broadcast, &jobs)))
    }

    /// A broadcast and its jobs as of one moment: one strongly consistent query, never mixed with rows.
    pub async fn broadcast_and_jobs(
        &self,
        broadcast_id: &BroadcastId,
    ) -> Result<Option<(Broadcast, Vec<Job>)>, Error> {
        const OPERATION: &str = "read a broadcast and its jobs";
        let call = self
            .client
            .query()
            .table_name(&self.broadcasts)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", value(partition(broadcast_id))?)
            .consistent_read(true);
        let found = patiently(|| call.clone().send())
            .await
            .map_err(unsettled(OPERATION))?;
        let (mut broadcast, mut jobs) = (None, Vec::new());
        for item in found.items.unwrap_or_default() {
            let sort_key = item.get("sk").and_then(|sk| sk.as_s().ok());
            if sort_key.is_some_and(|sk| sk == BROADCAST_SORT_KEY) {
                broadcast = Some(from_item(OPERATION, item)?);
            } else {
                jobs.push(from_item(OPERATION, item)?);
            }
        }
        Ok(broadcast.map(|broadcast| (broadcast, jobs)))
    }

    /// Notes that the request itself worked the broadcast off: its repetition is answered with 200, too.
    pub async fn note_done_inline(&self, broadcast_id: &BroadcastId) -> Result<(), Error> {
        let key = (partition(broadcast_id), BROADCAST_SORT_KEY.to_owned());
        self.change(key, "SET done_inline = :value", true).await
    }

    /// Broadcasts from the newest, from after `after`; at most `limit`. Where to go on, unless that was all.
    ///
    /// The index lags: it may miss a new broadcast for a moment, and name one that is gone.
    pub async fn list_broadcasts(
        &self,
        after: Option<&Listed>,
        limit: i32,
    ) -> Result<(Vec<Listed>, Option<Listed>), Error> {
        const OPERATION: &str = "list broadcasts";
        let mut call = self
            .client
            .query()
            .table_name(&self.broadcasts)
            .index_name("recent")
            .key_condition_expression("listed = :listed")
            .expression_attribute_values(":listed", value(BROADCAST_SORT_KEY)?)
            .scan_index_forward(false)
            .limit(limit);
        if let Some(after) = after {
            call = call
                .exclusive_start_key("listed", value(BROADCAST_SORT_KEY)?)
                .exclusive_start_key("created_at", at(after.created_at)?)
                .exclusive_start_key("pk", value(partition(&after.broadcast_id))?)
                .exclusive_start_key("sk", value(BROADCAST_SORT_KEY)?);
        }
        let found = patiently(|| call.clone().send())
            .await
            .map_err(unsettled(OPERATION))?;
        let listed = found.items.unwrap_or_default().into_iter();
        let listed = listed
            .map(|key| from_item(OPERATION, key))
            .collect::<Result<_, _>>()?;
        let last = found.last_evaluated_key;
        let last = last.map(|key| from_item(OPERATION, key)).transpose()?;
        Ok((listed, last))
    }

    /// Counts a request that was answered with this broadcast.
    pub async fn count_replay(&self, broadcast_id: &BroadcastId) -> Result<(), Error> {
        let key = (partition(broadcast_id), BROADCAST_SORT_KEY.to_owned());
        self.change(key, "ADD replays :value", 1).await
    }

    /// Counts a worker that a live lease refused.
    pub async fn count_refused_claim(&self, job: &JobId) -> Result<(), Error> {
        let key = (partition(&job.broadcast_id), job_sort_key(job));
        self.change(key, "ADD prevented_claim :value", 1).await
    }

    /// Changes a broadcast or a job, if it is still kept, in what no protocol hangs on.
    async fn change(
        &self,
        (pk, sk): (String, String),
        update: &str,
        new: impl Serialize,
    ) -> Result<(), Error> {
        let call = self
            .client
            .update_item()
            .table_name(&self.broadcasts)
            .key("pk", AttributeValue::S(pk))
            .key("sk", AttributeValue::S(sk))
            .update_expression(update)
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_values(":value", value(new)?);
        patiently(|| call.clone().send())
            .await
            .map_err(unsettled("note something about a broadcast"))?;
        Ok(())
    }
}
