//! The contacts that an import refuses: line, column and message.

use csv::{Terminator, WriterBuilder};
use send::csv_cells::marked;

/// A fault of a contact, by its line in the whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The line, counted from 1; `None` if the fault is not that of a line.
    pub line: Option<u64>,
    /// The column, or the field; empty if it concerns the whole line.
    pub column: String,
    /// The fault as a predicate.
    pub message: String,
}

/// Returns refused contacts as rows of CSV, below a header at the beginning of a file.
///
/// # Errors
///
/// Fails if there is no memory for them.
pub fn refused_csv(refused: &[Refused], is_beginning: bool) -> Result<Vec<u8>, csv::Error> {
    let mut writer = WriterBuilder::new()
        .terminator(Terminator::CRLF)
        .from_writer(Vec::new());
    if is_beginning {
        writer.write_record(["line", "column", "message"])?;
    }
    for Refused { line, column, message } in refused {
        let line = line.map_or_else(String::new, |line| line.to_string());
        writer.write_record([line.as_str(), &marked(column), message])?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}
