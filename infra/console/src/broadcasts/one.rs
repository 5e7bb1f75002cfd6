//! One broadcast, as it is now.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Html;
use client::api::broadcasts::{BroadcastReport, JobReport};
use client::api::progress::{PageProgressReport, TokenState};
use client::api::reasons::ReasonReport;
use jiff::Timestamp;
use shared::domain::command::JobCommand;
use shared::domain::job::JobStatus;
use shared::domain::schedule::QUIET_HOURS;

use super::minutes::{self, Minute};
use super::orders::{self, Order};
use super::{missing, parse_id};
use crate::Console;
use crate::fields::{Fields, in_path};
use crate::frame::{Chrome, Section};
use crate::page::{Answer, has, html, not_modified, rendered, tagged};
use crate::session::Visitor;
use crate::show;

/// The time between two looks at a broadcast that is at work, as htmx writes it.
const OFTEN: &str = "2s";
/// The same of one that waits: for its time, for an operator, or for the evidence of deliveries in doubt.
const SELDOM: &str = "10s";

#[derive(Template)]
#[template(path = "broadcast.html", blocks = ["live"])]
struct BroadcastView {
    chrome: Chrome,
    report: BroadcastReport,
    path: String,
}

/// A line about the job of a Page.
struct Note {
    words: String,
    /// The time at which what the words say ends.
    until: Option<Timestamp>,
    /// True if the operator has to do something.
    is_bad: bool,
}

impl BroadcastView {
    fn name(&self) -> String {
        super::name(&self.report.summary)
    }

    /// Returns the time between two looks; `None` if the page does not change any more.
    fn every(&self) -> Option<&'static str> {
        let counters = &self.report.summary.counters;
        match self.report.summary.status {
            JobStatus::Processing | JobStatus::Queued | JobStatus::Waiting => Some(OFTEN),
            _ if self.report.jobs.iter().any(|job| job.command.is_some()) => Some(OFTEN),
            JobStatus::Paused | JobStatus::Scheduled | JobStatus::AwaitingApproval | JobStatus::Halted => Some(SELDOM),
            JobStatus::Cancelled | JobStatus::Completed => (counters.outcomes.in_doubt > 0).then_some(SELDOM),
        }
    }

    fn orders(&self) -> Vec<Order> {
        orders::orders(&self.report)
    }

    /// Returns the orders for the job of one of several Pages.
    fn orders_of(&self, job: &JobReport) -> Vec<Order> {
        match self.report.jobs.len() {
            0..=1 => Vec::new(),
            _ => orders::orders_of(job),
        }
    }

    fn rate(&self) -> Option<u64> {
        show::rate(&self.report)
    }

    fn ends(&self) -> Option<Timestamp> {
        let has_begun = matches!(
            self.report.summary.status,
            JobStatus::Processing | JobStatus::Queued | JobStatus::Waiting
        );
        self.report.progress.as_ref()?.expected_end.filter(|_| has_begun)
    }

    /// Returns the messages of each minute, up to now while it is sending.
    fn minutes(&self) -> Vec<Minute> {
        let is_sending = self.report.summary.status == JobStatus::Processing;
        let present = is_sending.then(|| (Timestamp::now(), show::not_counted_yet(&self.report)));
        minutes::minutes(self.report.progress.as_ref(), present)
    }

    /// Returns the state of the Page of a job.
    fn page(&self, job: &JobReport) -> Option<&PageProgressReport> {
        let progress = self.report.progress.as_ref()?;
        progress.pages.iter().find(|page| page.page_id == job.page_id)
    }

    fn rate_of(&self, job: &JobReport) -> Option<u64> {
        show::rate_of(&self.report, job)
    }

    /// Returns what an operator has to know of a job beyond its status.
    fn notes(&self, job: &JobReport) -> Vec<Note> {
        let good = |words: &str, until| Note {
            words: words.to_owned(),
            until,
            is_bad: false,
        };
        let bad = |words: String| Note {
            words,
            until: None,
            is_bad: true,
        };
        let page = self.page(job);
        let paused = page
            .and_then(|page| page.paused_until)
            .filter(|until| *until > Timestamp::now());
        let mut notes = Vec::new();
        match job.command {
            Some(JobCommand::Pause) => notes.push(good("pauses in a moment", None)),
            Some(JobCommand::Cancel) => notes.push(good("being cancelled", None)),
            Some(JobCommand::Retry | JobCommand::Resend) => notes.push(good("sends again in a moment", None)),
            None => {}
        }
        if job.stopped.is_some() {
            notes.push(bad("sending is stopped".to_owned()));
        }
        match (job.status, job.reason.as_deref(), paused) {
            (JobStatus::Halted, _, _) => {
                let token = page.map(|page| page.token);
                notes.push(bad(client::words::halted(job, token)));
                notes.push(bad(cure(token).to_owned()));
            }
            (JobStatus::Scheduled, _, _) => notes.push(good("starts", job.due_at)),
            (JobStatus::Waiting, Some(QUIET_HOURS), _) => notes.push(good("quiet hours until", job.due_at)),
            (JobStatus::Waiting | JobStatus::Processing | JobStatus::Queued, _, Some(until)) => {
                notes.push(good("held back by Messenger until", Some(until)));
            }
            (JobStatus::Waiting, _, None) => notes.push(good("goes on", job.due_at)),
            _ => {}
        }
        let is_over = matches!(
            job.status,
            JobStatus::Completed | JobStatus::Cancelled | JobStatus::Halted
        );
        if !is_over && page.is_some_and(|page| page.token == TokenState::Missing) {
            notes.push(bad("no access token: add one to the Page tokens".to_owned()));
        }
        let is_ahead = matches!(
            job.status,
            JobStatus::Scheduled | JobStatus::AwaitingApproval | JobStatus::Paused
        );
        match (job.resolving, is_ahead) {
            (true, true) => notes.push(good("its contacts are found when it starts", None)),
            (true, false) if !is_over => notes.push(good("its contacts are being found", None)),
            _ => {}
        }
        notes
    }

    /// Returns a reason in words, and its code if the words do not tell it.
    fn reason(&self, reason: &ReasonReport) -> String {
        show::reason(&reason.code, Some(&reason.meaning))
    }

    /// Returns the link to the deliveries with these values of the filters.
    fn deliveries(&self, filters: &[(&str, &str)]) -> String {
        Fields::default().link(&format!("{}/deliveries", self.path), filters)
    }

    /// Returns the link to the form of an order that is limited to a Page.
    fn order_of(&self, order: &Order, job: &JobReport) -> String {
        let path = format!("{}/{}", self.path, order.path());
        Fields::default().link(&path, &[("page_id", job.page_id.as_str())])
    }

    fn page_link(&self, job: &JobReport) -> String {
        format!("/pages/{}", in_path(job.page_id.as_str()))
    }

    /// Returns the orders since the broadcast was accepted, from the newest: the time, and what was ordered.
    fn history(&self) -> Vec<(&Timestamp, String, Option<&str>)> {
        let entries = self.report.history.iter().rev();
        let entries = entries.map(|entry| (&entry.time, orders::told(entry), entry.details.as_deref()));
        entries.collect()
    }

    /// Returns true if the duplicates of any layer were prevented.
    fn has_duplicates(&self) -> bool {
        self.duplicates().iter().any(|(_, count)| *count > 0)
    }

    /// Returns true if contacts are left, or may be.
    fn goes_on(&self) -> bool {
        !matches!(self.report.summary.status, JobStatus::Completed | JobStatus::Cancelled)
    }

    /// Returns the duplicates that each layer prevented, in words.
    fn duplicates(&self) -> [(&'static str, u64); 4] {
        let prevented = &self.report.summary.duplicates_prevented;
        [
            ("Repeated in the request", prevented.request),
            ("The same request again", prevented.replay),
            ("A second worker on the job", prevented.claim),
            ("Settled before a worker came", prevented.reservation),
        ]
    }

    /// Returns the facts of the broadcast that do not change while it is sent, by name.
    fn facts(&self) -> Vec<(String, String)> {
        let summary = &self.report.summary;
        let contacts = &summary.contacts;
        let mut facts = Vec::new();
        let mut fact = |name: &str, value: String| facts.push((name.to_owned(), value));
        let counted = |count: u64, words: &str| (count > 0).then(|| format!("{} {words}", show::number(&count)));
        let looked_at = match summary.audience {
            Some(_) => counted(contacts.requested, "looked at"),
            None => counted(contacts.requested, "ids"),
        };
        let counts = [
            looked_at,
            counted(contacts.duplicates_removed, "repeated"),
            counted(contacts.unknown, "unknown"),
            counted(contacts.opted_out, "opted out"),
            Some(format!("{} accepted", show::number(&contacts.accepted))),
        ];
        fact("Contacts", counts.into_iter().flatten().collect::<Vec<_>>().join(", "));
        if !contacts.unknown_ids.is_empty() {
            fact("Unknown ids", shortened(&contacts.unknown_ids));
        }
        if let Some(audience) = &summary.audience {
            let name = audience
                .name
                .as_ref()
                .map(|name| format!("{}: ", name.as_str()))
                .unwrap_or_default();
            fact("Audience", format!("{name}{}", show::audience(&audience.filters)));
        }
        if let Some(local) = &summary.scheduled_local {
            fact("Local start", wall_clock(local));
        }
        if let Some(quiet) = &summary.quiet_hours {
            let zone = quiet.time_zone.name();
            fact("Quiet hours", format!("{} to {}, {zone}", quiet.from, quiet.to));
        }
        if summary.requires_approval {
            let approved = if summary.approved_at.is_some() {
                "approved"
            } else {
                "needed"
            };
            fact("Approval", approved.to_owned());
        }
        for (name, value) in &summary.metadata {
            fact(name, value.clone());
        }
        fact("Id", summary.broadcast_id.to_string());
        facts
    }
}

/// The unknown ids that are shown.
const SHOWN_IDS: usize = 5;

fn shortened(ids: &[String]) -> String {
    let shown = ids.iter().take(SHOWN_IDS).cloned().collect::<Vec<_>>().join(", ");
    match ids.len() {
        ..=SHOWN_IDS => shown,
        more => format!("{shown} and {} more", more - SHOWN_IDS),
    }
}

/// Returns a time with its zone (RFC 9557) to the minute, without the offset.
fn wall_clock(time: &str) -> String {
    let (time, zone) = time.split_once('[').unwrap_or((time, ""));
    let minute: String = time.chars().take("2026-12-01T09:00".len()).collect();
    format!("{}, {}", minute.replace('T', " "), zone.trim_end_matches(']'))
}

/// Returns what to do about a halted job.
fn cure(token: Option<TokenState>) -> &'static str {
    match token {
        Some(TokenState::Refused | TokenState::Missing) => "replace the Page's token, then resume",
        _ => "mend the cause, then resume",
    }
}

/// Shows a broadcast, or the part of it that changes.
pub async fn show(
    State(console): State<Arc<Console>>,
    visitor: Visitor,
    Path(id): Path<String>,
    fields: Fields,
    headers: HeaderMap,
) -> Answer {
    let id = parse_id(&id)?;
    let path = format!("/broadcasts/{id}");
    if !fields.is_live() {
        let (chrome, report) = tokio::join!(
            console.chrome(&visitor, Section::Broadcasts),
            visitor.client.broadcast(&id)
        );
        let report = report.map_err(missing)?;
        return html(&BroadcastView { chrome, report, path });
    }
    // The tag of the API's report is the tag of the part, so that a part that is still the same costs the API little.
    let known = headers.get("if-none-match").and_then(|tag| tag.to_str().ok());
    let changed = visitor.client.broadcast_if_changed(&id, known).await.map_err(missing)?;
    let Some(changed) = changed else {
        return Ok(not_modified(known.unwrap_or_default()));
    };
    let tag = changed.tag.unwrap_or_default();
    if has(&headers, &tag) {
        return Ok(not_modified(&tag));
    }
    let view = BroadcastView {
        chrome: Chrome::bare(Section::Broadcasts),
        report: changed.report,
        path,
    };
    Ok(tagged(Html(rendered(&view.as_live())?), &tag))
}
