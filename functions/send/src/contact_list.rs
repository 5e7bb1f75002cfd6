//! The list of contacts over HTTP: all of them, or those of a Page, with a tag, or with a text in their names.

use std::pin::pin;
use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::Response;
use futures_util::TryStreamExt;
use serde_json::json;
use shared::app::App;
use shared::domain::contact::Contact as StoredContact;
use shared::domain::folding::searched;
use shared::domain::ids::{ContactId, PageId, Pages};
use shared::domain::visible::{is_blank, trimmed};
use shared::store;
use shared::store::audience_index::IndexedContacts;

use crate::api::contacts::Contact;
use crate::api::lists::ListPart;
use crate::api::problems::Invalid;
use crate::caller::Caller;
use crate::contact_export::Part;
use crate::contact_values;
use crate::list::{self, Budget, DEFAULT_LIMIT, MAX_QUERIED_ITEMS, PagePosition};
use crate::negotiation::Form;
use crate::problem::Problem;
use crate::query::Query;

/// The maximum number of contacts in one answer of JSON.
const MAX_ITEMS: usize = 1_000;
/// The maximum number of contacts in one answer of CSV or NDJSON.
const MAX_EXPORTED: usize = 10_000;
/// The maximum number of characters of a text to look for.
const MAX_SEARCHED: usize = 100;
/// The maximum number of contacts of the index that are looked at in one step.
const MAX_INDEXED: usize = 10_000;
/// The number of contacts that a query reads of a partition of the index where a tag is looked for.
const FILTERED_AT_ONCE: usize = 500;

/// `GET /v1/contacts`: lists contacts, or exports them.
///
/// # Errors
/// If a parameter is unknown or wrong (400), or DynamoDB does not answer (503).
#[utoipa::path(
    get, path = "/v1/contacts", operation_id = "listContacts", tag = "contacts",
    summary = "List or export contacts",
    description = "As of a moment ago, each contact once: those of a Page by id, all others in no particular order. A filter is applied to \
        what a request reads, so that a part may be empty and still not be the last. With `Accept: text/csv` the answer is a file that \
        can be imported, with `Accept: application/x-ndjson` a line of JSON for each contact.",
    params(
        ("page_id" = Option<PageId>, Query, description = "Their Page.", example = "page-1"),
        ("tag" = Option<String>, Query, nullable = false, description = "A tag that they have.", example = "vip"),
        (
            "q" = Option<String>, Query, nullable = false, min_length = 1, max_length = 100, example = "jose",
            description = "A part of their id or of their name, in upper or lower case and with or without accents.",
        ),
        (
            "limit" = Option<u64>, Query, minimum = 1, maximum = 1_000, example = 50,
            description = "The number of items; 50 if absent. CSV and NDJSON have up to 10,000, also if absent.",
        ),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the part before.", example = "cGFnZS0xIDYwMDE"),
    ),
    responses(
        (
            status = 200, description = "A part of the list.",
            content(
                (ListPart<Contact> = "application/json"),
                (
                    String = "text/csv",
                    example = "contact_id,page_id,first_name,last_name,name,locale,timezone,tags,opted_out,tester,last_interaction_at,source,\
                        attributes.city\r\n6001,page-1,Ana,,Ana Sá,pt_BR,-3,vip;new,,,2026-11-30T18:12:00Z,webhook,Porto\r\n"
                ),
                (
                    String = "application/x-ndjson",
                    example = "{\"contact_id\":\"6001\",\"page_id\":\"page-1\",\"first_name\":\"Ana\",\"tags\":[\"vip\",\"new\"]}\n"
                ),
            ),
            headers(("X-Next-Cursor" = String, description = "CSV and NDJSON only: the cursor of the next part, if there is one."))
        ),
        (status = 400, response = Invalid),
    ),
    security(("jwt" = ["contacts:write"]), ("iam" = [])),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Extension(form): Extension<Form>,
    query: Query,
) -> Result<Response, Problem> {
    let query = ContactQuery::parse(query, &caller.pages, form)?;
    let mut part = Part::new(form, query.limit);
    let next = match &query.place {
        Place::Table { after } => read_table(&app, &query, after.clone(), &mut part).await?,
        Place::Pages { pages, from } => read_pages(&app, &query, pages, from.as_ref(), &mut part).await?,
    };
    let cursor = next.map(|next| list::to_cursor(&query.list_id, next));
    part.into_answer(cursor)
}

/// Reads all contacts, until the answer is full or its time is over; returns the position of the rest, unless there is none.
async fn read_table(
    app: &App,
    query: &ContactQuery,
    mut after: Option<ContactId>,
    part: &mut Part,
) -> Result<Option<String>, store::Error> {
    let (contacts, mut budget) = (app.store.contacts(), Budget::begin());
    let here = |after: Option<ContactId>| Some(after.map_or_else(String::new, |id| id.to_string()));
    loop {
        if part.room() == 0 || budget.is_spent() {
            return Ok(here(after));
        }
        budget.spend_query();
        let limit = query.wanted(part);
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let (found, last) = contacts.scan(after.as_ref(), limit).await?;
        for contact in found {
            let contact_id = contact.contact_id.clone();
            if part.room() == 0 || (query.matches(&contact) && !part.add(contact)) {
                return Ok(here(after));
            }
            after = Some(contact_id);
        }
        match last {
            None => return Ok(None),
            last => after = last,
        }
    }
}

/// Reads the contacts of these Pages, as [`read_table`] does. The index tells the tags, and the contacts themselves the rest.
async fn read_pages(
    app: &App,
    query: &ContactQuery,
    pages: &[PageId],
    from: Option<&PagePosition>,
    part: &mut Part,
) -> Result<Option<String>, store::Error> {
    let (contacts, mut budget) = (app.store.contacts(), Budget::begin());
    for page_id in pages {
        let Some(mut after) = PagePosition::on(from, page_id) else {
            continue;
        };
        let here = |after| {
            let page_id = page_id.clone();
            Some(PagePosition { page_id, after }.to_string())
        };
        let at_once = match query.tag {
            Some(_) => FILTERED_AT_ONCE,
            // A sixteenth for each partition, and as many again.
            None => query.wanted(part).div_ceil(8),
        };
        let at_once = i32::try_from(at_once).unwrap_or(i32::MAX);
        let mut index = IndexedContacts::new(&app.store, page_id, after.clone(), at_once);
        let mut is_end = false;
        while !is_end {
            if part.room() == 0 || budget.is_spent() {
                return Ok(here(after));
            }
            budget.spend_query();
            let (mut ids, mut indexed) = (Vec::new(), 0);
            while ids.len() < query.wanted(part) && indexed < MAX_INDEXED {
                let Some(contact) = index.next().await? else {
                    is_end = true;
                    break;
                };
                indexed += 1;
                if query.tag.as_ref().is_none_or(|tag| contact.tags.contains(tag)) {
                    ids.push(contact.contact_id);
                }
            }
            let mut found = pin!(contacts.of_page(page_id, &ids));
            while let Some(contact) = found.try_next().await? {
                let contact_id = contact.contact_id.clone();
                if part.room() == 0 || (query.matches(&contact) && !part.add(contact)) {
                    return Ok(here(after));
                }
                after = Some(contact_id);
            }
            after = index.position().cloned();
        }
    }
    Ok(None)
}

/// The parameters of a list of contacts.
struct ContactQuery {
    list_id: String,
    place: Place,
    tag: Option<String>,
    /// A text to look for, in the form in which it is searched.
    text: Option<String>,
    limit: usize,
}

/// The place where contacts are read, and the position from which on.
enum Place {
    /// The whole table.
    Table { after: Option<ContactId> },
    /// The index, Page by Page.
    Pages {
        pages: Vec<PageId>,
        from: Option<PagePosition>,
    },
}

impl ContactQuery {
    fn parse(mut query: Query, allowed: &Pages, form: Form) -> Result<Self, Problem> {
        let (default, max) = match form {
            Form::Csv | Form::Ndjson => (MAX_EXPORTED, MAX_EXPORTED),
            Form::Json | Form::Markdown => (DEFAULT_LIMIT, MAX_ITEMS),
        };
        // The two places have positions of their own.
        let list_id = query.list_id(match allowed {
            Pages::All => "contacts",
            Pages::Only(_) => "contacts of Pages",
        });
        let page_id = query.take("page_id", |value| PageId::parse(value).map_err(str::to_owned));
        let tag = query.take("tag", tag);
        let text = query.take("q", text);
        let limit = query.take("limit", |value| list::limit(value, max));
        // A contact of a Page that the caller may not use is unknown to it.
        let pages = match (page_id, allowed) {
            (Some(page_id), _) => Some(Vec::from_iter(Some(page_id).filter(|id| allowed.allow(id)))),
            (None, Pages::Only(pages)) => Some(pages.iter().cloned().collect()),
            (None, Pages::All) => None,
        };
        let place = match pages {
            None => Place::Table {
                after: query.take("cursor", |value| {
                    list::from_cursor(value, &list_id, ContactId::parse_stored)
                }),
            },
            Some(pages) => Place::Pages {
                pages,
                from: query.take("cursor", |value| {
                    list::from_cursor(value, &list_id, PagePosition::parse)
                }),
            },
        };
        query.finish()?;
        Ok(Self {
            list_id,
            place,
            tag,
            text,
            limit: limit.unwrap_or(default),
        })
    }

    /// Returns the number of contacts to read at once: those that are missing, unless most of them will not match.
    fn wanted(&self, part: &Part) -> usize {
        match self.text.is_some() || self.tag.is_some() {
            true => MAX_QUERIED_ITEMS,
            false => part.room().min(MAX_QUERIED_ITEMS),
        }
    }

    fn matches(&self, contact: &StoredContact) -> bool {
        let has_tag = |tag: &String| contact.tags.contains(tag);
        self.tag.as_ref().is_none_or(has_tag) && self.text.as_ref().is_none_or(|text| is_named(contact, text))
    }
}

/// Returns true if a contact has the text in its id or its names.
fn is_named(contact: &StoredContact, text: &str) -> bool {
    let parts = [&contact.first_name, &contact.last_name].into_iter().flatten();
    let parts: Vec<_> = parts.map(String::as_str).collect();
    let whole = contact.name.as_deref().unwrap_or_default();
    let names = [contact.contact_id.as_str(), &parts.join(" "), whole];
    names.into_iter().any(|name| searched(name).contains(text))
}

fn tag(value: &str) -> Result<String, String> {
    let tags = contact_values::tags(&json!([value])).ok().flatten();
    let tag = tags.as_ref().and_then(|tags| tags.get(0)?.as_str());
    tag.map(str::to_owned)
        .ok_or_else(|| "must be a tag: a text that is not blank, of at most 1,000 characters".to_owned())
}

fn text(value: &str) -> Result<String, String> {
    let text = searched(trimmed(value));
    match value.chars().count() <= MAX_SEARCHED && !is_blank(&text) {
        true => Ok(text),
        false => Err(format!("must be a text of 1 to {MAX_SEARCHED} characters")),
    }
}
