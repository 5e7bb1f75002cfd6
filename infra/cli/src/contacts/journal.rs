//! The progress of an import, kept beside the file, by which the same command goes on after an interruption.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use client::contact_file::Position;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::failure::{Exit, Failure};

/// The end of the name of a journal.
const SUFFIX: &str = ".oncecast-import";

/// The progress of an import.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Journal {
    /// The API into which the file is imported.
    api: String,
    file: FileState,
    /// The place up to which all contacts are stored or refused.
    pub position: Position,
    /// Contacts that were stored.
    pub stored: u64,
    /// Contacts that were refused.
    pub refused: u64,
    /// The bytes of the file of refused contacts that belong to this place.
    pub refused_bytes: u64,
}

/// The state of a file, which tells that it is still the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    bytes: u64,
    modified_at: Option<Timestamp>,
    /// The SHA-256 of the beginning.
    beginning: String,
}

impl FileState {
    /// Returns the state of a file with this beginning.
    pub fn new(metadata: &Metadata, beginning: &[u8]) -> Self {
        let modified = metadata.modified().ok();
        let digest = Sha256::digest(beginning);
        Self {
            bytes: metadata.len(),
            modified_at: modified.and_then(|time| Timestamp::try_from(time).ok()),
            beginning: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Journal {
    /// Returns the journal of an import that begins.
    pub fn new(api: &str, file: FileState) -> Self {
        Self {
            api: api.to_owned(),
            file,
            position: Position::default(),
            stored: 0,
            refused: 0,
            refused_bytes: 0,
        }
    }

    /// Reads the journal of an interrupted import of this file into this API.
    ///
    /// # Errors
    ///
    /// Fails if it is that of another API, or if the file has changed.
    pub fn of(path: &Path, api: &str, file: &FileState) -> Result<Option<Self>, Failure> {
        let place = place(path);
        let text = match fs::read(&place) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::of_file(&place, &error)),
        };
        let refused = |what: String| {
            let failure = Failure::new(Exit::Arguments, what);
            failure.and("--restart imports the file from its beginning; contacts that are stored become what it says")
        };
        let Ok(journal) = serde_json::from_slice::<Self>(&text) else {
            return Err(refused(format!("{} is not the journal of an import", place.display())));
        };
        if !journal.file.is_same(file) {
            let name = path.display();
            return Err(refused(format!("{name} has changed since its import was interrupted")));
        }
        if !journal.is_into(api) {
            let what = format!("the interrupted import of {} is into {}", path.display(), journal.api);
            return Err(refused(what).and(format!("--api {} goes on with it", journal.api)));
        }
        Ok(Some(journal))
    }

    fn is_into(&self, api: &str) -> bool {
        self.api == api
    }

    /// Writes the journal. A kill leaves the old one or the new one.
    ///
    /// # Errors
    ///
    /// Fails if the directory takes no file.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        let place = place(path);
        let new = place.with_added_extension("new");
        let written = serde_json::to_vec(self)
            .map_err(io::Error::from)
            .and_then(|text| fs::write(&new, text))
            .and_then(|()| fs::rename(&new, &place));
        written.map_err(|error| {
            Failure::of_file(&place, &error)
                .and("give the file in a directory that you can write to; from stdin (-) an import needs none")
        })
    }

    /// Removes the journal of an import that is done, or that begins anew.
    ///
    /// # Errors
    ///
    /// Fails if it is there and cannot be removed.
    pub fn remove(path: &Path) -> Result<(), Failure> {
        let place = place(path);
        match fs::remove_file(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::of_file(&place, &error)),
            _ => Ok(()),
        }
    }
}

fn place(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}
