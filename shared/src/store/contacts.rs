//! Contacts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::calls::{BATCH_GET, Conditional, Read};
use super::keys;
use super::statement::{Delete, Update, millis};
use super::tables::{Error, SCHEMA, Store, from_item};
use crate::domain::consent::Consent;
use crate::domain::contact::{ATTRIBUTE_PREFIX, Contact, LastBroadcast, SOURCE, SOURCE_API};
use crate::domain::ids::{ContactId, JobId, PageId, Pages};
use crate::runtime::metrics::Event;

/// Batches read at once: the time of a large request is spent here.
const BATCHES_AT_ONCE: usize = 8;
/// Contacts written at once.
const WRITES_AT_ONCE: usize = 16;

/// The contacts of a [`Store`].
pub struct Contacts<'a>(pub(super) &'a Store);

/// The changes of an import to one contact: an absent field is kept, and `None` clears it.
#[derive(Clone, Debug, PartialEq)]
pub struct ContactPatch {
    /// The contact.
    pub contact_id: ContactId,
    /// Its Page, on which a known contact must be.
    pub page_id: PageId,
    /// Clears the attributes of the contact's own that `fields` does not name.
    pub clears_attributes: bool,
    /// The other attributes of the item by name.
    pub fields: BTreeMap<String, Option<Value>>,
}

/// The part of a contact that acceptance needs: for 100,000 contacts there is no room for more.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Recipient {
    /// The contact's Page.
    pub page_id: PageId,
    /// The contact does not want messages.
    #[serde(default)]
    pub opted_out: bool,
}

/// The end of marking a contact as sent a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// The contact has the mark.
    Now,
    /// Another job has sent to the contact, and the gap is not over.
    TooSoon,
    /// There is no such contact any more.
    Unknown,
}

#[derive(Deserialize)]
struct Found {
    contact_id: ContactId,
    #[serde(flatten)]
    recipient: Recipient,
}

impl Contacts<'_> {
    /// Reads one contact, as of now.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or the item is unreadable.
    pub async fn get(&self, contact_id: &ContactId) -> Result<Option<Contact>, Error> {
        let Self(store) = self;
        let key = keys::contact(contact_id);
        store
            .get("read a contact", &store.contacts, key, Read::Consistent)
            .await
    }

    /// Finds the contacts that exist, for a caller that may use these Pages. The first read is eventually consistent, at half
    /// the cost. Contacts that it would leave out are read again, strongly consistent: an import of a moment ago counts.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn find(&self, ids: &[ContactId], pages: &Pages) -> Result<HashMap<ContactId, Recipient>, Error> {
        let mut found = self.read_all(ids, Read::Eventual).await?;
        found.retain(|_, contact| !contact.opted_out && pages.allow(&contact.page_id));
        let missed: Vec<_> = ids.iter().filter(|id| !found.contains_key(id)).cloned().collect();
        found.extend(self.read_all(&missed, Read::Consistent).await?);
        Ok(found)
    }

    /// Reads contacts whole, as of now, as far as they exist. For parts of a request only: a contact may have many attributes.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or an item is unreadable.
    pub async fn get_all(&self, ids: &[ContactId]) -> Result<HashMap<ContactId, Contact>, Error> {
        let Self(store) = self;
        let batch = |ids: &[ContactId]| {
            let keys = ids.iter().map(keys::contact).collect();
            store.batch_get::<Contact>("read contacts", &store.contacts, keys, None, Read::Consistent)
        };
        let batches: Vec<_> = ids.chunks(BATCH_GET).map(batch).collect();
        let found = stream::iter(batches).buffer_unordered(BATCHES_AT_ONCE);
        let found: Vec<_> = found.try_collect().await?;
        let found = found.into_iter().flatten();
        Ok(found.map(|contact| (contact.contact_id.clone(), contact)).collect())
    }

    async fn read_all(&self, ids: &[ContactId], read: Read) -> Result<HashMap<ContactId, Recipient>, Error> {
        const FIELDS: &str = "contact_id, page_id, opted_out";
        let Self(store) = self;
        let batch = |ids: &[ContactId]| {
            let keys = ids.iter().map(keys::contact).collect();
            store.batch_get::<Found>("read contacts", &store.contacts, keys, Some(FIELDS), read)
        };
        let batches: Vec<_> = ids.chunks(BATCH_GET).map(batch).collect();
        let found: Vec<_> = stream::iter(batches)
            .buffer_unordered(BATCHES_AT_ONCE)
            .try_collect()
            .await?;
        Ok(found
            .into_iter()
            .flatten()
            .map(|found| (found.contact_id, found.recipient))
            .collect())
    }

    /// Creates or changes contacts, one write for each; a failure leaves the contacts before it changed, and repeating the
    /// import is harmless.
    ///
    /// A contact stays on its Page, so that no broadcast has it on two. Contacts that are known on another Page than the patch
    /// names are returned with theirs. If there are any, nothing is written, except when another request creates one on the
    /// other Page at the same moment.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn upsert_all(&self, patches: &[ContactPatch]) -> Result<HashMap<ContactId, PageId>, Error> {
        let elsewhere = self.elsewhere(patches).await?;
        if !elsewhere.is_empty() {
            return Ok(elsewhere);
        }
        let of_pages: BTreeSet<_> = patches.iter().map(|patch| &patch.page_id).collect();
        for page_id in of_pages {
            self.0.pages().note(page_id).await?;
        }
        let writes: Vec<_> = patches.iter().map(|patch| self.upsert(patch)).collect();
        let refused: Vec<_> = stream::iter(writes)
            .buffer_unordered(WRITES_AT_ONCE)
            .try_collect()
            .await?;
        Ok(refused.into_iter().flatten().collect())
    }

    /// Returns the contacts that are known on another Page than their patch names, with that Page.
    async fn elsewhere(&self, patches: &[ContactPatch]) -> Result<HashMap<ContactId, PageId>, Error> {
        let named: HashMap<_, _> = patches
            .iter()
            .map(|patch| (&patch.contact_id, &patch.page_id))
            .collect();
        let ids: Vec<_> = named.keys().map(|id| (*id).clone()).collect();
        let mut found = self.read_all(&ids, Read::Eventual).await?;
        let is_elsewhere =
            |id: &ContactId, known: &mut Recipient| named.get(id).is_some_and(|page| **page != known.page_id);
        found.retain(is_elsewhere);
        if found.is_empty() {
            return Ok(HashMap::new());
        }
        // The contact may have been deleted, and created on its new Page, a moment ago.
        let ids: Vec<_> = found.into_keys().collect();
        let mut found = self.read_all(&ids, Read::Consistent).await?;
        found.retain(is_elsewhere);
        Ok(found.into_iter().map(|(id, known)| (id, known.page_id)).collect())
    }

    /// Writes one contact; returns it with its Page if it is known on another.
    async fn upsert(&self, patch: &ContactPatch) -> Result<Option<(ContactId, PageId)>, Error> {
        const IF_NEW_OR_OF_PAGE: &str = "attribute_not_exists(contact_id) OR page_id = :page_id";
        const OPERATION: &str = "write a contact";
        let Self(store) = self;
        let update = patch_update(store, patch, self.fields_to_write(patch).await?).only_if(IF_NEW_OR_OF_PAGE);
        match store.update(OPERATION, update).await? {
            Conditional::Written(_) => Ok(None),
            Conditional::Refused(item) => {
                let found: Found = from_item(OPERATION, item.unwrap_or_default())?;
                Ok(Some((found.contact_id, found.recipient.page_id)))
            }
        }
    }

    /// The fields of a patch, with those that it clears without naming them.
    async fn fields_to_write(&self, patch: &ContactPatch) -> Result<BTreeMap<String, Option<Value>>, Error> {
        let mut fields = patch.fields.clone();
        if patch.clears_attributes
            && let Some(known) = self.get(&patch.contact_id).await?
        {
            for name in known.attributes.keys() {
                fields.entry(format!("{ATTRIBUTE_PREFIX}{name}")).or_insert(None);
            }
        }
        Ok(fields)
    }

    /// Records the time of a contact's interaction, if it is later than the known one.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn record_interaction_if_later(&self, contact_id: &ContactId, at: Timestamp) -> Result<(), Error> {
        const RECORD: &str = "SET last_interaction_at = :at";
        const IF_LATER: &str = "attribute_exists(contact_id) \
                                AND (attribute_not_exists(last_interaction_at) OR last_interaction_at < :at)";
        let Self(store) = self;
        let update = Update::new(&store.contacts, keys::contact(contact_id), RECORD)
            .only_if(IF_LATER)
            .bind(":at", millis(at));
        // Refused: an unknown contact, or a later interaction is known.
        match store.update("record an interaction", update).await? {
            Conditional::Written(_) | Conditional::Refused(_) => Ok(()),
        }
    }

    /// Opts a contact out or back in, as it asked at this time, unless it has asked for something later. Returns `false` if it
    /// has, or there is no such contact.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn change_consent_if_later(
        &self,
        contact_id: &ContactId,
        consent: Consent,
        at: Timestamp,
    ) -> Result<bool, Error> {
        const CHANGE: &str = "SET opted_out = :opted_out, consent_at = :at";
        const IF_LATER: &str = "attribute_exists(contact_id) \
                                AND (attribute_not_exists(consent_at) OR consent_at < :at)";
        let Self(store) = self;
        let update = Update::new(&store.contacts, keys::contact(contact_id), CHANGE)
            .only_if(IF_LATER)
            .bind(":opted_out", consent == Consent::OptOut)
            .bind(":at", millis(at));
        match store.update("change the consent of a contact", update).await? {
            Conditional::Written(_) => {
                store.metrics.count(
                    match consent {
                        Consent::OptOut => Event::OptedOut,
                        Consent::OptIn => Event::OptedIn,
                    },
                    1,
                );
                Ok(true)
            }
            Conditional::Refused(_) => Ok(false),
        }
    }

    /// Marks a contact as sent a broadcast by this job now, unless another job has sent to it less than `gap` ago.
    ///
    /// # Errors
    /// If DynamoDB does not answer: the contact may be marked, which does not hinder this job.
    pub async fn mark_if_gap_is_over(
        &self,
        contact_id: &ContactId,
        job: &JobId,
        gap: Duration,
        now: Timestamp,
    ) -> Result<Marked, Error> {
        const MARK: &str = "SET last_broadcast = :mark";
        const IF_GAP_IS_OVER: &str = "attribute_exists(contact_id) \
                                      AND (attribute_not_exists(last_broadcast) OR last_broadcast.job = :job \
                                           OR last_broadcast.sent_at <= :gap_ago)";
        let Self(store) = self;
        let mark = LastBroadcast {
            job: job.to_string(),
            sent_at: now,
        };
        let update = Update::new(&store.contacts, keys::contact(contact_id), MARK)
            .only_if(IF_GAP_IS_OVER)
            .bind(":job", &mark.job)
            .bind(":gap_ago", millis(now - gap))
            .bind(":mark", &mark);
        Ok(match store.update("mark a contact", update).await? {
            Conditional::Written(_) => Marked::Now,
            Conditional::Refused(Some(_)) => Marked::TooSoon,
            Conditional::Refused(None) => Marked::Unknown,
        })
    }

    /// Deletes a contact of one of these Pages; `false` if there was none.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn delete_if_allowed(&self, contact_id: &ContactId, pages: &Pages) -> Result<bool, Error> {
        const IF_THEIRS: &str = "page_id = :page_id";
        let Self(store) = self;
        let mut delete = Delete::new(&store.contacts, keys::contact(contact_id));
        if *pages != Pages::All {
            let known = self.get(contact_id).await?;
            let Some(known) = known.filter(|known| pages.allow(&known.page_id)) else {
                return Ok(false);
            };
            delete = delete.only_if(IF_THEIRS).bind(":page_id", known.page_id);
        }
        match store.delete("delete a contact", delete).await? {
            Conditional::Written(deleted) => Ok(!deleted.is_empty()),
            // Moved to another Page, or deleted, meanwhile.
            Conditional::Refused(_) => Ok(false),
        }
    }
}

/// An update that sets and removes these attributes. An item that a later version has written keeps its schema, and every contact
/// its first origin.
fn patch_update<'s>(store: &'s Store, patch: &ContactPatch, mut fields: BTreeMap<String, Option<Value>>) -> Update<'s> {
    const KEEP: &str = "SET #schema = if_not_exists(#schema, :schema), page_id = :page_id, page_shard = :page_shard, \
                        #source = if_not_exists(#source, :source)";
    let (mut set, mut remove) = (KEEP.to_owned(), Vec::new());
    let source = fields.remove(SOURCE).flatten().unwrap_or_else(|| SOURCE_API.into());
    for (n, new) in fields.values().enumerate() {
        match new {
            Some(_) => set.push_str(&format!(", #f{n} = :f{n}")),
            None => remove.push(format!("#f{n}")),
        }
    }
    if !remove.is_empty() {
        set.push_str(&format!(" REMOVE {}", remove.join(", ")));
    }
    let mut update = Update::new(&store.contacts, keys::contact(&patch.contact_id), set)
        .bind(":schema", SCHEMA)
        .bind(":page_id", &patch.page_id)
        .bind(":page_shard", keys::page_shard(&patch.page_id, &patch.contact_id))
        .bind(":source", source);
    for (n, (name, new)) in fields.into_iter().enumerate() {
        update = update.name(format!("#f{n}"), &name);
        if let Some(new) = new {
            update = update.bind(format!(":f{n}"), new);
        }
    }
    update
}
