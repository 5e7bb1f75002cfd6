//! The members of an audience on one Page, as a stream in the order of their ids, which is that of the index.
//!
//! The deliveries of a broadcast have the same order, so those of the broadcasts that an audience names are read beside the
//! index, each once. Attributes, which the index does not have, are read of the contacts that everything else lets pass.

use std::collections::HashSet;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;

use super::audience_index::{IndexedContacts, Ordered};
use super::calls::{BATCH_GET, Read};
use super::keys;
use super::statement::Query;
use super::tables::{Error, Store};
use crate::domain::audience::{Audience, Excluded, ExcludedCounts};
use crate::domain::contact::Contact;
use crate::domain::delivery::PastDelivery;
use crate::domain::ids::{BroadcastId, ContactId, JobId, PageId};

/// Contacts that a query reads of a partition.
const CONTACTS_AT_ONCE: i32 = 500;
/// Deliveries that a query reads of a broadcast.
const DELIVERIES_AT_ONCE: i32 = 1_000;
/// The most members of a batch: those of a segment.
const MEMBERS: usize = 1_000;
/// The most contacts that are looked at for a batch.
const CONSIDERED: u64 = 10_000;
/// Batches of contacts that are read at once for their attributes.
const BATCHES_AT_ONCE: usize = 8;

/// The members of an audience on one Page, from a position on.
///
/// The index lags: a change of a moment ago may be missing. A contact that changes while it is read is in or out; none comes
/// twice, neither in a stream nor in those that go on from its positions.
pub struct Members<'a> {
    store: &'a Store,
    page_id: PageId,
    audience: &'a Audience,
    now: Timestamp,
    contacts: IndexedContacts<'a>,
    sent_in: Vec<Ordered<'a, PastDelivery>>,
    not_sent_in: Vec<Ordered<'a, PastDelivery>>,
}

/// The next members of an audience.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberBatch {
    /// The members, at most a thousand, by id; maybe none, although there are more to come.
    pub members: Vec<ContactId>,
    /// The position: every contact up to this one has been looked at.
    pub up_to: ContactId,
    /// The contacts that were left out, by the first filter that excluded them.
    pub excluded: ExcludedCounts,
    /// The contacts that were looked at.
    pub considered: u64,
}

impl<'a> Members<'a> {
    /// The members after this contact, of an audience whose hours count back from `now`.
    pub fn new(
        store: &'a Store,
        page_id: &PageId,
        audience: &'a Audience,
        now: Timestamp,
        after: Option<ContactId>,
    ) -> Self {
        let deliveries = |broadcast_id: &BroadcastId| {
            let job = JobId {
                broadcast_id: broadcast_id.clone(),
                page_id: page_id.clone(),
            };
            let query = Query::table(&store.deliveries, "job = :job")
                .bind(":job", job.to_string())
                .only("contact_id, #status, arrived_as, earlier_doubt");
            let after = after.as_ref().map(|contact_id| keys::delivery(&job, contact_id));
            Ordered::new(query, after, DELIVERIES_AT_ONCE)
        };
        Self {
            store,
            page_id: page_id.clone(),
            audience,
            now,
            sent_in: audience.sent_in.iter().map(deliveries).collect(),
            not_sent_in: audience.not_sent_in.iter().map(deliveries).collect(),
            contacts: IndexedContacts::new(store, page_id, after, CONTACTS_AT_ONCE),
        }
    }

    /// Reads on; `None` at the end.
    ///
    /// # Errors
    /// If DynamoDB does not answer. This stream is then of no more use; one from the last position on repeats nothing.
    pub async fn next_batch(&mut self) -> Result<Option<MemberBatch>, Error> {
        let (mut members, mut considered, mut excluded) = (Vec::new(), 0, ExcludedCounts::new());
        while members.len() < MEMBERS && considered < CONSIDERED {
            let Some(contact) = self.contacts.next().await? else {
                break;
            };
            considered += 1;
            let is_member = match self.audience.matches(&contact, self.now) {
                Ok(()) => self.matches_history(&contact.contact_id).await?,
                left_out => left_out,
            };
            match is_member {
                Ok(()) => members.push(contact.contact_id),
                Err(filter) => *excluded.entry(filter).or_default() += 1,
            }
        }
        if !self.audience.attributes.is_empty() {
            let candidates = members.len();
            members = self.with_attributes(members).await?;
            let left_out = candidates - members.len();
            if left_out > 0 {
                excluded.insert(Excluded::Attributes, left_out as u64);
            }
        }
        let position = self.contacts.position().filter(|_| considered > 0);
        Ok(position.cloned().map(|up_to| MemberBatch {
            members,
            up_to,
            excluded,
            considered,
        }))
    }

    /// Asks the deliveries to the contact that came last.
    async fn matches_history(&mut self, contact_id: &ContactId) -> Result<Result<(), Excluded>, Error> {
        let Self { store, audience, .. } = *self;
        let (mut arrived, mut may_have_arrived) = (false, false);
        for deliveries in &mut self.sent_in {
            let row = deliveries.of(contact_id, store).await?;
            arrived |= row.is_some_and(PastDelivery::has_arrived);
        }
        for deliveries in &mut self.not_sent_in {
            let row = deliveries.of(contact_id, store).await?;
            may_have_arrived |= row.is_some_and(PastDelivery::may_have_arrived);
        }
        Ok(match (audience.sent_in.is_empty() || arrived, may_have_arrived) {
            (false, _) => Err(Excluded::SentIn),
            (true, true) => Err(Excluded::NotSentIn),
            (true, false) => Ok(()),
        })
    }

    /// Keeps the contacts whose attributes match.
    async fn with_attributes(&self, mut contacts: Vec<ContactId>) -> Result<Vec<ContactId>, Error> {
        const OPERATION: &str = "read the attributes of contacts";
        let Self { store, audience, .. } = *self;
        let batch = |ids: &[ContactId]| {
            let keys = ids.iter().map(keys::contact).collect();
            store.batch_get::<Contact>(OPERATION, &store.contacts, keys, None, Read::Eventual)
        };
        let batches: Vec<_> = contacts.chunks(BATCH_GET).map(batch).collect();
        let found = stream::iter(batches).buffer_unordered(BATCHES_AT_ONCE);
        let found: Vec<_> = found.try_collect().await?;
        let is_member = |contact: &Contact| {
            contact.page_id == self.page_id && audience.matches_attributes(&contact.attributes).is_ok()
        };
        let found = found.into_iter().flatten().filter(is_member);
        let found: HashSet<_> = found.map(|contact| contact.contact_id).collect();
        contacts.retain(|contact_id| found.contains(contact_id));
        Ok(contacts)
    }
}

impl Ordered<'_, PastDelivery> {
    /// The delivery to a contact, which comes after all that were asked for before; those in between are passed over.
    async fn of(&mut self, contact_id: &ContactId, store: &Store) -> Result<Option<&PastDelivery>, Error> {
        loop {
            while self.is_dry() {
                self.read_on(store, "read the deliveries of a broadcast").await?;
            }
            match self.head() {
                Some(row) if row.contact_id < *contact_id => drop(self.take()),
                _ => break,
            }
        }
        Ok(self.head().filter(|row| row.contact_id == *contact_id))
    }
}
