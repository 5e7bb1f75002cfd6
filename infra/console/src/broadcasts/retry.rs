//! Sending again to contacts that are not known to have got the message: chosen by status, reason and Page, counted before, and those in
//! doubt confirmed apart, since they may get the message twice.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect};
use client::api::broadcasts::BroadcastReport;
use client::api::controls::{RetryReport, RetryRequest};
use client::api::reasons::ReasonReport;
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error, StrDeserializer};
use shared::domain::ids::{BroadcastId, PageId};
use shared::domain::reasons::NotSent;

use super::orders;
use super::{missing, parse_id};
use crate::Console;
use crate::failure::Failure;
use crate::fields::Fields;
use crate::frame::{Chrome, Section};
use crate::page::{Answer, fresh, html, refused};
use crate::session::{Form, Visitor};
use crate::show;

#[derive(Template)]
#[template(path = "retry.html", blocks = ["live"])]
struct RetryView {
    chrome: Chrome,
    csrf: String,
    report: BroadcastReport,
    path: String,
    request: RetryRequest,
    /// The contacts that are sent to again, by a dry run; `None` if that is refused.
    counted: Option<RetryReport>,
    /// The number that was typed for the contacts in doubt.
    twice: String,
    fault: Option<Failure>,
}

impl RetryView {
    fn name(&self) -> String {
        super::name(&self.report.summary)
    }

    fn mark(&self) -> String {
        orders::mark(&self.report)
    }

    fn figures(&self, counted: &RetryReport) -> String {
        figures(counted)
    }

    /// Returns the statuses, each with its words, its contacts and true if it is chosen.
    fn statuses(&self) -> [(NotSent, &'static str, u64, bool); 3] {
        let outcomes = &self.report.summary.counters.outcomes;
        [
            (NotSent::Failed, outcomes.failed),
            (NotSent::Skipped, outcomes.skipped),
            (NotSent::InDoubt, outcomes.in_doubt),
        ]
        .map(|(status, contacts)| {
            let is_chosen = self.request.statuses.contains(&status);
            (status, show::not_sent(&status), contacts, is_chosen)
        })
    }

    /// Returns the reasons, each with its words and true if it is chosen.
    fn reasons(&self) -> Vec<(&ReasonReport, String, bool)> {
        let reasons = self.report.reasons.iter().map(|reason| {
            let words = show::reason(&reason.code, Some(&reason.meaning));
            (reason, words, self.request.reasons.contains(&reason.code))
        });
        reasons.collect()
    }

    /// Returns the Pages, each with true if it is chosen; none if there is one only.
    fn pages(&self) -> Vec<(&str, bool)> {
        if self.report.jobs.len() < 2 {
            return Vec::new();
        }
        let pages = self.report.jobs.iter().map(|job| &job.page_id);
        pages
            .map(|page_id| (page_id.as_str(), self.request.page_id.as_ref() == Some(page_id)))
            .collect()
    }
}

/// Returns what was counted, as the form sends it back.
fn figures(counted: &RetryReport) -> String {
    format!("{}/{}", counted.reopened, counted.may_get_it_twice)
}

/// A choice of contacts, with all that was typed.
struct Choice {
    id: BroadcastId,
    request: RetryRequest,
    fields: Fields,
}

impl Choice {
    fn read(id: &str, fields: Fields) -> Result<Self, Failure> {
        let status = |text: &str| {
            let deserializer: StrDeserializer<'_, Error> = text.into_deserializer();
            NotSent::deserialize(deserializer).ok()
        };
        let page_id = fields.get("page_id").map(|id| {
            PageId::parse(id).map_err(|fault| Failure::new(StatusCode::BAD_REQUEST, format!("The Page {fault}")))
        });
        let request = RetryRequest {
            statuses: fields.all("status").filter_map(status).collect(),
            reasons: fields.all("reason").map(str::to_owned).collect(),
            page_id: page_id.transpose()?,
        };
        // The form was not sent yet: the failed ones are chosen.
        let is_first = !fields.is_ticked("chosen") && request.statuses.is_empty();
        Ok(Self {
            id: parse_id(id)?,
            request: match is_first {
                true => RetryRequest {
                    statuses: RetryRequest::default().statuses,
                    ..request
                },
                false => request,
            },
            fields,
        })
    }

    async fn count(&self, visitor: &Visitor) -> Result<RetryReport, Failure> {
        if self.request.statuses.is_empty() {
            let nothing = Failure::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "Choose the contacts: failed, skipped or in doubt",
            );
            return Err(nothing);
        }
        Ok(visitor.client.retry(&self.id, &self.request, true).await?)
    }

    async fn view(self, console: &Console, visitor: Visitor, fault: Option<Failure>) -> Result<RetryView, Failure> {
        let (chrome, report, counted) = tokio::join!(
            console.chrome(&visitor, Section::Broadcasts),
            visitor.client.broadcast(&self.id),
            self.count(&visitor)
        );
        let (counted, fault) = match counted {
            Ok(counted) => (Some(counted), fault),
            Err(failure) if failure.is_about_the_form() => (None, fault.or(Some(failure))),
            Err(failure) => return Err(failure),
        };
        Ok(RetryView {
            chrome,
            csrf: visitor.csrf,
            report: report.map_err(missing)?,
            path: format!("/broadcasts/{}", self.id),
            request: self.request,
            counted,
            twice: self.fields.raw("twice").to_owned(),
            fault,
        })
    }

    /// Checks that the form was sent for what is the case now.
    ///
    /// # Errors
    ///
    /// Fails with the fault if the numbers have changed since, or the contacts in doubt are not confirmed.
    fn check(&self, counted: &RetryReport) -> Result<(), Failure> {
        let fault = |words: String| Err(Failure::new(StatusCode::CONFLICT, words));
        if self.fields.raw("counted") != figures(counted) {
            return fault(
                "The numbers are not those that the form showed. Look at them, and send it again.".to_owned(),
            );
        }
        let twice = counted.may_get_it_twice;
        let typed = self.fields.raw("twice").replace([',', ' '], "");
        if twice > 0 && typed != twice.to_string() {
            return fault(format!(
                "Type {} to confirm that so many contacts may get the message twice",
                show::number(&twice)
            ));
        }
        match counted.reopened {
            0 => fault("There is no such contact: nothing would be sent".to_owned()),
            _ => Ok(()),
        }
    }
}

/// Shows the form with the numbers of the choice, or only what changes with the choice.
pub async fn ask(
    State(console): State<Arc<Console>>,
    visitor: Visitor,
    Path(id): Path<String>,
    fields: Fields,
    headers: HeaderMap,
) -> Answer {
    let is_live = fields.is_live();
    let view = Choice::read(&id, fields)?.view(&console, visitor, None).await?;
    match is_live {
        true => fresh(&headers, &view.as_live()),
        false => html(&view),
    }
}

/// Sends again. A repetition is refused, since the first order is in the history by then.
pub async fn order(
    State(console): State<Arc<Console>>,
    visitor: Visitor,
    Path(id): Path<String>,
    Form(fields): Form,
) -> Answer {
    let choice = Choice::read(&id, fields)?;
    let (report, counted) = tokio::join!(visitor.client.broadcast(&choice.id), choice.count(&visitor));
    let report = report.map_err(missing)?;
    let checked = match (orders::given_since(&report, choice.fields.raw("mark")), counted) {
        (Some(given), _) => Err(orders::outdated(given)),
        (None, counted) => counted.and_then(|counted| choice.check(&counted)),
    };
    let given = match checked {
        Ok(()) => visitor
            .client
            .retry(&choice.id, &choice.request, false)
            .await
            .map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    match given {
        Ok(_) => Ok(Redirect::to(&format!("/broadcasts/{}", choice.id)).into_response()),
        Err(failure) if failure.is_about_the_form() => refused(&choice.view(&console, visitor, Some(failure)).await?),
        Err(failure) => Err(failure),
    }
}
