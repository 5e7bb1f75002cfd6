//! `oncecast doctor`: what works and what does not, each with what to do.

use std::time::Instant;

use clap::Args;
use client::api::checks::{Check, CheckState, CheckedThing, Checks};
use jiff::{SignedDuration, Timestamp};
use shared::domain::ids::PageId;

use crate::api::Session;
use crate::failure::{Exit, Failure};
use crate::output::Tone;
use crate::pages;
use crate::text::{counted, plain};

/// The difference of clocks from which a signature may be refused, and times of broadcasts are not what they seem.
const MAX_CLOCK_DIFFERENCE: SignedDuration = SignedDuration::from_secs(30);
/// The columns of the name of a check.
const NAME: usize = 14;

/// The options of `doctor`.
#[derive(Debug, Args)]
pub struct Options {
    /// Checks this Page only; without it all Pages that have contacts
    #[arg(long, value_name = "PAGE", value_parser = PageId::parse)]
    page: Option<PageId>,
}

/// Checks the installation and the Pages.
///
/// # Errors
///
/// Fails if a call or the output fails, or something is wrong.
pub async fn run(session: &Session, options: Options) -> Result<(), Failure> {
    let (asked_at, begun) = (Timestamp::now(), Instant::now());
    let first = session.client.checks(None).await?;
    let took = begun.elapsed();
    let mut report = Report { session, wrong: 0 };
    if !session.output.is_json() {
        let answer = format!("{} answers in {} ms", session.api, took.as_millis());
        report.line("API", CheckState::Ok, &answer, None)?;
        let half = SignedDuration::try_from(took / 2).unwrap_or_default();
        report.clock(asked_at.duration_since(first.time) + half)?;
    }
    report.checks(&first)?;
    let pages = match options.page {
        Some(page) => vec![page],
        None => pages::all(session)
            .await?
            .into_iter()
            .map(|page| page.page_id)
            .collect(),
    };
    for page in &pages {
        let checks = session.client.checks(Some(page)).await?;
        if !session.output.is_json() {
            session.output.line(&format!("Page {}", plain(page.as_str())))?;
        }
        report.checks(&checks)?;
    }
    if pages.is_empty() {
        session
            .output
            .note("no Page has contacts yet, so that none is checked; --page PAGE checks one");
    }
    match report.wrong {
        0 => Ok(()),
        wrong => Err(Failure::new(Exit::Failed, format!("{} wrong", counted(wrong, "thing")))),
    }
}

/// The lines that are printed.
struct Report<'a> {
    session: &'a Session,
    /// Things that are wrong.
    wrong: u64,
}

impl Report<'_> {
    fn checks(&mut self, checks: &Checks) -> Result<(), Failure> {
        if self.session.output.is_json() {
            let wrong = checks.checks.iter().filter(|check| check.state == CheckState::Wrong);
            self.wrong += wrong.count() as u64;
            return self.session.output.object(checks);
        }
        for Check {
            check,
            state,
            detail,
            remedy,
        } in &checks.checks
        {
            self.line(name(*check), *state, detail, remedy.as_deref())?;
        }
        Ok(())
    }

    fn clock(&mut self, ahead: SignedDuration) -> Result<(), Failure> {
        let seconds = ahead.as_secs();
        match ahead.abs() <= MAX_CLOCK_DIFFERENCE {
            true => {
                let detail = "that of this machine agrees with that of the API";
                self.line("clock", CheckState::Ok, detail, None)
            }
            false => {
                let side = if seconds > 0 { "ahead of" } else { "behind" };
                let detail = format!("this machine is {} s {side} the API", seconds.abs());
                let remedy = "set the clock, such as by `timedatectl set-ntp true`";
                self.line("clock", CheckState::Wrong, &detail, Some(remedy))
            }
        }
    }

    fn line(&mut self, name: &str, state: CheckState, detail: &str, remedy: Option<&str>) -> Result<(), Failure> {
        let output = &self.session.output;
        let sign = match state {
            CheckState::Ok => output.paint(Tone::Good, "✓"),
            CheckState::Wrong => output.paint(Tone::Bad, "✗"),
            CheckState::Unknown => output.paint(Tone::Warning, "?"),
        };
        self.wrong += u64::from(state == CheckState::Wrong);
        output.line(&format!("  {sign} {name:NAME$}{}", plain(detail)))?;
        remedy.map_or(Ok(()), |remedy| {
            output.line(&format!("    {:NAME$}→ {}", "", plain(remedy)))
        })
    }
}

fn name(check: CheckedThing) -> &'static str {
    match check {
        CheckedThing::Database => "database",
        CheckedThing::Queue => "queue",
        CheckedThing::Sending => "sending",
        CheckedThing::Token => "token",
        CheckedThing::Conversations => "permissions",
        CheckedThing::Webhook => "webhook",
    }
}
