//! An export of contacts as one CSV file.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};

use csv::{ReaderBuilder, Terminator, WriterBuilder};
use shared::domain::contact::ATTRIBUTE_PREFIX;

/// The parts of an export, which become one file. Each part has columns for the attributes of its own contacts, so that the columns of
/// the whole are known at the end only: the parts wait in a temporary file.
#[derive(Debug)]
pub struct CsvExport {
    spool: File,
    parts: Vec<Part>,
    /// The columns of the whole, in the order in which they came.
    names: Vec<String>,
    /// The contacts so far.
    pub contacts: u64,
}

/// A part as it came, by the numbers of its columns in the whole file.
#[derive(Debug)]
struct Part {
    bytes: u64,
    columns: Vec<usize>,
}

impl CsvExport {
    /// Begins an export.
    ///
    /// # Errors
    ///
    /// Fails if there is no temporary file.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            spool: tempfile::tempfile()?,
            parts: Vec::new(),
            names: Vec::new(),
            contacts: 0,
        })
    }

    /// Adds a part with its header.
    ///
    /// # Errors
    ///
    /// Fails if there is no room for it, or it is no CSV.
    pub fn add(&mut self, csv: &[u8]) -> io::Result<()> {
        self.spool.write_all(csv)?;
        let mut rows = reader(csv);
        let header = rows.headers()?.clone();
        let columns = header.iter().map(|name| self.column(name)).collect();
        self.contacts += rows.into_records().count() as u64;
        let bytes = csv.len() as u64;
        self.parts.push(Part { bytes, columns });
        Ok(())
    }

    /// Returns the number of a column, which gets one if it is new.
    fn column(&mut self, name: &str) -> usize {
        let known = self.names.iter().position(|known| known == name);
        known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        })
    }

    /// Writes the whole, a part at a time.
    ///
    /// # Errors
    ///
    /// Fails if the temporary file or `write` does.
    pub fn write<E: From<io::Error>>(mut self, mut write: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        self.spool.rewind()?;
        let order = order(&self.names);
        let header = order.iter().filter_map(|column| self.names.get(*column));
        write(&written([header])?)?;
        for Part { bytes, columns } in &self.parts {
            let mut part = Vec::new();
            Read::by_ref(&mut self.spool).take(*bytes).read_to_end(&mut part)?;
            // The cell of each column of the whole file in the rows of the part.
            let cells: HashMap<_, _> = columns.iter().enumerate().map(|(n, column)| (*column, n)).collect();
            let rows: Result<Vec<_>, _> = reader(&part).into_records().collect();
            let rows = rows.map_err(io::Error::from)?;
            let rows = rows.iter().map(|row| {
                let cell = |column| cells.get(column).and_then(|n| row.get(*n)).unwrap_or_default();
                order.iter().map(cell)
            });
            write(&written(rows)?)?;
        }
        Ok(())
    }
}

fn reader(csv: &[u8]) -> csv::Reader<&[u8]> {
    ReaderBuilder::new().from_reader(csv)
}

/// Returns the columns in the order of the file: the fields, and then the attributes by name.
fn order(names: &[String]) -> Vec<usize> {
    let is_attribute = |n: &usize| names.get(*n).is_some_and(|name| name.starts_with(ATTRIBUTE_PREFIX));
    let (attributes, fields): (Vec<_>, Vec<_>) = (0..names.len()).partition(is_attribute);
    let attributes: BTreeSet<_> = attributes.into_iter().map(|n| (names.get(n), n)).collect();
    fields
        .into_iter()
        .chain(attributes.into_iter().map(|(_, n)| n))
        .collect()
}

fn written<R: IntoIterator<Item: AsRef<[u8]>>>(rows: impl IntoIterator<Item = R>) -> io::Result<Vec<u8>> {
    let mut writer = WriterBuilder::new()
        .terminator(Terminator::CRLF)
        .from_writer(Vec::new());
    for row in rows {
        writer.write_record(row)?;
    }
    writer.into_inner().map_err(|error| error.into_error())
}
