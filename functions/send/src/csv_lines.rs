//! The lines of a CSV file, with their numbers and the faults of their quotation marks, which the reader of CSV accepts
//! anywhere.

use csv::{ByteRecord, Reader, ReaderBuilder};

/// An iterator over the lines of a file that are not empty.
pub struct Lines<'a> {
    text: &'a [u8],
    reader: Reader<&'a [u8]>,
    separator: u8,
    /// Line ends before the position of the reader.
    ends: usize,
}

/// A header or a row. It begins on the line of this number, and extends over others if line ends are quoted.
pub struct Line<'a> {
    /// The number of the line, counted from 1.
    pub number: usize,
    /// The cells without their quotation marks.
    pub cells: ByteRecord,
    text: &'a [u8],
    separator: u8,
}

impl<'a> Lines<'a> {
    /// Reads a text that has this number of lines above it.
    pub fn new(text: &'a [u8], separator: u8, above: usize) -> Self {
        let mut reader = ReaderBuilder::new();
        reader.has_headers(false).flexible(true).delimiter(separator);
        Self {
            text,
            reader: reader.from_reader(text),
            separator,
            ends: above,
        }
    }

    /// Returns the position of the reader in the text, in bytes.
    fn offset(&self) -> usize {
        usize::try_from(self.reader.position().byte()).unwrap_or(usize::MAX)
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    /// Reads a line and counts its number. The reader's own count is not used: it is that of the end of the last line, or
    /// of an empty line before this one.
    fn next(&mut self) -> Option<Line<'a>> {
        let mut cells = ByteRecord::new();
        let begin = self.offset();
        if !self.reader.read_byte_record(&mut cells).ok()? {
            return None;
        }
        let read = self.text.get(begin..self.offset())?;
        let empty = read.iter().take_while(|byte| b"\r\n".contains(byte));
        let (empty, text) = read.split_at(empty.count());
        // The reader may have stopped between CR and LF.
        let is_counted =
            empty.first() == Some(&b'\n') && self.text.get(..begin).is_some_and(|text| text.ends_with(b"\r"));
        self.ends += line_ends(empty) - usize::from(is_counted);
        let number = self.ends + 1;
        self.ends += line_ends(text);
        Some(Line {
            number,
            cells,
            text,
            separator: self.separator,
        })
    }
}

/// Returns the number of line ends: CR LF, LF or CR.
pub fn line_ends(text: &[u8]) -> usize {
    let ends = text.iter().enumerate();
    ends.filter(|(n, _)| ends_line(text, *n)).count()
}

/// Returns true if the last byte of a line end has this index.
fn ends_line(text: &[u8], index: usize) -> bool {
    match text.get(index) {
        Some(b'\n') => true,
        Some(b'\r') => text.get(index + 1) != Some(&b'\n'),
        _ => false,
    }
}

/// A cell, by index, whose quotation marks are wrong.
pub struct QuotationFault {
    /// The index of the cell.
    pub cell: usize,
    /// The number of the line on which the cell begins.
    pub line: usize,
    /// The fault as a predicate.
    pub message: &'static str,
}

impl Line<'_> {
    /// Returns the number of the line on which each cell begins.
    ///
    /// # Errors
    /// The first cell whose quotation marks are wrong. The reader accepts them in any place, and a mark that is never closed
    /// would hide all contacts below it in one cell.
    pub fn lines_of_cells(&self) -> Result<Vec<usize>, QuotationFault> {
        enum At {
            Begin,
            Plain,
            Quoted,
            /// After a mark that ends the quotation, unless another follows.
            Mark,
        }
        let fault = |lines: &[usize], message| QuotationFault {
            cell: lines.len() - 1,
            line: lines.last().copied().unwrap_or(self.number),
            message,
        };
        let (mut at, mut line, mut lines) = (At::Begin, self.number, vec![self.number]);
        for (index, &byte) in self.text.iter().enumerate() {
            line += usize::from(ends_line(self.text, index));
            at = match (at, byte) {
                (At::Quoted, b'"') => At::Mark,
                (At::Begin | At::Mark, b'"') | (At::Quoted, _) => At::Quoted,
                (_, byte) if byte == self.separator => {
                    lines.push(line);
                    At::Begin
                }
                (at, b'\r' | b'\n') => at,
                (At::Begin | At::Plain, byte) if byte != b'"' => At::Plain,
                (At::Begin | At::Plain | At::Mark, _) => {
                    let message = "must be in quotation marks from end to end, with those inside doubled, or have none";
                    return Err(fault(&lines, message));
                }
            };
        }
        match at {
            At::Quoted => Err(fault(&lines, "has a quotation that is never closed")),
            At::Begin | At::Plain | At::Mark => Ok(lines),
        }
    }
}
