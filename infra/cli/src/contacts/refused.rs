//! The file of the contacts that an import refuses: line, column and message, as the API writes it.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use client::contact_file::{Refused, refused_csv};

use crate::failure::Failure;

/// The name by which a command reads stdin.
pub const STDIN: &str = "-";

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
        let rows = refused_csv(refused, self.bytes == 0).map_err(io::Error::from);
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
