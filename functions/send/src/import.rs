//! The contacts of an import, checked and made into changes of stored contacts. JSON and CSV are held to one set of rules.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use shared::domain::contact::{ATTRIBUTE_PREFIX, ATTRIBUTES, FIELDS, FieldKind};
use shared::domain::ids::{ContactId, PageId, Pages, refuse_mangled};
use shared::store::imported_contacts::ContactPatch;

use crate::api::problems::Fault;
use crate::contact_values::{self as values, ATTRIBUTE_NAME, Checked, MAX_ENTRIES, is_attribute_name};
use crate::csv::{Rows, is_column};
use crate::csv_form::CsvFile;
use crate::fields::{Faults, Fields, Location};
use crate::numbers::ChangedNumbers;
use crate::problem::Problem;

/// The maximum number of contacts in one request.
const MAX_CONTACTS: usize = 1_000;
/// The maximum size of one contact in bytes of JSON. An item of DynamoDB has at most 400 KB, and merging imports into it
/// adds up.
const MAX_BYTES: usize = 32_000;

/// The contacts of a request that are right, and the faults of the others.
pub struct ReadImport {
    /// The contacts without faults, each once.
    pub patches: Vec<ContactPatch>,
    /// The locations of all contacts whose ids are readable.
    pub locations: HashMap<ContactId, Location>,
    /// The faults of the others, in their order.
    pub faults: Vec<Fault>,
    /// The form in which a CSV file was read, in words.
    pub read_as: Option<String>,
}

/// Reads the contacts of a JSON body, parsed and as it is written, which must all be of the given Pages.
///
/// # Errors
/// If the body as a whole is wrong: a problem (400) that lists all faults.
pub fn from_json(body: &Value, text: &[u8], pages: &Pages) -> Result<ReadImport, Problem> {
    let faults = Faults::default();
    let Some(contacts) = contacts(body, &faults) else {
        return faults.or(None);
    };
    let is_good = faults.count() == 0;
    let mut import = Import::new(pages, &faults);
    import.changed_numbers = ChangedNumbers::in_json(str::from_utf8(text).unwrap_or_default());
    for (n, contact) in contacts.iter().enumerate() {
        import.add(contact, Location::Pointer(format!("/contacts/{n}")));
    }
    let (patches, locations) = (import.patches, import.locations);
    if !is_good {
        return faults.or(None);
    }
    Ok(ReadImport {
        patches,
        locations,
        faults: faults.into_list(),
        read_as: None,
    })
}

/// Returns the list of contacts in a body.
fn contacts<'b>(body: &'b Value, faults: &'b Faults) -> Option<&'b Vec<Value>> {
    let fields = Fields::of(body, "", &["contacts"], faults)?;
    let contacts = fields.list("contacts", fields.required("contacts"))?;
    if !(1..=MAX_CONTACTS).contains(&contacts.len()) {
        let message = format!("must have 1 to {MAX_CONTACTS} contacts, and has {}", contacts.len());
        fields.fault("contacts", message);
        return None;
    }
    Some(contacts)
}

/// Reads the contacts of a CSV body, which must all be of the given Pages.
///
/// # Errors
/// If the file as a whole is wrong: a problem (400) that lists all faults.
pub fn from_csv(body: &[u8], pages: &Pages) -> Result<ReadImport, Problem> {
    let faults = Faults::default();
    let file = CsvFile::read(body, is_column)?;
    let Some(mut rows) = Rows::new(&file, &faults) else {
        return faults.or(None);
    };
    let mut import = Import::new(pages, &faults);
    let mut count = 0;
    for (location, contact) in rows.by_ref().take(MAX_CONTACTS) {
        count += 1;
        if let Some(contact) = contact {
            import.add(&contact, location);
        }
    }
    if count == 0 {
        let message = format!("must be a contact: a request has 1 to {MAX_CONTACTS}");
        faults.push(Location::line(file.skipped_lines + 2).fault(message));
    }
    if let Some((location, _)) = rows.next() {
        let message = format!("is one contact too many: a request has 1 to {MAX_CONTACTS}");
        return Err(Problem::invalid(vec![location.fault(message)]));
    }
    let (is_good, blank) = (count > 0 && !rows.is_broken, rows.blank);
    let (patches, locations) = (import.patches, import.locations);
    if !is_good {
        return faults.or(None);
    }
    Ok(ReadImport {
        patches,
        locations,
        faults: faults.into_list(),
        read_as: Some(format!("{file}; {count} contacts, {blank} blank rows skipped")),
    })
}

/// The contacts of one request, each of them once.
struct Import<'a> {
    pages: &'a Pages,
    faults: &'a Faults,
    known: Vec<&'static str>,
    changed_numbers: ChangedNumbers,
    locations: HashMap<ContactId, Location>,
    patches: Vec<ContactPatch>,
}

impl<'a> Import<'a> {
    fn new(pages: &'a Pages, faults: &'a Faults) -> Self {
        Self {
            pages,
            faults,
            known: FIELDS.iter().map(|field| field.name).collect(),
            changed_numbers: ChangedNumbers::default(),
            locations: HashMap::new(),
            patches: Vec::new(),
        }
    }

    /// Checks a contact, and takes it if it has no faults. An id counts as taken also if its contact has faults.
    fn add(&mut self, contact: &Value, location: Location) {
        let known_faults = self.faults.count();
        let Some(patch) = self.patch(contact, &location) else {
            return;
        };
        if let Some(first) = self.locations.get(&patch.contact_id) {
            let message = format!("is in the request already, at {first}");
            self.faults.push(location.field_fault("contact_id", message));
        } else {
            self.locations.insert(patch.contact_id.clone(), location);
        }
        if self.faults.count() == known_faults {
            self.patches.push(patch);
        }
    }

    fn patch(&self, contact: &Value, location: &Location) -> Option<ContactPatch> {
        let fields = Fields::of(contact, location.clone(), &self.known, self.faults)?;
        if contact.to_string().len() > MAX_BYTES {
            let message = format!("must have at most {MAX_BYTES} bytes");
            self.faults.push(location.fault(message));
        }
        let (mut contact_id, mut page_id) = (None, None);
        let mut changes = Changes {
            fields: &fields,
            written: BTreeMap::new(),
        };
        for field in FIELDS {
            let name = field.name;
            match field.kind {
                FieldKind::ContactId => {
                    contact_id = fields.parsed(name, fields.required(name), contact_id_of_request);
                }
                FieldKind::PageId => {
                    page_id = fields.parsed(name, fields.required(name), |id| page(id, self.pages));
                }
                FieldKind::Text => changes.add(name, values::name),
                FieldKind::Tags => changes.add(name, values::tags),
                FieldKind::Flag => changes.add(name, values::flag),
                FieldKind::Hours => changes.add(name, values::hours),
                FieldKind::Time => changes.add(name, values::time),
                FieldKind::Attributes => changes.add_attributes(name, &self.changed_numbers),
            }
        }
        let written = changes.written;
        Some(ContactPatch {
            contact_id: contact_id?,
            page_id: page_id?,
            clears_attributes: fields.has(ATTRIBUTES) && fields.optional(ATTRIBUTES).is_none(),
            fields: written,
        })
    }
}

fn contact_id_of_request(id: &str) -> Result<ContactId, String> {
    ContactId::parse(id).map_err(|fault| fault.to_string())
}

/// Parses the id of a Page that the caller may use.
pub fn page(id: &str, pages: &Pages) -> Result<PageId, String> {
    refuse_mangled(id).map_err(|fault| fault.to_string())?;
    let page_id = PageId::parse(id)?;
    match pages.allow(&page_id) {
        true => Ok(page_id),
        false => Err("is not a Page that you may use".to_owned()),
    }
}

/// The changes that an object asks for: a field that is absent is kept, `null` clears it.
struct Changes<'a> {
    fields: &'a Fields<'a>,
    written: BTreeMap<String, Option<Value>>,
}

impl Changes<'_> {
    fn add(&mut self, name: &str, check: impl Fn(&Value) -> Checked) {
        let value = match self.fields.optional(name).map(check) {
            None if !self.fields.has(name) => return,
            None => None,
            Some(Ok(value)) => value,
            Some(Err(message)) => return self.fields.fault(name, message),
        };
        self.written.insert(name.to_owned(), value);
    }

    fn add_attributes(&mut self, field: &str, changed_numbers: &ChangedNumbers) {
        let Some(value) = self.fields.optional(field) else {
            return;
        };
        let Some(attributes) = value.as_object().filter(|attributes| attributes.len() <= MAX_ENTRIES) else {
            let message = format!("must be an object with at most {MAX_ENTRIES} entries");
            return self.fields.fault(field, message);
        };
        for (name, value) in attributes {
            let checked = match is_attribute_name(name) {
                true => values::attribute(value, changed_numbers),
                false => Err(ATTRIBUTE_NAME.to_owned()),
            };
            match checked {
                Ok(value) => {
                    self.written.insert(format!("{ATTRIBUTE_PREFIX}{name}"), value);
                }
                Err(message) => self.fields.entry_fault(field, name, message),
            }
        }
    }
}
