//! One contact, with its deliveries, and the marks that an operator sets.

use std::collections::HashMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect};
use client::api::contacts::{Contact, ContactChange, ContactImport};
use client::api::deliveries::DeliveryEvidence;
use client::{BroadcastQuery, PartQuery};
use shared::domain::delivery::Status;
use shared::domain::ids::{BroadcastId, ContactId, PageId};

use crate::Console;
use crate::broadcasts;
use crate::failure::Failure;
use crate::fields::{Fields, in_path};
use crate::frame::{Chrome, Section};
use crate::page::{Answer, html};
use crate::session::{Form, Visitor};

/// The broadcasts that are asked for a delivery to the contact.
const PART: u32 = 50;
/// The broadcasts whose names are known, from the newest.
const NAMED: u32 = 100;

#[derive(Template)]
#[template(path = "contact.html")]
struct ContactView {
    chrome: Chrome,
    csrf: String,
    contact: Contact,
    deliveries: Vec<DeliveryEvidence>,
    names: HashMap<BroadcastId, String>,
    path: String,
    /// True if a later part of the deliveries is shown.
    is_later: bool,
    next: Option<String>,
}

impl ContactView {
    fn name(&self) -> String {
        super::name(&self.contact)
    }

    /// Returns the fields with a text, each with its name in a message.
    fn texts(&self) -> Vec<(&'static str, &'static str, String)> {
        let Contact {
            first_name,
            last_name,
            name,
            locale,
            timezone,
            source,
            ..
        } = &self.contact;
        let timezone = timezone.as_ref().map(|hours| format!("{hours} h from UTC"));
        let fields = [
            ("First name", "first_name", first_name.clone()),
            ("Last name", "last_name", last_name.clone()),
            ("Whole name", "name", name.clone()),
            ("Language", "locale", locale.clone()),
            ("Local time", "timezone", timezone),
            ("Came by", "source", source.clone()),
        ];
        let known = fields
            .into_iter()
            .filter_map(|(words, name, value)| Some((words, name, value?)));
        known.collect()
    }

    fn attributes(&self) -> Vec<(&str, String)> {
        let attributes = self.contact.attributes.iter();
        let shown = attributes.map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (name.as_str(), value)
        });
        shown.collect()
    }

    /// Returns the path of a delivery.
    fn delivery(&self, delivery: &DeliveryEvidence) -> String {
        let contact_id = in_path(self.contact.contact_id.as_str());
        format!("/broadcasts/{}/deliveries/{contact_id}", delivery.broadcast_id)
    }

    fn broadcast(&self, delivery: &DeliveryEvidence) -> String {
        let name = self.names.get(&delivery.broadcast_id).cloned();
        name.unwrap_or_else(|| format!("Broadcast {}", broadcasts::short(&delivery.broadcast_id.to_string())))
    }

    /// Returns the class of a delivery's colour, and its state in words.
    fn state(&self, delivery: &DeliveryEvidence) -> (&'static str, &'static str) {
        match delivery.delivery.status {
            Status::Reserved => ("pending", "being sent"),
            Status::Waiting => ("waiting", "waiting"),
            Status::Sent => ("sent", "sent"),
            Status::Failed => ("failed", "failed"),
            Status::Skipped => ("skipped", "skipped"),
            Status::InDoubt => ("doubt", "in doubt"),
        }
    }
}

#[derive(Template)]
#[template(path = "contact-gone.html")]
struct GoneView {
    chrome: Chrome,
    contact_id: ContactId,
    path: String,
}

/// Shows a contact. The page of one that is not stored leads to the rest of what may be stored of it.
pub async fn show(
    State(console): State<Arc<Console>>,
    visitor: Visitor,
    Path(id): Path<String>,
    fields: Fields,
) -> Answer {
    let contact_id = super::parse_id(&id)?;
    let (client, path) = (&visitor.client, super::path(&contact_id));
    let deliveries = PartQuery {
        limit: Some(PART),
        cursor: fields.get("cursor").map(str::to_owned),
    };
    let broadcasts = BroadcastQuery {
        tests: Some(true),
        limit: Some(NAMED),
        ..BroadcastQuery::default()
    };
    let (chrome, contact, deliveries, broadcasts) = tokio::join!(
        console.chrome(&visitor, Section::Contacts),
        client.contact(&contact_id),
        client.contact_deliveries(&contact_id, &deliveries),
        client.broadcasts(&broadcasts),
    );
    let contact = match contact {
        Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => {
            let view = GoneView {
                chrome,
                contact_id,
                path,
            };
            let answer = html(&view)?;
            return Ok((StatusCode::NOT_FOUND, answer).into_response());
        }
        contact => contact?,
    };
    let deliveries = deliveries?;
    let names = broadcasts.map(|part| part.items).unwrap_or_default().into_iter();
    let names = names.map(|summary| (summary.broadcast_id.clone(), broadcasts::name(&summary)));
    html(&ContactView {
        chrome,
        csrf: visitor.csrf,
        contact,
        deliveries: deliveries.items,
        names: names.collect(),
        is_later: fields.get("cursor").is_some(),
        next: deliveries
            .next_cursor
            .map(|cursor| fields.link(&path, &[("cursor", &cursor)])),
        path,
    })
}

/// Sets whether the contact has opted out, or is a tester.
pub async fn change(visitor: Visitor, Path(id): Path<String>, Form(fields): Form) -> Answer {
    let contact_id = super::parse_id(&id)?;
    let page_id = PageId::parse(fields.raw("page_id")).map_err(|_| Failure::not_found("Page"))?;
    let path = super::path(&contact_id);
    let change = ContactChange {
        opted_out: flag(&fields, "opted_out"),
        tester: flag(&fields, "tester"),
        ..ContactChange::new(contact_id, page_id)
    };
    let import = ContactImport { contacts: vec![change] };
    visitor.client.import_contacts(&import).await?;
    Ok(Redirect::to(&path).into_response())
}

/// Returns the new value of a mark; `None` if the form leaves it alone.
fn flag(fields: &Fields, name: &str) -> Option<bool> {
    fields.get(name).map(|value| value == "true")
}
