//! The directory of `--data`: one stack at a time uses it, and only a stack that knows its format.
//!
//! | file | |
//! |---|---|
//! | `oncecast.sqlite3`, `-wal`, `-shm` | the database; complete from the moment it bears this name |
//! | `format` | a number: how the rest is to be read; the last thing that is made, so the directory is complete with it |
//! | `lock` | empty; locked by the stack that runs, and free as soon as its process is gone, however it went |
//! | `*.new` | a directory in the making |

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::clients;
use crate::database::{self, Database};
use crate::resources::{self, Names};

/// What this version reads and writes.
const FORMAT: u32 = 1;

const DATABASE_FILE: &str = "oncecast.sqlite3";
const FORMAT_FILE: &str = "format";
const LOCK_FILE: &str = "lock";

/// What is in the making and can be made again.
const NEW_DATABASE: &str = "oncecast.sqlite3.new";
/// What SQLite keeps beside it while it is open.
const BESIDE_NEW_DATABASE: [&str; 3] = [
    "oncecast.sqlite3.new-wal",
    "oncecast.sqlite3.new-shm",
    "oncecast.sqlite3.new-journal",
];
const NEW_FORMAT: &str = "format.new";

/// Why a data directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the data directory cannot be used: {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the data directory {} is in use: another `up` runs on it", path.display())]
    InUse { path: PathBuf },
    #[error(
        "the data directory {} has format {format}, of a later version of Oncecast; this one knows format {FORMAT}",
        path.display()
    )]
    LaterFormat { path: PathBuf, format: u32 },
    #[error("{} does not say which format the data directory has", path.display())]
    NoFormat { path: PathBuf },
    #[error(
        "the data directory has lost its database, {}; put it back, or name another directory to begin anew",
        path.display()
    )]
    NoDatabase { path: PathBuf },
    #[error(transparent)]
    Database(#[from] database::Error),
    #[error(transparent)]
    Tables(#[from] resources::Error),
}

/// A data directory that no other stack uses as long as this value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    // The lock is the kernel's, and ends with the process: nothing to clean up after a death.
    _lock: File,
}

impl DataDir {
    /// Takes the directory, and makes it if there is none: for its owner alone, since it holds contacts and messages.
    pub fn take(path: &Path) -> Result<DataDir, Error> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        // In full, lest SQLite take a name for one of its own URIs.
        let path = made
            .and_then(|()| path.canonicalize())
            .map_err(problem_with(path))?;
        let lock_file = path.join(LOCK_FILE);
        let lock = open_private(&lock_file).map_err(problem_with(&lock_file))?;
        match lock.try_lock() {
            Ok(()) => Ok(DataDir { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::InUse { path }),
            Err(TryLockError::Error(source)) => Err(problem_with(&lock_file)(source)),
        }
    }

    /// Starts its database, with all tables; an empty one in a new directory. One of an earlier version gets the indexes
    /// that it lacks, which that version may go on without.
    pub async fn start_database(&self, names: &Names) -> Result<Database, Error> {
        self.make_complete(names).await?;
        let database = Database::open(&self.path.join(DATABASE_FILE))?;
        let dynamodb = clients::dynamodb(database.endpoint());
        resources::create_missing_indexes(&dynamodb, names).await?;
        Ok(database)
    }

    /// Checks the format; makes what a new directory lacks, also if it was cut off in being made. Each step is known
    /// by a file that is there or is not, and nothing that bears its final name is ever made again.
    async fn make_complete(&self, names: &Names) -> Result<(), Error> {
        let has_database = self.has(DATABASE_FILE)?;
        if self.has(FORMAT_FILE)? {
            self.check_format(FORMAT_FILE)?;
            return if has_database {
                Ok(())
            } else {
                Err(Error::NoDatabase {
                    path: self.path.join(DATABASE_FILE),
                })
            };
        }
        if has_database {
            self.check_format(NEW_FORMAT)?;
        } else {
            self.write_new_format()?;
            self.make_new_database(names).await?;
            self.rename(NEW_DATABASE, DATABASE_FILE)?;
        }
        self.rename(NEW_FORMAT, FORMAT_FILE)
    }

    fn check_format(&self, file: &str) -> Result<(), Error> {
        let path = self.path.join(file);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error)
                if [io::ErrorKind::NotFound, io::ErrorKind::InvalidData]
                    .contains(&error.kind()) =>
            {
                String::new()
            }
            Err(source) => return Err(Error::Io { path, source }),
        };
        match text.trim().parse() {
            Ok(FORMAT) => Ok(()),
            Ok(format) if format > FORMAT => Err(Error::LaterFormat {
                path: self.path.clone(),
                format,
            }),
            Ok(_) | Err(_) => Err(Error::NoFormat {
                path: self.path.join(FORMAT_FILE),
            }),
        }
    }

    fn write_new_format(&self) -> Result<(), Error> {
        let path = self.path.join(NEW_FORMAT);
        let write = || {
            remove_if_present(&path)?;
            let mut file = open_private(&path)?;
            writeln!(file, "{FORMAT}")?;
            file.sync_all()
        };
        write().map_err(problem_with(&path))
    }

    /// The tables are not made in one transaction, so a kill between them must not leave a database that is used.
    async fn make_new_database(&self, names: &Names) -> Result<(), Error> {
        let path = self.path.join(NEW_DATABASE);
        for leftover in [NEW_DATABASE].iter().chain(&BESIDE_NEW_DATABASE) {
            let leftover = self.path.join(leftover);
            remove_if_present(&leftover).map_err(problem_with(&leftover))?;
        }
        // SQLite gives its further files the permissions of this one.
        open_private(&path).map_err(problem_with(&path))?;
        let database = Database::open(&path)?;
        resources::create_tables(&clients::dynamodb(database.endpoint()), names).await?;
        drop(database);
        // SQLite merges its log when it closes; before that the file alone is not the database.
        for beside in BESIDE_NEW_DATABASE {
            if self.has(beside)? {
                let source = io::Error::other("the new database was not closed");
                return Err(problem_with(&path)(source));
            }
        }
        self.sync()
    }

    fn has(&self, file: &str) -> Result<bool, Error> {
        let path = self.path.join(file);
        path.try_exists().map_err(problem_with(&path))
    }

    /// Gives a file its final name, for good.
    fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let to = self.path.join(to);
        fs::rename(self.path.join(from), &to).map_err(problem_with(&to))?;
        self.sync()
    }

    /// Has the disk know the names of the files, too.
    fn sync(&self) -> Result<(), Error> {
        File::open(&self.path)
            .and_then(|directory| directory.sync_all())
            .map_err(problem_with(&self.path))
    }
}

/// Opens a file to write, and makes it if there is none: for its owner alone.
fn open_private(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn problem_with(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    |source| Error::Io { path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    /// Starts on a directory, looks whether every table is there, and stops.
    async fn start_on(path: &Path) -> Result<(), Error> {
        let names = Names::default();
        let directory = DataDir::take(path)?;
        let database = directory.start_database(&names).await?;
        let dynamodb = clients::dynamodb(database.endpoint());
        let tables = dynamodb.list_tables().send().await.unwrap().table_names;
        assert_eq!(
            tables,
            Some(vec![names.broadcasts, names.contacts, names.deliveries])
        );
        Ok(())
    }

    /// Names of the indexes of the deliveries.
    async fn indexes(dynamodb: &aws_sdk_dynamodb::Client, names: &Names) -> Vec<String> {
        let described = dynamodb.describe_table().table_name(&names.deliveries);
        let table = described.send().await.unwrap().table.unwrap();
        let indexes = table.global_secondary_indexes.unwrap_or_default();
        let names = indexes.into_iter().filter_map(|index| index.index_name);
        names.collect()
    }

    #[tokio::test]
    async fn a_directory_of_an_earlier_version_gets_the_indexes_that_it_lacks() {
        use aws_sdk_dynamodb::types::{
            DeleteGlobalSecondaryIndexAction, GlobalSecondaryIndexUpdate,
        };
        let parent = TempDir::new().unwrap();
        let names = Names::default();
        {
            let directory = DataDir::take(parent.path()).unwrap();
            let database = directory.start_database(&names).await.unwrap();
            let dynamodb = clients::dynamodb(database.endpoint());
            let delete = DeleteGlobalSecondaryIndexAction::builder().index_name("doubt");
            let delete = GlobalSecondaryIndexUpdate::builder().delete(delete.build().unwrap());
            let update = dynamodb.update_table().table_name(&names.deliveries);
            let update = update.global_secondary_index_updates(delete.build());
            update.send().await.unwrap();
            assert!(indexes(&dynamodb, &names).await.is_empty());
        }

        let directory = DataDir::take(parent.path()).unwrap();
        let database = directory.start_database(&names).await.unwrap();

        let dynamodb = clients::dynamodb(database.endpoint());
        assert_eq!(indexes(&dynamodb, &names).await, ["doubt"]);
    }

    #[tokio::test]
    async fn a_new_directory_is_its_owners_alone_and_can_be_used_again() {
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
    async fn a_directory_cut_off_in_being_made_is_made_again() {
        let parent = TempDir::new().unwrap();
        let made = parent.path().join("made");
        start_on(&made).await.unwrap();
        let cut_off = |name: &str, files: &[(&str, &str)]| {
            let path = parent.path().join(name);
            fs::create_dir(&path).unwrap();
            for (file, contents) in files {
                match *contents {
                    "complete" => {
                        fs::copy(made.join(DATABASE_FILE), path.join(file)).unwrap();
                    }
                    contents => fs::write(path.join(file), contents).unwrap(),
                }
            }
            path
        };
        let cases = [
            cut_off("empty", &[]),
            cut_off("half a format", &[(NEW_FORMAT, "")]),
            cut_off("a format", &[(NEW_FORMAT, "1\n")]),
            cut_off(
                "half a database",
                &[
                    (NEW_FORMAT, "1\n"),
                    (NEW_DATABASE, "SQLite"),
                    (BESIDE_NEW_DATABASE[0], "log"),
                    (BESIDE_NEW_DATABASE[2], "journal"),
                ],
            ),
            cut_off(
                "a database",
                &[(NEW_FORMAT, "1\n"), (NEW_DATABASE, "complete")],
            ),
            cut_off(
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
    async fn a_directory_that_is_not_understood_is_left_as_it_is() {
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
                fs::write(&database, "somebody's").unwrap();
            }
            if let Some(format) = format {
                fs::write(directory.path().join(FORMAT_FILE), format).unwrap();
            }

            let error = start_on(directory.path()).await.unwrap_err();

            if expected == "no database" {
                assert!(matches!(error, Error::NoDatabase { .. }), "{error}");
                assert!(!database.exists());
            } else {
                assert!(error.to_string().contains(expected), "{format:?}: {error}");
                assert_eq!(fs::read_to_string(&database).unwrap(), "somebody's");
            }
        }
    }

    #[test]
    fn a_directory_in_use_is_refused_until_it_is_given_back() {
        let directory = TempDir::new().unwrap();
        let first = DataDir::take(directory.path()).unwrap();

        let error = DataDir::take(directory.path()).unwrap_err();
        drop(first);

        assert!(matches!(error, Error::InUse { .. }), "{error}");
        DataDir::take(directory.path()).unwrap();
    }
}
