//! Contacts.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, TryStreamExt};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::calls::{BATCH_GET, Conditional, Read};
use super::keys;
use super::statement::{Delete, Update, millis};
use super::tables::{Error, Store};
use crate::domain::consent::Consent;
use crate::domain::contact::{Contact, LastBroadcast};
use crate::domain::ids::{ContactId, JobId, PageId, Pages};
use crate::runtime::metrics::Event;

/// Batches read at once: the time of a large request is spent here.
const BATCHES_AT_ONCE: usize = 8;

/// The contacts of a [`Store`].
pub struct Contacts<'a>(pub(super) &'a Store);

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
    pub async fn find(&self, ids: &[&ContactId], pages: &Pages) -> Result<HashMap<ContactId, Recipient>, Error> {
        let mut found = self.read_all(ids, Read::Eventual).await?;
        found.retain(|_, contact| !contact.opted_out && pages.allow(&contact.page_id));
        let missed: Vec<_> = ids.iter().copied().filter(|id| !found.contains_key(id)).collect();
        found.extend(self.read_all(&missed, Read::Consistent).await?);
        Ok(found)
    }

    /// Reads contacts whole, as of now, as far as they exist. For parts of a request only: a contact may have many attributes.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or an item is unreadable.
    pub async fn get_all(&self, ids: &[ContactId]) -> Result<HashMap<ContactId, Contact>, Error> {
        self.read_whole(ids, Read::Consistent).await
    }

    /// Reads contacts whole, as of a moment ago, at half the cost.
    ///
    /// # Errors
    /// As [`Contacts::get_all`].
    pub async fn get_all_lately(&self, ids: &[ContactId]) -> Result<HashMap<ContactId, Contact>, Error> {
        self.read_whole(ids, Read::Eventual).await
    }

    async fn read_whole(&self, ids: &[ContactId], read: Read) -> Result<HashMap<ContactId, Contact>, Error> {
        let ids: Vec<_> = ids.iter().collect();
        let whole = |contact: Contact| (contact.contact_id.clone(), contact);
        self.read_fields(&ids, None, read, whole).await
    }

    pub(super) async fn read_all(
        &self,
        ids: &[&ContactId],
        read: Read,
    ) -> Result<HashMap<ContactId, Recipient>, Error> {
        const FIELDS: &str = "contact_id, page_id, opted_out";
        let recipient = |found: Found| (found.contact_id, found.recipient);
        self.read_fields(ids, Some(FIELDS), read, recipient).await
    }

    /// Reads these fields of contacts, or all, as far as the contacts exist. The keys of a batch are made when it is read, and its
    /// answer is kept in the form that is asked for: there may be a thousand batches.
    pub(super) async fn read_fields<T: DeserializeOwned, F>(
        &self,
        ids: &[&ContactId],
        fields: Option<&'static str>,
        read: Read,
        form: impl Fn(T) -> (ContactId, F),
    ) -> Result<HashMap<ContactId, F>, Error> {
        let Self(store) = self;
        let (mut batches, mut reads) = (ids.chunks(BATCH_GET), FuturesUnordered::new());
        let mut found = HashMap::with_capacity(ids.len());
        loop {
            while reads.len() < BATCHES_AT_ONCE
                && let Some(ids) = batches.next()
            {
                let keys = ids.iter().map(|id| keys::contact(id)).collect();
                reads.push(store.batch_get::<T>("read contacts", &store.contacts, keys, fields, read));
            }
            let Some(batch) = reads.try_next().await? else {
                break;
            };
            found.extend(batch.into_iter().map(&form));
        }
        Ok(found)
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
