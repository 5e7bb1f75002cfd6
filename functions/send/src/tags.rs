//! Changes of the tags of many contacts over HTTP.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use shared::app::App;
use shared::domain::ids::ContactId;
use shared::domain::tags::TagChange;
use shared::store::contact_tags::{Tagged, TaggedCounts};
use shared::store::members::Members;

use crate::api::audiences::AudienceChoice;
use crate::api::problems::{Invalid, TooLarge, UnsupportedType};
use crate::api::tags::{TagsChange, TagsChanged};
use crate::audience::{chosen, read_choice};
use crate::caller::Caller;
use crate::contact_values::{self, MAX_ENTRIES};
use crate::fields::{Faults, Fields};
use crate::list::{self, Budget, PagePosition};
use crate::problem::Problem;
use crate::query::NoParameters;
use crate::request::JsonBody;

/// The maximum number of ids in one request.
const MAX_CONTACTS: usize = 1_000;
/// The maximum of `limit`, the number of contacts of an audience after which a request ends.
const MAX_LIMIT: u64 = 1_000_000;

/// `POST /v1/contacts/tags`: adds and removes tags of many contacts.
///
/// # Errors
/// If the body has faults (400), or DynamoDB does not answer (503).
#[utoipa::path(
    post, path = "/v1/contacts/tags", operation_id = "changeTags", tag = "contacts",
    summary = "Add and remove tags of many contacts",
    description = "Each contact is changed by itself, and keeps its other tags, whatever is changed at the same moment. A repetition \
        changes nothing more. An audience is gone through for up to 15 seconds: repeat the request with `cursor` until `next_cursor` is \
        null, and add up the answers.",
    request_body = TagsChange,
    responses(
        (status = 200, description = "The tags are changed, of all contacts or of a part of the audience.", body = TagsChanged),
        (status = 400, response = Invalid),
        (status = 413, response = TooLarge),
        (status = 415, response = UnsupportedType),
    ),
    security(("jwt" = ["contacts:write"]), ("iam" = [])),
)]
pub async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: NoParameters,
    JsonBody(body): JsonBody,
) -> Result<Json<TagsChanged>, Problem> {
    let faults = Faults::default();
    let read = parse(&body, &caller, &faults);
    let (change, of) = faults.or(read)?;
    Ok(Json(match of {
        Chosen::Contacts(ids) => {
            let contacts = app.store.contacts();
            let counts = contacts.change_tags(&ids, &change, &caller.pages, MAX_ENTRIES).await?;
            TagsChanged::of(&counts, None)
        }
        Chosen::Audience(audience) => change_audience(&app, &caller, &change, *audience).await?,
    }))
}

/// Changes the members of an audience, from the position of the cursor on, until the time of one answer is over.
async fn change_audience(
    app: &App,
    caller: &Caller,
    change: &TagChange,
    ChosenAudience { choice, limit, cursor }: ChosenAudience,
) -> Result<TagsChanged, Problem> {
    let list_id = format!("tags\0{}", json!([change.add, change.remove, choice]));
    let from = cursor.map(|cursor| list::from_cursor(&cursor, &list_id, PagePosition::parse));
    let from = from.transpose().map_err(|message| Problem::fault("/cursor", message))?;
    let audience = chosen(app, caller, &choice, "/audience", app.clock.now()).await?;
    let (mut counts, mut budget) = (TaggedCounts::new(), Budget::begin());
    let contacts = app.store.contacts();
    for page_id in app.store.pages().of(&audience, &caller.pages).await? {
        let Some(mut after) = PagePosition::on(from.as_ref(), &page_id) else {
            continue;
        };
        let mut members = Members::new(&app.store, &page_id, &audience, app.clock.now(), after.clone());
        loop {
            if budget.is_spent() || limit.is_some_and(|limit| counts.values().sum::<u64>() >= limit) {
                let cursor = list::to_cursor(&list_id, PagePosition { page_id, after });
                return Ok(TagsChanged::of(&counts, Some(cursor)));
            }
            budget.spend_query();
            let Some(batch) = members.next_batch().await? else {
                break;
            };
            let more = contacts.change_tags(&batch.members, change, &caller.pages, MAX_ENTRIES);
            for (end, contacts) in more.await? {
                *counts.entry(end).or_default() += contacts;
            }
            after = Some(batch.up_to);
        }
    }
    Ok(TagsChanged::of(&counts, None))
}

impl TagsChanged {
    fn of(counts: &TaggedCounts, next_cursor: Option<String>) -> Self {
        let count = |end| counts.get(&end).copied().unwrap_or_default();
        Self {
            changed: count(Tagged::Changed),
            unchanged: count(Tagged::Unchanged),
            unknown: count(Tagged::Unknown),
            too_many: count(Tagged::TooMany),
            next_cursor,
        }
    }
}

/// The contacts whose tags are to be changed.
enum Chosen {
    Contacts(Vec<ContactId>),
    Audience(Box<ChosenAudience>),
}

/// An audience, of which one request changes a part.
struct ChosenAudience {
    choice: AudienceChoice,
    limit: Option<u64>,
    /// The cursor of the answer before.
    cursor: Option<String>,
}

fn parse(body: &Value, caller: &Caller, faults: &Faults) -> Option<(TagChange, Chosen)> {
    let known = ["add", "remove", "contact_ids", "audience", "limit", "cursor"];
    let fields = Fields::of(body, "", &known, faults)?;
    let (add, remove) = (tags(&fields, "add"), tags(&fields, "remove"));
    let chosen = chosen_contacts(&fields, caller, faults);
    let change = TagChange {
        add: add?,
        remove: remove?,
    };
    if change == TagChange::default() {
        faults.add("", "must have tags in add or in remove");
    }
    for tag in change.add.iter().filter(|tag| change.remove.contains(tag)) {
        fields.fault("add", format!("has {tag:?}, which remove has, too"));
        fields.fault("remove", format!("has {tag:?}, which add has, too"));
    }
    Some((change, chosen?))
}

fn chosen_contacts(fields: &Fields<'_>, caller: &Caller, faults: &Faults) -> Option<Chosen> {
    let Some(audience) = fields.optional("audience") else {
        for name in ["limit", "cursor"] {
            if fields.optional(name).is_some() {
                fields.fault(name, "must not be there without an audience");
            }
        }
        let ids = fields.list("contact_ids", fields.required("contact_ids"))?;
        return contact_ids(fields, ids, faults).map(Chosen::Contacts);
    };
    if fields.optional("contact_ids").is_some() {
        fields.fault("contact_ids", "must not be there with an audience");
    }
    let limit = fields.optional("limit");
    let number = limit
        .and_then(Value::as_u64)
        .filter(|limit| (1..=MAX_LIMIT).contains(limit));
    if limit.is_some() && number.is_none() {
        fields.fault("limit", format!("must be a number from 1 to {MAX_LIMIT}"));
    }
    let cursor = fields.parsed("cursor", fields.optional("cursor"), |cursor| Ok(cursor.to_owned()));
    let choice = read_choice(audience, "/audience", &caller.pages, faults)?;
    let limit = number;
    Some(Chosen::Audience(Box::new(ChosenAudience { choice, limit, cursor })))
}

/// Reads a list of tags, each once; an absent one is empty.
fn tags(fields: &Fields<'_>, name: &str) -> Option<Vec<String>> {
    let Some(value) = fields.optional(name) else {
        return Some(Vec::new());
    };
    let checked = contact_values::tags(value).map_err(|message| fields.fault(name, message));
    let checked = checked.ok()?;
    let tags = checked.as_ref().and_then(Value::as_array).into_iter().flatten();
    let mut read = Vec::new();
    for tag in tags.filter_map(Value::as_str) {
        if !read.iter().any(|known| known == tag) {
            read.push(tag.to_owned());
        }
    }
    Some(read)
}

/// Reads the ids of contacts, each once.
fn contact_ids(fields: &Fields<'_>, ids: &[Value], faults: &Faults) -> Option<Vec<ContactId>> {
    if !(1..=MAX_CONTACTS).contains(&ids.len()) {
        let message = format!("must have 1 to {MAX_CONTACTS} ids, and has {}", ids.len());
        fields.fault("contact_ids", message);
        return None;
    }
    let parsed = ids.iter().enumerate().filter_map(|(n, id)| {
        let id = match id.as_str() {
            Some(id) => ContactId::parse(id).map_err(|fault| fault.to_string()),
            None => Err("must be a string".to_owned()),
        };
        id.map_err(|message| faults.add(format!("/contact_ids/{n}"), message))
            .ok()
    });
    let parsed: BTreeSet<_> = parsed.collect();
    Some(parsed.into_iter().collect())
}
