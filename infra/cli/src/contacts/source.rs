//! The bytes of a file of contacts as UTF-8, in pieces.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::BytesMut;
use send::request::BYTE_ORDER_MARK;

/// The bytes that are read at once, and by which the form of a file is told.
const CHUNK: usize = 64 * 1024;

/// The name by which a command reads stdin.
pub const STDIN: &str = "-";

/// A file, or stdin.
pub struct Source {
    input: Box<dyn Read + Send>,
    /// The bytes at the beginning as they are in the file.
    pub beginning: Vec<u8>,
    /// The number of bytes that were read from the file.
    pub read: u64,
    /// The reader of a unit of two bytes, where the file is UTF-16.
    unit: Option<fn([u8; 2]) -> u16>,
    /// Bytes that were read and are no whole character yet.
    rest: Vec<u8>,
    is_begun: bool,
}

/// The reason why a file is none of contacts, and what to do.
pub struct NotContacts {
    /// The form of the file as a predicate.
    pub what: &'static str,
    /// The step that helps.
    pub remedy: &'static str,
}

impl Source {
    /// Opens a file and reads its beginning.
    ///
    /// # Errors
    ///
    /// Fails if there is no such file, or it is a directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut input: Box<dyn Read + Send> = match path == Path::new(STDIN) {
            true => Box::new(io::stdin()),
            false => Box::new(File::open(path)?),
        };
        let mut beginning = Vec::new();
        input.by_ref().take(CHUNK as u64).read_to_end(&mut beginning)?;
        let unit: Option<fn([u8; 2]) -> u16> = match beginning.as_slice() {
            [0xFF, 0xFE, ..] => Some(u16::from_le_bytes),
            [0xFE, 0xFF, ..] => Some(u16::from_be_bytes),
            _ => None,
        };
        Ok(Self {
            input,
            read: beginning.len() as u64,
            beginning,
            unit,
            rest: Vec::new(),
            is_begun: false,
        })
    }

    /// Returns the form of a file that cannot be one of contacts.
    pub fn not_contacts(&self) -> Option<NotContacts> {
        let form = |what, remedy| Some(NotContacts { what, remedy });
        match self.beginning.as_slice() {
            [] => form("is empty", "export the contacts again"),
            [b'P', b'K', 3, 4, ..] => form("is a spreadsheet or a zip archive", "save it as CSV UTF-8"),
            [0x1F, 0x8B, ..] => form(
                "is compressed",
                "unpack it on the way: gunzip -c FILE | oncecast contacts import -",
            ),
            bytes if self.unit.is_none() && bytes.contains(&0) => form(
                "is a binary file",
                "give a file of CSV, or of JSON with a contact in each line",
            ),
            _ => None,
        }
    }

    /// Adds the next bytes as UTF-8. Returns false at the end of the file.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or is broken UTF-16.
    pub fn read_into(&mut self, text: &mut BytesMut) -> io::Result<bool> {
        let mut chunk = Vec::new();
        if self.is_begun {
            let input = self.input.by_ref();
            self.read += input.take(CHUNK as u64).read_to_end(&mut chunk)? as u64;
        } else {
            self.is_begun = true;
            // The mark of UTF-8 stays: the API reads it, too.
            let mark = self.unit.map_or(0, |_| 2);
            chunk.extend_from_slice(self.beginning.get(mark..).unwrap_or_default());
        }
        let is_end = chunk.is_empty();
        match self.unit {
            None => text.extend_from_slice(&chunk),
            Some(unit) => self.decode(&chunk, is_end, unit, text)?,
        }
        Ok(!is_end)
    }

    fn decode(&mut self, chunk: &[u8], is_end: bool, unit: fn([u8; 2]) -> u16, text: &mut BytesMut) -> io::Result<()> {
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "broken UTF-16: save the file as UTF-8");
        self.rest.extend_from_slice(chunk);
        let (units, _) = self.rest.as_chunks::<2>();
        let mut units: Vec<u16> = units.iter().map(|bytes| unit(*bytes)).collect();
        // The first half of a character outside the basic plane waits for the second.
        if !is_end && units.last().is_some_and(|last| (0xD800..0xDC00).contains(last)) {
            units.pop();
        }
        let characters: Result<String, _> = char::decode_utf16(units.iter().copied()).collect();
        text.extend_from_slice(characters.map_err(|_| broken())?.as_bytes());
        self.rest.drain(..units.len() * 2);
        match is_end && !self.rest.is_empty() {
            true => Err(broken()),
            false => Ok(()),
        }
    }
}

/// Returns the text without a byte order mark.
pub fn unmarked(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}
