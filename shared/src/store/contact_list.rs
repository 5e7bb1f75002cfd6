//! Contacts in lists, as of a moment ago and at half the cost.

use std::collections::HashMap;

use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use serde::Deserialize;

use super::calls::{BATCH_GET, Read};
use super::contacts::Contacts;
use super::keys;
use super::tables::{Error, from_item};
use crate::domain::contact::Contact;
use crate::domain::ids::{ContactId, PageId};

/// Batches read at once.
const BATCHES_AT_ONCE: usize = 4;

#[derive(Deserialize)]
struct Key {
    contact_id: ContactId,
}

impl Contacts<'_> {
    /// Reads the next contacts of all, at most `limit` of them, and the contact to go on after, unless these are the last. The order
    /// is the table's own, and stays the same while contacts come and go.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or an item is unreadable.
    pub async fn scan(
        &self,
        after: Option<&ContactId>,
        limit: i32,
    ) -> Result<(Vec<Contact>, Option<ContactId>), Error> {
        const OPERATION: &str = "list contacts";
        let Self(store) = self;
        let after = after.map(keys::contact);
        let (contacts, last) = store.scan_page(OPERATION, &store.contacts, after, limit).await?;
        let last: Option<Key> = last.map(|key| from_item(OPERATION, key)).transpose()?;
        Ok((contacts, last.map(|key| key.contact_id)))
    }

    /// Reads contacts of a Page, in the order of these ids, a few hundred ahead. Those that are gone, or of another Page, are left
    /// out.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or an item is unreadable.
    pub fn of_page<'a>(
        &'a self,
        page_id: &'a PageId,
        ids: &'a [ContactId],
    ) -> impl Stream<Item = Result<Contact, Error>> + 'a {
        const OPERATION: &str = "list the contacts of a Page";
        let Self(store) = self;
        let batches = ids.chunks(BATCH_GET).map(move |ids| async move {
            let keys = ids.iter().map(keys::contact).collect();
            let batch = store.batch_get::<Contact>(OPERATION, &store.contacts, keys, None, Read::Eventual);
            let found = batch.await?.into_iter().filter(|contact| contact.page_id == *page_id);
            let mut found: HashMap<_, _> = found.map(|contact| (contact.contact_id.clone(), contact)).collect();
            let ordered: Vec<_> = ids.iter().filter_map(|id| found.remove(id).map(Ok)).collect();
            Ok(stream::iter(ordered))
        });
        stream::iter(batches).buffered(BATCHES_AT_ONCE).try_flatten()
    }
}
