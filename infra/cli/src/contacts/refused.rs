//! The file of the contacts that an import refuses: line, column and message, as the API writes it.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use csv::{Terminator, WriterBuilder};
use send::csv_cells::marked;

use super::parts::Refused;
use super::source::STDIN;
use crate::failure::Failure;

/// The file, which is made for the first refused contact.
pub struct RefusedFile {
    /// Its path.
    pub path: PathBuf,
    file: Option<File>,
    /// Its length in bytes.
    pub bytes: u64,
}

impl RefusedFile {
    /// Returns the file of refused contacts beside a file of contacts, with so many bytes of an earlier run.
    ///
    /// # Errors
    ///
    /// Fails if there is one that cannot be written.
    pub fn open(path: PathBuf, bytes: u64) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::of_file(&path, &error);
        let file = match OpenOptions::new().write(true).open(&path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        // Rows that were written for a part that is not in the journal come again.
        let kept = match &file {
            Some(file) => file.metadata().map_err(failed)?.len().min(bytes),
            None => 0,
        };
        if let Some(mut file) = file.as_ref() {
            let truncated = file.set_len(kept).and_then(|()| file.seek(SeekFrom::Start(kept)));
            truncated.map_err(failed)?;
        }
        Ok(Self {
            path,
            file,
            bytes: kept,
        })
    }

    /// Adds rows.
    ///
    /// # Errors
    ///
    /// Fails if they cannot be written.
    pub fn add(&mut self, refused: &[Refused]) -> Result<(), Failure> {
        if refused.is_empty() {
            return Ok(());
        }
        let rows = self.rows(refused).map_err(io::Error::from);
        let written = rows.and_then(|rows| {
            if self.file.is_none() {
                self.file = Some(File::create(&self.path)?);
            }
            let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
            file.write_all(&rows)?;
            self.bytes += rows.len() as u64;
            Ok(())
        });
        written.map_err(|error| Failure::of_file(&self.path, &error))
    }

    /// Removes a file that has no rows, which was there before.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be removed.
    pub fn finish(&mut self) -> Result<(), Failure> {
        match self.file.take() {
            Some(_) if self.bytes == 0 => {
                std::fs::remove_file(&self.path).map_err(|error| Failure::of_file(&self.path, &error))
            }
            _ => Ok(()),
        }
    }

    fn rows(&self, refused: &[Refused]) -> Result<Vec<u8>, csv::Error> {
        let mut writer = WriterBuilder::new()
            .terminator(Terminator::CRLF)
            .from_writer(Vec::new());
        if self.bytes == 0 {
            writer.write_record(["line", "column", "message"])?;
        }
        for Refused { line, column, message } in refused {
            let line = line.map_or_else(String::new, |line| line.to_string());
            writer.write_record([line.as_str(), &marked(column), message])?;
        }
        writer.into_inner().map_err(|error| error.into_error().into())
    }
}

/// Returns the path of the refused contacts of a file.
pub fn beside(path: &Path) -> PathBuf {
    let name = if path == Path::new(STDIN) {
        Path::new("stdin")
    } else {
        path
    };
    let mut name = name.as_os_str().to_owned();
    name.push(".refused.csv");
    name.into()
}
