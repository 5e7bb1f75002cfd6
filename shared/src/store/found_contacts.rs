//! Contacts that are found by other means than an import, and what is learned of them: it fills in what a contact lacks, and
//! overwrites nothing.

use jiff::Timestamp;
use serde_json::json;

use super::calls::Conditional;
use super::contacts::Contacts;
use super::keys;
use super::statement::{Update, millis};
use super::tables::{Error, SCHEMA, Store, from_item};
use crate::domain::contact::{Contact, Profile, Source};
use crate::domain::ids::{ContactId, PageId};

/// A contact that is found, and may be known already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewContact {
    /// The contact.
    pub contact_id: ContactId,
    /// Its Page.
    pub page_id: PageId,
    /// Its whole name, if it is known.
    pub name: Option<String>,
    /// The time of its interaction, if it is known.
    pub last_interaction_at: Option<Timestamp>,
    /// True if it asks for no messages by that interaction: a contact that is created is never addressable in between.
    pub opted_out: bool,
    /// The origin.
    pub source: Source,
}

/// The end of adding a contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The contact is new.
    Created,
    /// The contact was known, and has what it lacked.
    Known,
    /// The contact is known as one of another Page, and is unchanged.
    OnAnotherPage,
}

impl Contacts<'_> {
    /// Creates a contact, or fills in what the known one lacks: nothing that was imported is overwritten. The later time of an
    /// interaction is kept.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn add(&self, new: &NewContact) -> Result<Added, Error> {
        const OPERATION: &str = "add a contact";
        const IF_NEW_OR_OF_PAGE: &str = "attribute_not_exists(contact_id) OR page_id = :page_id";
        const IF_NEW_OR_LATER: &str = "attribute_not_exists(contact_id) OR (page_id = :page_id \
                                       AND (attribute_not_exists(last_interaction_at) OR last_interaction_at < :at))";
        const IF_OF_PAGE: &str = "page_id = :page_id";
        let Self(store) = self;
        store.pages().note(&new.page_id).await?;
        let condition = match new.last_interaction_at {
            Some(_) => IF_NEW_OR_LATER,
            None => IF_NEW_OR_OF_PAGE,
        };
        let update = fill_in(store, new, new.last_interaction_at).only_if(condition);
        let known: Contact = match store.update(OPERATION, update).await? {
            Conditional::Written(replaced) if replaced.is_empty() => return Ok(Added::Created),
            Conditional::Written(_) => return Ok(Added::Known),
            Conditional::Refused(item) => from_item(OPERATION, item.unwrap_or_default())?,
        };
        if known.page_id != new.page_id {
            return Ok(Added::OnAnotherPage);
        }
        // A later interaction is known. A contact that is deleted now stays deleted.
        let lacks_name = known.name.is_none() && new.name.is_some();
        if lacks_name || new.opted_out {
            let update = fill_in(store, new, None).only_if(IF_OF_PAGE);
            store.update(OPERATION, update).await?;
        }
        Ok(Added::Known)
    }

    /// Fills in what a contact lacks of its profile, and records that Messenger was asked for it. A contact that is deleted now
    /// stays deleted.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn fill_in_profile(
        &self,
        contact_id: &ContactId,
        profile: &Profile,
        now: Timestamp,
    ) -> Result<(), Error> {
        const IF_STORED: &str = "attribute_exists(contact_id)";
        let Self(store) = self;
        let texts = [
            ("name", &profile.name),
            ("first_name", &profile.first_name),
            ("last_name", &profile.last_name),
            ("locale", &profile.locale),
        ];
        let texts = texts
            .into_iter()
            .filter_map(|(field, text)| Some((field, json!(text.as_ref()?))));
        let timezone = profile.timezone.as_ref().map(|hours| ("timezone", json!(hours)));
        let known: Vec<_> = texts.chain(timezone).collect();
        let mut expression = "SET profile_at = :now".to_owned();
        for (field, _) in &known {
            expression.push_str(&format!(", #{field} = if_not_exists(#{field}, :{field})"));
        }
        let update = Update::new(&store.contacts, keys::contact(contact_id), expression);
        let mut update = update.only_if(IF_STORED).bind(":now", millis(now));
        for (field, value) in known {
            update = update.bind(format!(":{field}"), value);
        }
        match store.update("fill in a profile", update).await? {
            Conditional::Written(_) | Conditional::Refused(_) => Ok(()),
        }
    }
}

/// An update that creates a contact, with this time of an interaction, or sets what the known one lacks.
fn fill_in<'s>(store: &'s Store, new: &NewContact, at: Option<Timestamp>) -> Update<'s> {
    let mut expression =
        "SET #schema = if_not_exists(#schema, :schema), page_id = :page_id, page_shard = :page_shard, \
                          #source = if_not_exists(#source, :source)"
            .to_owned();
    if new.name.is_some() {
        expression.push_str(", #name = if_not_exists(#name, :name)");
    }
    if new.opted_out {
        expression.push_str(", opted_out = if_not_exists(opted_out, :opted_out)");
    }
    if at.is_some() {
        expression.push_str(", last_interaction_at = :at");
    }
    let mut update = Update::new(&store.contacts, keys::contact(&new.contact_id), expression)
        .bind(":schema", SCHEMA)
        .bind(":page_id", &new.page_id)
        .bind(":page_shard", keys::page_shard(&new.page_id, &new.contact_id))
        .bind(":source", new.source)
        .returning_replaced();
    if let Some(name) = &new.name {
        update = update.bind(":name", name);
    }
    if new.opted_out {
        update = update.bind(":opted_out", true);
    }
    match at {
        Some(at) => update.bind(":at", millis(at)),
        None => update,
    }
}
