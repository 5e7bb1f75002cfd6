//! The state of the disk below the database, as its last writes found it.

use std::sync::{Arc, Mutex, PoisonError};

use dynoxide::DynoxideError;

/// The failure of a sync.
pub const NOT_SYNCED: &str = "the write-ahead log was not synced";

/// The failures of the storage that an operator can end, by the words of SQLite, each with its remedy:
/// <https://www.sqlite.org/rescode.html>.
const FAULTS: [StorageFault; 4] = [
    // First, since its text has the system's words, too.
    StorageFault {
        cause: NOT_SYNCED,
        remedy: "check the disk, then start again; until then nothing is read or written",
    },
    StorageFault {
        cause: "database or disk is full",
        remedy: "free space on its disk, or enlarge it",
    },
    StorageFault {
        cause: "disk I/O error",
        remedy: "check the disk, its quota and the limits for the size of files",
    },
    StorageFault {
        cause: "attempt to write a readonly database",
        remedy: "make the disk and the files of the data directory writable",
    },
];

/// A failure of the storage, with the operator's remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageFault {
    /// The failure, mostly in the words of SQLite.
    pub cause: &'static str,
    /// The step that ends it.
    pub remedy: &'static str,
}

/// The state of the storage. A clone is a handle of the same state.
#[derive(Debug, Clone, Default)]
pub struct Storage(Arc<Mutex<Option<StorageFault>>>);

impl Storage {
    /// Returns the failure of the last write, or `None` if writes succeed.
    pub fn fault(&self) -> Option<StorageFault> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the failure of an operation. A failure of the storage is logged once, until a write succeeds.
    pub fn failed(&self, error: &DynoxideError) {
        if error.status_code() != 500 {
            return;
        }
        let text = error.to_string();
        let Some(fault) = FAULTS.into_iter().find(|fault| text.contains(fault.cause)) else {
            return;
        };
        if self.set(Some(fault)) != Some(fault) {
            let StorageFault { cause, remedy } = fault;
            tracing::error!(
                error = cause,
                "the database cannot write, and requests are answered with 503: {remedy}; jobs continue by themselves"
            );
        }
    }

    /// Notes a successful write.
    pub fn written(&self) {
        if self.set(None).is_some() {
            tracing::info!("the database can write again");
        }
    }

    /// Sets the state and returns the one before.
    fn set(&self, fault: Option<StorageFault>) -> Option<StorageFault> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *state, fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_of_the_storage_lasts_until_a_write() {
        let storage = Storage::default();
        let full = DynoxideError::InternalServerError("backend: database or disk is full".to_owned());
        let conflict = DynoxideError::InternalServerError("UNIQUE constraint failed".to_owned());
        let refused = DynoxideError::ValidationException("the text \"disk I/O error\" is too long".to_owned());

        storage.failed(&conflict);
        storage.failed(&refused);
        assert_eq!(storage.fault(), None);
        storage.failed(&full);
        storage.failed(&conflict);
        assert_eq!(
            storage.fault().map(|fault| fault.cause),
            Some("database or disk is full")
        );
        storage.written();
        assert_eq!(storage.fault(), None);
    }
}
