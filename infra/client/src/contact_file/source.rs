//! The bytes of a file of contacts as UTF-8, in pieces.

use std::io::{self, Read};

use bytes::BytesMut;
use send::request::BYTE_ORDER_MARK;

/// The bytes that are read at once, and by which the form of a file is told.
const CHUNK: usize = 64 * 1024;

/// A file, or another stream of bytes.
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

/// The form of a file that is none of contacts, as a predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotContacts {
    /// There is nothing in it.
    #[error("is empty")]
    Empty,
    /// It is what spreadsheet programs save by themselves.
    #[error("is a spreadsheet or a zip archive")]
    Archive,
    /// It is compressed by gzip.
    #[error("is compressed")]
    Compressed,
    /// It is no text.
    #[error("is a binary file")]
    Binary,
}

impl Source {
    /// Reads the beginning of a file.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read.
    pub fn new(input: impl Read + Send + 'static) -> io::Result<Self> {
        let mut input: Box<dyn Read + Send> = Box::new(input);
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
        match self.beginning.as_slice() {
            [] => Some(NotContacts::Empty),
            [b'P', b'K', 3, 4, ..] => Some(NotContacts::Archive),
            [0x1F, 0x8B, ..] => Some(NotContacts::Compressed),
            bytes if self.unit.is_none() && bytes.contains(&0) => Some(NotContacts::Binary),
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
