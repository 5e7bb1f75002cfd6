//! The data directory (`--data`). One stack at a time uses it, and only a stack that knows its format.
//!
//! | file | |
//! |---|---|
//! | `oncecast.sqlite3`, `-wal`, `-shm` | the database; complete from the moment it has this name |
//! | `format` | the number of the directory's format; created last, so a directory that has it is complete |
//! | `notify-secret` | the secret that signs events, unless another file is named; made with the first `--notify-url` |
//! | `lock` | empty; locked by the running stack, and released by the kernel when its process ends, however it ends |
//! | `*.new` | files of a directory that is being created |

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::clients;
use crate::database::{Database, DatabaseError, Reads};
use crate::resources::{self, Names, ResourcesError};

/// The format that this version reads and writes.
const FORMAT: u32 = 1;

const DATABASE_FILE: &str = "oncecast.sqlite3";
const FORMAT_FILE: &str = "format";
const LOCK_FILE: &str = "lock";
/// The time for which a lock is waited for. A child process that a stack was just starting when it ended has the stack's lock
/// until it becomes another program.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// The unfinished database of a new directory, which a later start may delete and create again.
const NEW_DATABASE: &str = "oncecast.sqlite3.new";
/// The files that SQLite keeps beside the unfinished database while it is open.
const BESIDE_NEW_DATABASE: [&str; 3] = [
    "oncecast.sqlite3.new-wal",
    "oncecast.sqlite3.new-shm",
    "oncecast.sqlite3.new-journal",
];
/// The format file of a new directory, until the directory is complete.
const NEW_FORMAT: &str = "format.new";

/// Failure to use a data directory.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("the data directory cannot be used: {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the data directory {} is in use: another `up` runs on it; stop it, or name another directory",
        path.display()
    )]
    InUse { path: PathBuf },
    #[error(
        "the data directory {} has format {format}, of a later version of Oncecast; this version knows format {FORMAT} only",
        path.display()
    )]
    LaterFormat { path: PathBuf, format: u32 },
    #[error(
        "{} does not say which format the data directory has; restore the file, or name another directory",
        path.display()
    )]
    NoFormat { path: PathBuf },
    #[error(
        "the data directory has lost its database, {}; restore the file, or name another directory to start empty",
        path.display()
    )]
    NoDatabase { path: PathBuf },
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Tables(#[from] ResourcesError),
}

/// A data directory. No other stack can use it while this value exists.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    // The kernel releases the lock when the process ends, so there is nothing to clean up after a crash.
    _lock: File,
}

impl DataDir {
    /// Locks the directory, and creates it if it does not exist. Only its owner has access to a new directory, because
    /// it holds contacts and messages.
    ///
    /// # Errors
    ///
    /// Fails with [`DataDirError::InUse`] if another stack uses the directory, and if it cannot be created or locked.
    pub fn take(path: &Path) -> Result<DataDir, DataDirError> {
        let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
        // The path is made absolute, because SQLite would parse a name that begins with `file:` as a URI.
        let path = created.and_then(|()| path.canonicalize()).map_err(problem_with(path))?;
        let lock_file = path.join(LOCK_FILE);
        let lock = open_private(&lock_file).map_err(problem_with(&lock_file))?;
        let patience_ends = Instant::now() + LOCK_PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(DataDir { path, _lock: lock }),
                Err(TryLockError::WouldBlock) if Instant::now() < patience_ends => thread::sleep(LOCK_PATIENCE / 50),
                Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse { path }),
                Err(TryLockError::Error(source)) => return Err(problem_with(&lock_file)(source)),
            }
        }
    }

    /// Starts the directory's database with all tables, which are empty in a new directory. A database of an earlier
    /// version gets the indexes that it lacks; the earlier version can still use the directory afterwards.
    ///
    /// # Errors
    ///
    /// Fails if the directory has an unknown format, has lost its database or cannot be written, and if the database
    /// does not start.
    pub async fn start_database(&self, names: &Names, reads: Reads) -> Result<Database, DataDirError> {
        self.create_missing_files(names).await?;
        let database = Database::open(&self.path.join(DATABASE_FILE), reads)?;
        let dynamodb = clients::dynamodb(database.endpoint());
        resources::create_missing_indexes(&dynamodb, names).await?;
        Ok(database)
    }

    /// Checks the format, and creates the files that a new directory lacks, also after an interrupted creation. Each
    /// step is recorded by the presence of a file, and a file that has its final name is never created again.
    async fn create_missing_files(&self, names: &Names) -> Result<(), DataDirError> {
        let has_database = self.has(DATABASE_FILE)?;
        if self.has(FORMAT_FILE)? {
            self.check_format(FORMAT_FILE)?;
            return if has_database {
                Ok(())
            } else {
                Err(DataDirError::NoDatabase {
                    path: self.path.join(DATABASE_FILE),
                })
            };
        }
        if has_database {
            self.check_format(NEW_FORMAT)?;
        } else {
            self.write_new_format()?;
            self.create_new_database(names).await?;
            self.rename(NEW_DATABASE, DATABASE_FILE)?;
        }
        self.rename(NEW_FORMAT, FORMAT_FILE)
    }

    fn check_format(&self, file: &str) -> Result<(), DataDirError> {
        let path = self.path.join(file);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::InvalidData].contains(&error.kind()) => {
                String::new()
            }
            Err(source) => return Err(DataDirError::Io { path, source }),
        };
        match text.trim().parse() {
            Ok(FORMAT) => Ok(()),
            Ok(format) if format > FORMAT => Err(DataDirError::LaterFormat {
                path: self.path.clone(),
                format,
            }),
            Ok(_) | Err(_) => Err(DataDirError::NoFormat {
                path: self.path.join(FORMAT_FILE),
            }),
        }
    }

    fn write_new_format(&self) -> Result<(), DataDirError> {
        let path = self.path.join(NEW_FORMAT);
        let write = || {
            remove_if_present(&path)?;
            let mut file = open_private(&path)?;
            writeln!(file, "{FORMAT}")?;
            file.sync_all()
        };
        write().map_err(problem_with(&path))
    }

    /// Creates a database with empty tables under a temporary name. The tables are not created in one transaction, so a
    /// kill between two of them must not leave a database with the final name.
    async fn create_new_database(&self, names: &Names) -> Result<(), DataDirError> {
        let path = self.path.join(NEW_DATABASE);
        for leftover in [NEW_DATABASE].iter().chain(&BESIDE_NEW_DATABASE) {
            let leftover = self.path.join(leftover);
            remove_if_present(&leftover).map_err(problem_with(&leftover))?;
        }
        // SQLite gives the files beside the database the permissions of the database file.
        open_private(&path).map_err(problem_with(&path))?;
        let database = Database::open(&path, Reads::Current)?;
        resources::create_tables(&clients::dynamodb(database.endpoint()), names).await?;
        drop(database);
        // SQLite merges its log when it closes the database; before that the file alone is not the whole database.
        for beside in BESIDE_NEW_DATABASE {
            if self.has(beside)? {
                let source = io::Error::other("the new database was not closed completely; start again");
                return Err(problem_with(&path)(source));
            }
        }
        self.sync()
    }

    fn has(&self, file: &str) -> Result<bool, DataDirError> {
        let path = self.path.join(file);
        path.try_exists().map_err(problem_with(&path))
    }

    /// Renames a file and syncs the directory, so that the new name survives a power cut.
    fn rename(&self, from: &str, to: &str) -> Result<(), DataDirError> {
        let to = self.path.join(to);
        fs::rename(self.path.join(from), &to).map_err(problem_with(&to))?;
        self.sync()
    }

    /// Syncs the directory, and with it the names of its files.
    fn sync(&self) -> Result<(), DataDirError> {
        File::open(&self.path)
            .and_then(|directory| directory.sync_all())
            .map_err(problem_with(&self.path))
    }
}

/// Opens a file for writing, and creates it if it does not exist. Only the owner has access to a new file.
fn open_private(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).mode(0o600).open(path)
}

fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn problem_with(path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    |source| DataDirError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    /// Starts on a directory, checks that it has all tables, and stops.
    async fn start_on(path: &Path) -> Result<(), DataDirError> {
        let names = Names::default();
        let directory = DataDir::take(path)?;
        let database = directory.start_database(&names, Reads::Current).await?;
        let dynamodb = clients::dynamodb(database.endpoint());
        let tables = dynamodb.list_tables().send().await.unwrap().table_names;
        assert_eq!(tables, Some(vec![names.broadcasts, names.contacts, names.deliveries]));
        Ok(())
    }

    /// Returns the names of the indexes of the deliveries table.
    async fn indexes(dynamodb: &aws_sdk_dynamodb::Client, names: &Names) -> Vec<String> {
        let described = dynamodb.describe_table().table_name(&names.deliveries);
        let table = described.send().await.unwrap().table.unwrap();
        let indexes = table.global_secondary_indexes.unwrap_or_default();
        let names = indexes.into_iter().filter_map(|index| index.index_name);
        names.collect()
    }

    #[tokio::test]
    async fn directory_of_an_earlier_version_gets_its_missing_indexes() {
        use aws_sdk_dynamodb::types::{DeleteGlobalSecondaryIndexAction, GlobalSecondaryIndexUpdate};
        let parent = TempDir::new().unwrap();
        let names = Names::default();
        {
            let directory = DataDir::take(parent.path()).unwrap();
            let database = directory.start_database(&names, Reads::Current).await.unwrap();
            let dynamodb = clients::dynamodb(database.endpoint());
            let delete = DeleteGlobalSecondaryIndexAction::builder().index_name("doubt");
            let delete = GlobalSecondaryIndexUpdate::builder().delete(delete.build().unwrap());
            let update = dynamodb.update_table().table_name(&names.deliveries);
            let update = update.global_secondary_index_updates(delete.build());
            update.send().await.unwrap();
            assert!(indexes(&dynamodb, &names).await.is_empty());
        }

        let directory = DataDir::take(parent.path()).unwrap();
        let database = directory.start_database(&names, Reads::Current).await.unwrap();

        let dynamodb = clients::dynamodb(database.endpoint());
        assert_eq!(indexes(&dynamodb, &names).await, ["doubt"]);
    }

    #[tokio::test]
    async fn new_directory_is_private_and_can_be_reopened() {
        let parent = TempDir::new().unwrap();
        let path = parent.path().join("a/b");

        start_on(&path).await.unwrap();
        start_on(&path).await.unwrap();

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        let mut files: Vec<_> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let names = [FORMAT_FILE, LOCK_FILE, DATABASE_FILE];
        assert_eq!(files, names.map(|name| path.join(name)));
        assert!(files.iter().all(|file| mode(file) == 0o600));
    }

    #[tokio::test]
    async fn interrupted_creation_is_resumed() {
        let parent = TempDir::new().unwrap();
        let complete = parent.path().join("complete");
        start_on(&complete).await.unwrap();
        let interrupted = |name: &str, files: &[(&str, &str)]| {
            let path = parent.path().join(name);
            fs::create_dir(&path).unwrap();
            for (file, contents) in files {
                match *contents {
                    "complete" => {
                        fs::copy(complete.join(DATABASE_FILE), path.join(file)).unwrap();
                    }
                    contents => fs::write(path.join(file), contents).unwrap(),
                }
            }
            path
        };
        let cases = [
            interrupted("empty", &[]),
            interrupted("half a format", &[(NEW_FORMAT, "")]),
            interrupted("a format", &[(NEW_FORMAT, "1\n")]),
            interrupted(
                "half a database",
                &[
                    (NEW_FORMAT, "1\n"),
                    (NEW_DATABASE, "SQLite"),
                    (BESIDE_NEW_DATABASE[0], "log"),
                    (BESIDE_NEW_DATABASE[2], "journal"),
                ],
            ),
            interrupted("a database", &[(NEW_FORMAT, "1\n"), (NEW_DATABASE, "complete")]),
            interrupted(
                "all but the last name",
                &[(NEW_FORMAT, "1\n"), (DATABASE_FILE, "complete")],
            ),
        ];
        for path in cases {
            start_on(&path).await.unwrap();
            start_on(&path).await.unwrap();
            assert!(!path.join(NEW_FORMAT).exists(), "{}", path.display());
        }
    }

    #[tokio::test]
    async fn directory_of_unknown_format_is_left_unchanged() {
        let cases = [
            (Some("2\n"), "has format 2"),
            (Some("two"), "does not say which format"),
            (Some("0"), "does not say which format"),
            (Some(""), "does not say which format"),
            (None, "does not say which format"),
            (Some("1\n"), "no database"),
        ];
        for (format, expected) in cases {
            let directory = TempDir::new().unwrap();
            let database = directory.path().join(DATABASE_FILE);
            if expected != "no database" {
                fs::write(&database, "another program's").unwrap();
            }
            if let Some(format) = format {
                fs::write(directory.path().join(FORMAT_FILE), format).unwrap();
            }

            let error = start_on(directory.path()).await.unwrap_err();

            if expected == "no database" {
                assert!(matches!(error, DataDirError::NoDatabase { .. }), "{error}");
                assert!(!database.exists());
            } else {
                assert!(error.to_string().contains(expected), "{format:?}: {error}");
                assert_eq!(fs::read_to_string(&database).unwrap(), "another program's");
            }
        }
    }

    #[test]
    fn directory_in_use_is_refused_until_released() {
        let directory = TempDir::new().unwrap();
        let first = DataDir::take(directory.path()).unwrap();

        let error = DataDir::take(directory.path()).unwrap_err();
        drop(first);

        assert!(matches!(error, DataDirError::InUse { .. }), "{error}");
        DataDir::take(directory.path()).unwrap();
    }
}
