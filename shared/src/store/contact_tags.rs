//! Changes of the tags of many contacts.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Deserializer};

use super::calls::{BATCH_GET, Conditional, Read};
use super::contacts::Contacts;
use super::keys;
use super::statement::Update;
use super::tables::{Error, from_item};
use crate::domain::ids::{ContactId, PageId, Pages};
use crate::domain::tags::TagChange;

/// Contacts written at once.
const WRITES_AT_ONCE: usize = 16;

/// The end of a change of a contact's tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tagged {
    /// The contact has other tags now.
    Changed,
    /// The contact had these tags already.
    Unchanged,
    /// There is no such contact of these Pages.
    Unknown,
    /// The contact would have too many tags, and was left as it is.
    TooMany,
}

/// The numbers of contacts by the end of the change.
pub type TaggedCounts = BTreeMap<Tagged, u64>;

/// The tags of a contact.
#[derive(Deserialize)]
struct Tags {
    contact_id: ContactId,
    page_id: PageId,
    /// `None` if the item has no such attribute.
    #[serde(default, deserialize_with = "some_list")]
    tags: Option<Vec<String>>,
}

/// Reads a list. Anything else is an error: a condition that compares it with a list would be refused for ever.
fn some_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    Vec::deserialize(deserializer).map(Some)
}

impl Contacts<'_> {
    /// Adds and removes tags of these contacts, as far as they are of these Pages; a contact has at most `most` tags. Each contact
    /// is changed by itself, whatever others change at the same moment: nobody's change is lost, and a repetition is harmless.
    ///
    /// # Errors
    /// If DynamoDB does not answer: some contacts are changed then.
    pub async fn change_tags(
        &self,
        ids: &[ContactId],
        change: &TagChange,
        pages: &Pages,
        most: usize,
    ) -> Result<TaggedCounts, Error> {
        const OPERATION: &str = "read the tags of contacts";
        const FIELDS: &str = "contact_id, page_id, tags";
        let Self(store) = self;
        let mut counts = TaggedCounts::new();
        for ids in ids.chunks(BATCH_GET) {
            let keys = ids.iter().map(keys::contact).collect();
            let batch = store.batch_get(OPERATION, &store.contacts, keys, Some(FIELDS), Read::Consistent);
            let found: Vec<Tags> = batch.await?;
            let unknown = ids.len() - found.len();
            *counts.entry(Tagged::Unknown).or_default() += unknown as u64;
            let changes = found
                .into_iter()
                .map(|contact| self.change_tags_of(contact, change, pages, most));
            let changes: Vec<_> = changes.collect();
            let ends = stream::iter(changes).buffer_unordered(WRITES_AT_ONCE);
            let ends: Vec<_> = ends.try_collect().await?;
            for end in ends {
                *counts.entry(end).or_default() += 1;
            }
        }
        Ok(counts)
    }

    /// Changes the tags of one contact on top of those that it was read with, or of those that refused the write.
    async fn change_tags_of(
        &self,
        mut seen: Tags,
        change: &TagChange,
        pages: &Pages,
        most: usize,
    ) -> Result<Tagged, Error> {
        const OPERATION: &str = "change the tags of a contact";
        const CHANGE: &str = "SET tags = :tags, page_shard = :page_shard";
        const IF_AS_SEEN: &str = "page_id = :page_id AND tags = :seen";
        const IF_NONE_AS_SEEN: &str = "page_id = :page_id AND attribute_not_exists(tags)";
        let Self(store) = self;
        loop {
            if !pages.allow(&seen.page_id) {
                return Ok(Tagged::Unknown);
            }
            let before = seen.tags.as_deref().unwrap_or_default();
            let Some(after) = change.of(before) else {
                return Ok(Tagged::Unchanged);
            };
            if after.len() > most && after.len() > before.len() {
                return Ok(Tagged::TooMany);
            }
            let update = Update::new(&store.contacts, keys::contact(&seen.contact_id), CHANGE)
                .bind(":tags", after)
                .bind(":page_shard", keys::page_shard(&seen.page_id, &seen.contact_id))
                .bind(":page_id", &seen.page_id);
            let update = match &seen.tags {
                Some(tags) => update.only_if(IF_AS_SEEN).bind(":seen", tags),
                None => update.only_if(IF_NONE_AS_SEEN),
            };
            match store.update(OPERATION, update).await? {
                Conditional::Written(_) => return Ok(Tagged::Changed),
                // Deleted meanwhile.
                Conditional::Refused(None) => return Ok(Tagged::Unknown),
                Conditional::Refused(Some(item)) => seen = from_item(OPERATION, item)?,
            }
        }
    }
}
