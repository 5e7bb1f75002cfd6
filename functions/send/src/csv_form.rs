//! The form of a CSV file, found in the file itself: encoding and separator.

use std::borrow::Cow;
use std::fmt;

use crate::csv_lines::{Lines, line_ends};
use crate::problem::Problem;
use crate::request::BYTE_ORDER_MARK;

/// The separators that spreadsheets write, by language and format, and their names. The first is taken if the header does not
/// tell.
const SEPARATORS: [(u8, &str); 3] = [(b',', "commas"), (b';', "semicolons"), (b'\t', "tabs")];

/// A CSV file as UTF-8, and the form in which it was read.
pub struct CsvFile<'a> {
    /// The text below the line that names the separator, if there is such a line.
    pub text: Cow<'a, [u8]>,
    /// The character between cells.
    pub separator: u8,
    /// The number of lines before the text.
    pub skipped_lines: usize,
    encoding: &'static str,
}

impl<'a> CsvFile<'a> {
    /// Reads UTF-8, or UTF-16 that begins with a byte order mark. The separator is the one that a first line `sep=;` names,
    /// else the one that separates most names of columns in the header.
    ///
    /// # Errors
    /// If the file is broken UTF-16 (400).
    pub fn read(body: &'a [u8], is_column: impl Fn(&str) -> bool) -> Result<Self, Problem> {
        let (text, encoding) = match body {
            [0xFF, 0xFE, body @ ..] => (utf16(body, u16::from_le_bytes)?, "UTF-16"),
            [0xFE, 0xFF, body @ ..] => (utf16(body, u16::from_be_bytes)?, "UTF-16"),
            body => {
                let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
                (Cow::Borrowed(body), "UTF-8")
            }
        };
        let mut file = Self {
            text,
            separator: b',',
            skipped_lines: 0,
            encoding,
        };
        match file.named_separator() {
            Some((separator, rest)) => {
                file.text = Cow::Owned(rest.to_vec());
                file.separator = separator;
                file.skipped_lines = 1;
            }
            None => file.separator = file.separator_of_header(is_column),
        }
        Ok(file)
    }

    /// Returns the name of the separator in the plural.
    pub fn separators(&self) -> &'static str {
        let named = SEPARATORS.iter().find(|(separator, _)| *separator == self.separator);
        named.map_or("separators", |(_, name)| name)
    }

    /// Returns the separator that the first line names, as Excel reads it, and the text below.
    fn named_separator(&self) -> Option<(u8, &[u8])> {
        let [separator, rest @ ..] = self.text.strip_prefix(b"sep=")? else {
            return None;
        };
        let (separator, _) = SEPARATORS.iter().find(|(known, _)| known == separator)?;
        let line_ends: [&[u8]; 3] = [b"\r\n", b"\n", b"\r"];
        let rest = line_ends.into_iter().find_map(|line_end| rest.strip_prefix(line_end))?;
        Some((*separator, rest))
    }

    fn separator_of_header(&self, is_column: impl Fn(&str) -> bool) -> u8 {
        let mut best = (0, b',');
        for (separator, _) in SEPARATORS {
            let header = Lines::new(&self.text, separator, 0).next();
            let cells = header.iter().flat_map(|header| header.cells.iter());
            let known = cells.filter(|cell| str::from_utf8(cell).is_ok_and(&is_column)).count();
            if known > best.0 {
                best = (known, separator);
            }
        }
        best.1
    }
}

/// Writes the form in words.
impl fmt::Display for CsvFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, cells separated by {}", self.encoding, self.separators())
    }
}

fn utf16(body: &[u8], unit: impl Fn([u8; 2]) -> u16) -> Result<Cow<'_, [u8]>, Problem> {
    let (units, rest) = body.as_chunks::<2>();
    let mut text = String::new();
    let mut decoded = char::decode_utf16(units.iter().map(|bytes| unit(*bytes)));
    while let Some(Ok(character)) = decoded.next() {
        text.push(character);
    }
    let is_whole = text.encode_utf16().count() == units.len() && rest.is_empty();
    let text = text.into_bytes();
    if !is_whole {
        let line = format!("line {}", line_ends(&text) + 1);
        let message = "has broken UTF-16, which the byte order mark of the file announces: save the file as UTF-8";
        return Err(Problem::fault(&line, message));
    }
    Ok(Cow::Owned(text))
}
