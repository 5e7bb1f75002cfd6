//! Pause, resume, cancel and approve: each form shows what the order would affect, and gives it.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect};
use client::api::broadcasts::BroadcastReport;
use client::api::controls::Affected;
use client::{ControlOptions, Error};
use shared::domain::ids::{BroadcastId, PageId};
use shared::domain::job::JobStatus;

use super::orders::{self, Order};
use super::{missing, parse_id};
use crate::Console;
use crate::failure::Failure;
use crate::fields::Fields;
use crate::frame::{Chrome, Section};
use crate::page::{Answer, html, refused};
use crate::session::{Form, Visitor};

#[derive(Template)]
#[template(path = "order.html")]
struct OrderView {
    chrome: Chrome,
    csrf: String,
    report: BroadcastReport,
    order: Order,
    page_id: Option<PageId>,
    /// The jobs and contacts that the order would affect; `None` if it cannot be given.
    affected: Option<Affected>,
    fault: Option<Failure>,
}

impl OrderView {
    fn name(&self) -> String {
        super::name(&self.report.summary)
    }

    fn mark(&self) -> String {
        orders::mark(&self.report)
    }

    /// Returns the reasons why jobs that a resume concerns are halted, by Page.
    fn halted(&self) -> Vec<(&str, String)> {
        let jobs = self.report.jobs.iter().filter(|job| job.status == JobStatus::Halted);
        let meant = jobs.filter(|job| self.page_id.as_ref().is_none_or(|page_id| *page_id == job.page_id));
        let reasons = meant.map(|job| {
            let token = client::words::token(&self.report, &job.page_id);
            (job.page_id.as_str(), client::words::halted(job, token))
        });
        reasons.collect()
    }

    /// Returns the Pages to which the order can be limited, each with true if it is.
    fn pages(&self) -> Vec<(&str, bool)> {
        if self.report.jobs.len() < 2 || self.order == Order::Approve {
            return Vec::new();
        }
        let pages = self.report.jobs.iter().map(|job| &job.page_id);
        pages
            .map(|page_id| (page_id.as_str(), self.page_id.as_ref() == Some(page_id)))
            .collect()
    }

    /// Returns the Page of the fields, for the template.
    fn page(&self) -> &str {
        self.page_id.as_ref().map_or("", PageId::as_str)
    }
}

/// An order as a request names it.
struct Request {
    id: BroadcastId,
    order: Order,
    options: ControlOptions,
}

impl Request {
    fn read((id, order): &(String, String), fields: &Fields) -> Result<Self, Failure> {
        let page_id = fields.get("page_id").map(|id| {
            PageId::parse(id).map_err(|fault| Failure::new(StatusCode::BAD_REQUEST, format!("The Page {fault}")))
        });
        Ok(Self {
            id: parse_id(id)?,
            order: Order::parse(order).ok_or_else(|| Failure::not_found("page"))?,
            options: ControlOptions {
                page_id: page_id.transpose()?,
                dry_run: false,
            },
        })
    }

    /// Gives the order; or, by a dry run, asks what it would affect.
    async fn give(&self, visitor: &Visitor, dry_run: bool) -> Result<Option<Affected>, Error> {
        let (client, id) = (&visitor.client, &self.id);
        let options = ControlOptions {
            dry_run,
            ..self.options.clone()
        };
        let given = match self.order {
            Order::Pause => client.pause(id, &options).await?,
            Order::Resume => client.resume(id, &options).await?,
            Order::Cancel => client.cancel(id, &options).await?,
            // An approval has no dry run: the report tells whom it is for.
            Order::Approve if dry_run => return Ok(None),
            Order::Approve => return client.approve(id).await.map(|_| None),
            // These have forms of their own.
            Order::Retry | Order::Change => return Ok(None),
        };
        Ok(Some(given.affected))
    }

    /// Shows the form, with the fault that it was refused for.
    async fn form(&self, console: &Console, visitor: Visitor, fault: Option<Failure>) -> Answer {
        let (chrome, report, affected) = tokio::join!(
            console.chrome(&visitor, Section::Broadcasts),
            visitor.client.broadcast(&self.id),
            self.give(&visitor, true)
        );
        let report = report.map_err(missing)?;
        let is_refused = fault.is_some();
        let (affected, fault) = match affected.map_err(Failure::from) {
            Ok(Some(affected)) => (Some(affected), fault),
            Ok(None) => (awaiting_approval(&report), fault),
            Err(failure) if failure.is_about_the_form() => (None, fault.or(Some(failure))),
            Err(failure) => return Err(failure),
        };
        let view = OrderView {
            chrome,
            csrf: visitor.csrf,
            report,
            order: self.order,
            page_id: self.options.page_id.clone(),
            affected,
            fault,
        };
        match is_refused {
            true => refused(&view),
            false => html(&view),
        }
    }
}

/// Returns the jobs that wait for approval, and their contacts.
fn awaiting_approval(report: &BroadcastReport) -> Option<Affected> {
    let waiting = report
        .jobs
        .iter()
        .filter(|job| job.status == JobStatus::AwaitingApproval);
    let affected = waiting.fold(Affected::default(), |sum, job| Affected {
        jobs: sum.jobs + 1,
        contacts: sum.contacts + job.contacts,
        resolving: sum.resolving || job.resolving,
    });
    (affected.jobs > 0).then_some(affected)
}

/// Shows the form of an order.
pub async fn ask(
    State(console): State<Arc<Console>>,
    visitor: Visitor,
    Path(path): Path<(String, String)>,
    fields: Fields,
) -> Answer {
    Request::read(&path, &fields)?.form(&console, visitor, None).await
}

/// Gives an order.
///
/// An order that lets messages be sent is for the broadcast as the form showed it: it is refused if another was given since. So is
/// its own repetition, unless nothing else was ordered.
pub async fn order(
    State(console): State<Arc<Console>>,
    visitor: Visitor,
    Path(path): Path<(String, String)>,
    Form(fields): Form,
) -> Answer {
    let request = Request::read(&path, &fields)?;
    let there = format!("/broadcasts/{}", request.id);
    if matches!(request.order, Order::Resume | Order::Approve) {
        let report = visitor.client.broadcast(&request.id).await.map_err(missing)?;
        if let Some(given) = orders::given_since(&report, fields.raw("mark")) {
            let is_same = given.action == request.order.action() && given.page_id == request.options.page_id;
            if is_same {
                return Ok(Redirect::to(&there).into_response());
            }
            let failure = orders::outdated(given);
            return request.form(&console, visitor, Some(failure)).await;
        }
    }
    match request.give(&visitor, false).await.map_err(Failure::from) {
        Ok(_) => Ok(Redirect::to(&there).into_response()),
        Err(failure) if failure.is_about_the_form() => request.form(&console, visitor, Some(failure)).await,
        Err(failure) => Err(failure),
    }
}
