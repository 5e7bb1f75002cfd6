//! DynamoDB on this machine: dynoxide, in memory or in a file, as an HTTP endpoint for the real SDK.
//!
//! A file is SQLite's, with a write-ahead log that is synced at every commit (`journal_mode=WAL`, `synchronous=FULL`:
//! dynoxide sets the one and leaves the other at its default). What was answered has therefore reached the disk.

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dynoxide::server;
use tokio::time::{self, MissedTickBehavior};

use crate::runtime_thread::RuntimeThread;

/// How often items past their TTL are removed. AWS promises only "within days"; nothing may rely on it.
const TTL_SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Why the database did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database could not be opened")]
    Open(#[source] dynoxide::DynoxideError),
    #[error("the database's path must be UTF-8: {}", path.display())]
    Path { path: PathBuf },
    #[error("the database could not listen on 127.0.0.1")]
    Listen(#[from] io::Error),
}

/// A running database; it is closed with this value, and gone unless it has a file.
#[derive(Debug)]
pub struct Database {
    endpoint: String,
    _thread: RuntimeThread,
}

impl Database {
    /// Starts an empty database in memory, on a free port.
    pub fn start() -> Result<Database, Error> {
        Database::serve(dynoxide::Database::memory().map_err(Error::Open)?)
    }

    /// Starts the database in this file, on a free port; it is made if there is none.
    pub fn open(file: &Path) -> Result<Database, Error> {
        let path = file.to_str().ok_or_else(|| Error::Path {
            path: file.to_owned(),
        })?;
        Database::serve(dynoxide::Database::new(path).map_err(Error::Open)?)
    }

    fn serve(database: dynoxide::Database) -> Result<Database, Error> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let thread = RuntimeThread::spawn("database", || serve(listener, database))?;
        Ok(Database {
            endpoint,
            _thread: thread,
        })
    }

    /// The base URL, for `AWS_ENDPOINT_URL_DYNAMODB`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

async fn serve(listener: TcpListener, database: dynoxide::Database) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(error = %error, "the database could not listen"),
    };
    let sweeping = sweep(database.clone());
    let serving = server::serve_with_shutdown(listener, database, std::future::pending());
    tokio::select! {
        ended = serving => tracing::error!(?ended, "the database stopped serving"),
        () = sweeping => {}
    }
}

/// Sweeps away from the serving thread: a sweep blocks, and lets requests in only between its pages.
async fn sweep(database: dynoxide::Database) {
    let mut tick = time::interval(TTL_SWEEP_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let database = database.clone();
        match tokio::task::spawn_blocking(move || database.sweep_ttl()).await {
            Ok(Ok(expired)) => tracing::debug!(items.expired = expired, "swept expired items"),
            Ok(Err(error)) => tracing::warn!(error = %error, "could not sweep expired items"),
            Err(error) => tracing::warn!(error = %error, "the sweep of expired items panicked"),
        }
    }
}
