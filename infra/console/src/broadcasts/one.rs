//! One broadcast, as it is now.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Html;
use client::api::broadcasts::{BroadcastReport, JobReport};
use client::api::progress::PageProgressReport;
use jiff::Timestamp;
use shared::domain::ids::BroadcastId;
use shared::domain::job::JobStatus;

use crate::Console;
use crate::failure::Failure;
use crate::fields::Fields;
use crate::page::{Answer, Chrome, Section, has, html, not_modified, rendered, tagged};
use crate::session::Visitor;
use crate::show;

#[derive(Template)]
#[template(path = "broadcast.html", blocks = ["live"])]
struct BroadcastView {
    chrome: Chrome,
    report: BroadcastReport,
    path: String,
}

impl BroadcastView {
    fn name(&self) -> String {
        super::name(&self.report.summary)
    }

    /// Returns true if the page changes by itself.
    fn is_live(&self) -> bool {
        let lasting = [JobStatus::Halted, JobStatus::Cancelled, JobStatus::Completed];
        !lasting.contains(&self.report.summary.status) || self.report.summary.counters.outcomes.in_doubt > 0
    }

    fn rate(&self) -> Option<u64> {
        show::rate(&self.report)
    }

    fn ends(&self) -> Option<Timestamp> {
        self.report.progress.as_ref()?.expected_end
    }

    /// Returns the state of the Page of a job.
    fn page(&self, job: &JobReport) -> Option<&PageProgressReport> {
        let progress = self.report.progress.as_ref()?;
        progress.pages.iter().find(|page| page.page_id == job.page_id)
    }

    fn rate_of(&self, job: &JobReport) -> Option<u64> {
        let summary = &self.report.summary;
        let begun = summary.scheduled_at.unwrap_or(summary.created_at);
        let minutes = &self.page(job)?.sent_per_minute;
        let rate = show::per_second(minutes, begun, Timestamp::now());
        (job.status == JobStatus::Processing && rate > 0).then_some(rate)
    }

    /// Returns what an operator has to know of a Page: why its job is halted, or until when it pauses.
    fn note(&self, job: &JobReport) -> Option<String> {
        (job.status == JobStatus::Halted).then(|| {
            let token = client::words::token(&self.report, &job.page_id);
            client::words::halted(job, token)
        })
    }
}

/// Parses the id of a path.
///
/// # Errors
///
/// Fails with status 404 if the text is no id.
pub fn parse_id(id: &str) -> Result<BroadcastId, Failure> {
    BroadcastId::parse(id).ok_or_else(|| Failure::not_found("broadcast"))
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

fn missing(error: client::Error) -> Failure {
    match error.status() {
        Some(StatusCode::NOT_FOUND) => Failure::not_found("broadcast"),
        _ => error.into(),
    }
}
