//! `oncecast contacts import FILE`: stores the contacts of a file of any size, in parts that are stored several at once.

use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use client::contact_file::{CutError, NotContacts, Parts, Position, Refused, Source, Stopped, StoredPart};
use futures_util::StreamExt;
use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::task;

use super::journal::{FileState, Journal};
use super::refused::{RefusedFile, STDIN, beside};
use crate::api::Session;
use crate::failure::{Exit, Failure};
use crate::text::counted;

/// The time between two lines about the progress where stderr is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// The bar of a file whose size is known.
const BAR: &str = "  {bar:16} {percent:>3}%  {wide_msg}";
/// The bar of stdin.
const SPINNER: &str = "  {spinner}  {wide_msg}";

/// The options of `contacts import`.
#[derive(Debug, Args)]
pub struct Options {
    /// File of contacts: CSV, or JSON with a contact in each line; - for stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Begins anew, although an import of the file was interrupted
    #[arg(long)]
    restart: bool,
    /// File to which refused rows are written; without it FILE.refused.csv
    #[arg(long, value_name = "FILE")]
    refused: Option<PathBuf>,
}

/// Imports a file of contacts.
///
/// # Errors
///
/// Fails if the file, the API or the disk does, or some contacts are refused.
pub async fn run(session: &Session, options: Options) -> Result<(), Failure> {
    let path = options.file.clone();
    let (parts, state) = blocking(move || open(&path)).await?;
    let mut import = Import::new(session, &options, state)?;
    if import.journal.position != Position::default() {
        session.output.note(&format!("going on: {}", import.so_far()));
    }
    let position = import.journal.position;
    let parts = blocking(move || {
        let mut parts = parts;
        let skipped = parts.skip_to(position);
        skipped.map(|()| parts)
    });
    let parts = parts.await.map_err(|error| import.of_file(&error))?;
    // A part that is stored before the one above it is not in the journal: it is stored again after an interruption.
    let mut stored = Box::pin(session.client.store_contacts(parts));
    import.tell_if_interrupted();
    while let Some(part) = stored.next().await {
        let added = part.map_err(|stopped| import.stopped(stopped));
        if let Err(failure) = added.and_then(|part| import.add(&part)) {
            import.bar.finish_and_clear();
            return Err(match failure.exit {
                Exit::Refused => failure,
                _ => failure.and(import.remedy()),
            });
        }
    }
    import.finish()
}

/// Runs what waits for the disk or for stdin, so that Ctrl-C and requests are seen meanwhile.
async fn blocking<T: Send + 'static, E: From<io::Error> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(io::Error::other(error).into()),
    }
}

/// Opens a file, and returns its state unless it is stdin or a pipe.
fn open(path: &Path) -> Result<(Parts, Option<FileState>), Failure> {
    let source = source(path).map_err(|error| Failure::of_file(path, &error))?;
    if let Some(form) = source.not_contacts() {
        let what = format!("{} {form}", path.display());
        return Err(Failure::new(Exit::Arguments, what).and(match form {
            NotContacts::Empty => "export the contacts again",
            NotContacts::Archive => "save it as CSV UTF-8",
            NotContacts::Compressed => "unpack it on the way: gunzip -c FILE | oncecast contacts import -",
            NotContacts::Binary => "give a file of CSV, or of JSON with a contact in each line",
        }));
    }
    let state = file_state(path, &source.beginning);
    let parts = Parts::new(source).map_err(|error| of_file(path, &error))?;
    Ok((parts, state))
}

fn source(path: &Path) -> io::Result<Source> {
    match path == Path::new(STDIN) {
        true => Source::new(io::stdin()),
        false => Source::new(File::open(path)?),
    }
}

fn file_state(path: &Path, beginning: &[u8]) -> Option<FileState> {
    let metadata = fs::metadata(path).ok().filter(|_| path != Path::new(STDIN))?;
    metadata.is_file().then(|| FileState::new(&metadata, beginning))
}

fn of_file(path: &Path, error: &CutError) -> Failure {
    let failure = |exit| Failure::new(exit, format!("{}: {error}", path.display()));
    match error {
        CutError::Io(_) => failure(Exit::Failed),
        CutError::Shorter => failure(Exit::Failed).and("--restart imports it from the beginning"),
        CutError::TooLong { .. } => failure(Exit::Arguments).and("is a quotation mark missing there?"),
        CutError::List => {
            failure(Exit::Arguments).and("write a contact in each line: jq -c '.[]' FILE | oncecast contacts import -")
        }
    }
}

/// Returns the time that the rest of a file takes, if it takes as long for a byte as what was read since the skipped bytes.
fn time_left(elapsed: Duration, skipped: u64, read: u64, length: u64) -> Option<Duration> {
    let done = read.checked_sub(skipped).filter(|done| *done > 0)?;
    Some(elapsed.mul_f64(length.saturating_sub(read) as f64 / done as f64))
}

/// The progress of one run.
struct Import<'a> {
    session: &'a Session,
    path: &'a Path,
    /// The state of the file at the beginning; `None` if it cannot be read again.
    state: Option<FileState>,
    journal: Journal,
    refused: RefusedFile,
    bar: ProgressBar,
    begun: Instant,
    /// The bytes before the place from which this run goes on.
    skipped: u64,
    last_line: Instant,
    /// Contacts of this run.
    contacts: u64,
}

impl<'a> Import<'a> {
    fn new(session: &'a Session, options: &'a Options, state: Option<FileState>) -> Result<Self, Failure> {
        let path = &options.file;
        if options.restart && state.is_some() {
            Journal::remove(path)?;
        }
        let api = &session.api;
        let known = match &state {
            Some(state) => Journal::of(path, api, state)?,
            None => None,
        };
        let length = fs::metadata(path).ok().filter(|_| state.is_some());
        let journal = known.unwrap_or_else(|| {
            let state = state.clone().unwrap_or_default();
            Journal::new(api, state)
        });
        let refused = options.refused.clone().unwrap_or_else(|| beside(path));
        let refused = RefusedFile::open(refused, journal.refused_bytes)?;
        let (bar, style) = match length {
            Some(metadata) => (ProgressBar::new(metadata.len()), BAR),
            None => (ProgressBar::no_length(), SPINNER),
        };
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        let now = Instant::now();
        let skipped = journal.position.bytes;
        let import = Self {
            session,
            path,
            state,
            journal,
            refused,
            bar: session.output.bar(bar.with_style(style)),
            begun: now,
            skipped,
            last_line: now,
            contacts: 0,
        };
        import.save()?;
        Ok(import)
    }

    fn save(&self) -> Result<(), Failure> {
        match self.state {
            Some(_) => self.journal.save(self.path),
            None => Ok(()),
        }
    }

    /// Takes a part that is stored into account. Refused rows are written before the journal says so.
    fn add(&mut self, part: &StoredPart) -> Result<(), Failure> {
        self.refused.add(&part.refused)?;
        self.journal.position = part.end;
        self.journal.stored += part.contacts;
        self.journal.refused += part.refused_contacts;
        self.journal.refused_bytes = self.refused.bytes;
        self.save()?;
        self.contacts += part.contacts;
        self.tell_if_interrupted();
        self.bar.set_position(part.read);
        let message = self.message(part.read);
        if !io::stderr().is_terminal() && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            self.session.output.note(&message);
        }
        self.bar.set_message(message);
        Ok(())
    }

    fn message(&self, read: u64) -> String {
        let elapsed = self.begun.elapsed();
        let speed = self.contacts as f64 / elapsed.as_secs_f64().max(0.001);
        let refused = match self.journal.refused {
            0 => String::new(),
            refused => format!(" · {} refused", HumanCount(refused)),
        };
        let left = self.bar.length().and_then(|length| {
            let left = time_left(elapsed, self.skipped, read, length)?;
            Some(format!(" · {:#} left", HumanDuration(left)))
        });
        format!(
            "{} · {}/s{refused}{}",
            counted(self.journal.stored, "contact"),
            HumanCount(speed as u64),
            left.unwrap_or_default()
        )
    }

    fn so_far(&self) -> String {
        let Journal {
            stored,
            refused,
            position,
            ..
        } = &self.journal;
        let (stored, line) = (counted(*stored, "contact"), HumanCount(position.lines + 1));
        match refused {
            0 => format!("{stored} stored before line {line}"),
            _ => format!(
                "{stored} stored and {} refused before line {line}",
                HumanCount(*refused)
            ),
        }
    }

    fn remedy(&self) -> String {
        match self.state {
            Some(_) => format!("{}; the same command goes on from there", self.so_far()),
            None => format!(
                "{}; stdin is read from its beginning again, which is harmless",
                self.so_far()
            ),
        }
    }

    fn tell_if_interrupted(&self) {
        self.session.if_interrupted(&[self.remedy()]);
    }

    fn of_file(&self, error: &CutError) -> Failure {
        of_file(self.path, error)
    }

    fn stopped(&self, stopped: Stopped) -> Failure {
        let (error, begin, faults) = match stopped {
            Stopped::Cut(error) => return self.of_file(&error),
            Stopped::Api { error, begin, faults } => (*error, begin, faults),
        };
        let status = error.status().filter(|_| !faults.is_empty());
        if status.is_none_or(|status| !status.is_client_error()) {
            return error.into();
        }
        let line = begin.lines + 1;
        let what = format!("{} cannot be imported from line {line} on", self.path.display());
        let failure = faults.iter().fold(Failure::new(Exit::Refused, what), |failure, fault| {
            let Refused { line, column, message } = fault;
            failure.and(match line {
                Some(line) if column.is_empty() => format!("line {line} {message}"),
                Some(line) => format!("line {line}, column {column} {message}"),
                None => format!("{column} {message}"),
            })
        });
        failure
            .and(self.so_far())
            .and("correct the file, and import it from its beginning with --restart")
    }

    /// Returns true if the file has not changed since it was opened.
    fn is_as_it_was(&self) -> bool {
        let opened = source(self.path).ok().filter(|_| self.state.is_some());
        opened.is_none_or(|source| file_state(self.path, &source.beginning) == self.state)
    }

    /// Ends the import, and reports on all of it.
    fn finish(&mut self) -> Result<(), Failure> {
        self.bar.finish_and_clear();
        let name = self.path.display();
        if !self.is_as_it_was() {
            let what = format!("{name} was changed while it was read, so that contacts may be missing");
            return Err(Failure::new(Exit::Failed, what).and("--restart imports it from its beginning"));
        }
        self.refused.finish()?;
        if self.state.is_some() {
            Journal::remove(self.path)?;
        }
        let (stored, refused) = (self.journal.stored, self.journal.refused);
        if stored + refused == 0 {
            return Err(Failure::new(Exit::Arguments, format!("{name} has no contacts")));
        }
        let file = self.refused.path.display().to_string();
        if self.session.output.is_json() {
            let file = (refused > 0).then_some(&file);
            self.session
                .output
                .object(&json!({"upserted": stored, "refused": refused, "refused_file": file}))?;
        } else {
            let took = HumanDuration(self.begun.elapsed());
            let line = format!("{} stored in {took}", counted(stored, "contact"));
            self.session.output.line(&line)?;
        }
        match refused {
            0 => Ok(()),
            _ => Err(
                Failure::new(Exit::InPart, format!("{} refused", counted(refused, "contact")))
                    .and(format!("{file} has the line and the reason of each")),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_bytes_do_not_shorten_the_time_that_is_left() {
        let elapsed = Duration::from_secs(10);

        assert_eq!(time_left(elapsed, 0, 100, 400), Some(Duration::from_secs(30)));
        assert_eq!(time_left(elapsed, 200, 300, 400), Some(Duration::from_secs(10)));
        assert_eq!(time_left(elapsed, 200, 200, 400), None);
    }
}
