//! `oncecast status`: the state of a broadcast, once or until it has ended.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use clap::Args;
use client::BroadcastQuery;
use client::api::broadcasts::BroadcastReport;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use shared::domain::ids::{BroadcastId, PageId};
use shared::domain::job::JobStatus;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time;

use super::find::{find, id_or_prefix, short};
use super::screen::{self, Rates};
use super::words;
use crate::api::Session;
use crate::failure::{Exit, Failure};
use crate::text::{counted, plain};

/// The time between two looks at a broadcast that is being sent.
const EVERY: Duration = Duration::from_secs(2);
/// The time between two looks at one that waits for its time or for an operator.
const IDLE_EVERY: Duration = Duration::from_secs(10);
/// The time over which the speed is measured.
const SPEED_OVER: Duration = Duration::from_secs(10);
/// The options of `status`.
#[derive(Debug, Args)]
pub struct Options {
    /// Id of the broadcast, or its first 6 digits or more; the newest broadcast without it
    #[arg(value_parser = id_or_prefix)]
    id: Option<String>,
    /// Goes on showing it until it has ended; the exit status is 6 if messages are not known to be sent
    #[arg(long, short)]
    follow: bool,
}

/// Shows the state of a broadcast.
///
/// # Errors
///
/// Fails if a call or the output fails, or a broadcast that is followed ends with messages that are not known to be sent.
pub async fn run(session: &Session, options: Options) -> Result<(), Failure> {
    let id = match &options.id {
        Some(prefix) => find(session, prefix).await?,
        None => newest(session).await?,
    };
    match options.follow {
        true => follow(session, &id).await,
        false => show(session, &session.client.broadcast(&id).await?),
    }
}

async fn newest(session: &Session) -> Result<BroadcastId, Failure> {
    let query = BroadcastQuery {
        limit: Some(1),
        ..BroadcastQuery::default()
    };
    let newest = session.client.broadcasts(&query).await?.items.into_iter().next();
    newest
        .map(|summary| summary.broadcast_id)
        .ok_or_else(|| Failure::new(Exit::Refused, "there is no broadcast yet").and("`oncecast send` makes one"))
}

fn show(session: &Session, report: &BroadcastReport) -> Result<(), Failure> {
    if session.output.is_json() {
        return session.output.object(report);
    }
    let lines = screen::lines(&session.output, report, &screen::rates(report));
    lines.iter().try_for_each(|line| session.output.line(line))
}

/// Shows a broadcast again and again, until it has ended.
async fn follow(session: &Session, id: &BroadcastId) -> Result<(), Failure> {
    session.if_interrupted(&["only the watching has ended: the broadcast goes on by itself".to_owned()]);
    let output = &session.output;
    let mut view = match output.has_bars() && output.is_terminal() && !output.is_json() {
        true => View::Live(Live::new()?),
        false => View::Lines { last: None },
    };
    let mut speed = Speed::default();
    let (mut report, mut tag) = (None, None);
    loop {
        if let Some(changed) = session.client.broadcast_if_changed(id, tag.as_deref()).await? {
            (report, tag) = (Some(changed.report), changed.tag);
        }
        // The first answer is a report.
        let Some(report) = &report else { continue };
        speed.measure(report);
        let rates = speed.rates().unwrap_or_else(|| screen::rates(report));
        view.show(session, report, &rates)?;
        if has_ended(report.summary.status) {
            view.end();
            if matches!(view, View::Live(_)) {
                show(session, report)?;
            }
            return end(report);
        }
        let every = match report.summary.status {
            JobStatus::Processing | JobStatus::Queued if report.stopped.is_none() => EVERY,
            _ => IDLE_EVERY,
        };
        view.wait(every, session, report, &rates).await;
    }
}

/// Returns true if nothing changes any more by itself, but for lookups of what is in doubt.
fn has_ended(status: JobStatus) -> bool {
    matches!(status, JobStatus::Halted | JobStatus::Cancelled | JobStatus::Completed)
}

/// Returns a failure unless every contact was sent to, or skipped for a reason of its own.
fn end(report: &BroadcastReport) -> Result<(), Failure> {
    let summary = &report.summary;
    let short = short(&summary.broadcast_id);
    let outcomes = &summary.counters.outcomes;
    let in_part = |what: String| Failure::new(Exit::InPart, what);
    match summary.status {
        JobStatus::Halted => {
            let mut failure = in_part("the broadcast is halted".to_owned());
            let mut token = None;
            for job in report.jobs.iter().filter(|job| job.status == JobStatus::Halted) {
                token = client::words::token(report, &job.page_id).or(token);
                let reason =
                    plain(&client::words::halted(job, client::words::token(report, &job.page_id))).into_owned();
                failure = failure.and(format!("{}: {reason}", job.page_id.as_str()));
            }
            Err(failure
                .and(screen::remedy(token))
                .and(format!("resume it with: oncecast resume {short}")))
        }
        JobStatus::Cancelled => Err(in_part("the broadcast was cancelled".to_owned())),
        _ if outcomes.failed + outcomes.in_doubt == 0 => Ok(()),
        _ => {
            let mut failure = in_part(format!(
                "{} failed, {} in doubt",
                counted(outcomes.failed, "message"),
                indicatif::HumanCount(outcomes.in_doubt)
            ));
            if outcomes.failed > 0 {
                failure = failure.and(format!("they are listed by: oncecast report {short} --status failed"));
            }
            if outcomes.in_doubt > 0 {
                failure = failure
                    .and("what is in doubt is looked up by itself within some minutes, and may still become sent");
            }
            Err(failure)
        }
    }
}

/// The measured speed of the Pages.
#[derive(Default)]
struct Speed(VecDeque<(Instant, BTreeMap<PageId, u64>)>);

impl Speed {
    fn measure(&mut self, report: &BroadcastReport) {
        let now = Instant::now();
        let sent = report
            .jobs
            .iter()
            .map(|job| (job.page_id.clone(), job.counters.outcomes.sent));
        self.0.push_back((now, sent.collect()));
        // The oldest measurement is older than the time over which it is measured, if there is one.
        while self.0.get(1).is_some_and(|(at, _)| now - *at >= SPEED_OVER) {
            self.0.pop_front();
        }
    }

    /// Returns the rates; `None` until they are measured.
    fn rates(&self) -> Option<Rates> {
        let ((begin, before), (end, after)) = (self.0.front()?, self.0.back()?);
        let seconds = (*end - *begin).as_secs_f64();
        let sent = |page: &PageId, now: u64| now.saturating_sub(before.get(page).copied().unwrap_or_default());
        let rate = |(page, now): (&PageId, &u64)| (page.clone(), sent(page, *now) as f64 / seconds);
        (seconds >= 1.0).then(|| after.iter().map(rate).collect())
    }
}

/// The view of a broadcast that is followed.
enum View {
    /// Lines that are written over.
    Live(Live),
    /// A line for each change, where stdout is no terminal.
    Lines { last: Option<String> },
}

impl View {
    fn show(&mut self, session: &Session, report: &BroadcastReport, rates: &Rates) -> Result<(), Failure> {
        match self {
            Self::Live(live) => {
                live.show(session, &screen::lines(&session.output, report, rates));
                Ok(())
            }
            Self::Lines { last } => {
                let line = match session.output.is_json() {
                    true => serde_json::to_string(report).map_err(std::io::Error::from)?,
                    false => format!(
                        "{}   {}",
                        client::words::status(report.summary.status),
                        words::outcomes(&report.summary.counters).join("   ")
                    ),
                };
                if last.as_ref() == Some(&line) {
                    return Ok(());
                }
                let written = match session.output.is_json() {
                    true => session.output.line(&line),
                    false => session.output.line(&format!("{}   {line}", words::clock())),
                };
                *last = Some(line);
                written
            }
        }
    }

    /// Waits for the next look. A terminal that gets another size is drawn anew meanwhile.
    async fn wait(&mut self, every: Duration, session: &Session, report: &BroadcastReport, rates: &Rates) {
        let Self::Live(live) = self else {
            return time::sleep(every).await;
        };
        let mut waited = std::pin::pin!(time::sleep(every));
        loop {
            tokio::select! {
                () = &mut waited => return,
                _ = live.resized.recv() => live.show(session, &screen::lines(&session.output, report, rates)),
            }
        }
    }

    fn end(&mut self) {
        if let Self::Live(live) = self {
            live.lines.iter().for_each(ProgressBar::finish_and_clear);
        }
    }
}

/// The lines that are written over.
struct Live {
    lines: Vec<ProgressBar>,
    resized: Signal,
}

impl Live {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            lines: Vec::new(),
            resized: signal(SignalKind::window_change())?,
        })
    }

    fn show(&mut self, session: &Session, lines: &[String]) {
        while self.lines.len() < lines.len() {
            let style = ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
            let line = ProgressBar::no_length()
                .with_style(style)
                .with_finish(ProgressFinish::Abandon);
            self.lines.push(session.output.bar(line));
        }
        for spare in self.lines.drain(lines.len()..) {
            spare.finish_and_clear();
        }
        for (bar, line) in self.lines.iter().zip(lines) {
            if bar.message() != *line {
                bar.set_message(line.clone());
            }
        }
    }
}
