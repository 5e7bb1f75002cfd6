//! `oncecast contacts export`: all contacts, or those of a Page, a tag or a name, as a file that can be imported.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use client::ContactQuery;
use client::contact_file::CsvExport;
use indicatif::{ProgressBar, ProgressStyle};
use shared::domain::ids::PageId;

use crate::api::Session;
use crate::failure::Failure;
use crate::text::counted;

/// The contacts that are asked for at once as JSON.
const JSON_PART: u32 = 1_000;
/// The contacts that are asked for at once as CSV.
const CSV_PART: u32 = 10_000;

/// The options of `contacts export`.
#[derive(Debug, Args)]
pub struct Options {
    /// Only contacts of this Page
    #[arg(long, value_name = "PAGE", value_parser = PageId::parse)]
    page: Option<PageId>,
    /// Only contacts with this tag
    #[arg(long)]
    tag: Option<String>,
    /// Only contacts with this text in their id or name
    #[arg(long, value_name = "TEXT")]
    q: Option<String>,
    /// Form of the file; with --json it is ndjson
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
    /// File to write, in place of stdout; it is there when it is whole
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A header and a row for each contact
    Csv,
    /// An object of JSON in each line, which also keeps numbers and empty attributes
    Ndjson,
}

/// Exports contacts.
///
/// # Errors
///
/// Fails if a call or the output fails.
pub async fn run(session: &Session, options: Options) -> Result<(), Failure> {
    let mut query = ContactQuery {
        page_id: options.page,
        tag: options.tag,
        q: options.q,
        ..ContactQuery::default()
    };
    let mut target = Target::open(session, options.output)?;
    let bar = ProgressBar::no_length();
    let style = ProgressStyle::with_template("  {spinner}  {msg}");
    let bar = session
        .output
        .bar(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner())));
    let exported = match options.format {
        Format::Csv if !session.output.is_json() => csv(session, &mut query, &mut target, &bar).await,
        _ => ndjson(session, &mut query, &mut target, &bar).await,
    };
    bar.finish_and_clear();
    exported?;
    target.finish()
}

async fn ndjson(
    session: &Session,
    query: &mut ContactQuery,
    target: &mut Target<'_>,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    query.limit = Some(JSON_PART);
    let mut count = 0;
    loop {
        let part = session.client.contacts(query).await?;
        let mut lines = Vec::new();
        for contact in &part.items {
            serde_json::to_writer(&mut lines, contact).map_err(io::Error::from)?;
            lines.push(b'\n');
        }
        target.write(&lines)?;
        count += part.items.len() as u64;
        bar.set_message(counted(count, "contact"));
        query.cursor = part.next_cursor;
        if query.cursor.is_none() {
            return Ok(());
        }
    }
}

/// Writes one file of all parts, which wait for the last of them in a temporary file.
async fn csv(
    session: &Session,
    query: &mut ContactQuery,
    target: &mut Target<'_>,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    query.limit = Some(CSV_PART);
    let mut export = CsvExport::new().map_err(no_spool)?;
    loop {
        let part = session.client.contacts_csv(query).await?;
        export.add(&part.csv).map_err(no_spool)?;
        bar.set_message(counted(export.contacts, "contact"));
        query.cursor = part.next_cursor;
        if query.cursor.is_none() {
            break;
        }
    }
    export.write(|rows| target.write(rows))
}

fn no_spool(error: io::Error) -> Failure {
    Failure::from(error)
        .and("an export as CSV waits in the directory of temporary files, TMPDIR; --format ndjson does not")
}

/// The place to which an export is written.
enum Target<'a> {
    Stdout(&'a Session),
    /// A file that has another name until it is whole.
    File {
        file: File,
        path: PathBuf,
        part: PathBuf,
    },
}

impl<'a> Target<'a> {
    fn open(session: &'a Session, path: Option<PathBuf>) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self::Stdout(session));
        };
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::create(&part).map_err(|error| Failure::of_file(&part, &error))?;
        Ok(Self::File { file, path, part })
    }

    fn write(&mut self, data: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Stdout(session) => session.output.write(data),
            Self::File { file, part, .. } => file.write_all(data).map_err(|error| Failure::of_file(part, &error)),
        }
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Stdout(_) => Ok(()),
            Self::File { file, path, part } => {
                let failed = |path: &Path, error: io::Error| Failure::of_file(path, &error);
                file.sync_all().map_err(|error| failed(&part, error))?;
                fs::rename(&part, &path).map_err(|error| failed(&path, error))
            }
        }
    }
}
