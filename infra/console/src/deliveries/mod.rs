//! The outcome of a broadcast for each contact.
//!
//! - `one`: one delivery, with the evidence for its outcome
//! - `csv`: all of them as a file

mod csv;
mod one;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect};
use axum::routing::get;
use client::DeliveryQuery;
use client::api::broadcasts::BroadcastReport;
use client::api::deliveries::DeliveryReport;
use shared::domain::delivery::Status;
use shared::domain::ids::PageId;

use crate::Console;
use crate::broadcasts::{missing, name, parse_id};
use crate::failure::Failure;
use crate::fields::{Fields, in_path};
use crate::frame::{Chrome, Section};
use crate::page::{Answer, html, refused};
use crate::session::Visitor;
use crate::show;

/// Returns the views of the deliveries.
pub fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/broadcasts/{id}/deliveries", get(list))
        .route("/broadcasts/{id}/deliveries.csv", get(csv::download))
        .route("/broadcasts/{id}/deliveries/{contact_id}", get(one::show))
}

/// The deliveries of a page.
const PART: u32 = 50;
/// The states by which the list can be filtered, in words.
const STATES: [(Status, &str); 6] = [
    (Status::Sent, "sent"),
    (Status::Skipped, "skipped"),
    (Status::Failed, "failed"),
    (Status::InDoubt, "in doubt"),
    (Status::Waiting, "waiting"),
    (Status::Reserved, "being sent"),
];

#[derive(Template)]
#[template(path = "deliveries.html")]
struct DeliveriesView {
    chrome: Chrome,
    report: BroadcastReport,
    path: String,
    fields: Fields,
    deliveries: Vec<DeliveryReport>,
    next: Option<String>,
    fault: Option<Failure>,
}

/// An entry of a filter.
struct Choice {
    value: String,
    words: String,
    is_chosen: bool,
}

impl DeliveriesView {
    fn name(&self) -> String {
        name(&self.report.summary)
    }

    fn is_filtered(&self) -> bool {
        ["status", "reason", "page_id"]
            .iter()
            .any(|name| self.fields.get(name).is_some())
    }

    fn choice(&self, name: &str, value: String, words: String) -> Choice {
        let is_chosen = self.fields.get(name) == Some(&value);
        Choice {
            value,
            words,
            is_chosen,
        }
    }

    fn states(&self) -> Vec<Choice> {
        let states = STATES.iter();
        let states = states.map(|(state, words)| self.choice("status", state.to_string(), (*words).to_owned()));
        states.collect()
    }

    /// Returns the reasons that the report counts, and the one that is chosen.
    fn reasons(&self) -> Vec<Choice> {
        let mut codes: Vec<_> = self
            .report
            .reasons
            .iter()
            .map(|reason| (reason.code.as_str(), reason.meaning.as_str()))
            .collect();
        let chosen = self
            .fields
            .get("reason")
            .filter(|chosen| !codes.iter().any(|(code, _)| code == chosen));
        codes.extend(chosen.map(|chosen| (chosen, "")));
        codes.sort_unstable();
        codes.dedup_by_key(|(code, _)| *code);
        let words = |code: &str, meaning: &str| format!("{} · {code}", show::reason(code, Some(meaning)));
        let reasons = codes
            .iter()
            .map(|(code, meaning)| self.choice("reason", (*code).to_owned(), words(code, meaning)));
        reasons.collect()
    }

    fn pages(&self) -> Vec<Choice> {
        let pages = self.report.summary.page_ids.iter().map(PageId::as_str);
        pages
            .map(|page| self.choice("page_id", page.to_owned(), page.to_owned()))
            .collect()
    }

    /// Returns the reason of a delivery in words; empty if it has none.
    fn reason(&self, delivery: &DeliveryReport) -> String {
        let Some(code) = &delivery.code else {
            return delivery.reason.clone().unwrap_or_default();
        };
        let known = self.report.reasons.iter().find(|reason| reason.code == *code);
        show::reason(code, known.map(|reason| reason.meaning.as_str()))
    }

    /// Returns true if the message arrived although the delivery is recorded as not sent.
    fn arrived(&self, delivery: &DeliveryReport) -> bool {
        delivery.status != Status::Sent && delivery.message_id.is_some()
    }

    fn link(&self, delivery: &DeliveryReport) -> String {
        format!("{}/deliveries/{}", self.path, in_path(delivery.contact_id.as_str()))
    }

    fn csv(&self) -> String {
        self.fields
            .link(&format!("{}/deliveries.csv", self.path), &[("cursor", "")])
    }

    fn first(&self) -> String {
        self.fields
            .link(&format!("{}/deliveries", self.path), &[("cursor", "")])
    }
}

/// Returns the filters of a query as the API takes them.
///
/// # Errors
///
/// Fails with status 400 if a status or a Page is none.
fn query(fields: &Fields) -> Result<DeliveryQuery, Failure> {
    let wrong = |words: String| Failure::new(StatusCode::BAD_REQUEST, words);
    let status: Option<Status> = fields.word("status");
    if let (None, Some(other)) = (status, fields.get("status")) {
        return Err(wrong(format!("{other} is no state of a delivery")));
    }
    let page_id = fields
        .get("page_id")
        .map(|id| PageId::parse(id).map_err(|fault| wrong(format!("The Page {fault}"))));
    Ok(DeliveryQuery {
        status,
        reason: fields.get("reason").map(str::to_owned),
        page_id: page_id.transpose()?,
        ..DeliveryQuery::default()
    })
}

/// Shows a part of the deliveries; or goes to that of the contact that is searched for.
pub async fn list(
    State(console): State<Arc<Console>>,
    visitor: Visitor,
    Path(id): Path<String>,
    fields: Fields,
) -> Answer {
    let id = parse_id(&id)?;
    let path = format!("/broadcasts/{id}");
    if let Some(contact_id) = fields.get("contact_id") {
        let there = format!("{path}/deliveries/{}", in_path(contact_id));
        return Ok(Redirect::to(&there).into_response());
    }
    let query = DeliveryQuery {
        limit: Some(PART),
        cursor: fields.get("cursor").map(str::to_owned),
        ..query(&fields)?
    };
    let (chrome, report, part) = tokio::join!(
        console.chrome(&visitor, Section::Broadcasts),
        visitor.client.broadcast(&id),
        visitor.client.deliveries(&id, &query)
    );
    let report = report.map_err(missing)?;
    let (part, fault) = match part.map_err(Failure::from) {
        Ok(part) => (Some(part), None),
        Err(failure) if failure.is_about_the_form() => (None, Some(failure)),
        Err(failure) => return Err(failure),
    };
    let is_refused = fault.is_some();
    let (deliveries, next) = part.map(|part| (part.items, part.next_cursor)).unwrap_or_default();
    let view = DeliveriesView {
        chrome,
        report,
        next: next.map(|next| fields.link(&format!("{path}/deliveries"), &[("cursor", &next)])),
        path,
        fields,
        deliveries,
        fault,
    };
    match is_refused {
        true => refused(&view),
        false => html(&view),
    }
}
