//! What an import says about contacts: one set of rules, whether they come as JSON or as rows of CSV.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Number, Value, json};
use shared::contact::ATTRIBUTE_PREFIX;
use shared::ids::{ContactId, PageId, Pages};
use shared::store::contacts::ContactPatch;

use crate::fields::{Faults, Fields, Place, moment};
use crate::problem::Problem;
use crate::rows::Rows;

/// What a contact may have. A column of CSV has the same name, `attributes` one for each.
pub const FIELDS: [&str; 8] = [
    "contact_id",
    "page_id",
    "first_name",
    "last_name",
    "tags",
    "opted_out",
    "last_interaction_at",
    "attributes",
];
/// Tags, or attributes, of one contact.
pub const MAX_ENTRIES: usize = 100;
/// What is wrong with an attribute that may not have its name.
pub const ATTRIBUTE_NAME: &str =
    "must have a name of 1 to 64 letters, digits and _, a digit not first";

/// Contacts in one request.
const MAX_CONTACTS: usize = 1_000;
/// Characters in a name, a tag or an attribute's value.
const MAX_TEXT: usize = 1_000;
/// Bytes of one contact, as JSON: DynamoDB takes 400 KB, and what is merged adds up.
const MAX_BYTES: usize = 32_000;

/// Reads the contacts of a JSON body, which must be of these Pages, or says everything that is wrong with them.
pub fn from_json(body: &Value, pages: &Pages) -> Result<Vec<ContactPatch>, Problem> {
    let faults = Faults::default();
    let patches = patches(body, pages, &faults);
    faults.or(patches)
}

fn patches(body: &Value, pages: &Pages, faults: &Faults) -> Option<Vec<ContactPatch>> {
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
    let mut import = Import::new(pages, faults);
    for (n, contact) in contacts.iter().enumerate() {
        import.add(contact, Place::Pointer(format!("/contacts/{n}")));
    }
    Some(import.patches)
}

/// Reads the contacts of a CSV body, which must be of these Pages, or says everything that is wrong with them.
pub fn from_csv(body: &[u8], pages: &Pages) -> Result<Vec<ContactPatch>, Problem> {
    let faults = Faults::default();
    let Some(mut rows) = Rows::of(body, &faults) else {
        return faults.or(None);
    };
    let mut import = Import::new(pages, &faults);
    let mut count = 0;
    for (place, contact) in rows.by_ref().take(MAX_CONTACTS) {
        count += 1;
        if let Some(contact) = contact {
            import.add(&contact, place);
        }
    }
    if count == 0 {
        let message = format!("must be a contact: a request has 1 to {MAX_CONTACTS}");
        faults.add("line 2", message);
    }
    if let Some((place, _)) = rows.next() {
        let message = format!("is one too many: a request has 1 to {MAX_CONTACTS} contacts");
        return Err(Problem::fault(&place.to_string(), message));
    }
    let patches = import.patches;
    faults.or(Some(patches))
}

/// The contacts of one request, each of them once.
struct Import<'a> {
    pages: &'a Pages,
    faults: &'a Faults,
    places: HashMap<ContactId, Place>,
    patches: Vec<ContactPatch>,
}

impl<'a> Import<'a> {
    fn new(pages: &'a Pages, faults: &'a Faults) -> Self {
        Self {
            pages,
            faults,
            places: HashMap::new(),
            patches: Vec::new(),
        }
    }

    fn add(&mut self, contact: &Value, place: Place) {
        let Some(patch) = patch(contact, &place, self.pages, self.faults) else {
            return;
        };
        if let Some(first) = self.places.get(&patch.contact_id) {
            let message = format!("stands in the request before, at {first}");
            self.faults.add(place.field("contact_id"), message);
        } else {
            self.places.insert(patch.contact_id.clone(), place);
        }
        self.patches.push(patch);
    }
}

fn patch(contact: &Value, place: &Place, pages: &Pages, faults: &Faults) -> Option<ContactPatch> {
    let fields = Fields::of(contact, place.clone(), &FIELDS, faults)?;
    if contact.to_string().len() > MAX_BYTES {
        let message = format!("must have at most {MAX_BYTES} bytes");
        faults.add(place.to_string(), message);
    }
    let contact_id = fields.parsed("contact_id", fields.required("contact_id"), |id| {
        Ok(ContactId::parse(id)?)
    });
    let page_id = fields.parsed("page_id", fields.required("page_id"), |id| {
        let page_id = PageId::parse(id)?;
        match pages.allow(&page_id) {
            true => Ok(page_id),
            false => Err("is not a Page that you may use".to_owned()),
        }
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

/// What an object says about a contact: a field that is absent is kept, `null` clears it.
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
                _ if !is_name(name) => Err(ATTRIBUTE_NAME),
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

/// Whether an attribute may have this name.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
}
