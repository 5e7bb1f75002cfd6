//! `oncecast send`: one message to many contacts, after a look at what it would do.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use client::api::audiences::{AudienceChoice, AudienceRef};
use client::api::broadcasts::{MAX_CONTACT_IDS, NewBroadcast};
use client::{Accepted, Error};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use shared::domain::audience::{Audience, AudienceName};
use shared::domain::ids::PageId;
use shared::domain::job::{JobStatus, Priority};
use shared::domain::message::Message;
use shared::domain::schedule::Zone;
use uuid::Uuid;

use super::find::short;
use super::{preview, recipients, words};
use crate::api::Session;
use crate::failure::{Exit, Failure};
use crate::output::{Tone, may_ask};
use crate::text::{counted, plain};

/// The options of `send`.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("recipients").required(true).args(["to", "tag", "audience", "everybody"])),
    after_help = "The text may have variables: \"Hi {{ first_name | default('there') }}\".\n\
        Interrupted or without an answer, `send` prints the command that repeats the request; the API recognises it by its \
        --idempotency-key, and sends nothing twice."
)]
pub struct Options {
    /// Text of the message
    #[arg(long)]
    text: String,
    /// File of contact ids, one a line, or CSV with a column `contact_id`; - for stdin
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Contacts with this tag; may be repeated, for contacts with one of the tags
    #[arg(long)]
    tag: Vec<String>,
    /// Contacts of the audience that is saved under this name
    #[arg(long, value_name = "NAME", value_parser = AudienceName::parse)]
    audience: Option<AudienceName>,
    /// All contacts
    #[arg(long)]
    everybody: bool,
    /// Only contacts of this Page, with --tag and --everybody; may be repeated
    #[arg(long, value_name = "PAGE", value_parser = PageId::parse, conflicts_with_all = ["to", "audience"])]
    page: Vec<PageId>,
    /// Time at which sending begins, such as 2026-12-01T09:00:00+08:00, or by the clock of --time-zone 2026-12-01T09:00
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Time zone of --at, such as Asia/Manila
    #[arg(long, value_name = "ZONE", requires = "at", value_parser = Zone::parse)]
    time_zone: Option<Zone>,
    /// Name of the broadcast in reports and lists; Messenger never sees it
    #[arg(long)]
    name: Option<String>,
    /// Urgency beside other broadcasts of the same Pages: normal or high
    #[arg(long, default_value = "normal", value_parser = words::priority)]
    priority: Priority,
    /// Has the broadcast wait until another caller approves it
    #[arg(long)]
    requires_approval: bool,
    /// Shows what would be sent, and sends nothing
    #[arg(long)]
    dry_run: bool,
    /// Sends without a look and without asking
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Key by which the API recognises a repetition of this request; made up without it
    #[arg(long, value_name = "KEY", conflicts_with = "dry_run")]
    idempotency_key: Option<String>,
}

/// Sends a broadcast.
///
/// # Errors
///
/// Fails if the contacts cannot be read, the user does not confirm, or a call or the output fails.
pub async fn run(session: &Session, options: Options) -> Result<(), Failure> {
    if !options.yes && !options.dry_run {
        may_ask()?;
    }
    let new = options.request()?;
    if !options.yes {
        look(session, &options, &new).await?;
    }
    if options.dry_run {
        return Ok(());
    }
    // The key is made before the request, so that a repetition of it can be told from another request.
    let key = options
        .idempotency_key
        .clone()
        .unwrap_or_else(|| Uuid::new_v4().simple().to_string());
    let repetition = options.repetition(&key);
    session.if_interrupted(&repetition);
    let waiting = session.output.spinner("waiting for the API to accept it");
    let accepted = session.client.create_broadcast(&new, Some(&key)).await;
    waiting.finish_and_clear();
    let accepted = accepted.map_err(|error| match has_taken_no_effect(&error) {
        true => error.into(),
        false => repetition
            .iter()
            .fold(Failure::from(error), |failure, line| failure.and(line)),
    })?;
    session.if_interrupted(&[]);
    let id = &accepted.report.summary.broadcast_id;
    show(session, &accepted, options.yes).map_err(|failure| failure.and(format!("the broadcast {id} was accepted")))
}

/// Returns true if the request is known to have done nothing.
fn has_taken_no_effect(error: &Error) -> bool {
    matches!(error, Error::Request(_)) || error.status().is_some_and(|status| status.is_client_error())
}

/// Shows what the broadcast would do, and asks for its number of contacts unless that is all.
async fn look(session: &Session, options: &Options, new: &NewBroadcast) -> Result<(), Failure> {
    let looking = session.output.spinner("counting the contacts");
    let preview = session.client.preview_broadcast(new).await;
    looking.finish_and_clear();
    let preview = preview?;
    if options.dry_run && session.output.is_json() {
        return session.output.object(&preview);
    }
    for line in preview::lines(session, &preview, options.is_audience()) {
        match options.dry_run {
            true => session.output.line(&line)?,
            false => session.output.note(&line),
        }
    }
    if options.dry_run {
        return Ok(());
    }
    let number = preview.contacts.accepted;
    session
        .output
        .confirm("Type the number of contacts to send it", number)
        .await
}

/// Tells that the broadcast was accepted, and what of it is done already; its counts only if they were not seen before.
fn show(session: &Session, accepted: &Accepted, is_unseen: bool) -> Result<(), Failure> {
    let Accepted { report, replayed } = accepted;
    let (output, summary) = (&session.output, &report.summary);
    let id = summary.broadcast_id.to_string();
    match output.is_json() {
        true => output.object(report)?,
        false => output.line(&format!("{} {id}", output.paint(Tone::Good, "accepted")))?,
    }
    if *replayed {
        output.note("  the request was accepted before, and this is that broadcast: nothing is sent twice");
    }
    let counts = &summary.contacts;
    if is_unseen && summary.audience.is_none() {
        output.note(&format!("  {}", preview::contacts(counts, report.jobs.len())));
    }
    let short = short(&summary.broadcast_id);
    if let Some(at) = summary.scheduled_at {
        let local = summary
            .scheduled_local
            .clone()
            .unwrap_or_else(|| words::date_and_time(at));
        output.note(&format!("  sending begins {}", plain(&local)));
    }
    match summary.status {
        JobStatus::Completed => output.note(&format!("  {}", words::outcomes(&summary.counters).join("   "))),
        JobStatus::AwaitingApproval => {
            output.note(&format!("  another caller lets it be sent: oncecast approve {short}"))
        }
        _ => output.note(&format!("  follow it with: oncecast status {short} --follow")),
    }
    Ok(())
}

impl Options {
    fn is_audience(&self) -> bool {
        self.to.is_none()
    }

    /// Returns the request.
    fn request(&self) -> Result<NewBroadcast, Failure> {
        let message = Message {
            text: Some(self.text.clone()),
            attachment: None,
            template: None,
            quick_replies: Vec::new(),
        };
        let new = match &self.to {
            Some(file) => NewBroadcast::new(recipients::read(file)?, message),
            None => NewBroadcast::to_audience(self.audience(), message),
        };
        let ids = new.contact_ids.len();
        if ids > MAX_CONTACT_IDS {
            let (ids, most) = (counted(ids as u64, "id"), counted(MAX_CONTACT_IDS as u64, "id"));
            return Err(Failure::new(
                Exit::Arguments,
                format!("a broadcast takes at most {most}, and there are {ids}"),
            )
            .and("import the contacts with a tag, and send to --tag TAG: a broadcast to a tag has no limit"));
        }
        Ok(NewBroadcast {
            name: self.name.clone(),
            scheduled_at: self.scheduled_at()?,
            time_zone: self.time_zone.clone(),
            priority: self.priority,
            requires_approval: self.requires_approval,
            ..new
        })
    }

    fn audience(&self) -> AudienceChoice {
        if let Some(name) = &self.audience {
            let name = name.clone();
            return AudienceChoice::Saved(AudienceRef { name });
        }
        AudienceChoice::Filters(Audience {
            // The API has everybody asked for by this word, and only without a filter.
            everybody: self.everybody && self.page.is_empty(),
            page_ids: self.page.clone(),
            tags_any: self.tag.clone(),
            ..Audience::default()
        })
    }

    fn scheduled_at(&self) -> Result<Option<Timestamp>, Failure> {
        let Some(at) = &self.at else { return Ok(None) };
        let time = match &self.time_zone {
            Some(zone) => zone.read(at),
            None => at.parse().ok(),
        };
        match time {
            Some(time) => Ok(Some(time)),
            None => {
                let here = TimeZone::system();
                let here = here.iana_name().unwrap_or("Asia/Manila");
                let wrong = format!(
                    "--at {} is no time, or its offset is missing or another than the zone's",
                    plain(at)
                );
                Err(Failure::new(Exit::Arguments, wrong).and(format!(
                    "write 2026-12-01T09:00:00+08:00, or 2026-12-01T09:00 with --time-zone {here}"
                )))
            }
        }
    }

    /// Returns lines with the command that repeats this one.
    fn repetition(&self, key: &str) -> Vec<String> {
        let mut words: Vec<_> = std::env::args_os()
            .map(|word| quoted(&word.to_string_lossy()))
            .collect();
        if self.idempotency_key.is_none() {
            words.push(format!("--idempotency-key {key}"));
        }
        if !self.yes {
            words.push("--yes".to_owned());
        }
        let stdin = self.to.as_ref().is_some_and(|file| file.as_os_str() == "-");
        let ids = if stdin { " with the same ids on stdin" } else { "" };
        vec![
            format!("the request may have been accepted. This command repeats it{ids}, and sends nothing twice:"),
            words.join(" "),
        ]
    }
}

/// Returns a word as a shell reads it, without control characters.
fn quoted(word: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_safe) {
        return word.to_owned();
    }
    if plain(word) == word {
        return format!("'{}'", word.replace('\'', "'\\''"));
    }
    let mut quoted = String::from("$'");
    for c in word.chars() {
        match c {
            '\'' | '\\' => quoted.extend(['\\', c]),
            c if plain(c.encode_utf8(&mut [0; 4])).len() == c.len_utf8() => quoted.push(c),
            c if c.is_ascii() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    quoted + "'"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("--to"), "--to");
        assert_eq!(quoted(""), "''");
        assert_eq!(
            quoted("Hi {{ first_name | default('there') }}"),
            r"'Hi {{ first_name | default('\''there'\'') }}'"
        );
        assert_eq!(quoted("it's\n\u{1b}[1m\u{202e}王"), r"$'it\'s\x0a\x1b[1m\u202e王'");
    }
}
