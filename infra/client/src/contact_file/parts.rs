//! The parts of a file of contacts, each a request of its own: of CSV with the header of the file, of NDJSON as a list.

use std::io;

use bytes::BytesMut;
use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use send::api::problems::Fault;
use send::csv::{is_blank_cell, is_column};
use send::csv_form::CsvFile;
use send::csv_lines::line_ends;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::refused::Refused;
use super::source::{Source, unmarked};

/// The most contacts of a part. It is the API's own limit.
const MAX_CONTACTS: u64 = 1_000;
/// The most bytes of a part. The API takes 4 MB; Lambda takes 6 MB, of a document in which each quotation mark is two bytes.
const MAX_BYTES: usize = 2_000_000;
/// The bytes of the cells of a row by which is told that it is not blank.
const SEEN: usize = 4_096;
/// The cells of a row that its reader finds at once.
const CELLS: usize = 256;
/// The beginning of the pointer to a contact in a body of JSON.
const POINTER: &str = "/contacts/";

/// A place in a file: the bytes of its text, and the line ends, before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Bytes of UTF-8.
    pub bytes: u64,
    /// Line ends.
    pub lines: u64,
}

/// A part of a file.
#[derive(Debug)]
pub struct Part {
    /// The body of the request: CSV with a header, or JSON.
    pub body: Vec<u8>,
    /// The contacts in the body. Without any the part has blank lines only.
    pub contacts: u64,
    /// The lines that are no JSON, and are left out of the body.
    pub refused: Vec<Refused>,
    /// The place in the file where the part begins.
    pub begin: Position,
    /// The place in the file where the part ends.
    pub end: Position,
    /// The bytes of the file that were read by then.
    pub read: u64,
    places: Places,
}

/// The lines of the file that are those of a part.
#[derive(Debug)]
enum Places {
    /// Rows below a header of so many lines.
    Rows { header: u64 },
    /// The line of each contact in a list.
    List(Vec<u64>),
}

impl Part {
    /// Returns true if the body is CSV.
    pub fn is_csv(&self) -> bool {
        matches!(self.places, Places::Rows { .. })
    }

    /// Returns a fault that the API found in the body, by its line in the file.
    pub fn located(&self, fault: &Fault) -> Refused {
        let message = match fault.message.rsplit_once(", at ") {
            // The other contact with the same id.
            Some((words, place)) => match self.line_of_words(place) {
                Some(line) => format!("{words}, at line {line}"),
                None => fault.message.clone(),
            },
            None => fault.message.clone(),
        };
        let (line, column) = match fault.field.strip_prefix(POINTER) {
            Some(pointer) => {
                let (contact, field) = pointer.split_once('/').unwrap_or((pointer, ""));
                let field = field.replace('/', ".").replace("~1", "/").replace("~0", "~");
                (contact.parse().ok().and_then(|n| self.line(n)), field)
            }
            None => (
                fault.line.and_then(|n| self.line(n)),
                fault.column.clone().unwrap_or_default(),
            ),
        };
        let column = match line {
            None if column.is_empty() => fault.field.clone(),
            _ => column,
        };
        Refused { line, column, message }
    }

    fn line_of_words(&self, words: &str) -> Option<u64> {
        let number = words.strip_prefix("line ").or_else(|| words.strip_prefix(POINTER))?;
        self.line(number.parse().ok()?)
    }

    /// Returns the line in the file of a line of the body, or of a contact of a list.
    fn line(&self, n: u64) -> Option<u64> {
        match &self.places {
            Places::Rows { header } if n <= *header => Some(n),
            Places::Rows { header } => Some(n - header + self.begin.lines),
            Places::List(lines) => lines.get(usize::try_from(n).ok()?).copied(),
        }
    }
}

/// A failure to cut a file.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A row or a line is too long for a request.
    #[error("line {line} has more than {MAX_BYTES} bytes")]
    TooLong {
        /// The line on which it begins.
        line: u64,
    },
    /// The file is a list of JSON.
    #[error("is a list of JSON, which can only be read as a whole")]
    List,
    /// The file ends before the place up to which its contacts are stored.
    #[error("has become shorter")]
    Shorter,
}

/// The parts of a file, one after the other.
pub struct Parts {
    text: Text,
    form: Form,
    position: Position,
}

enum Form {
    Csv {
        reader: Box<Reader>,
        /// Everything up to the end of the header.
        header: Vec<u8>,
    },
    Ndjson,
}

/// The text of a file from the present position on.
struct Text {
    source: Source,
    bytes: BytesMut,
    is_end: bool,
    /// The next row or line, if it is known: its bytes, and true if it is blank.
    next: Option<(usize, bool)>,
}

impl Parts {
    /// Reads the header of a file of CSV. A file that begins with an object is one of NDJSON.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or is neither.
    pub fn new(source: Source) -> Result<Self, CutError> {
        let mut text = Text {
            source,
            bytes: BytesMut::new(),
            is_end: false,
            next: None,
        };
        text.read_more()?;
        let mark = text.bytes.len() - unmarked(&text.bytes).len();
        let first = unmarked(&text.bytes).iter().find(|byte| !byte.is_ascii_whitespace());
        match first {
            Some(b'[') => return Err(CutError::List),
            Some(b'{') => {
                let _ = text.take(mark);
                let bytes = mark as u64;
                return Ok(Self {
                    text,
                    form: Form::Ndjson,
                    position: Position { bytes, lines: 0 },
                });
            }
            _ => {}
        }
        // A header without an end, as of a file of one long line, is read as far as a row may go.
        while text.bytes.len() < MAX_BYTES && !text.bytes.contains(&b'\n') && text.read_more()? {}
        let (separator, above) = {
            // The text is UTF-8 by now, which is never refused.
            let file = CsvFile::read(&text.bytes, is_column).map_err(|_| io::Error::other("broken text"))?;
            (file.separator, text.bytes.len() - mark - file.text.len())
        };
        let mut reader = Box::new(ReaderBuilder::new().delimiter(separator).build());
        let mut header = text.take(mark + above).to_vec();
        if let Some((length, _)) = text.row(&mut reader, 0)? {
            header.extend(text.take(length));
        }
        let position = Position {
            bytes: header.len() as u64,
            lines: line_ends(&header) as u64,
        };
        let form = Form::Csv { reader, header };
        Ok(Self { text, form, position })
    }

    /// Goes on at a place at which an earlier part ended.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or ends before.
    pub fn skip_to(&mut self, position: Position) -> Result<(), CutError> {
        let mut left = position.bytes.saturating_sub(self.position.bytes);
        if left == 0 {
            return Ok(());
        }
        while left > 0 {
            if self.text.bytes.is_empty() && !self.text.read_more()? {
                return Err(CutError::Shorter);
            }
            let here = usize::try_from(left).map_or(self.text.bytes.len(), |left| left.min(self.text.bytes.len()));
            let _ = self.text.take(here);
            left -= here as u64;
        }
        self.position = position;
        Ok(())
    }

    /// Returns the next part; `None` at the end of the file.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or a row is too long for a request.
    pub fn next_part(&mut self) -> Result<Option<Part>, CutError> {
        let begin = self.position;
        let (mut body, header) = match &self.form {
            Form::Csv { header, .. } => (header.clone(), Some(line_ends(header) as u64)),
            Form::Ndjson => (Vec::new(), None),
        };
        let (empty, mut contacts, mut lines, mut refused) = (body.len(), 0, Vec::new(), Vec::new());
        while contacts + (refused.len() as u64) < MAX_CONTACTS {
            let line = self.position.lines;
            let next = match &mut self.form {
                Form::Csv { reader, .. } => self.text.row(reader, line)?,
                Form::Ndjson => self.text.line(line)?,
            };
            let Some((length, is_blank)) = next else { break };
            if body.len() > empty && body.len() + length > MAX_BYTES {
                break;
            }
            let row = self.text.take(length);
            self.position.bytes += length as u64;
            self.position.lines += line_ends(&row) as u64;
            if header.is_some() {
                body.extend(row);
            } else if !is_blank {
                match check_json(row.trim_ascii()) {
                    Ok(()) => {
                        body.extend(if lines.is_empty() { "{\"contacts\":[" } else { "," }.bytes());
                        body.extend(row.trim_ascii());
                        lines.push(line + 1);
                    }
                    Err(message) => {
                        let (line, column) = (Some(line + 1), String::new());
                        refused.push(Refused { line, column, message });
                        continue;
                    }
                }
            }
            contacts += u64::from(!is_blank);
        }
        if !lines.is_empty() {
            body.extend(b"]}");
        }
        let part = Part {
            body,
            contacts,
            refused,
            begin,
            end: self.position,
            read: self.text.source.read,
            places: match header {
                Some(header) => Places::Rows { header },
                None => Places::List(lines),
            },
        };
        Ok((part.end != part.begin).then_some(part))
    }
}

/// Checks a line as the API would: a line that is no JSON would put the others in question.
fn check_json(line: &[u8]) -> Result<(), String> {
    let text = str::from_utf8(line).map_err(|_| "must be UTF-8".to_owned())?;
    serde_json::from_str::<Value>(text).map(|_| ()).map_err(|error| {
        let column = error.column();
        format!("must be JSON; the first error is at character {column}")
    })
}

impl Text {
    fn read_more(&mut self) -> io::Result<bool> {
        self.is_end = self.is_end || !self.source.read_into(&mut self.bytes)?;
        Ok(!self.is_end)
    }

    fn take(&mut self, length: usize) -> BytesMut {
        self.next = None;
        self.bytes.split_to(length)
    }

    /// Returns the length of the next row, and true if it is blank. It is found by the reader of CSV that the API has, too, so
    /// that both see the same rows.
    fn row(&mut self, reader: &mut Reader, line: u64) -> Result<Option<(usize, bool)>, CutError> {
        if self.next.is_some() {
            return Ok(self.next);
        }
        let (mut length, mut seen) = (0, Vec::new());
        let (mut cells, mut ends) = ([0; SEEN], [0; CELLS]);
        loop {
            let input = self.bytes.get(length..).unwrap_or_default();
            if input.is_empty() && !self.is_end {
                self.read_more()?;
                continue;
            }
            let (result, read, written, _) = reader.read_record(input, &mut cells, &mut ends);
            length += read;
            if seen.len() < SEEN {
                seen.extend_from_slice(cells.get(..written).unwrap_or_default());
            }
            if length > MAX_BYTES {
                let line = line + 1;
                return Err(CutError::TooLong { line });
            }
            match result {
                ReadRecordResult::Record => break,
                ReadRecordResult::End if length == 0 => return Ok(None),
                ReadRecordResult::End => break,
                ReadRecordResult::InputEmpty | ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {}
            }
        }
        // The reader stops between CR and LF, which are one line end.
        if self.bytes.get(length - 1) == Some(&b'\r') {
            if length == self.bytes.len() && !self.is_end {
                self.read_more()?;
            }
            length += usize::from(self.bytes.get(length) == Some(&b'\n'));
        }
        self.next = Some((length, seen.len() < SEEN && is_blank_cell(&seen)));
        Ok(self.next)
    }

    /// Returns the length of the next line with its end, and true if it is blank.
    fn line(&mut self, line: u64) -> Result<Option<(usize, bool)>, CutError> {
        if self.next.is_some() {
            return Ok(self.next);
        }
        let mut searched = 0;
        let length = loop {
            let rest = self.bytes.get(searched..).unwrap_or_default();
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                break searched + end + 1;
            }
            searched = self.bytes.len();
            if searched > MAX_BYTES {
                let line = line + 1;
                return Err(CutError::TooLong { line });
            }
            if !self.read_more()? {
                break self.bytes.len();
            }
        };
        if length == 0 {
            return Ok(None);
        }
        let row = self.bytes.get(..length).unwrap_or_default();
        self.next = Some((length, row.trim_ascii().is_empty()));
        Ok(self.next)
    }
}
