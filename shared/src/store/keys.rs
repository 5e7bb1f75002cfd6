//! The keys of every item, in one place.
//!
//! | table | key | items |
//! |---|---|---|
//! | contacts | `contact_id` | contacts |
//! | broadcasts | `pk`, `sk` | `broadcast#ID`, `broadcast`: a broadcast · `broadcast#ID`, `job#PAGE`: its jobs · `broadcast#ID`, `history#TIME#ID`: its history · `segments#SNAPSHOT`, number: segments · `request#HASH`, `request`: request keys · `page#PAGE`, `lease` and `looks`: Pages, and leases for lookups · `broadcast#000…`, `job#PAGE`: imports of contacts · `minutes#BROADCAST/PAGE`, `minutes`: the speed of jobs · `mid#ID`, `mid`: messages that settled a delivery · `event#ID`, `event`: events · `sending`, `all`: the switch for sending · `sending`, `history#TIME#TOKEN`: its changes · `pages`, PAGE: the Pages that have contacts · `audiences`, NAME: saved audiences · `contacts`, `indexed`: the progress of giving contacts of an earlier version their partition |
//! | deliveries | `job` (`broadcast/page`), `contact_id` | deliveries |

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::tables::Item;
use crate::domain::audience::AudienceName;
use crate::domain::ids::{BroadcastId, ContactId, JobId, PageId};

/// The sort key of a broadcast, and the partition of the index of broadcasts by time.
pub(super) const BROADCAST: &str = "broadcast";
/// Partitions of the `wake` index that hold the jobs of broadcasts.
const WAKE_SHARDS: u64 = 8;
/// The partition of the `wake` index that holds the events which are still to be delivered.
pub(super) const EVENTS_SHARD: &str = "events";
/// Partitions of the `doubt` index.
const DOUBT_SHARDS: u64 = 8;
/// Partitions of a Page in the `audience` index: DynamoDB writes 1,000 items a second to each.
const PAGE_SHARDS: u64 = 16;

/// The partition of the switch for sending and its history.
pub(super) const SENDING: &str = "sending";
const PAGE_PREFIX: &str = "page#";
const BROADCAST_PREFIX: &str = "broadcast#";
const EVENT_PREFIX: &str = "event#";
/// The partition of saved audiences.
pub(super) const AUDIENCES: &str = "audiences";
/// The partition of the Pages that have contacts.
pub(super) const PAGES: &str = "pages";
/// The beginning of the sort keys of entries of a history: of a broadcast, or of the switch for sending.
pub(super) const HISTORY_PREFIX: &str = "history#";
/// The sort key of a Page's slots, its pause, and the lease of its large jobs.
pub(super) const PAGE_SENDING: &str = "lease";
/// The beginning of the sort keys of jobs.
pub(super) const JOB_PREFIX: &str = "job#";

/// The key of a contact.
pub(super) fn contact(contact_id: &ContactId) -> Item {
    key([("contact_id", contact_id.to_string())])
}

/// The key of the progress of giving contacts of an earlier version their partition in the index `audience`.
pub(super) fn indexing() -> Item {
    key([("pk", "contacts".to_owned()), ("sk", "indexed".to_owned())])
}

/// The key of a Page in the list of those that have contacts.
pub(super) fn page(page_id: &PageId) -> Item {
    key([("pk", PAGES.to_owned()), ("sk", page_id.to_string())])
}

/// The key of a saved audience.
pub(super) fn audience(name: &AudienceName) -> Item {
    key([("pk", AUDIENCES.to_owned()), ("sk", name.as_str().to_owned())])
}

/// The key of a broadcast.
pub(super) fn broadcast(broadcast_id: &BroadcastId) -> Item {
    key([("pk", broadcast_partition(broadcast_id)), ("sk", BROADCAST.to_owned())])
}

/// The partition of a broadcast and its jobs.
pub(super) fn broadcast_partition(broadcast_id: &BroadcastId) -> String {
    format!("{BROADCAST_PREFIX}{broadcast_id}")
}

/// The key of a job.
pub(super) fn job(job: &JobId) -> Item {
    key([
        ("pk", broadcast_partition(&job.broadcast_id)),
        ("sk", format!("{JOB_PREFIX}{}", job.page_id)),
    ])
}

/// The key of an entry of a broadcast's history, by its time and its random id.
pub(super) fn history(broadcast_id: &BroadcastId, time: Timestamp, id: &str) -> Item {
    let sort_key = format!("{HISTORY_PREFIX}{:015}#{id}", time.as_millisecond());
    key([("pk", broadcast_partition(broadcast_id)), ("sk", sort_key)])
}

/// The key of a segment.
pub(super) fn segment(snapshot: &str, number: u32) -> Item {
    key([("pk", format!("segments#{snapshot}")), ("sk", format!("{number:06}"))])
}

/// The key of a request key, by its digest.
pub(super) fn request(digest: &str) -> Item {
    key([("pk", format!("request#{digest}")), ("sk", "request".to_owned())])
}

/// The key of a lease of a Page.
pub(super) fn page_lease(page_id: &PageId, purpose: &str) -> Item {
    key([("pk", format!("{PAGE_PREFIX}{page_id}")), ("sk", purpose.to_owned())])
}

/// The key of the minutes in which a job sent messages.
pub(super) fn minutes(job: &JobId) -> Item {
    key([("pk", format!("minutes#{job}")), ("sk", "minutes".to_owned())])
}

/// The key of the switch for sending.
pub(super) fn sending() -> Item {
    key([("pk", SENDING.to_owned()), ("sk", "all".to_owned())])
}

/// The key of a change of the switch for sending.
pub(super) fn sending_change(at: Timestamp, token: &str) -> Item {
    let sort = format!("{HISTORY_PREFIX}{:013}#{token}", at.as_millisecond());
    key([("pk", SENDING.to_owned()), ("sk", sort)])
}

/// The key of a message of Messenger's that settled a delivery.
pub(super) fn message(message_id: &str) -> Item {
    key([("pk", format!("mid#{message_id}")), ("sk", "mid".to_owned())])
}

/// The name of the delivery that a message has settled, as the message's item holds it.
pub(super) fn claimed_by(job: &JobId, contact_id: &ContactId) -> String {
    format!("{job}/{contact_id}")
}

/// The key of an event.
pub(super) fn event(id: &str) -> Item {
    key([("pk", format!("{EVENT_PREFIX}{id}")), ("sk", "event".to_owned())])
}

/// The id of an event, by its partition key; `None` for an item of another kind.
pub(super) fn event_id(partition: &str) -> Option<String> {
    partition.strip_prefix(EVENT_PREFIX).map(str::to_owned)
}

/// The key of a delivery.
pub(super) fn delivery(job: &JobId, contact_id: &ContactId) -> Item {
    key([("job", job.to_string()), ("contact_id", contact_id.to_string())])
}

fn key<const N: usize>(parts: [(&str, String); N]) -> Item {
    parts
        .map(|(name, value)| (name.to_owned(), AttributeValue::S(value)))
        .into()
}

/// The partitions of the `wake` index that hold the jobs of broadcasts.
pub fn wake_shards() -> Range<u64> {
    0..WAKE_SHARDS
}

/// The partition of the `wake` index that holds imports. They are woken also while sending is switched off, and must not be
/// looked for among the jobs that wait for it.
pub fn imports_shard() -> u64 {
    WAKE_SHARDS
}

/// The partition of the `wake` index that holds a job.
pub(super) fn wake_shard(job: &JobId) -> String {
    match job.is_import() {
        true => imports_shard().to_string(),
        false => shard(job, WAKE_SHARDS),
    }
}

/// The partitions of the `doubt` index.
pub fn doubt_shards() -> Range<u64> {
    0..DOUBT_SHARDS
}

/// The partition of the `doubt` index that holds a delivery.
pub(super) fn doubt_shard(job: &JobId, contact_id: &ContactId) -> String {
    shard((job, contact_id), DOUBT_SHARDS)
}

/// The partition of the `audience` index that holds a contact of this Page.
pub fn page_shard(page_id: &PageId, contact_id: &ContactId) -> String {
    format!("{page_id}#{}", shard(contact_id, PAGE_SHARDS))
}

/// The partitions of the `audience` index that hold the contacts of a Page.
pub(super) fn page_shards(page_id: &PageId) -> impl Iterator<Item = String> {
    (0..PAGE_SHARDS).map(move |shard| format!("{page_id}#{shard}"))
}

/// The key of a contact in the `audience` index.
pub(super) fn indexed_contact(page_shard: &str, contact_id: &ContactId) -> Item {
    key([
        ("page_shard", page_shard.to_owned()),
        ("contact_id", contact_id.to_string()),
    ])
}

fn shard(of: impl Hash, shards: u64) -> String {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    (hasher.finish() % shards).to_string()
}

/// The key of a job, as an index holds it.
#[derive(Deserialize)]
pub(super) struct JobKey {
    #[serde(rename = "pk", deserialize_with = "from_partition")]
    broadcast_id: BroadcastId,
    sk: String,
}

impl JobKey {
    /// The job; `None` for an item of another kind.
    pub(super) fn into_job(self) -> Option<JobId> {
        let page_id = PageId::parse(self.sk.strip_prefix(JOB_PREFIX)?).ok()?;
        Some(JobId {
            broadcast_id: self.broadcast_id,
            page_id,
        })
    }
}

/// The key of a delivery, as an index holds it.
#[derive(Deserialize)]
pub(super) struct DeliveryKey {
    job: String,
    contact_id: ContactId,
}

impl DeliveryKey {
    /// The delivery's job and contact; `None` for an unreadable job.
    pub(super) fn into_ids(self) -> Option<(JobId, ContactId)> {
        Some((JobId::parse(&self.job)?, self.contact_id))
    }
}

/// Reads the id of a Page from its partition key.
pub(super) fn from_page_partition<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PageId, D::Error> {
    let partition = String::deserialize(deserializer)?;
    let id = partition.strip_prefix(PAGE_PREFIX).map(PageId::parse);
    id.and_then(Result::ok)
        .ok_or_else(|| D::Error::custom("not the partition of a Page"))
}

/// Reads the id of a broadcast from its partition key.
pub(super) fn from_partition<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BroadcastId, D::Error> {
    let partition = String::deserialize(deserializer)?;
    let id = partition.strip_prefix(BROADCAST_PREFIX).and_then(BroadcastId::parse);
    id.ok_or_else(|| D::Error::custom("not the partition of a broadcast"))
}
