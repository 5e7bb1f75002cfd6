//! Contacts: imported by the caller, shown as stored.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Number, Value, json};
use shared::app::App;
use shared::contact::{ATTRIBUTE_PREFIX, Contact};
use shared::ids::{ContactId, PageId};
use shared::store::contacts::ContactPatch;

use crate::fields::{Faults, Fields, moment};
use crate::problem::Problem;
use crate::request::{JsonBody, PathId};

/// Contacts in one request.
const MAX_CONTACTS: usize = 1_000;
/// Characters in a name, a tag or an attribute's value.
const MAX_TEXT: usize = 1_000;
/// Bytes of one contact, as JSON: DynamoDB takes 400 KB, and what is merged adds up.
const MAX_BYTES: usize = 32_000;
/// Tags, or attributes, of one contact.
const MAX_ENTRIES: usize = 100;

/// `PUT /v1/contacts`
pub async fn upsert(
    State(app): State<Arc<App>>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, Problem> {
    let faults = Faults::default();
    let patches = patches(&body, &faults);
    let patches = faults.or(patches)?;
    app.store.upsert_contacts(&patches).await?;
    Ok(Json(json!({"upserted": patches.len()})))
}

/// `GET /v1/contacts/{contact_id}`
pub async fn show(
    State(app): State<Arc<App>>,
    PathId(contact_id): PathId,
) -> Result<Json<Value>, Problem> {
    let unknown = || Problem::not_found("There is no such contact.");
    let contact_id = ContactId::parse(&contact_id).map_err(|_| unknown())?;
    let contact = app.store.contact(&contact_id).await?.ok_or_else(unknown)?;
    Ok(Json(shown(&contact)))
}

fn shown(contact: &Contact) -> Value {
    json!({
        "contact_id": contact.contact_id,
        "page_id": contact.page_id,
        "first_name": contact.first_name,
        "last_name": contact.last_name,
        "tags": contact.tags,
        "opted_out": contact.opted_out,
        "last_interaction_at": contact.last_interaction_at,
        "attributes": contact.attributes().collect::<BTreeMap<_, _>>(),
    })
}

fn patches(body: &Value, faults: &Faults) -> Option<Vec<ContactPatch>> {
    let fields = Fields::of(body, "", &["contacts"], faults)?;
    let contacts = fields.list("contacts", fields.required("contacts"))?;
    if !(1..=MAX_CONTACTS).contains(&contacts.len()) {
        fields.fault(
            "contacts",
            format!(
                "must have 1 to {MAX_CONTACTS} contacts, and has {}",
                contacts.len()
            ),
        );
        return None;
    }
    let mut seen = HashSet::new();
    let mut patches = Vec::with_capacity(contacts.len());
    for (n, contact) in contacts.iter().enumerate() {
        let pointer = format!("/contacts/{n}");
        let Some(patch) = patch(contact, &pointer, faults) else {
            continue;
        };
        if !seen.insert(patch.contact_id.clone()) {
            faults.add(
                format!("{pointer}/contact_id"),
                "stands in the request before",
            );
        }
        patches.push(patch);
    }
    Some(patches)
}

fn patch(contact: &Value, pointer: &str, faults: &Faults) -> Option<ContactPatch> {
    const KNOWN: [&str; 8] = [
        "contact_id",
        "page_id",
        "first_name",
        "last_name",
        "tags",
        "opted_out",
        "last_interaction_at",
        "attributes",
    ];
    let fields = Fields::of(contact, pointer, &KNOWN, faults)?;
    if contact.to_string().len() > MAX_BYTES {
        faults.add(pointer, format!("must have at most {MAX_BYTES} bytes"));
    }
    let contact_id = fields.parsed("contact_id", fields.required("contact_id"), |id| {
        Ok(ContactId::parse(id)?)
    });
    let page_id = fields.parsed("page_id", fields.required("page_id"), |id| {
        Ok(PageId::parse(id)?)
    });
    let mut changes = Changes {
        fields: &fields,
        written: BTreeMap::new(),
    };
    changes.note("first_name", short_text);
    changes.note("last_name", short_text);
    changes.note("tags", tags);
    changes.note("opted_out", |value| {
        value
            .is_boolean()
            .then(|| value.clone())
            .ok_or("must be true or false")
    });
    changes.note("last_interaction_at", |value| {
        let time = value.as_str().and_then(|text| moment(text).ok());
        time.map(|time| json!(time.as_millisecond()))
            .ok_or("must be an RFC 3339 time with an offset")
    });
    changes.note_attributes();
    let mut written = changes.written;
    written.insert("page_id".to_owned(), Some(json!(page_id?)));
    Some(ContactPatch {
        contact_id: contact_id?,
        clears_attributes: fields.has("attributes") && fields.optional("attributes").is_none(),
        fields: written,
    })
}

/// What a row says about a contact: a field that is absent is kept, `null` clears it.
struct Changes<'a> {
    fields: &'a Fields<'a>,
    written: BTreeMap<String, Option<Value>>,
}

impl Changes<'_> {
    fn note(&mut self, name: &str, check: impl Fn(&Value) -> Result<Value, &'static str>) {
        let value = match self.fields.optional(name).map(check) {
            None if !self.fields.has(name) => return,
            None => None,
            Some(Ok(value)) => Some(value),
            Some(Err(message)) => return self.fields.fault(name, message),
        };
        self.written.insert(name.to_owned(), value);
    }

    fn note_attributes(&mut self) {
        let Some(value) = self.fields.optional("attributes") else {
            return;
        };
        let Some(attributes) = value
            .as_object()
            .filter(|attributes| attributes.len() <= MAX_ENTRIES)
        else {
            let message = format!("must be an object with at most {MAX_ENTRIES} entries");
            return self.fields.fault("attributes", message);
        };
        for (name, value) in attributes {
            let checked = match value {
                _ if !is_name(name) => {
                    Err("must have a name of 1 to 64 letters, digits and _, a digit not first")
                }
                Value::Null => Ok(None),
                Value::Bool(_) => Ok(Some(value.clone())),
                Value::Number(number) if fits(number) => Ok(Some(value.clone())),
                Value::Number(_) => Err("must have a magnitude from 1e-130 to 9e125"),
                Value::String(_) => short_text(value).map(Some),
                Value::Array(_) | Value::Object(_) => {
                    Err("must be a string, a number, true, false or null")
                }
            };
            match checked {
                Ok(value) => {
                    self.written
                        .insert(format!("{ATTRIBUTE_PREFIX}{name}"), value);
                }
                Err(message) => self.fields.inner_fault("attributes", name, message),
            }
        }
    }
}

fn short_text(value: &Value) -> Result<Value, &'static str> {
    match value.as_str() {
        Some(text) if text.chars().count() <= MAX_TEXT => Ok(value.clone()),
        _ => Err("must be a string of at most 1000 characters"),
    }
}

/// What DynamoDB takes for a number.
fn fits(number: &Number) -> bool {
    number
        .as_f64()
        .is_some_and(|number| number == 0.0 || (1e-130..9e125).contains(&number.abs()))
}

fn tags(value: &Value) -> Result<Value, &'static str> {
    let tags = value.as_array().filter(|tags| tags.len() <= MAX_ENTRIES);
    match tags {
        Some(tags) if tags.iter().all(|tag| short_text(tag).is_ok()) => Ok(value.clone()),
        _ => Err("must be a list of at most 100 strings of at most 1000 characters"),
    }
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
}
