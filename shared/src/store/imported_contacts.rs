//! Contacts that an import creates or changes.
//!
//! One call writes up to 25 of them, each by a statement of PartiQL that is made only if it comes to the same as the update of
//! `Contacts::upsert`: an `INSERT`, which a contact that exists refuses, or an `UPDATE`, which any other item than a contact of the
//! Page refuses. After a statement that is refused, or fails in any way, that update follows: it alone decides.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_dynamodb::types::BatchStatementRequest;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::{Value, json};

use super::calls::{BATCH_EXECUTE, Conditional, Read};
use super::contacts::Contacts;
use super::keys;
use super::statement::Update;
use super::tables::{Error, SCHEMA, Store, from_item};
use crate::domain::contact::{ATTRIBUTE_PREFIX, SOURCE, SOURCE_API};
use crate::domain::ids::{ContactId, PageId};

/// The name of these writes in errors.
const OPERATION: &str = "write a contact";
/// Batches written at once.
const BATCHES_AT_ONCE: usize = 8;
/// Contacts written at once of those that no batch has written.
const WRITES_AT_ONCE: usize = 16;
/// The most characters of a statement of PartiQL. A longer one fails its whole batch.
const MAX_STATEMENT: usize = 8_192;

/// The changes of an import to one contact: an absent field is kept, and `None` clears it.
#[derive(Clone, Debug, PartialEq)]
pub struct ContactPatch {
    /// The contact.
    pub contact_id: ContactId,
    /// Its Page, on which a known contact must be.
    pub page_id: PageId,
    /// Clears the attributes of the contact's own that `fields` does not name.
    pub clears_attributes: bool,
    /// The other attributes of the item by name: letters, digits, `_` and `.`.
    pub fields: BTreeMap<String, Option<Value>>,
}

/// A contact as it was known a moment ago.
#[derive(Deserialize)]
struct Known {
    contact_id: ContactId,
    page_id: PageId,
    source: Option<String>,
}

impl Contacts<'_> {
    /// Creates or changes contacts, each by itself; a failure leaves others changed, and repeating the import is harmless.
    ///
    /// A contact stays on its Page, so that no broadcast has it on two. Contacts that are known on another Page than the patch
    /// names are returned with theirs. If there are any, nothing is written, except when another request creates one on the
    /// other Page at the same moment.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn upsert_all(&self, patches: &[ContactPatch]) -> Result<HashMap<ContactId, PageId>, Error> {
        let known = self.known(patches).await?;
        let elsewhere = self.elsewhere(patches, &known).await?;
        if !elsewhere.is_empty() {
            return Ok(elsewhere);
        }
        let of_pages: BTreeSet<_> = patches.iter().map(|patch| &patch.page_id).collect();
        for page_id in of_pages {
            self.0.pages().note(page_id).await?;
        }
        let left = self.write_in_batches(patches, &known).await?;
        let writes: Vec<_> = left.into_iter().map(|patch| self.upsert(patch)).collect();
        let refused: Vec<_> = stream::iter(writes)
            .buffer_unordered(WRITES_AT_ONCE)
            .try_collect()
            .await?;
        Ok(refused.into_iter().flatten().collect())
    }

    /// Reads the contacts of patches, as of a moment ago, as far as they exist.
    async fn known(&self, patches: &[ContactPatch]) -> Result<HashMap<ContactId, Known>, Error> {
        const FIELDS: &str = "contact_id, page_id, #source";
        let ids: Vec<_> = patches.iter().map(|patch| &patch.contact_id).collect();
        let form = |known: Known| (known.contact_id.clone(), known);
        self.read_fields(&ids, Some(FIELDS), Read::Eventual, form).await
    }

    /// Returns the contacts that are known on another Page than their patch names, with that Page.
    async fn elsewhere(
        &self,
        patches: &[ContactPatch],
        known: &HashMap<ContactId, Known>,
    ) -> Result<HashMap<ContactId, PageId>, Error> {
        let is_elsewhere = |patch: &&ContactPatch| {
            let known = known.get(&patch.contact_id);
            known.is_some_and(|known| known.page_id != patch.page_id)
        };
        let suspects: HashMap<_, _> = patches
            .iter()
            .filter(is_elsewhere)
            .map(|patch| (&patch.contact_id, &patch.page_id))
            .collect();
        if suspects.is_empty() {
            return Ok(HashMap::new());
        }
        // The contact may have been deleted, and created on its new Page, a moment ago.
        let ids: Vec<_> = suspects.keys().copied().collect();
        let mut found = self.read_all(&ids, Read::Consistent).await?;
        found.retain(|id, contact| suspects.get(id).is_some_and(|page| **page != contact.page_id));
        Ok(found.into_iter().map(|(id, contact)| (id, contact.page_id)).collect())
    }

    /// Writes contacts in batches; returns those that are left to [`Contacts::upsert`].
    async fn write_in_batches<'p>(
        &self,
        patches: &'p [ContactPatch],
        known: &HashMap<ContactId, Known>,
    ) -> Result<Vec<&'p ContactPatch>, Error> {
        let Self(store) = self;
        let (mut left, mut statements) = (Vec::new(), Vec::new());
        for patch in patches {
            match statement(&store.contacts, patch, known.get(&patch.contact_id))? {
                Some(statement) => statements.push((patch, statement)),
                None => left.push(patch),
            }
        }
        let batches: Vec<_> = statements
            .chunks(BATCH_EXECUTE)
            .map(|batch| async move {
                let statements = batch.iter().map(|(_, statement)| statement.clone()).collect();
                let is_done = store.batch_execute(OPERATION, statements).await?;
                let refused = batch.iter().zip(is_done).filter(|(_, is_done)| !is_done);
                Ok::<Vec<_>, Error>(refused.map(|((patch, _), _)| *patch).collect())
            })
            .collect();
        let refused: Vec<_> = stream::iter(batches)
            .buffer_unordered(BATCHES_AT_ONCE)
            .try_collect()
            .await?;
        left.extend(refused.into_iter().flatten());
        Ok(left)
    }

    /// Writes one contact; returns it with its Page if it is known on another.
    async fn upsert(&self, patch: &ContactPatch) -> Result<Option<(ContactId, PageId)>, Error> {
        const IF_NEW_OR_OF_PAGE: &str = "attribute_not_exists(contact_id) OR page_id = :page_id";
        #[derive(Deserialize)]
        struct Found {
            contact_id: ContactId,
            page_id: PageId,
        }
        let Self(store) = self;
        let update = patch_update(store, patch, self.fields_to_write(patch).await?).only_if(IF_NEW_OR_OF_PAGE);
        match store.update(OPERATION, update).await? {
            Conditional::Written(_) => Ok(None),
            Conditional::Refused(item) => {
                let found: Found = from_item(OPERATION, item.unwrap_or_default())?;
                Ok(Some((found.contact_id, found.page_id)))
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
}

/// The origin that a patch gives to a new contact.
fn source_of(patch: &ContactPatch) -> Value {
    let source = patch.fields.get(SOURCE).cloned().flatten();
    source.unwrap_or_else(|| SOURCE_API.into())
}

/// The statement that writes a contact, unless only an update can: one that reads what it clears, or sets what the contact may
/// lack (PartiQL has no `if_not_exists`).
fn statement(table: &str, patch: &ContactPatch, known: Option<&Known>) -> Result<Option<BatchStatementRequest>, Error> {
    if patch.clears_attributes {
        return Ok(None);
    }
    let (text, parameters) = match known {
        None => insert(table, patch),
        // Whatever gave it a source gave it a schema, too.
        Some(known) if known.source.is_some() => update(table, patch),
        Some(_) => return Ok(None),
    };
    if text.chars().count() > MAX_STATEMENT {
        return Ok(None);
    }
    let parameters: Result<Vec<_>, _> = parameters.into_iter().map(serde_dynamo::to_attribute_value).collect();
    let parameters = parameters.map_err(|error| Error::unwritable(OPERATION, error.to_string()))?;
    let statement = BatchStatementRequest::builder()
        .statement(text)
        .set_parameters(Some(parameters));
    Ok(Some(statement.build().map_err(Error::incomplete(OPERATION))?))
}

/// Creates a contact.
fn insert(table: &str, patch: &ContactPatch) -> (String, Vec<Value>) {
    let fields = patch.fields.iter();
    let fields = fields.filter_map(|(name, new)| Some((name.as_str(), new.clone()?)));
    let mut item: BTreeMap<_, _> = fields.collect();
    item.extend([
        ("contact_id", json!(patch.contact_id)),
        ("schema", json!(SCHEMA)),
        ("page_id", json!(patch.page_id)),
        ("page_shard", json!(keys::page_shard(&patch.page_id, &patch.contact_id))),
        (SOURCE, source_of(patch)),
    ]);
    let names: Vec<_> = item.keys().map(|name| format!("'{name}': ?")).collect();
    let text = format!("INSERT INTO \"{table}\" VALUE {{{}}}", names.join(", "));
    (text, item.into_values().collect())
}

/// Changes a contact of the Page.
fn update(table: &str, patch: &ContactPatch) -> (String, Vec<Value>) {
    const IF_OF_PAGE: &str = " WHERE contact_id = ? AND page_id = ?";
    let mut text = format!("UPDATE \"{table}\" SET page_shard = ?");
    let mut parameters = vec![json!(keys::page_shard(&patch.page_id, &patch.contact_id))];
    for (name, new) in patch.fields.iter().filter(|(name, _)| *name != SOURCE) {
        match new {
            Some(new) => {
                text.push_str(&format!(" SET \"{name}\" = ?"));
                parameters.push(new.clone());
            }
            None => text.push_str(&format!(" REMOVE \"{name}\"")),
        }
    }
    text.push_str(IF_OF_PAGE);
    parameters.extend([json!(patch.contact_id), json!(patch.page_id)]);
    (text, parameters)
}

/// An update that sets and removes these attributes. An item that a later version has written keeps its schema, and every contact
/// its first origin.
fn patch_update<'s>(store: &'s Store, patch: &ContactPatch, mut fields: BTreeMap<String, Option<Value>>) -> Update<'s> {
    const KEEP: &str = "SET #schema = if_not_exists(#schema, :schema), page_id = :page_id, page_shard = :page_shard, \
                        #source = if_not_exists(#source, :source)";
    let (mut set, mut remove) = (KEEP.to_owned(), Vec::new());
    fields.remove(SOURCE);
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
        .bind(":source", source_of(patch));
    for (n, (name, new)) in fields.into_iter().enumerate() {
        update = update.name(format!("#f{n}"), &name);
        if let Some(new) = new {
            update = update.bind(format!(":f{n}"), new);
        }
    }
    update
}
