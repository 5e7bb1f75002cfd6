//! Every message that arrived, so that one sees that each contact got one.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Redirect};
use jiff::Timestamp;

use super::control::{Arrived, Counted, MessageQuery};
use super::{is_sending, newest};
use crate::Console;
use crate::broadcasts;
use crate::fields::Fields;
use crate::frame::{Chrome, Section};
use crate::message::{self, Part};
use crate::page::{Answer, fresh, html};
use crate::session::{Form, Visitor};

/// The messages of a page.
const PART: usize = 50;

/// A message of the list.
struct Row {
    page_id: String,
    contact_id: String,
    inbox: String,
    line: String,
    at: Timestamp,
}

impl From<Arrived> for Row {
    fn from(message: Arrived) -> Self {
        let parts = message::parts(
            message.text.as_deref(),
            message.attachment.as_ref(),
            message.template.as_ref(),
        );
        Self {
            inbox: super::inbox::link(&message.page_id, &message.contact_id),
            line: parts.iter().map(Part::line).collect::<Vec<_>>().join(" · "),
            page_id: message.page_id,
            contact_id: message.contact_id,
            at: message.at,
        }
    }
}

#[derive(Template)]
#[template(path = "sandbox.html", blocks = ["live"])]
struct MessagesView {
    chrome: Chrome,
    fields: Fields,
    /// The Pages, and the one that is chosen.
    pages: Vec<(String, bool)>,
    /// The broadcasts that have messages, with their names.
    broadcasts: Vec<(Counted, String)>,
    rows: Vec<Row>,
    older: Option<String>,
    /// The number of faults, with that of the revoked tokens.
    faults: u64,
    is_live: bool,
}

impl MessagesView {
    fn is_filtered(&self) -> bool {
        let filters = ["broadcast_id", "page_id", "contact_id", "before"];
        filters.iter().any(|name| self.fields.get(name).is_some())
    }

    /// Returns the number of contacts that got a broadcast more than once.
    fn contacts_twice(&self) -> u64 {
        self.broadcasts.iter().map(|(counted, _)| counted.contacts_twice).sum()
    }
}

/// Shows the messages, or the part of the page that changes.
pub async fn show(State(console): State<Arc<Console>>, visitor: Visitor, fields: Fields, headers: HeaderMap) -> Answer {
    let sandbox = console.sandbox()?;
    let query = MessageQuery {
        page_id: fields.get("page_id"),
        contact_id: fields.get("contact_id"),
        broadcast_id: fields.get("broadcast_id"),
        before: fields.get("before"),
        limit: PART + 1,
    };
    let (chrome, newest, arrived, counted, tokens, faults) = tokio::join!(
        console.chrome(&visitor, Section::Sandbox),
        newest(&visitor),
        sandbox.messages(&query),
        sandbox.broadcasts(),
        sandbox.tokens(),
        sandbox.faults(),
    );
    let (mut arrived, tokens) = (arrived?, tokens?);
    // One more was asked for, to know if there are older ones.
    let has_older = arrived.len() > PART;
    arrived.drain(..arrived.len().saturating_sub(PART));
    let oldest = arrived.first().filter(|_| has_older);
    let older = oldest.map(|message| fields.link("/sandbox", &[("before", &message.message_id)]));
    let names: BTreeMap<String, String> = newest
        .iter()
        .map(|summary| (summary.broadcast_id.to_string(), broadcasts::name(summary)))
        .collect();
    let named = |counted: Counted| {
        let name = names
            .get(&counted.broadcast_id)
            .unwrap_or(&counted.broadcast_id)
            .clone();
        (counted, name)
    };
    let chosen = fields.get("page_id");
    let revoked = tokens.values().filter(|token| token.revoked).count();
    let faults = faults?.iter().filter(|fault| fault.times != Some(0)).count();
    let view = MessagesView {
        pages: tokens
            .into_keys()
            .map(|id| (chosen == Some(&id), id))
            .map(|(chosen, id)| (id, chosen))
            .collect(),
        broadcasts: counted?.into_iter().map(named).collect(),
        rows: arrived.into_iter().rev().map(Row::from).collect(),
        older,
        faults: (faults + revoked) as u64,
        is_live: is_sending(&newest),
        chrome,
        fields,
    };
    match view.fields.is_live() {
        true => fresh(&headers, &view.as_live()),
        false => html(&view),
    }
}

#[derive(Template)]
#[template(path = "sandbox-forget.html")]
struct ForgetView {
    chrome: Chrome,
    csrf: String,
}

/// Asks before all messages are forgotten.
pub async fn ask_forget(State(console): State<Arc<Console>>, visitor: Visitor) -> Answer {
    console.sandbox()?;
    html(&ForgetView {
        chrome: console.chrome(&visitor, Section::Sandbox).await,
        csrf: visitor.csrf,
    })
}

/// Forgets all messages.
pub async fn forget(State(console): State<Arc<Console>>, Form(_): Form) -> Answer {
    console.sandbox()?.forget_messages().await?;
    Ok(Redirect::to("/sandbox").into_response())
}
