//! DynamoDB on this machine: dynoxide, in memory or in a file, as an HTTP endpoint for the AWS SDK.
//!
//! A file is SQLite's, with a write-ahead log, which is synced here instead of at each commit (`group_commit`). A write has
//! reached the disk before it is answered.

mod endpoint;
mod group_commit;
mod operations;
mod replica;
mod storage;
mod transactions;

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shared::runtime::clock::Clock;
use tokio::time::{self, MissedTickBehavior};

use self::endpoint::Served;
pub use self::replica::LAG;
use self::replica::Replica;
pub use self::storage::{Storage, StorageFault};
use crate::runtime_thread::RuntimeThread;
use crate::server::Server;

/// The interval at which items past their TTL are removed. AWS promises only "within days", so no code may rely on it.
const TTL_SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Failure to start the database.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("the database could not be opened")]
    Open(#[source] dynoxide::DynoxideError),
    #[error("the path of the database is not UTF-8: {}; use another path", path.display())]
    Path { path: PathBuf },
    #[error("the write-ahead log of the database could not be opened")]
    Log(#[source] io::Error),
    #[error("the database could not listen on 127.0.0.1")]
    Listen(#[from] io::Error),
}

/// The state that eventually consistent reads and queries of indexes show.
#[derive(Debug, Clone)]
pub enum Reads {
    /// The current one.
    Current,
    /// The one of [`LAG`] ago by this clock; so far behind they may be on AWS.
    Lagging(Clock),
}

/// A running database. Dropping it closes the database, and loses the data unless it is kept in a file.
#[derive(Debug)]
pub struct Database {
    endpoint: String,
    storage: Storage,
    _thread: RuntimeThread,
}

impl Database {
    /// Starts an empty database in memory, on a free port.
    ///
    /// # Errors
    ///
    /// Fails if no port or thread is available.
    pub fn start(reads: Reads) -> Result<Database, DatabaseError> {
        let database = dynoxide::Database::memory().map_err(DatabaseError::Open)?;
        Database::serve(database, None, reads)
    }

    /// Starts the database in this file, on a free port. The file is created if it does not exist.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be opened as a database, or if no port or thread is available.
    pub fn open(file: &Path, reads: Reads) -> Result<Database, DatabaseError> {
        let path = file
            .to_str()
            .ok_or_else(|| DatabaseError::Path { path: file.to_owned() })?;
        let database = dynoxide::Database::new(path).map_err(DatabaseError::Open)?;
        let log = open_log(file).map_err(DatabaseError::Log)?;
        if log.is_some() {
            // The name means more than the function does: it sets `synchronous=NORMAL`, and defaults.
            database.disable_bulk_loading().map_err(DatabaseError::Open)?;
        }
        Database::serve(database, log, reads)
    }

    fn serve(database: dynoxide::Database, log: Option<File>, reads: Reads) -> Result<Database, DatabaseError> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let storage = Storage::default();
        let replica = match reads {
            Reads::Current => None,
            Reads::Lagging(clock) => Some(Replica::new(&database, clock).map_err(DatabaseError::Open)?),
        };
        let served = Served {
            database,
            replica: replica.map(Arc::new),
            group_commit: log.is_some().then(Arc::default),
            storage: storage.clone(),
            transactions: Arc::default(),
        };
        let thread = RuntimeThread::spawn("database", || serve(listener, served, log))?;
        Ok(Database {
            endpoint,
            storage,
            _thread: thread,
        })
    }

    /// Returns the base URL, the value of `AWS_ENDPOINT_URL_DYNAMODB`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns the state of the disk below the database.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }
}

/// Opens the write-ahead log of the database in this file; SQLite keeps the log's file as long as it has the database open.
///
/// A file system without shared memory has no such log. There SQLite syncs each write by itself.
fn open_log(file: &Path) -> io::Result<Option<File>> {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    // Open for as long as the database: the kernel tells a failure to write to every file that was open then.
    match File::options().write(true).open(log) {
        Ok(log) => Ok(Some(log)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn serve(listener: TcpListener, served: Served, log: Option<File>) {
    if let (Some(group_commit), Some(log)) = (&served.group_commit, log) {
        let (group_commit, log) = (Arc::clone(group_commit), Arc::new(log));
        tokio::spawn(async move { group_commit.run(move || log.sync_data()).await });
    }
    let router = served.clone().router();
    let serving = tokio::net::TcpListener::from_std(listener).and_then(|listener| Server::route(listener, router));
    match serving {
        Ok(_server) => sweep(served).await,
        Err(error) => tracing::error!(error = %error, "the database cannot listen on its port"),
    }
}

/// Removes expired items on another thread than the serving one, because a sweep blocks and lets requests in only
/// between its pages.
async fn sweep(served: Served) {
    let mut tick = time::interval(TTL_SWEEP_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let served = served.clone();
        match tokio::task::spawn_blocking(move || served.sweep_ttl()).await {
            Ok(Ok(expired)) => tracing::debug!(items.expired = expired, "expired items removed"),
            Ok(Err(error)) => {
                tracing::warn!(error = %error, "expired items could not be removed; trying again at the next sweep")
            }
            Err(error) => {
                tracing::warn!(error = %error, "the removal of expired items panicked; trying again at the next sweep")
            }
        }
    }
}
