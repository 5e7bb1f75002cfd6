//! Contacts as rows of CSV: read one by one into the objects that JSON would have, so that one set of rules checks both.
//!
//! An empty cell says nothing about its field.

use std::str;

use csv::{ByteRecord, Reader, ReaderBuilder};
use serde_json::{Map, Value, json};
use shared::contact::ATTRIBUTE_PREFIX;

use crate::fields::{Faults, Place};
use crate::import::{ATTRIBUTE_NAME, FIELDS, MAX_ENTRIES, is_name};

/// Columns that a file must have.
const REQUIRED: [&str; 2] = ["contact_id", "page_id"];
/// Each field, with a column for each attribute in place of one for all.
const MAX_COLUMNS: usize = FIELDS.len() - 1 + MAX_ENTRIES;
/// What some programs write before the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The rows of a file, each with its place; one that is broken is nothing but a fault.
pub struct Rows<'a> {
    lines: Lines<'a>,
    columns: Vec<String>,
    faults: &'a Faults,
}

impl<'a> Rows<'a> {
    /// Reads the header. Without a good one the rows mean nothing, and are not read.
    pub fn of(body: &'a [u8], faults: &'a Faults) -> Option<Self> {
        let mut lines = Lines::of(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body));
        let Some(header) = lines.next() else {
            faults.add(
                "line 1",
                "must be the names of the columns, contact_id and page_id among them",
            );
            return None;
        };
        Some(Self {
            columns: columns(&header, faults)?,
            lines,
            faults,
        })
    }

    fn contact(&self, line: &Line<'_>, place: &Place) -> Option<Value> {
        let cells = line.cells.len();
        if let Some((cell, message)) = line.misquoted() {
            let column = self.columns.get(cell);
            let field = column.map_or_else(|| place.to_string(), |column| place.field(column));
            self.faults.add(field, message);
            return None;
        }
        if cells != self.columns.len() {
            let message = format!(
                "must have {} cells, as the header has, and has {cells}",
                self.columns.len()
            );
            self.faults.add(place.to_string(), message);
            return None;
        }
        let (mut contact, mut good) = (Map::new(), true);
        for (column, cell) in self.columns.iter().zip(&line.cells) {
            match str::from_utf8(cell) {
                Ok("") => {}
                Ok(cell) => note(&mut contact, column, cell),
                Err(_) => {
                    self.faults.add(place.field(column), "must be UTF-8");
                    good = false;
                }
            }
        }
        good.then_some(Value::Object(contact))
    }
}

impl Iterator for Rows<'_> {
    type Item = (Place, Option<Value>);

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.lines.next()?;
        let place = Place::Line(line.number);
        let contact = self.contact(&line, &place);
        Some((place, contact))
    }
}

/// The names of the columns, if each is known and there once.
fn columns(header: &Line<'_>, faults: &Faults) -> Option<Vec<String>> {
    let place = Place::Line(header.number);
    if let Some((cell, message)) = header.misquoted() {
        faults.add(place.field(&(cell + 1).to_string()), message);
        return None;
    }
    if header.cells.len() > MAX_COLUMNS {
        let message = format!("must have at most {MAX_COLUMNS} columns");
        faults.add(place.to_string(), message);
        return None;
    }
    let (mut columns, mut good) = (Vec::new(), true);
    let mut fault = |column: &str, message: &str| {
        faults.add(place.field(column), message);
        good = false;
    };
    for (n, cell) in header.cells.iter().enumerate() {
        let number = (n + 1).to_string();
        let Ok(name) = str::from_utf8(cell) else {
            fault(&number, "must be UTF-8");
            continue;
        };
        let name = name.trim().to_owned();
        match name.strip_prefix(ATTRIBUTE_PREFIX) {
            _ if name.is_empty() => fault(&number, "must have a name"),
            _ if columns.contains(&name) => fault(&name, "is there twice"),
            Some(attribute) if !is_name(attribute) => fault(&name, ATTRIBUTE_NAME),
            None if !is_field(&name) => fault(
                &name,
                "is not a column here; columns are separated by commas",
            ),
            _ => {}
        }
        columns.push(name);
    }
    for name in REQUIRED {
        if !columns.iter().any(|column| column == name) {
            fault(name, "is required");
        }
    }
    good.then_some(columns)
}

fn is_field(name: &str) -> bool {
    name != "attributes" && FIELDS.contains(&name)
}

/// Notes a cell that is not empty as JSON would say it. What cannot be said so is left a text, which the rules refuse.
fn note(contact: &mut Map<String, Value>, column: &str, cell: &str) {
    if let Some(name) = column.strip_prefix(ATTRIBUTE_PREFIX) {
        let attributes = contact.entry("attributes").or_insert_with(|| json!({}));
        if let Some(attributes) = attributes.as_object_mut() {
            attributes.insert(name.to_owned(), json!(cell));
        }
        return;
    }
    let value = match column {
        "tags" => {
            let tags = cell.split(';').map(str::trim);
            let tags: Vec<_> = tags.filter(|tag| !tag.is_empty()).collect();
            if tags.is_empty() {
                return;
            }
            json!(tags)
        }
        // Spreadsheets write them in capitals.
        "opted_out" if cell.eq_ignore_ascii_case("true") => json!(true),
        "opted_out" if cell.eq_ignore_ascii_case("false") => json!(false),
        _ => json!(cell),
    };
    contact.insert(column.to_owned(), value);
}

/// The lines of a file that are not blank.
struct Lines<'a> {
    text: &'a [u8],
    reader: Reader<&'a [u8]>,
    /// Ends of lines before the reader.
    ends: usize,
}

/// A header or a row: it begins on the line of this number, and goes on to others if line ends are quoted.
struct Line<'a> {
    number: usize,
    text: &'a [u8],
    cells: ByteRecord,
}

impl<'a> Lines<'a> {
    fn of(text: &'a [u8]) -> Self {
        let reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(text);
        Self {
            text,
            reader,
            ends: 0,
        }
    }

    /// Where the reader stands in the text.
    fn offset(&self) -> usize {
        usize::try_from(self.reader.position().byte()).unwrap_or(usize::MAX)
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    /// Counts lines itself: the reader's own count is that of the last line's end, or of a blank line before this one.
    fn next(&mut self) -> Option<Line<'a>> {
        let mut cells = ByteRecord::new();
        let begin = self.offset();
        if !self.reader.read_byte_record(&mut cells).ok()? {
            return None;
        }
        let read = self.text.get(begin..self.offset())?;
        let blank = read.iter().take_while(|byte| b"\r\n".contains(byte));
        let (blank, text) = read.split_at(blank.count());
        let number = self.ends + ends(blank) + 1;
        self.ends += ends(read);
        Some(Line {
            number,
            text,
            cells,
        })
    }
}

fn ends(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

impl Line<'_> {
    /// The first cell whose quotation marks are wrong, and what is wrong with them. The reader takes them as they come, and
    /// one that is never closed would hide all the contacts below it in a cell.
    fn misquoted(&self) -> Option<(usize, &'static str)> {
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
                    return Some((cell, message));
                }
            };
        }
        matches!(at, At::Quoted).then_some((cell, "has a quotation that is never closed"))
    }
}
