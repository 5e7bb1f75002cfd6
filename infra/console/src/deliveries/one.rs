//! One delivery, with the evidence for its outcome in words.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _};
use client::api::broadcasts::BroadcastReport;
use client::api::deliveries::DeliveryEvidence;
use jiff::Timestamp;
use shared::domain::delivery::Status;
use shared::domain::ids::ContactId;

use crate::Console;
use crate::broadcasts::{missing, name, parse_id};
use crate::fields::in_path;
use crate::frame::{Chrome, Section};
use crate::page::{Answer, html, rendered};
use crate::session::Visitor;
use crate::show;

#[derive(Template)]
#[template(path = "delivery.html")]
struct DeliveryView {
    chrome: Chrome,
    report: BroadcastReport,
    path: String,
    /// The contact, as it was searched for.
    contact_id: String,
    evidence: Option<DeliveryEvidence>,
}

/// A fact about a delivery: some words, and the time that they end with.
struct Known {
    at: Option<Timestamp>,
    words: &'static str,
}

impl DeliveryView {
    fn name(&self) -> String {
        name(&self.report.summary)
    }

    fn contact_link(&self) -> String {
        format!("/contacts/{}", in_path(&self.contact_id))
    }

    /// Returns the reason in words, with its meaning; empty if there is none.
    fn reason(&self, evidence: &DeliveryEvidence) -> String {
        let Some(code) = &evidence.delivery.code else {
            return evidence.delivery.reason.clone().unwrap_or_default();
        };
        show::reason(code, None)
    }

    /// Returns the meaning of the reason, if the report of the broadcast tells it.
    fn meaning(&self, evidence: &DeliveryEvidence) -> Option<&str> {
        let code = evidence.delivery.code.as_ref()?;
        let known = self.report.reasons.iter().find(|reason| reason.code == *code)?;
        Some(&known.meaning)
    }

    /// Returns what is known, in the order of time.
    fn known(&self, evidence: &DeliveryEvidence) -> Vec<Known> {
        let delivery = &evidence.delivery;
        let mut known = Vec::new();
        let mut add = |words, at| known.push(Known { at, words });
        if let Some(at) = evidence.unclear_attempt_at {
            add("An earlier attempt may have arrived: its answer was lost", Some(at));
        }
        if let Some(at) = evidence.refused_at {
            add(
                "Messenger refused it with an error that may concern every contact",
                Some(at),
            );
        }
        add("The last attempt began", Some(evidence.last_attempt_at));
        let recorded = match delivery.status {
            Status::Sent => "Messenger has accepted the message",
            Status::Failed => "Recorded as failed: the message cannot be sent",
            Status::Skipped => "Recorded as skipped: the message was not sent, as it should not be",
            Status::Waiting => "Nothing was sent, and it is known: the contact waits for another attempt",
            Status::InDoubt => "The answer was lost: Messenger may or may not have accepted the message",
            Status::Reserved => "The attempt is under way, or was cut off",
        };
        add(recorded, Some(delivery.updated_at));
        match (delivery.status, evidence.next_attempt_at, evidence.next_lookup_at) {
            (_, Some(at), _) => add("The next attempt is made, at the earliest", Some(at)),
            (_, None, Some(at)) => add("Messenger is asked whether the conversation has the message", Some(at)),
            (Status::InDoubt, None, None) => add(
                "No lookup is left. An echo from Messenger settles it, or an operator sends again",
                None,
            ),
            _ => {}
        }
        if evidence.arrived_after_refusal {
            add(
                "The message did arrive: its echo came after this had been recorded. It is not sent again",
                None,
            );
        }
        known
    }
}

/// Shows a delivery; or, with status 404, that there is none for the contact.
pub async fn show(
    State(console): State<Arc<Console>>,
    visitor: Visitor,
    Path((id, contact_id)): Path<(String, String)>,
) -> Answer {
    let id = parse_id(&id)?;
    let path = format!("/broadcasts/{id}");
    let parsed = ContactId::parse(&contact_id).ok();
    let evidence = async {
        match &parsed {
            Some(contact_id) => Some(visitor.client.delivery(&id, contact_id).await),
            None => None,
        }
    };
    let (chrome, report, evidence) = tokio::join!(
        console.chrome(&visitor, Section::Broadcasts),
        visitor.client.broadcast(&id),
        evidence
    );
    let evidence = match evidence.transpose() {
        Ok(evidence) => evidence,
        Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => None,
        Err(error) => return Err(error.into()),
    };
    let is_there = evidence.is_some();
    let view = DeliveryView {
        chrome,
        report: report.map_err(missing)?,
        path,
        contact_id,
        evidence,
    };
    match is_there {
        true => html(&view),
        false => Ok((StatusCode::NOT_FOUND, Html(rendered(&view)?)).into_response()),
    }
}
