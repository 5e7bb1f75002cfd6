//! The contacts table.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::{KeysAndAttributes, ReturnValue};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Error, SCHEMA, Store, conditionally, from_item, incomplete, patiently, pauses, throttled,
    unsettled, value,
};
use crate::contact::{ATTRIBUTE_PREFIX, Contact};
use crate::ids::{ContactId, PageId, Pages};

/// What DynamoDB reads in one call.
const BATCH: usize = 100;
/// Calls at once: the time of a large request is spent here.
const CALLS_AT_ONCE: usize = 8;
/// An item that a later version has written stays one.
const KEEP_SCHEMA: &str = "#schema = if_not_exists(#schema, :schema)";
/// What a refused condition is called outside of transactions.
const CONDITIONAL_CHECK_FAILED: &str = "ConditionalCheckFailedException";
/// Writes at once.
const WRITES_AT_ONCE: usize = 16;

/// What an import says about one contact: a field that is absent is kept, one that is `None` is cleared.
#[derive(Clone, Debug, PartialEq)]
pub struct ContactPatch {
    /// Whom it is about.
    pub contact_id: ContactId,
    /// Clears whatever attributes of its own the contact has and `fields` does not name.
    pub clears_attributes: bool,
    /// Attributes of the item by name.
    pub fields: BTreeMap<String, Option<Value>>,
}

/// What acceptance needs to know of a contact: of 100,000 there is no room for more.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Recipient {
    /// The Page that writes to them.
    pub page_id: PageId,
    /// Does not want messages.
    #[serde(default)]
    pub opted_out: bool,
}

#[derive(Deserialize)]
struct Found {
    contact_id: ContactId,
    #[serde(flatten)]
    recipient: Recipient,
}

impl Store {
    /// One contact, as of now.
    pub async fn contact(&self, contact_id: &ContactId) -> Result<Option<Contact>, Error> {
        self.read_contact(contact_id, true).await
    }

    /// One contact, as of a moment ago, for half the price: enough to see who has opted out. Only who is not found is read
    /// again as of now: they may have been imported a moment ago.
    pub async fn contact_to_send_to(
        &self,
        contact_id: &ContactId,
    ) -> Result<Option<Contact>, Error> {
        match self.read_contact(contact_id, false).await? {
            Some(contact) => Ok(Some(contact)),
            None => self.read_contact(contact_id, true).await,
        }
    }

    async fn read_contact(
        &self,
        contact_id: &ContactId,
        consistent: bool,
    ) -> Result<Option<Contact>, Error> {
        const OPERATION: &str = "read a contact";
        let call = self
            .client
            .get_item()
            .table_name(&self.contacts)
            .key("contact_id", value(contact_id)?)
            .consistent_read(consistent);
        let found = patiently(|| call.clone().send())
            .await
            .map_err(unsettled(OPERATION))?;
        found
            .item
            .map(|item| from_item(OPERATION, item))
            .transpose()
    }

    /// Which of these contacts exist, and what acceptance needs to know of them. Those not found at first are read again,
    /// strongly consistent: an id that was imported a moment ago is not unknown.
    pub async fn find_contacts(
        &self,
        ids: &[ContactId],
    ) -> Result<HashMap<ContactId, Recipient>, Error> {
        let mut found = self.read_contacts(ids, false).await?;
        let missed: Vec<_> = ids
            .iter()
            .filter(|id| !found.contains_key(id))
            .cloned()
            .collect();
        found.extend(self.read_contacts(&missed, true).await?);
        Ok(found)
    }

    async fn read_contacts(
        &self,
        ids: &[ContactId],
        consistent: bool,
    ) -> Result<HashMap<ContactId, Recipient>, Error> {
        let batches: Vec<_> = ids
            .chunks(BATCH)
            .map(|batch| self.read_batch(batch, consistent))
            .collect();
        let found: Vec<_> = stream::iter(batches)
            .buffer_unordered(CALLS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn read_batch(
        &self,
        ids: &[ContactId],
        consistent: bool,
    ) -> Result<Vec<(ContactId, Recipient)>, Error> {
        const OPERATION: &str = "read contacts";
        let mut keys = KeysAndAttributes::builder()
            .consistent_read(consistent)
            .projection_expression("contact_id, page_id, opted_out");
        for id in ids {
            keys = keys.keys(HashMap::from([("contact_id".to_owned(), value(id)?)]));
        }
        let keys = keys.build().map_err(incomplete(OPERATION))?;
        let mut asked = HashMap::from([(self.contacts.clone(), keys)]);
        let mut contacts = Vec::with_capacity(ids.len());
        for pause in pauses() {
            let call = self.client.batch_get_item().set_request_items(Some(asked));
            let answer = patiently(|| call.clone().send())
                .await
                .map_err(unsettled(OPERATION))?;
            for item in answer.responses.unwrap_or_default().into_values().flatten() {
                let found: Found = from_item(OPERATION, item)?;
                contacts.push((found.contact_id, found.recipient));
            }
            asked = answer.unprocessed_keys.unwrap_or_default();
            if asked.is_empty() {
                return Ok(contacts);
            }
            tokio::time::sleep(pause).await;
        }
        Err(throttled(OPERATION))
    }

    /// Creates or changes contacts. Each is one write; a failure leaves those before it changed, and repeating the import
    /// is harmless.
    ///
    /// Contacts of other Pages than these are left alone, and returned. Nothing is written if there are any, but for those
    /// that another import moves there in this very moment.
    pub async fn upsert_contacts(
        &self,
        patches: &[ContactPatch],
        pages: &Pages,
    ) -> Result<Vec<ContactId>, Error> {
        let mut known = HashMap::new();
        if *pages != Pages::All {
            let ids: Vec<_> = patches
                .iter()
                .map(|patch| patch.contact_id.clone())
                .collect();
            known = self.find_contacts(&ids).await?;
            let is_foreign = |id: &&ContactId| {
                let contact = known.get(*id);
                contact.is_some_and(|contact| !pages.allow(&contact.page_id))
            };
            let foreign: Vec<_> = ids.iter().filter(is_foreign).cloned().collect();
            if !foreign.is_empty() {
                return Ok(foreign);
            }
        }
        let writes: Vec<_> = patches
            .iter()
            .map(|patch| self.upsert_contact(patch, pages, known.get(&patch.contact_id)))
            .collect();
        let refused: Vec<_> = stream::iter(writes)
            .buffer_unordered(WRITES_AT_ONCE)
            .try_collect()
            .await?;
        Ok(refused.into_iter().flatten().collect())
    }

    /// The contact's id, if it belongs to none of these Pages.
    async fn upsert_contact(
        &self,
        patch: &ContactPatch,
        pages: &Pages,
        known: Option<&Recipient>,
    ) -> Result<Option<ContactId>, Error> {
        const IF_NEW_OR_THEIRS: &str = "attribute_not_exists(contact_id) OR page_id = :page_id";
        const OPERATION: &str = "write a contact";
        let mut fields = patch.fields.clone();
        if patch.clears_attributes
            && let Some(known) = self.contact(&patch.contact_id).await?
        {
            let names = known
                .attributes()
                .map(|(name, _)| format!("{ATTRIBUTE_PREFIX}{name}"));
            for name in names {
                fields.entry(name).or_insert(None);
            }
        }
        let mut call = self
            .client
            .update_item()
            .table_name(&self.contacts)
            .key("contact_id", value(&patch.contact_id)?)
            .expression_attribute_names("#schema", "schema")
            .expression_attribute_values(":schema", value(SCHEMA)?);
        let (mut set, mut remove) = (vec![KEEP_SCHEMA.to_owned()], Vec::new());
        for (n, (name, new)) in fields.iter().enumerate() {
            call = call.expression_attribute_names(format!("#f{n}"), name);
            match new {
                Some(new) => {
                    set.push(format!("#f{n} = :f{n}"));
                    call = call.expression_attribute_values(format!(":f{n}"), value(new)?);
                }
                None => remove.push(format!("#f{n}")),
            }
        }
        let mut update = format!("SET {}", set.join(", "));
        if !remove.is_empty() {
            update = format!("{update} REMOVE {}", remove.join(", "));
        }
        let call = call.update_expression(update);
        if *pages == Pages::All {
            patiently(|| call.clone().send())
                .await
                .map_err(unsettled(OPERATION))?;
            return Ok(None);
        }
        let mut page_id = known.map(|known| known.page_id.clone());
        loop {
            let call = call
                .clone()
                .condition_expression(IF_NEW_OR_THEIRS)
                .expression_attribute_values(":page_id", value(&page_id)?);
            let Err(item) = conditionally(OPERATION, call).await? else {
                return Ok(None);
            };
            let found: Found = from_item(OPERATION, item.unwrap_or_default())?;
            if !pages.allow(&found.recipient.page_id) {
                return Ok(Some(found.contact_id));
            }
            // Moved meanwhile, by somebody who may.
            page_id = Some(found.recipient.page_id);
        }
    }

    /// Notes when a contact of ours was heard of; never an earlier time than the one known.
    pub async fn note_interaction(
        &self,
        contact_id: &ContactId,
        at: Timestamp,
    ) -> Result<(), Error> {
        const NOTE: &str = "SET last_interaction_at = :at";
        const IF_LATER: &str = "attribute_exists(contact_id) \
                                AND (attribute_not_exists(last_interaction_at) OR last_interaction_at < :at)";
        let call = self
            .client
            .update_item()
            .table_name(&self.contacts)
            .key("contact_id", value(contact_id)?)
            .update_expression(NOTE)
            .condition_expression(IF_LATER)
            .expression_attribute_values(":at", super::at(at)?);
        // Refused: no contact of ours, or heard of later.
        let _ = conditionally("note an interaction", call).await?;
        Ok(())
    }

    /// Forgets a contact of one of these Pages; whether there was one.
    pub async fn delete_contact(
        &self,
        contact_id: &ContactId,
        pages: &Pages,
    ) -> Result<bool, Error> {
        const IF_THEIRS: &str = "page_id = :page_id";
        const OPERATION: &str = "delete a contact";
        let mut call = self
            .client
            .delete_item()
            .table_name(&self.contacts)
            .key("contact_id", value(contact_id)?)
            .return_values(ReturnValue::AllOld);
        if *pages != Pages::All {
            let known = self.contact(contact_id).await?;
            let Some(known) = known.filter(|known| pages.allow(&known.page_id)) else {
                return Ok(false);
            };
            call = call
                .condition_expression(IF_THEIRS)
                .expression_attribute_values(":page_id", value(&known.page_id)?);
        }
        match patiently(|| call.clone().send()).await {
            Ok(deleted) => Ok(deleted.attributes.is_some()),
            // Moved to another Page, or deleted, meanwhile.
            Err(error) if error.code() == Some(CONDITIONAL_CHECK_FAILED) => Ok(false),
            Err(error) => Err(unsettled(OPERATION)(error)),
        }
    }
}
