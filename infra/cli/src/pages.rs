//! `oncecast pages`: the Pages with the state of their tokens, and the import of everybody who ever wrote to one.

use std::time::Duration;

use clap::{Args, Subcommand};
use client::PartQuery;
use client::api::conversations::PageImport;
use client::api::pages::PageReport;
use client::api::progress::TokenState;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use jiff::Timestamp;
use shared::domain::ids::PageId;
use shared::domain::job::JobStatus;
use shared::domain::sending::SendingState;
use tokio::time::sleep;

use crate::api::Session;
use crate::broadcasts::words::{date_and_time, time};
use crate::failure::{Exit, Failure};
use crate::output::Tone;
use crate::text::{Align, plain, table};

/// The most Pages in one answer.
const PART: u32 = 100;
/// The time between two looks at an import.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The options of `pages`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes everybody who ever wrote to a Page a contact, from the Page's conversations
    Import(ImportOptions),
}

#[derive(Debug, Args)]
struct ImportOptions {
    /// Id of the Page
    #[arg(value_name = "PAGE", value_parser = PageId::parse)]
    page: PageId,
    /// Shows the progress until the import has ended
    #[arg(long, short)]
    follow: bool,
    /// Shows the last import, and begins none
    #[arg(long)]
    show: bool,
    /// Ends the import that is under way
    #[arg(long, conflicts_with_all = ["show", "follow"])]
    cancel: bool,
}

/// Lists the Pages, or imports the contacts of one.
///
/// # Errors
///
/// Fails if a call or the output fails, or the import that was followed ended before its end.
pub async fn run(session: &Session, options: Options) -> Result<(), Failure> {
    match options.command {
        None => list(session).await,
        Some(Command::Import(options)) => import(session, &options).await,
    }
}

/// Returns all Pages that the caller may use.
///
/// # Errors
///
/// Fails if a call fails.
pub async fn all(session: &Session) -> Result<Vec<PageReport>, Failure> {
    let mut query = PartQuery {
        limit: Some(PART),
        cursor: None,
    };
    let mut pages = Vec::new();
    loop {
        let part = session.client.pages(&query).await?;
        pages.extend(part.items);
        query.cursor = part.next_cursor;
        if query.cursor.is_none() {
            return Ok(pages);
        }
    }
}

async fn list(session: &Session) -> Result<(), Failure> {
    let (pages, output) = (all(session).await?, &session.output);
    if output.is_json() {
        return pages.iter().try_for_each(|page| output.object(page));
    }
    let rows: Vec<_> = pages.iter().map(row).collect();
    let columns = [Align::Left, Align::Left, Align::Right, Align::Left];
    for (line, page) in table(&columns, &rows, output.columns()).iter().zip(&pages) {
        let tone = if page.token == TokenState::Ok {
            Tone::Good
        } else {
            Tone::Bad
        };
        let words = token(page.token);
        output.line(&line.replace(words, &output.paint(tone, words)))?;
    }
    if pages.is_empty() {
        output.note("no Page has contacts yet");
    }
    Ok(())
}

/// Returns the cells of a Page: id, token, rate, and what an operator may have to know.
fn row(page: &PageReport) -> Vec<String> {
    let off = page.switch.as_ref().filter(|switch| switch.state != SendingState::On);
    let off = off.map(|switch| match &switch.reason {
        Some(reason) => format!("switched off: {}", plain(reason)),
        None => "switched off".to_owned(),
    });
    let paused = page.paused_until.map(|until| format!("limited until {}", time(until)));
    let heard = match page.webhook_heard_at {
        Some(at) => format!("webhook heard {}", date_and_time(at)),
        None => "webhook never heard".to_owned(),
    };
    vec![
        plain(page.page_id.as_str()).into_owned(),
        token(page.token).to_owned(),
        format!("{}/s", page.rate),
        [off, paused, Some(heard)]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" · "),
    ]
}

fn token(state: TokenState) -> &'static str {
    match state {
        TokenState::Ok => "has a token",
        TokenState::Missing => "has no token",
        TokenState::Refused => "its token is refused by Messenger",
        TokenState::Unknown => "its token cannot be read now",
    }
}

async fn import(session: &Session, options: &ImportOptions) -> Result<(), Failure> {
    let (client, page) = (&session.client, &options.page);
    let first = match (options.cancel, options.show) {
        (true, _) => client.cancel_page_import(page).await?,
        (_, true) => client.page_import(page).await?,
        _ => client.start_page_import(page).await?,
    };
    if !options.follow {
        return show(session, &first);
    }
    session.if_interrupted(&[format!(
        "the import goes on by itself; oncecast pages import {page} --cancel ends it"
    )]);
    let bar = ProgressBar::no_length();
    let style = ProgressStyle::with_template("  {spinner}  {msg}");
    let bar = session
        .output
        .bar(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner())));
    let mut import = first;
    while !is_over(import.status) {
        bar.set_message(line(&import));
        sleep(LOOK_EVERY).await;
        import = client.page_import(page).await?;
    }
    bar.finish_and_clear();
    show(session, &import)?;
    let ended = |what: &str| Failure::new(Exit::InPart, what.to_owned());
    match import.status {
        JobStatus::Halted => {
            let failure = ended("the import is halted");
            Err(import
                .remedy
                .iter()
                .fold(failure, |failure, remedy| failure.and(remedy)))
        }
        JobStatus::Cancelled => Err(ended("the import was cancelled")),
        _ => Ok(()),
    }
}

fn is_over(status: JobStatus) -> bool {
    matches!(status, JobStatus::Completed | JobStatus::Cancelled | JobStatus::Halted)
}

fn show(session: &Session, import: &PageImport) -> Result<(), Failure> {
    match session.output.is_json() {
        true => session.output.object(import),
        false => session.output.line(&line(import)),
    }
}

/// Returns the state of an import in a line.
fn line(import: &PageImport) -> String {
    let status = match (import.status, import.command) {
        (status, Some(_)) if !is_over(status) => "ending".to_owned(),
        (JobStatus::Processing | JobStatus::Queued, _) => "reading".to_owned(),
        (status, _) => status.to_string(),
    };
    let mut parts = vec![
        format!("{status}: {} conversations", HumanCount(import.conversations)),
        format!("{} new contacts", HumanCount(import.created)),
        format!("{} known", HumanCount(import.known)),
    ];
    let further = [
        (import.unreadable, "unreadable"),
        (import.on_another_page, "on another Page"),
    ];
    let further = further.iter().filter(|(number, _)| *number > 0);
    parts.extend(further.map(|(number, what)| format!("{} {what}", HumanCount(*number))));
    parts.extend(import.reason.as_deref().map(|reason| plain(reason).into_owned()));
    parts.extend(import.due_at.map(|at: Timestamp| format!("goes on at {at:.0}")));
    parts.join(" · ")
}
