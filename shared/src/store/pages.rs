//! The Pages that have contacts. An audience that names no Page is of all of them, and a table has no list of its partitions.

use std::sync::PoisonError;

use serde::Deserialize;

use super::keys;
use super::statement::{Query, Update};
use super::tables::{Error, SCHEMA, Store};
use crate::domain::audience::Audience;
use crate::domain::ids::{PageId, Pages};

/// The list of Pages of a [`Store`].
pub struct KnownPages<'a>(pub(super) &'a Store);

#[derive(Deserialize)]
struct Found {
    #[serde(rename = "sk")]
    page_id: PageId,
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

    /// Lists the Pages that have contacts, or had some, by id.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn all(&self) -> Result<Vec<PageId>, Error> {
        let Self(store) = self;
        let query = Query::table(&store.broadcasts, "pk = :pages").bind(":pages", keys::PAGES);
        let found: Vec<Found> = store.query_all("list Pages", query, usize::MAX).await?;
        Ok(found.into_iter().map(|found| found.page_id).collect())
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
