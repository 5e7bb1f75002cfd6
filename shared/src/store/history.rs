//! The history of a broadcast: an item for each order, beside the broadcast and its jobs.

use aws_sdk_dynamodb::types::TransactWriteItem;
use jiff::Timestamp;
use serde::Serialize;

use super::keys;
use super::statement::{Delete, Put};
use super::tables::{Error, Item, REPORT_OUTLIVES, SCHEMA, Store, expiry, from_item, to_item};
use crate::domain::history::HistoryEntry;
use crate::domain::ids::BroadcastId;

/// The number of entries that are kept of a broadcast: each report reads all of them.
const MAX_ENTRIES: usize = 100;

/// The history of a broadcast, as it was read.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The entries, from the oldest.
    pub entries: Vec<HistoryEntry>,
    /// The key of the oldest entry.
    oldest: Option<Item>,
}

#[derive(Serialize)]
struct StoredEntry<'a> {
    schema: u32,
    expires_at: i64,
    #[serde(flatten)]
    entry: &'a HistoryEntry,
}

impl History {
    /// Adds the entry of the next item.
    pub(super) fn push(&mut self, operation: &'static str, item: Item) -> Result<(), Error> {
        if self.oldest.is_none() {
            let key = item.iter().filter(|(name, _)| ["pk", "sk"].contains(&name.as_str()));
            self.oldest = Some(key.map(|(name, value)| (name.clone(), value.clone())).collect());
        }
        self.entries.push(from_item(operation, item)?);
        Ok(())
    }
}

/// The parts of a transaction that add an entry under this random id, of a broadcast of which the segments are kept until
/// `retained_until`. The first part is refused only by itself: then its answer was lost. The second, if there is one, deletes the
/// oldest entry of a long history.
pub(super) fn add(
    store: &Store,
    operation: &'static str,
    broadcast_id: &BroadcastId,
    history: &History,
    (entry, id): (&HistoryEntry, &str),
    retained_until: Timestamp,
) -> Result<Vec<TransactWriteItem>, Error> {
    const IF_NEW: &str = "attribute_not_exists(pk)";
    let stored = StoredEntry {
        schema: SCHEMA,
        expires_at: expiry(retained_until, REPORT_OUTLIVES),
        entry,
    };
    let mut item = to_item(operation, stored)?;
    item.extend(keys::history(broadcast_id, entry.time, id));
    let mut parts = vec![Put::new(&store.broadcasts, item).only_if(IF_NEW).into_part(operation)?];
    if let Some(oldest) = history.oldest.clone().filter(|_| history.entries.len() >= MAX_ENTRIES) {
        parts.push(Delete::new(&store.broadcasts, oldest).into_part(operation)?);
    }
    Ok(parts)
}
