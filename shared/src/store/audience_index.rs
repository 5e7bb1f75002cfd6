//! The contacts of a Page in the index `audience`, as a stream in the order of their ids.
//!
//! The order makes a position in the stream one contact id, from which another process goes on. The index keeps a Page in
//! several partitions, each in that order: they are read side by side and merged. Memory is constant, however many contacts a
//! Page has.

use std::collections::VecDeque;

use futures_util::future::try_join_all;
use serde::de::DeserializeOwned;

use super::keys;
use super::statement::Query;
use super::tables::{Error, Item, Store};
use crate::domain::audience::IndexedContact;
use crate::domain::ids::{ContactId, PageId};

/// The contacts of a Page from a position on, those that have opted out among them.
///
/// The index lags: a change of a moment ago may be missing, and a contact that was just deleted may be there. No contact comes
/// twice, neither in a stream nor in those that go on from its positions.
pub struct IndexedContacts<'a> {
    store: &'a Store,
    partitions: Vec<Ordered<'a, IndexedContact>>,
    /// The position: the contact that came last.
    position: Option<ContactId>,
}

impl<'a> IndexedContacts<'a> {
    /// The contacts after this one. A query reads at most `at_once` of a partition: a sixteenth of the contacts that are wanted,
    /// and a few more, since each partition has its own share of them.
    pub fn new(store: &'a Store, page_id: &PageId, after: Option<ContactId>, at_once: i32) -> Self {
        let partitions = keys::page_shards(page_id).map(|shard| {
            let query = Query::index(&store.contacts, "audience", "page_shard = :shard").bind(":shard", &shard);
            let key = |contact_id| keys::indexed_contact(&shard, contact_id);
            Ordered::new(query, after.as_ref().map(key), at_once)
        });
        Self {
            store,
            partitions: partitions.collect(),
            position: after,
        }
    }

    /// The contact that came last, after which another stream goes on.
    pub fn position(&self) -> Option<&ContactId> {
        self.position.as_ref()
    }

    /// Returns the next contact; `None` at the end.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn next(&mut self) -> Result<Option<IndexedContact>, Error> {
        loop {
            while self.partitions.iter().any(Ordered::is_dry) {
                self.read_on().await?;
            }
            let heads = self
                .partitions
                .iter_mut()
                .filter(|partition| partition.head().is_some());
            let Some(next) = heads.min_by(|one, other| one.id().cmp(&other.id())) else {
                return Ok(None);
            };
            let Some(contact) = next.take() else {
                continue;
            };
            // A contact that is moved to another partition meanwhile may be found in both.
            if self
                .position
                .as_ref()
                .is_none_or(|position| contact.contact_id > *position)
            {
                self.position = Some(contact.contact_id.clone());
                return Ok(Some(contact));
            }
        }
    }

    /// Reads on in each partition that is dry or soon will be, at once: they run dry at much the same time.
    async fn read_on(&mut self) -> Result<(), Error> {
        let low = self.partitions.iter_mut().filter(|partition| partition.is_low());
        let reads = low.map(|partition| partition.read_on(self.store, "read the contacts of a Page"));
        try_join_all(reads).await.map(drop)
    }
}

/// The items of a partition in the order of their contacts, read part by part.
pub(super) struct Ordered<'a, T> {
    query: Query<'a>,
    at_once: i32,
    items: VecDeque<T>,
    /// The key after which the next part begins.
    after: Option<Item>,
    has_more: bool,
}

impl<'a, T: DeserializeOwned> Ordered<'a, T> {
    pub(super) fn new(query: Query<'a>, after: Option<Item>, at_once: i32) -> Self {
        Self {
            query: query.limit(at_once),
            at_once,
            items: VecDeque::new(),
            after,
            has_more: true,
        }
    }

    /// The next item, as far as it is read.
    pub(super) fn head(&self) -> Option<&T> {
        self.items.front()
    }

    /// Takes the next item, as far as it is read.
    pub(super) fn take(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// Returns `true` if the next item is not read yet.
    pub(super) fn is_dry(&self) -> bool {
        self.has_more && self.items.is_empty()
    }

    fn is_low(&self) -> bool {
        let half = usize::try_from(self.at_once / 2).unwrap_or_default();
        self.has_more && self.items.len() <= half
    }

    /// Reads the next part. After an error it can be read again.
    pub(super) async fn read_on(&mut self, store: &Store, operation: &'static str) -> Result<(), Error> {
        let query = self.query.clone().after(self.after.clone());
        let (items, last) = store.query_page(operation, query).await?;
        self.items.extend(items);
        self.has_more = last.is_some();
        self.after = last;
        Ok(())
    }
}

impl Ordered<'_, IndexedContact> {
    fn id(&self) -> Option<&ContactId> {
        self.head().map(|contact| &contact.contact_id)
    }
}
