//! The state of a broadcast as lines of a terminal.

use std::collections::BTreeMap;

use client::api::broadcasts::{BroadcastReport, JobReport, Stopped};
use client::api::progress::{MinuteReport, PageProgressReport, ProgressReport, TokenState};
use indicatif::HumanCount;
use jiff::Timestamp;
use shared::domain::ids::PageId;
use shared::domain::job::JobStatus;

use super::words;
use crate::output::{Output, Tone};
use crate::text::{padded, plain, shortened, width};

/// The most columns of a bar.
const BAR: usize = 30;
/// The fewest columns of a bar; a terminal without room for them has none.
const MIN_BAR: usize = 6;
/// The columns that are kept for the state of a Page.
const STATE: usize = 10;
/// The columns where stdout is no terminal.
const UNBOUNDED: usize = 100;
/// The lines that are not about a Page, about.
const OTHER_LINES: usize = 10;
/// The columns before the text of a labelled line.
const LABEL: usize = 15;
/// The seconds of a minute.
const MINUTE: i64 = 60;

/// The messages a second of each Page.
pub type Rates = BTreeMap<PageId, f64>;

/// Returns the rates that a report tells: those since the beginning of the last whole minute.
pub fn rates(report: &BroadcastReport) -> Rates {
    let begun = report.summary.scheduled_at.unwrap_or(report.summary.created_at);
    let of_page = |page: &PageProgressReport| (page.page_id.clone(), per_second(&page.sent_per_minute, begun));
    let pages = report.progress.iter().flat_map(|progress| &progress.pages);
    pages.map(of_page).collect()
}

fn per_second(minutes: &[MinuteReport], begun: Timestamp) -> f64 {
    let now = Timestamp::now().as_second();
    let since = now - now % MINUTE - MINUTE;
    let recent = minutes.iter().filter(|minute| minute.minute.as_second() >= since);
    let sent: u64 = recent.map(|minute| minute.sent).sum();
    sent as f64 / (now - since.max(begun.as_second())).max(1) as f64
}

/// Returns the lines that show a broadcast, as wide and as many as the terminal has room for.
pub fn lines(output: &Output, report: &BroadcastReport, rates: &Rates) -> Vec<String> {
    // A line that fills the terminal is taken for two by some terminals.
    let columns = output.columns().unwrap_or(UNBOUNDED).saturating_sub(1);
    let mut lines = heading(output, report, rates, columns);
    let pages = Pages {
        output,
        report,
        rates,
        columns,
    };
    lines.extend(pages.lines());
    lines.extend(wrapped(words::outcomes(&report.summary.counters), "   ", "", columns));
    let reasons: Vec<_> = report.reasons.iter().map(words::reason).collect();
    lines.extend(wrapped(reasons, " · ", "not sent", columns));
    if let Some(stopped) = &report.stopped {
        lines.extend(switched_off(output, stopped));
    }
    lines
}

/// Returns the name, the status, the speed and the end, in one line if there is room.
fn heading(output: &Output, report: &BroadcastReport, rates: &Rates, columns: usize) -> Vec<String> {
    let summary = &report.summary;
    let id = summary.broadcast_id.to_string();
    let name = summary.name.as_deref().map_or(id, |name| plain(name).into_owned());
    let status = client::words::status(summary.status);
    let mut state = vec![status.to_owned()];
    let rate: f64 = rates.values().sum();
    if summary.status == JobStatus::Processing && rate >= 0.5 {
        state.push(format!("{rate:.0}/s"));
    }
    if summary.status == JobStatus::Scheduled
        && let Some(at) = summary.scheduled_at
    {
        state.push(format!("begins {}", words::time(at)));
    }
    if let Some(end) = report
        .progress
        .as_ref()
        .and_then(|progress: &ProgressReport| progress.expected_end)
    {
        state.push(format!("ends about {}", words::time(end)));
    }
    if report.jobs.iter().any(|job| job.resolving) {
        state.push("finding the contacts".to_owned());
    }
    let state = state.join(" · ");
    let painted = state.replacen(status, &output.paint(tone(summary.status), status), 1);
    let strong = |name: &str| output.paint(Tone::Strong, name);
    let spaces = columns.saturating_sub(width(&name) + width(&state));
    match spaces {
        0 | 1 if width(&state) + 2 > columns => vec![
            strong(&shortened(&name, columns)),
            shortened(&format!("  {state}"), columns),
        ],
        0 | 1 => vec![strong(&shortened(&name, columns)), format!("  {painted}")],
        spaces => vec![format!("{}{}{painted}", strong(&name), " ".repeat(spaces.min(40)))],
    }
}

fn tone(status: JobStatus) -> Tone {
    match status {
        JobStatus::Processing | JobStatus::Completed => Tone::Good,
        JobStatus::Halted | JobStatus::Cancelled => Tone::Bad,
        JobStatus::Paused | JobStatus::AwaitingApproval | JobStatus::Waiting => Tone::Warning,
        JobStatus::Queued | JobStatus::Scheduled => Tone::Strong,
    }
}

/// The Pages of a broadcast on a terminal.
struct Pages<'a> {
    output: &'a Output,
    report: &'a BroadcastReport,
    rates: &'a Rates,
    columns: usize,
}

impl Pages<'_> {
    fn lines(&self) -> Vec<String> {
        let jobs = self.shown();
        let names = jobs
            .iter()
            .map(|job| width(job.page_id.as_str()))
            .max()
            .unwrap_or_default();
        let counts: Vec<_> = jobs.iter().map(|job| count(job)).collect();
        let count_width = counts.iter().map(|count| width(count)).max().unwrap_or_default();
        let taken = 2 + names + 2 + 2 + count_width + 3 + STATE;
        let bar_width = Some(self.columns.saturating_sub(taken).min(BAR)).filter(|bar| *bar >= MIN_BAR);
        let mut lines = Vec::new();
        for (job, count) in jobs.iter().zip(&counts) {
            let bar = bar_width
                .map(|columns| format!("{}  ", bar(job, columns)))
                .unwrap_or_default();
            let spaces = " ".repeat(count_width - width(count));
            let line = format!("  {}  {bar}{spaces}{count}   ", padded(job.page_id.as_str(), names));
            let state = shortened(&self.state(job), self.columns.saturating_sub(width(&line)));
            lines.push(
                format!("{line}{}", self.output.paint(tone(job.status), &state))
                    .trim_end()
                    .to_owned(),
            );
            lines.extend(self.trouble(job));
        }
        let hidden = self.report.jobs.len() - jobs.len();
        if hidden > 0 {
            lines.push(format!("  and {hidden} more Pages"));
        }
        lines
    }

    /// Returns the Pages that the terminal has room for, those first that are not done; all where stdout is none.
    fn shown(&self) -> Vec<&JobReport> {
        let mut jobs: Vec<_> = self.report.jobs.iter().collect();
        let room = self.output.rows().saturating_sub(OTHER_LINES).max(1);
        if self.output.is_terminal() && jobs.len() > room {
            // Halted jobs need somebody; the rest is by importance.
            jobs.sort_by_key(|job| (job.status != JobStatus::Halted, job.status));
            jobs.truncate(room);
        }
        jobs
    }

    fn progress(&self, job: &JobReport) -> Option<&PageProgressReport> {
        let progress = self.report.progress.as_ref()?;
        progress.pages.iter().find(|page| page.page_id == job.page_id)
    }

    fn state(&self, job: &JobReport) -> String {
        let limited = self.progress(job).and_then(|page| page.paused_until);
        let rate = self.rates.get(&job.page_id).filter(|rate| **rate >= 0.5);
        let until = |what: &str, time: Timestamp| format!("{what} {}", words::time(time));
        match (job.status, job.due_at) {
            (JobStatus::Processing | JobStatus::Queued | JobStatus::Waiting, _) if limited.is_some() => limited
                .map(|limited| until("limited until", limited))
                .unwrap_or_default(),
            (JobStatus::Processing, _) => rate.map_or_else(|| "sending".to_owned(), |rate| format!("{rate:.0}/s")),
            (JobStatus::Waiting, Some(due_at)) => until("waiting until", due_at),
            (JobStatus::Scheduled, Some(due_at)) => until("begins", due_at),
            (JobStatus::Completed, _) => "done".to_owned(),
            (status, _) => client::words::status(status).to_owned(),
        }
    }

    /// Returns the reason of a halted job, and what to do.
    fn trouble(&self, job: &JobReport) -> Vec<String> {
        if job.status != JobStatus::Halted {
            return Vec::new();
        }
        let token = client::words::token(self.report, &job.page_id);
        let reason = shortened(
            &format!("    {}", plain(&client::words::halted(job, token))),
            self.columns,
        );
        vec![reason, shortened(&format!("    {}", remedy(token)), self.columns)]
    }
}

/// Returns what to do about a halted job, by the state of its Page's token.
pub fn remedy(token: Option<TokenState>) -> &'static str {
    match token {
        Some(TokenState::Refused | TokenState::Missing) => {
            "give it a new token: aws ssm put-parameter, or --page-tokens; then resume"
        }
        _ => "repair the cause, then resume",
    }
}

fn done(job: &JobReport) -> u64 {
    let open = job.counters.pending + job.counters.outcomes.waiting;
    job.contacts.saturating_sub(open)
}

fn count(job: &JobReport) -> String {
    format!("{} of {}", HumanCount(done(job)), HumanCount(job.contacts))
}

fn bar(job: &JobReport, columns: usize) -> String {
    let (done, all) = (done(job) as f64, job.contacts.max(1) as f64);
    let full = if job.contacts == 0 {
        columns
    } else {
        (done / all * columns as f64) as usize
    }
    .min(columns);
    format!("{}{}", "█".repeat(full), "░".repeat(columns - full))
}

/// Returns the parts in as many lines as they need; the first one has the label, if it has any.
fn wrapped(parts: Vec<String>, separator: &str, label: &str, columns: usize) -> Vec<String> {
    let indent = if label.is_empty() {
        "  ".to_owned()
    } else {
        " ".repeat(LABEL)
    };
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if width(line) + width(separator) + width(&part) <= columns => {
                line.push_str(separator);
                line.push_str(&part);
            }
            Some(_) => lines.push(format!("{indent}{part}")),
            None if label.is_empty() => lines.push(format!("{indent}{part}")),
            None => lines.push(format!("{}{part}", padded(&format!("  {label}"), LABEL))),
        }
    }
    lines.iter().map(|line| shortened(line, columns)).collect()
}

fn switched_off(output: &Output, stopped: &Stopped) -> Vec<String> {
    let page = stopped
        .page_id
        .as_ref()
        .map(|page_id| format!(" for {}", page_id.as_str()))
        .unwrap_or_default();
    let reason = stopped
        .reason
        .as_ref()
        .map(|reason| format!(": {}", plain(reason)))
        .unwrap_or_default();
    let line = format!("  sending is switched off{page}{reason}");
    vec![
        output.paint(Tone::Bad, &line),
        "  go on with: oncecast sending on".to_owned(),
    ]
}
