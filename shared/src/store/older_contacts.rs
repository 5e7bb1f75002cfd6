//! Contacts that an earlier version wrote. They have no partition in the index `audience`, so no audience finds them, and are given
//! it part by part.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Deserialize;

use super::calls::{Conditional, Read};
use super::contacts::Contacts;
use super::keys;
use super::statement::Update;
use super::tables::{Error, SCHEMA, from_item};
use crate::domain::ids::{ContactId, PageId};

/// Contacts that one part looks at.
const CONTACTS: i32 = 500;
/// Contacts written at once.
const WRITES_AT_ONCE: usize = 16;

/// The progress in a table of an earlier version.
#[derive(Default, Deserialize)]
struct Indexing {
    /// The contact that was looked at last, in the table's own order.
    #[serde(default)]
    after: Option<ContactId>,
    /// True if all were looked at.
    #[serde(default)]
    done: bool,
}

/// A contact, as far as it can be read: an odd one must not hold up the others.
#[derive(Deserialize)]
struct Found {
    contact_id: String,
    #[serde(default)]
    page_id: Option<String>,
    #[serde(default)]
    page_shard: Option<String>,
}

#[derive(Deserialize)]
struct Key {
    contact_id: ContactId,
}

impl Contacts<'_> {
    /// Gives a partition in the index to the contacts of the next part of the table that have none, and keeps the place. Returns
    /// their number; `None` if the whole table is done, which costs a read unit to find out. Two processes at once do some parts
    /// twice, which changes nothing.
    ///
    /// # Errors
    /// If DynamoDB does not answer. The part is then done again.
    pub async fn index_next_older(&self) -> Result<Option<u64>, Error> {
        const OPERATION: &str = "read contacts of an earlier version";
        const KEEP_PLACE: &str = "SET #after = :after, #schema = if_not_exists(#schema, :schema)";
        const FINISH: &str = "SET done = :done, #schema = if_not_exists(#schema, :schema)";
        let Self(store) = self;
        let progress = store.get(OPERATION, &store.broadcasts, keys::indexing(), Read::Consistent);
        let Indexing { after, done } = progress.await?.unwrap_or_default();
        if done {
            return Ok(None);
        }
        let after = after.as_ref().map(keys::contact);
        let (found, last) = store
            .scan_page::<Found>(OPERATION, &store.contacts, after, CONTACTS)
            .await?;
        let older = found.into_iter().filter(|contact| contact.page_shard.is_none());
        let older = older.filter_map(|contact| {
            let contact_id = ContactId::parse_stored(&contact.contact_id)?;
            Some((contact_id, PageId::parse(&contact.page_id?).ok()?))
        });
        let writes: Vec<_> = older
            .map(|(contact_id, page_id)| self.index(contact_id, page_id))
            .collect();
        let indexed = stream::iter(writes).buffer_unordered(WRITES_AT_ONCE);
        let indexed: u64 = indexed.try_fold(0, async |sum, one| Ok(sum + u64::from(one))).await?;
        let last: Option<Key> = last.map(|key| from_item(OPERATION, key)).transpose()?;
        let keep = match last {
            Some(Key { contact_id }) => {
                let keep = Update::new(&store.broadcasts, keys::indexing(), KEEP_PLACE);
                keep.bind(":after", contact_id)
            }
            None => Update::new(&store.broadcasts, keys::indexing(), FINISH).bind(":done", true),
        };
        store
            .update("keep the place in the contacts", keep.bind(":schema", SCHEMA))
            .await?;
        Ok(Some(indexed))
    }

    /// Gives a contact its partition, unless it has one by now or is gone.
    async fn index(&self, contact_id: ContactId, page_id: PageId) -> Result<bool, Error> {
        const INDEX: &str = "SET page_shard = :page_shard";
        const IF_AS_READ: &str = "page_id = :page_id AND attribute_not_exists(page_shard)";
        let Self(store) = self;
        store.pages().note(&page_id).await?;
        let index = Update::new(&store.contacts, keys::contact(&contact_id), INDEX)
            .only_if(IF_AS_READ)
            .bind(":page_shard", keys::page_shard(&page_id, &contact_id))
            .bind(":page_id", page_id);
        Ok(matches!(
            store.update("index a contact", index).await?,
            Conditional::Written(_)
        ))
    }
}
