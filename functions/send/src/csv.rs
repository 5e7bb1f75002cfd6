//! The rows of a CSV file of contacts, each read into the object that JSON would have, so that one set of rules checks both.
//!
//! An empty cell says nothing about its field, which is kept as it is.

use serde_json::{Map, Number, Value, json};
use shared::domain::contact::{ATTRIBUTE_PREFIX, ATTRIBUTES, FIELDS, Field, FieldKind};
use shared::domain::visible::{is_blank, trimmed};

use crate::api::problems::Fault;
use crate::contact_values::{ATTRIBUTE_NAME, MAX_ENTRIES, is_attribute_name};
use crate::csv_cells::{is_spreadsheet_error, tags, unmarked};
use crate::csv_form::CsvFile;
use crate::csv_lines::{Line, Lines, QuotationFault};
use crate::fields::{Faults, Location};

/// The maximum number of columns: one for each field, but for each attribute in place of one for all.
const MAX_COLUMNS: usize = FIELDS.len() - 1 + MAX_ENTRIES;
/// The fault of a cell that cannot be read as text.
const NOT_UTF8: &str = "must be UTF-8, or UTF-16 with a byte order mark: export the file as \"CSV UTF-8\"";

/// An iterator over the rows of a file that are not blank, each with its location. A row that is broken is a fault, and has no
/// contact.
pub struct Rows<'a> {
    /// The number of rows so far whose cells are all blank, which spreadsheets write below the last contact.
    pub blank: usize,
    /// True if quotation marks of a row are wrong. They tell where a row ends, so that rows may be hidden in one.
    pub is_broken: bool,
    file: &'a CsvFile<'a>,
    lines: Lines<'a>,
    columns: Vec<Column>,
    faults: &'a Faults,
}

impl<'a> Rows<'a> {
    /// Reads the header. If it has faults, the rows mean nothing and are not read.
    pub fn new(file: &'a CsvFile<'a>, faults: &'a Faults) -> Option<Self> {
        let mut lines = Lines::new(&file.text, file.separator, file.skipped_lines);
        let Some(header) = lines.next() else {
            let required: Vec<_> = required_columns().collect();
            let message = format!(
                "must be the names of the columns, {} among them",
                required.join(" and ")
            );
            faults.push(Location::line(file.skipped_lines + 1).fault(message));
            return None;
        };
        Some(Self {
            blank: 0,
            is_broken: false,
            columns: columns(&header, file, faults)?,
            file,
            lines,
            faults,
        })
    }

    fn row(&mut self, line: &Line<'_>) -> (Location, Option<Value>) {
        let cell_lines = match line.lines_of_cells() {
            Ok(cell_lines) => cell_lines,
            Err(QuotationFault {
                cell,
                line: at,
                message,
            }) => {
                self.is_broken = true;
                let column = self.columns.get(cell).map(Column::name);
                self.faults.push(Fault::of_cell(at, column.as_deref(), message));
                return (Location::line(line.number), None);
            }
        };
        let columns = self.columns.iter().map(Column::name);
        let later = columns
            .zip(cell_lines)
            .filter(|(_, cell_line)| *cell_line > line.number);
        let location = Location::Row {
            line: line.number,
            later: later.collect(),
        };
        let contact = self.contact(line, &location);
        (location, contact)
    }

    fn contact(&self, line: &Line<'_>, location: &Location) -> Option<Value> {
        let cells = line.cells.len();
        let has_more = line
            .cells
            .iter()
            .skip(self.columns.len())
            .any(|cell| !is_blank_cell(cell));
        if cells < self.columns.len() || has_more {
            let message = format!(
                "must have {} cells, as the header has, and has {cells}; the file was read as {}",
                self.columns.len(),
                self.file
            );
            self.faults.push(location.fault(message));
            return None;
        }
        let (mut contact, mut is_good) = (Map::new(), true);
        for (column, cell) in self.columns.iter().zip(&line.cells) {
            let fault = match str::from_utf8(cell) {
                Ok(_) if is_blank_cell(cell) => continue,
                Ok(cell) if is_spreadsheet_error(cell) => {
                    "is what a spreadsheet shows in place of a value: correct the cell, and export the file again"
                }
                Ok(cell) => {
                    column.set(&mut contact, unmarked(cell));
                    continue;
                }
                Err(_) => NOT_UTF8,
            };
            self.faults.push(location.field_fault(&column.name(), fault));
            is_good = false;
        }
        is_good.then_some(Value::Object(contact))
    }
}

impl Iterator for Rows<'_> {
    type Item = (Location, Option<Value>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = self.lines.next()?;
            if !line.cells.iter().all(is_blank_cell) {
                return Some(self.row(&line));
            }
            self.blank += 1;
        }
    }
}

/// Returns true if a column may have this name.
pub fn is_column(name: &str) -> bool {
    Column::parse(trimmed(name)).is_ok()
}

/// Returns true for a cell that says nothing. U+0000 is not seen either, but is refused.
pub fn is_blank_cell(cell: &[u8]) -> bool {
    !cell.contains(&0) && str::from_utf8(cell).is_ok_and(is_blank)
}

/// A column, by the part of a contact that its cells hold.
enum Column {
    /// A field.
    Field(&'static Field),
    /// One of the contact's own attributes, by name without the prefix.
    Attribute(String),
}

impl Column {
    /// Returns the column of this name, or the message of the fault. The names of fields may be in any case, and words in them
    /// apart or together: `First Name` is `first_name`.
    fn parse(name: &str) -> Result<Self, &'static str> {
        let folded = |name: &str| name.replace(['_', ' ', '-'], "").to_ascii_lowercase();
        match name.split_at_checked(ATTRIBUTE_PREFIX.len()) {
            Some((prefix, attribute)) if prefix.eq_ignore_ascii_case(ATTRIBUTE_PREFIX) => {
                match is_attribute_name(attribute) {
                    true => Ok(Self::Attribute(attribute.to_owned())),
                    false => Err(ATTRIBUTE_NAME),
                }
            }
            _ => FIELDS
                .iter()
                .find(|field| folded(field.name) == folded(name) && field.kind != FieldKind::Attributes)
                .map(Self::Field)
                .ok_or("is not a known column"),
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
                let tags = tags(cell);
                if tags.is_empty() {
                    return;
                }
                json!(tags)
            }
            // Spreadsheets write them in capitals.
            FieldKind::Flag if cell.eq_ignore_ascii_case("true") => json!(true),
            FieldKind::Flag if cell.eq_ignore_ascii_case("false") => json!(false),
            FieldKind::Hours => match serde_json::from_str::<Number>(trimmed(cell)) {
                Ok(hours) => Value::Number(hours),
                Err(_) => json!(cell),
            },
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

/// Returns the columns, if each has a known name and no name is there twice. Columns without a name at the end of the header
/// are left out: spreadsheets write them.
fn columns(header: &Line<'_>, file: &CsvFile<'_>, faults: &Faults) -> Option<Vec<Column>> {
    let location = Location::line(header.number);
    if let Err(QuotationFault { cell, line, message }) = header.lines_of_cells() {
        let column = (cell + 1).to_string();
        faults.push(Fault::of_cell(line, Some(&column), message));
        return None;
    }
    let last_named = header.cells.iter().rposition(|cell| !is_blank_cell(cell));
    let count = last_named.map_or(0, |last| last + 1);
    if count > MAX_COLUMNS {
        let message = format!("must have at most {MAX_COLUMNS} columns");
        faults.push(location.fault(message));
        return None;
    }
    let (mut names, mut columns, mut is_good) = (Vec::new(), Vec::new(), true);
    let mut fault = |column: &str, message: &str| {
        faults.push(location.field_fault(column, message));
        is_good = false;
    };
    for (n, cell) in header.cells.iter().take(count).enumerate() {
        let number = (n + 1).to_string();
        let Some(name) = str::from_utf8(cell).ok().filter(|name| !name.contains('\0')) else {
            fault(&number, NOT_UTF8);
            continue;
        };
        let name = trimmed(name);
        match Column::parse(name) {
            _ if is_blank(name) => fault(&number, "must have a name"),
            Ok(column) if names.contains(&column.name()) => fault(name, "is there twice"),
            Ok(column) => {
                names.push(column.name());
                columns.push(column);
            }
            Err(message) => fault(name, &format!("{message}; the file was read as {file}")),
        }
    }
    for name in required_columns() {
        if !names.iter().any(|known| known == name) {
            fault(name, "is required");
        }
    }
    is_good.then_some(columns)
}
