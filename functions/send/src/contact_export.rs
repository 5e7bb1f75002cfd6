//! A part of the list of contacts in the form that the caller accepts, and its size.

use std::collections::BTreeSet;

use axum::Json;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use shared::domain::contact::{ATTRIBUTE_PREFIX, Contact as StoredContact, FIELDS, Field, FieldKind};

use crate::api::contacts::Contact;
use crate::api::lists::ListPart;
use crate::contact_values::MAX_ENTRIES;
use crate::csv_answer::{csv_answer, csv_file};
use crate::csv_cells::cell;
use crate::list::next_cursor;
use crate::negotiation::Form;
use crate::problem::Problem;

/// The maximum size of one answer in bytes, as its escaped body. A CSV file of this size can be imported as it is, and Lambda
/// refuses more than 6 MB (<https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>).
const MAX_BYTES: usize = 4_000_000;

/// The contacts of one answer.
pub struct Part {
    form: Form,
    limit: usize,
    contacts: Vec<StoredContact>,
    /// The attributes that are columns of a CSV file: all that one of the contacts has.
    attributes: BTreeSet<String>,
    bytes: usize,
}

impl Part {
    /// Returns an answer of this form, with at most `limit` contacts.
    pub fn new(form: Form, limit: usize) -> Self {
        Self {
            form,
            limit,
            contacts: Vec::new(),
            attributes: BTreeSet::new(),
            bytes: 0,
        }
    }

    /// Returns the number of contacts that may still be added.
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.contacts.len())
    }

    /// Adds a contact. Returns false if the answer would be too large with it, or a CSV file could not be imported for its number
    /// of columns: the answer is then full. A contact that is too large by itself makes an answer of its own.
    pub fn add(&mut self, contact: StoredContact) -> bool {
        let names = contact.attributes.keys().filter(|_| self.form == Form::Csv);
        let more: Vec<_> = names.filter(|name| !self.attributes.contains(*name)).cloned().collect();
        let columns = self.attributes.len() + more.len();
        let bytes = self.bytes + self.size(&contact);
        let is_too_large = bytes + (self.contacts.len() + 1) * columns > MAX_BYTES || columns > MAX_ENTRIES;
        if is_too_large && !self.contacts.is_empty() {
            self.limit = self.contacts.len();
            return false;
        }
        self.bytes = bytes;
        self.attributes.extend(more);
        self.contacts.push(contact);
        true
    }

    /// Returns the bytes of a contact in the answer of the function: a JSON document whose body is a string.
    fn size(&self, contact: &StoredContact) -> usize {
        match self.form {
            Form::Csv => {
                // A comma and two quotation marks, which are escaped; those inside are also doubled.
                let size = |cell: &String| 5 + escaped(cell) + 2 * cell.matches('"').count();
                let attributes = contact.attributes.values().map(cell);
                fields(contact).chain(attributes).map(|cell| size(&cell)).sum()
            }
            Form::Json | Form::Ndjson | Form::Markdown => {
                let contact = Contact::from(contact.clone());
                1 + escaped(&serde_json::to_string(&contact).unwrap_or_default())
            }
        }
    }

    /// Returns the answer, with the cursor of the next part if there is one.
    ///
    /// # Errors
    /// If it cannot be written (500).
    pub fn into_answer(self, cursor: Option<String>) -> Result<Response, Problem> {
        Ok(match self.form {
            Form::Csv => (cursor.map(next_cursor), csv_answer(self.to_csv())?).into_response(),
            Form::Ndjson => {
                let lines = self.contacts.into_iter().map(Contact::from);
                let lines = lines.filter_map(|contact| serde_json::to_string(&contact).ok());
                let body: String = lines.map(|line| line + "\n").collect();
                let content_type = [(header::CONTENT_TYPE, "application/x-ndjson")];
                (cursor.map(next_cursor), content_type, body).into_response()
            }
            Form::Json | Form::Markdown => Json(ListPart {
                items: self.contacts.into_iter().map(Contact::from).collect::<Vec<_>>(),
                next_cursor: cursor,
            })
            .into_response(),
        })
    }

    fn to_csv(&self) -> Result<Vec<u8>, csv::Error> {
        let names = columns().map(|field| field.name.to_owned());
        let attributes = self.attributes.iter();
        let names = names.chain(attributes.clone().map(|name| format!("{ATTRIBUTE_PREFIX}{name}")));
        let rows = self.contacts.iter().map(|contact| {
            let own = attributes.clone().map(|name| contact.attributes.get(name));
            let own = own.map(|value| value.map_or_else(String::new, cell));
            fields(contact).chain(own).collect::<Vec<_>>()
        });
        csv_file(names.collect::<Vec<_>>(), rows)
    }
}

/// The fields that have a column each, as in an import.
fn columns() -> impl Iterator<Item = &'static Field> {
    FIELDS.iter().filter(|field| field.kind != FieldKind::Attributes)
}

/// Returns the cells of those fields. A flag that is not set is an empty cell, which an import passes over: an old file does not
/// take back an opt-out.
fn fields(contact: &StoredContact) -> impl Iterator<Item = String> {
    columns().map(|field| match (field.value)(contact) {
        Value::Bool(false) => String::new(),
        value => cell(&value),
    })
}

/// Returns the bytes of a text within a string of JSON, without the quotation marks.
fn escaped(text: &str) -> usize {
    let sizes = text.bytes().map(|byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0C => 2,
        0..=0x1F => 6,
        _ => 1,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answer_fits_into_its_counted_bytes() {
        for text in ["x", "\"", "\\", "\u{1}", "\r\n", "🙂", "=,\"", ";\\"] {
            let contact = |n: usize| -> StoredContact {
                let text = text.repeat(50);
                let mut item = json!({
                    "contact_id": format!("{n}\""), "page_id": "page-1", "first_name": text, "last_name": text, "tags": [text, text],
                    "opted_out": true, "tester": true, "last_interaction_at": 1_764_000_000_000_i64,
                });
                item[format!("attributes.a{}", n % 40)] = json!(text);
                serde_json::from_value(item).unwrap()
            };
            for form in [Form::Json, Form::Ndjson, Form::Csv] {
                let mut part = Part::new(form, 1_000);
                for n in 0..100 {
                    assert!(part.add(contact(n)));
                }
                let counted = part.bytes + 100 * part.attributes.len();
                let body = match form {
                    Form::Csv => part.to_csv().unwrap(),
                    _ => {
                        let items = part.contacts.into_iter().map(Contact::from);
                        serde_json::to_vec(&items.collect::<Vec<_>>()).unwrap()
                    }
                };
                let body = serde_json::to_string(&String::from_utf8(body).unwrap()).unwrap();
                // The header, or the brackets.
                assert!(
                    body.len() < counted + 2_000,
                    "{form:?} {text:?}: {} and {counted}",
                    body.len()
                );
                assert!(
                    body.len() * 10 > counted * 7,
                    "{form:?} {text:?}: {} and {counted}",
                    body.len()
                );
            }
        }
    }

    #[test]
    fn file_has_at_most_the_columns_that_an_import_takes() {
        let contact = |first: usize, attributes: usize| -> StoredContact {
            let mut item = json!({"contact_id": "ana", "page_id": "page-1"});
            for n in first..first + attributes {
                item[format!("attributes.a{n}")] = json!("x");
            }
            serde_json::from_value(item).unwrap()
        };
        let mut part = Part::new(Form::Csv, 10);
        assert!(part.add(contact(0, 60)) && part.add(contact(60, 40)) && part.add(contact(30, 50)));
        assert!(!part.add(contact(99, 2)));
        assert_eq!(part.room(), 0);
        let mut one = Part::new(Form::Csv, 10);
        assert!(one.add(contact(0, 200)) && !one.add(contact(0, 1)));
        let mut lines = Part::new(Form::Ndjson, 10);
        assert!(lines.add(contact(0, 100)) && lines.add(contact(100, 100)));
    }
}
