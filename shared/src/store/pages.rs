//! The Pages that have contacts. An audience that names no Page is of all of them, and a table has no list of its partitions.

use std::sync::PoisonError;

use jiff::fmt::serde::timestamp::millisecond;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::keys;
use super::statement::{Query, Update, millis};
use super::tables::{Error, SCHEMA, Store};
use crate::domain::audience::Audience;
use crate::domain::ids::{PageId, Pages};

/// The time for which a process does not write again that a Page's webhook was heard.
const HEARD_FOR: SignedDuration = SignedDuration::from_mins(10);

/// The list of Pages of a [`Store`].
pub struct KnownPages<'a>(pub(super) &'a Store);

/// A Page of the list.
#[derive(Clone, Debug, Deserialize)]
pub struct KnownPage {
    /// The id of the Page.
    #[serde(rename = "sk")]
    pub page_id: PageId,
    /// The time of a call of the Page's webhook; the last one came ten minutes later at most. `None` if none came.
    #[serde(default, with = "millisecond::optional")]
    pub webhook_heard_at: Option<Timestamp>,
}

impl KnownPages<'_> {
    /// Adds a Page to the list: before its first contact is written, so that no contact is of a Page that the list lacks. A
    /// process writes a Page once.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn note(&self, page_id: &PageId) -> Result<(), Error> {
        const NOTE: &str = "SET #schema = if_not_exists(#schema, :schema)";
        let Self(store) = self;
        let noted = || store.noted_pages.lock().unwrap_or_else(PoisonError::into_inner);
        if noted().contains(page_id) {
            return Ok(());
        }
        let note = Update::new(&store.broadcasts, keys::page(page_id), NOTE).bind(":schema", SCHEMA);
        store.update("note a Page", note).await?;
        noted().insert(page_id.clone());
        Ok(())
    }

    /// Keeps the time of a call of a Page's webhook, for an operator to see. A process writes it every ten minutes at most, and
    /// only for a Page that has contacts: no condition and no worker reads it.
    ///
    /// # Errors
    /// If DynamoDB does not answer. The next call is written then.
    pub async fn note_webhook(&self, page_id: &PageId, now: Timestamp) -> Result<(), Error> {
        const HEARD: &str = "SET webhook_heard_at = :now";
        const IF_LISTED: &str = "attribute_exists(pk)";
        let Self(store) = self;
        let heard = || store.heard_pages.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at: &Timestamp| (*at..*at + HEARD_FOR).contains(&now);
        if heard().get(page_id).is_some_and(is_recent) {
            return Ok(());
        }
        let note = Update::new(&store.broadcasts, keys::page(page_id), HEARD)
            .only_if(IF_LISTED)
            .bind(":now", millis(now));
        store.update("note a call of a webhook", note).await?;
        heard().insert(page_id.clone(), now);
        Ok(())
    }

    /// Lists the Pages that have contacts, or had some, by id.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn all(&self) -> Result<Vec<PageId>, Error> {
        let found = self.listed().await?;
        Ok(found.into_iter().map(|found| found.page_id).collect())
    }

    /// Lists the same Pages with what is known of each.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn listed(&self) -> Result<Vec<KnownPage>, Error> {
        let Self(store) = self;
        let query = Query::table(&store.broadcasts, "pk = :pages").bind(":pages", keys::PAGES);
        store.query_all("list Pages", query, usize::MAX).await
    }

    /// Lists the Pages of an audience for a caller that may use these, by id.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn of(&self, audience: &Audience, allowed: &Pages) -> Result<Vec<PageId>, Error> {
        let mut pages: Vec<_> = audience.named_pages().cloned().collect();
        if pages.is_empty() {
            pages = self.all().await?;
        }
        pages.retain(|page_id| allowed.allow(page_id));
        pages.sort_unstable();
        pages.dedup();
        Ok(pages)
    }
}
