//! The list of the broadcasts.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::HeaderMap;
use client::api::broadcasts::{BroadcastReport, BroadcastSummary};
use client::{BroadcastQuery, Client, Error};
use futures_util::future::join_all;
use jiff::Timestamp;
use shared::domain::ids::PageId;
use shared::domain::job::JobStatus;

use crate::Console;
use crate::fields::Fields;
use crate::frame::{Chrome, Section};
use crate::page::{Answer, fresh, html};
use crate::session::Visitor;
use crate::show;

/// The broadcasts of a page.
const PART: u32 = 50;
/// The broadcasts of a page whose speed and end are asked for, from the newest.
const MOST_RUNNING: usize = 10;
/// The states by which the list can be filtered.
const STATES: [JobStatus; 9] = [
    JobStatus::Processing,
    JobStatus::Queued,
    JobStatus::Waiting,
    JobStatus::Paused,
    JobStatus::Scheduled,
    JobStatus::AwaitingApproval,
    JobStatus::Halted,
    JobStatus::Cancelled,
    JobStatus::Completed,
];

/// A broadcast of the list.
struct Row {
    summary: BroadcastSummary,
    /// The report, if the broadcast runs.
    report: Option<BroadcastReport>,
}

impl Row {
    fn name(&self) -> String {
        super::name(&self.summary)
    }

    /// Returns the Page, or the number of them; `None` if the API is of a version that does not tell.
    fn pages(&self) -> Option<String> {
        match self.summary.page_ids.as_slice() {
            [] => None,
            [page] => Some(page.as_str().to_owned()),
            pages => Some(show::counted(&(pages.len() as u64), "Page")),
        }
    }

    fn rate(&self) -> Option<u64> {
        self.report.as_ref().and_then(show::rate)
    }

    fn ends(&self) -> Option<Timestamp> {
        self.report.as_ref()?.progress.as_ref()?.expected_end
    }

    /// Returns the reason why a Page does not send, if there is one.
    fn reason(&self) -> Option<String> {
        let report = self.report.as_ref()?;
        let halted = report.jobs.iter().find(|job| job.status == JobStatus::Halted)?;
        let token = client::words::token(report, &halted.page_id);
        Some(client::words::halted(halted, token))
    }
}

#[derive(Template)]
#[template(path = "broadcasts.html", blocks = ["live"])]
struct ListView {
    chrome: Chrome,
    csrf: String,
    fields: Fields,
    rows: Vec<Row>,
    next: Option<String>,
}

impl ListView {
    /// Returns true if the list changes by itself.
    fn is_live(&self) -> bool {
        let lasting = [JobStatus::Halted, JobStatus::Cancelled, JobStatus::Completed];
        self.rows.iter().any(|row| !lasting.contains(&row.summary.status))
    }

    fn is_filtered(&self) -> bool {
        ["status", "page_id", "cursor"]
            .iter()
            .any(|name| self.fields.get(name).is_some())
    }

    fn words(&self, state: &JobStatus) -> &'static str {
        client::words::status(*state)
    }

    fn states(&self) -> Vec<(JobStatus, bool)> {
        let chosen: Option<JobStatus> = self.fields.word("status");
        STATES.iter().map(|state| (*state, chosen == Some(*state))).collect()
    }
}

/// Shows the list, or the part of it that changes.
pub async fn show(State(console): State<Arc<Console>>, visitor: Visitor, fields: Fields, headers: HeaderMap) -> Answer {
    let query = BroadcastQuery {
        status: fields.word("status"),
        page_id: fields.get("page_id").and_then(|id| PageId::parse(id).ok()),
        tests: fields.is_ticked("tests").then_some(true),
        limit: Some(PART),
        cursor: fields.get("cursor").map(str::to_owned),
        ..BroadcastQuery::default()
    };
    let (chrome, part) = tokio::join!(
        console.chrome(&visitor, Section::Broadcasts),
        visitor.client.broadcasts(&query)
    );
    let part = part?;
    let view = ListView {
        chrome,
        csrf: visitor.csrf,
        rows: with_reports(&visitor.client, part.items).await?,
        next: part.next_cursor.map(|cursor| fields.link("/", &[("cursor", &cursor)])),
        fields,
    };
    match view.fields.is_live() {
        true => fresh(&headers, &view.as_live()),
        false => html(&view),
    }
}

/// Adds the reports of those that run or are halted.
async fn with_reports(client: &Client, summaries: Vec<BroadcastSummary>) -> Result<Vec<Row>, Error> {
    let is_told = |status| matches!(status, JobStatus::Processing | JobStatus::Waiting | JobStatus::Halted);
    let told = summaries
        .iter()
        .filter(|summary| is_told(summary.status))
        .take(MOST_RUNNING);
    let reports = join_all(told.map(|summary| client.broadcast(&summary.broadcast_id))).await;
    let mut reports: Vec<_> = reports.into_iter().collect::<Result<_, _>>()?;
    let rows = summaries.into_iter().map(|summary| {
        let at = reports
            .iter()
            .position(|report| report.summary.broadcast_id == summary.broadcast_id);
        Row {
            report: at.map(|at| reports.swap_remove(at)),
            summary,
        }
    });
    Ok(rows.collect())
}
