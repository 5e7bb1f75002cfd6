//! The rows of a CSV file of contacts, each read into the object that JSON would have, so that one set of rules checks both.
//!
//! An empty cell says nothing about its field, which is kept as it is.

use std::str;

use csv::{ByteRecord, Reader, ReaderBuilder};
use serde_json::{Map, Value, json};
use shared::domain::contact::{ATTRIBUTE_PREFIX, ATTRIBUTES, FIELDS, Field, FieldKind};

use crate::contact_values::{ATTRIBUTE_NAME, MAX_ENTRIES, is_attribute_name};
use crate::fields::{Faults, Location};

/// The maximum number of columns: one for each field, but for each attribute in place of one for all.
const MAX_COLUMNS: usize = FIELDS.len() - 1 + MAX_ENTRIES;
/// The mark of UTF-8 that some programs write before the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An iterator over the rows of a file, each with its location. A row that is broken is a fault, and has no contact.
pub struct Rows<'a> {
    lines: Lines<'a>,
    columns: Vec<Column>,
    faults: &'a Faults,
}

impl<'a> Rows<'a> {
    /// Reads the header. If it has faults, the rows mean nothing and are not read.
    pub fn new(body: &'a [u8], faults: &'a Faults) -> Option<Self> {
        let mut lines = Lines::new(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body));
        let Some(header) = lines.next() else {
            let required: Vec<_> = required_columns().collect();
            let message = format!(
                "must be the names of the columns, {} among them",
                required.join(" and ")
            );
            faults.add("line 1", message);
            return None;
        };
        Some(Self {
            columns: columns(&header, faults)?,
            lines,
            faults,
        })
    }

    fn contact(&self, line: &Line<'_>, location: &Location) -> Option<Value> {
        let cells = line.cells.len();
        if let Some(QuotationFault { cell, message }) = line.quotation_fault() {
            let column = self.columns.get(cell);
            let field = column.map_or_else(|| location.to_string(), |column| location.field(&column.name()));
            self.faults.add(field, message);
            return None;
        }
        if cells != self.columns.len() {
            let message = format!(
                "must have {} cells, as the header has, and has {cells}",
                self.columns.len()
            );
            self.faults.add(location.to_string(), message);
            return None;
        }
        let (mut contact, mut is_good) = (Map::new(), true);
        for (column, cell) in self.columns.iter().zip(&line.cells) {
            match str::from_utf8(cell) {
                Ok("") => {}
                Ok(cell) => column.set(&mut contact, cell),
                Err(_) => {
                    self.faults.add(location.field(&column.name()), "must be UTF-8");
                    is_good = false;
                }
            }
        }
        is_good.then_some(Value::Object(contact))
    }
}

impl Iterator for Rows<'_> {
    type Item = (Location, Option<Value>);

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.lines.next()?;
        let location = Location::Line(line.number);
        let contact = self.contact(&line, &location);
        Some((location, contact))
    }
}

/// A column, by the part of a contact that its cells hold.
enum Column {
    /// A field.
    Field(&'static Field),
    /// One of the contact's own attributes, by name without the prefix.
    Attribute(String),
}

impl Column {
    /// Returns the column of this name, or the message of the fault.
    fn parse(name: &str) -> Result<Self, &'static str> {
        match name.strip_prefix(ATTRIBUTE_PREFIX) {
            Some(attribute) if is_attribute_name(attribute) => Ok(Self::Attribute(attribute.to_owned())),
            Some(_) => Err(ATTRIBUTE_NAME),
            None => FIELDS
                .iter()
                .find(|field| field.name == name && field.kind != FieldKind::Attributes)
                .map(Self::Field)
                .ok_or("is not a known column; columns are separated by commas"),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Field(field) => field.name.to_owned(),
            Self::Attribute(name) => format!("{ATTRIBUTE_PREFIX}{name}"),
        }
    }

    /// Sets the value of a cell that is not empty, as JSON would have it. A cell that has no such value stays a text, which
    /// the rules refuse.
    fn set(&self, contact: &mut Map<String, Value>, cell: &str) {
        let field = match self {
            Self::Field(field) => field,
            Self::Attribute(name) => {
                let attributes = contact.entry(ATTRIBUTES).or_insert_with(|| json!({}));
                if let Some(attributes) = attributes.as_object_mut() {
                    attributes.insert(name.clone(), json!(cell));
                }
                return;
            }
        };
        let value = match field.kind {
            FieldKind::Tags => {
                let tags = cell.split(';').map(str::trim);
                let tags: Vec<_> = tags.filter(|tag| !tag.is_empty()).collect();
                if tags.is_empty() {
                    return;
                }
                json!(tags)
            }
            // Spreadsheets write them in capitals.
            FieldKind::Flag if cell.eq_ignore_ascii_case("true") => json!(true),
            FieldKind::Flag if cell.eq_ignore_ascii_case("false") => json!(false),
            FieldKind::Flag
            | FieldKind::ContactId
            | FieldKind::PageId
            | FieldKind::Text
            | FieldKind::Time
            | FieldKind::Attributes => json!(cell),
        };
        contact.insert(field.name.to_owned(), value);
    }
}

/// Returns the names of the columns that a file must have.
fn required_columns() -> impl Iterator<Item = &'static str> {
    let required = FIELDS.iter().filter(|field| field.kind.is_required());
    required.map(|field| field.name)
}

/// Returns the columns, if each has a known name and no name is there twice.
fn columns(header: &Line<'_>, faults: &Faults) -> Option<Vec<Column>> {
    let location = Location::Line(header.number);
    if let Some(QuotationFault { cell, message }) = header.quotation_fault() {
        faults.add(location.field(&(cell + 1).to_string()), message);
        return None;
    }
    if header.cells.len() > MAX_COLUMNS {
        let message = format!("must have at most {MAX_COLUMNS} columns");
        faults.add(location.to_string(), message);
        return None;
    }
    let (mut names, mut columns, mut is_good) = (Vec::new(), Vec::new(), true);
    let mut fault = |column: &str, message: &str| {
        faults.add(location.field(column), message);
        is_good = false;
    };
    for (n, cell) in header.cells.iter().enumerate() {
        let number = (n + 1).to_string();
        let Ok(name) = str::from_utf8(cell) else {
            fault(&number, "must be UTF-8");
            continue;
        };
        let name = name.trim();
        match Column::parse(name) {
            _ if name.is_empty() => fault(&number, "must have a name"),
            _ if names.contains(&name) => fault(name, "is there twice"),
            Ok(column) => columns.push(column),
            Err(message) => fault(name, message),
        }
        names.push(name);
    }
    for name in required_columns() {
        if !names.contains(&name) {
            fault(name, "is required");
        }
    }
    is_good.then_some(columns)
}

/// An iterator over the lines of a file that are not blank.
struct Lines<'a> {
    text: &'a [u8],
    reader: Reader<&'a [u8]>,
    /// Line ends before the position of the reader.
    ends: usize,
}

/// A header or a row. It begins on the line of this number, and extends over others if line ends are quoted.
struct Line<'a> {
    number: usize,
    text: &'a [u8],
    cells: ByteRecord,
}

impl<'a> Lines<'a> {
    fn new(text: &'a [u8]) -> Self {
        let reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
        Self { text, reader, ends: 0 }
    }

    /// Returns the position of the reader in the text, in bytes.
    fn offset(&self) -> usize {
        usize::try_from(self.reader.position().byte()).unwrap_or(usize::MAX)
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    /// Reads a line and counts its number. The reader's own count is not used: it is that of the end of the last line, or
    /// of a blank line before this one.
    fn next(&mut self) -> Option<Line<'a>> {
        let mut cells = ByteRecord::new();
        let begin = self.offset();
        if !self.reader.read_byte_record(&mut cells).ok()? {
            return None;
        }
        let read = self.text.get(begin..self.offset())?;
        let blank = read.iter().take_while(|byte| b"\r\n".contains(byte));
        let (blank, text) = read.split_at(blank.count());
        let number = self.ends + line_ends(blank) + 1;
        self.ends += line_ends(read);
        Some(Line { number, text, cells })
    }
}

fn line_ends(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

/// A cell, by index, whose quotation marks are wrong.
struct QuotationFault {
    cell: usize,
    message: &'static str,
}

impl Line<'_> {
    /// Returns the first cell whose quotation marks are wrong. The reader accepts them in any place, and a mark that is
    /// never closed would hide all contacts below it in one cell.
    fn quotation_fault(&self) -> Option<QuotationFault> {
        enum At {
            Begin,
            Plain,
            Quoted,
            /// After a mark that ends the quotation, unless another follows.
            Mark,
        }
        let (mut at, mut cell) = (At::Begin, 0);
        for &byte in self.text {
            at = match (at, byte) {
                (At::Quoted, b'"') => At::Mark,
                (At::Begin | At::Mark, b'"') | (At::Quoted, _) => At::Quoted,
                (_, b',') => {
                    cell += 1;
                    At::Begin
                }
                (at, b'\r' | b'\n') => at,
                (At::Begin | At::Plain, byte) if byte != b'"' => At::Plain,
                (At::Begin | At::Plain | At::Mark, _) => {
                    let message = "must be in quotation marks from end to end, with those inside doubled, or have none";
                    return Some(QuotationFault { cell, message });
                }
            };
        }
        let message = "has a quotation that is never closed";
        matches!(at, At::Quoted).then_some(QuotationFault { cell, message })
    }
}
