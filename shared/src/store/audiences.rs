//! Audiences that are saved under a name.

use serde::Deserialize;

use super::calls::{Conditional, Read};
use super::keys;
use super::statement::{Delete, Query, Update};
use super::tables::{Error, Item, SCHEMA, Store};
use crate::domain::audience::{AudienceName, SavedAudience};
use crate::domain::ids::token;

/// The saved audiences of a [`Store`].
pub struct Audiences<'a>(pub(super) &'a Store);

/// A saved audience as it was read.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct SeenAudience {
    /// The audience.
    #[serde(flatten)]
    pub saved: SavedAudience,
    /// A random value of its last change.
    revision: String,
}

impl Audiences<'_> {
    /// Reads an audience.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or a later version has saved the audience with a filter that this one does not know.
    pub async fn get(&self, name: &AudienceName) -> Result<Option<SeenAudience>, Error> {
        let Self(store) = self;
        let key = keys::audience(name);
        store
            .get("read an audience", &store.broadcasts, key, Read::Consistent)
            .await
    }

    /// Lists audiences by name, from after `after`, at most `limit`; and the name to go on after, unless that was all.
    ///
    /// # Errors
    /// As [`Audiences::get`].
    pub async fn list(
        &self,
        after: Option<&AudienceName>,
        limit: i32,
    ) -> Result<(Vec<SavedAudience>, Option<AudienceName>), Error> {
        let Self(store) = self;
        let query = Query::table(&store.broadcasts, "pk = :audiences")
            .bind(":audiences", keys::AUDIENCES)
            .limit(limit)
            .after(after.map(keys::audience));
        let (found, last) = store.query_page::<SeenAudience>("list audiences", query).await?;
        let found = found.into_iter().map(|seen| seen.saved).collect();
        let name = |key: Item| AudienceName::parse(key.get("sk")?.as_s().ok()?).ok();
        Ok((found, last.and_then(name)))
    }

    /// Saves an audience in the place of the one that was seen; `false` if that has changed since.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn save_if_unchanged(&self, new: &SavedAudience, seen: Option<&SeenAudience>) -> Result<bool, Error> {
        const SAVE: &str = "SET #name = :name, audience = :audience, changed_by = :changed_by, changed_at = :changed_at, \
                            revision = :revision, #schema = if_not_exists(#schema, :schema)";
        const IF_NEW: &str = "attribute_not_exists(pk) OR revision = :revision";
        const IF_AS_SEEN: &str = "revision IN (:seen, :revision)";
        let Self(store) = self;
        let save = Update::new(&store.broadcasts, keys::audience(&new.name), SAVE)
            .bind(":name", &new.name)
            .bind(":audience", &new.audience)
            .bind(":changed_by", &new.changed_by)
            .bind(":changed_at", new.changed_at)
            .bind(":revision", token())
            .bind(":schema", SCHEMA);
        let save = match seen {
            None => save.only_if(IF_NEW),
            Some(seen) => save.only_if(IF_AS_SEEN).bind(":seen", &seen.revision),
        };
        Ok(matches!(
            store.update("save an audience", save).await?,
            Conditional::Written(_)
        ))
    }

    /// Deletes an audience as it was seen; `false` if it has changed since.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn delete_if_unchanged(&self, seen: &SeenAudience) -> Result<bool, Error> {
        const IF_AS_SEEN: &str = "attribute_not_exists(pk) OR revision = :seen";
        let Self(store) = self;
        let delete = Delete::new(&store.broadcasts, keys::audience(&seen.saved.name))
            .only_if(IF_AS_SEEN)
            .bind(":seen", &seen.revision);
        Ok(matches!(
            store.delete("delete an audience", delete).await?,
            Conditional::Written(_)
        ))
    }
}
