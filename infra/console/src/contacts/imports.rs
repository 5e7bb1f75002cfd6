//! The imports of files that this console makes. They go on when the browser is closed, and end with the console: an import that was
//! interrupted is made again, which is harmless.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::contact_file::{CutError, Parts, Refused, Stopped, StoredPart, refused_csv};
use client::{Client, Patience};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use tempfile::NamedTempFile;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::failure::Failure;
use crate::session::Visitor;

/// The imports that run at the same time. Others wait for their turn.
const AT_ONCE: usize = 3;
/// The imports that are remembered. Beyond them the oldest that has ended is forgotten.
const KEPT: usize = 30;
/// The refused rows that the page shows. The file has all of them.
const SHOWN: usize = 100;
/// The time for which a part is tried again where the API does not answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// The imports of a console.
pub struct Imports {
    turns: Arc<Semaphore>,
    kept: Mutex<VecDeque<Arc<Import>>>,
}

/// An import.
pub struct Import {
    /// The id, by which its page is found.
    pub id: String,
    /// The name of the file on the machine of the visitor.
    pub file: String,
    /// The bytes of the file.
    pub bytes: u64,
    /// The time at which the file was there.
    pub begun_at: Timestamp,
    /// The token of the forms of the session that made it: nobody else sees it.
    owner: String,
    progress: Mutex<Progress>,
    /// The refused rows, as a CSV file.
    rows: Mutex<Option<NamedTempFile>>,
    task: Mutex<Option<AbortHandle>>,
}

/// The progress of an import.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The state.
    pub state: ImportState,
    /// The bytes that were read.
    pub read: u64,
    /// The contacts that were stored.
    pub stored: u64,
    /// The contacts that were refused.
    pub refused: u64,
    /// The first of the refused rows.
    pub shown: Vec<Refused>,
    /// The reason why it has failed, and what to do.
    pub lines: Vec<String>,
    /// The time at which it ended.
    pub ended_at: Option<Timestamp>,
}

/// The state of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportState {
    /// Others are made first.
    Waiting,
    /// It is under way.
    Running,
    /// The file was read to its end.
    Done,
    /// The visitor has stopped it.
    Stopped,
    /// It cannot go on.
    Failed,
}

/// A file that has arrived.
pub struct Upload {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
    /// Its contacts.
    pub parts: Parts,
}

impl Default for Imports {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            kept: Mutex::default(),
        }
    }
}

impl Imports {
    /// Begins an import with the credentials of a visitor, as soon as it is its turn.
    pub fn begin(&self, visitor: &Visitor, upload: Upload) -> Arc<Import> {
        let Upload { name, bytes, parts } = upload;
        let import = Arc::new(Import {
            id: Uuid::new_v4().simple().to_string(),
            file: name,
            bytes,
            begun_at: Timestamp::now(),
            owner: visitor.csrf.clone(),
            progress: Mutex::new(Progress::new()),
            rows: Mutex::default(),
            task: Mutex::default(),
        });
        let client = visitor.client.clone().with_patience(Patience::new(PATIENCE, |_, _| {}));
        let turns = Arc::clone(&self.turns);
        let task = tokio::spawn({
            let import = Arc::clone(&import);
            async move {
                // It is never closed.
                let _turn = turns.acquire().await.ok();
                import.progress().state = ImportState::Running;
                let ended = import.store(&client, parts).await;
                import.end(ended);
            }
        });
        *lock(&import.task) = Some(task.abort_handle());
        let mut kept = lock(&self.kept);
        kept.push_front(Arc::clone(&import));
        if kept.len() > KEPT
            && let Some(oldest) = kept.iter().rposition(|import| import.is_over())
        {
            kept.remove(oldest);
        }
        import
    }

    /// Returns an import of this visitor.
    pub fn find(&self, visitor: &Visitor, id: &str) -> Option<Arc<Import>> {
        self.of(visitor).into_iter().find(|import| import.id == id)
    }

    /// Returns the imports of this visitor, from the newest.
    pub fn of(&self, visitor: &Visitor) -> Vec<Arc<Import>> {
        let kept = lock(&self.kept);
        kept.iter().filter(|import| import.is_of(visitor)).cloned().collect()
    }
}

impl Import {
    /// Returns the progress as it is now.
    pub fn now(&self) -> Progress {
        self.progress().clone()
    }

    fn is_of(&self, visitor: &Visitor) -> bool {
        self.owner == visitor.csrf
    }

    /// Returns true if nothing more happens.
    pub fn is_over(&self) -> bool {
        self.progress().ended_at.is_some()
    }

    /// Ends the import. What is stored stays; parts that are under way may still be stored.
    pub fn stop(&self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
        self.end(Ok(ImportState::Stopped));
    }

    /// Opens the file of refused rows; `None` if there are none.
    ///
    /// # Errors
    ///
    /// Fails if the file is gone.
    pub fn refused_rows(&self) -> io::Result<Option<File>> {
        lock(&self.rows).as_ref().map(NamedTempFile::reopen).transpose()
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.progress)
    }

    /// Stores the contacts of a file to its end.
    async fn store(&self, client: &Client, parts: Parts) -> Result<ImportState, Vec<String>> {
        let mut stored = pin!(client.store_contacts(parts));
        while let Some(part) = stored.next().await {
            let part = part.map_err(|stopped| self.reason(stopped))?;
            self.add(part)
                .map_err(|error| vec![format!("The refused rows cannot be kept: {error}"), self.so_far()])?;
        }
        let progress = self.progress();
        match progress.stored + progress.refused {
            0 => Err(vec!["The file has no contacts".to_owned()]),
            _ => Ok(ImportState::Done),
        }
    }

    fn add(&self, part: StoredPart) -> io::Result<()> {
        if !part.refused.is_empty() {
            let mut rows = lock(&self.rows);
            let csv = refused_csv(&part.refused, rows.is_none())?;
            let file = match rows.take() {
                Some(file) => file,
                None => NamedTempFile::new()?,
            };
            rows.insert(file).write_all(&csv)?;
        }
        let mut progress = self.progress();
        progress.read = part.read;
        progress.stored += part.contacts;
        progress.refused += part.refused_contacts;
        let room = SHOWN.saturating_sub(progress.shown.len());
        progress.shown.extend(part.refused.into_iter().take(room));
        Ok(())
    }

    fn end(&self, ended: Result<ImportState, Vec<String>>) {
        let mut progress = self.progress();
        if progress.ended_at.is_some() {
            return;
        }
        progress.ended_at = Some(Timestamp::now());
        (progress.state, progress.lines) = match ended {
            Ok(state) => (state, Vec::new()),
            Err(lines) => (ImportState::Failed, lines),
        };
    }

    fn so_far(&self) -> String {
        "What was stored stays. Importing the same file again is harmless.".to_owned()
    }

    /// Returns the reason why the import has stopped, and what to do.
    fn reason(&self, stopped: Stopped) -> Vec<String> {
        match stopped {
            Stopped::Cut(error) => {
                let Failure { title, lines, .. } = unusable(&error);
                [vec![title], lines, vec![self.so_far()]].concat()
            }
            Stopped::Api { error, begin, faults } => {
                let Failure { title, lines, .. } = Failure::from(*error);
                let place = format!("The import has stopped before line {}", begin.lines + 1);
                let faults: Vec<_> = faults.iter().map(in_words).collect();
                let lines = if faults.is_empty() { lines } else { faults };
                [vec![place, title], lines, vec![self.so_far()]].concat()
            }
        }
    }
}

impl Progress {
    fn new() -> Self {
        Self {
            state: ImportState::Waiting,
            read: 0,
            stored: 0,
            refused: 0,
            shown: Vec::new(),
            lines: Vec::new(),
            ended_at: None,
        }
    }
}

/// Returns the failure of a file that cannot be cut into parts.
pub fn unusable(error: &CutError) -> Failure {
    let failure = Failure::new(
        axum::http::StatusCode::UNPROCESSABLE_ENTITY,
        format!("The file: {error}"),
    );
    match error {
        CutError::Io(_) | CutError::Shorter => failure,
        CutError::TooLong { .. } => failure.and("Is a quotation mark missing there?"),
        CutError::List => failure.and("Write a contact in each line instead of one list."),
    }
}

fn in_words(refused: &Refused) -> String {
    let Refused { line, column, message } = refused;
    match line {
        Some(line) if column.is_empty() => format!("Line {line} {message}"),
        Some(line) => format!("Line {line}, column {column} {message}"),
        None => format!("{column} {message}"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
