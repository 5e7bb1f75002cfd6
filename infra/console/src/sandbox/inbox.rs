//! A conversation as the contact sees it, who can write to the Page here.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect};
use jiff::Timestamp;
use shared::domain::ids::ContactId;

use super::control::Written;
use super::{is_sending, newest};
use crate::Console;
use crate::failure::Failure;
use crate::fields::Fields;
use crate::frame::{Chrome, Section};
use crate::message::{self, Part};
use crate::page::{Answer, fresh, html, refused};
use crate::session::{Form, Visitor};

/// A message of the conversation.
struct Bubble {
    from_contact: bool,
    parts: Vec<Part>,
    replies: Vec<String>,
    at: Timestamp,
}

impl From<Written> for Bubble {
    fn from(message: Written) -> Self {
        Self {
            from_contact: message.from_contact,
            parts: message::parts(
                message.text.as_deref(),
                message.attachment.as_ref(),
                message.template.as_ref(),
            ),
            replies: message::replies(message.quick_replies.as_ref()),
            at: message.at,
        }
    }
}

#[derive(Template)]
#[template(path = "sandbox-inbox.html", blocks = ["live"])]
struct InboxView {
    chrome: Chrome,
    csrf: String,
    fields: Fields,
    page_id: String,
    contact_id: String,
    /// The name of the contact, if it is known.
    name: Option<String>,
    bubbles: Vec<Bubble>,
    text: String,
    fault: Option<Failure>,
    is_live: bool,
}

impl InboxView {
    /// Returns the answers that the contact can tap on: those of the last message, as in Messenger.
    fn replies(&self) -> &[String] {
        self.bubbles.last().map_or(&[], |last| &last.replies)
    }
}

/// Returns the link to the inbox of a contact.
pub fn link(page_id: &str, contact_id: &str) -> String {
    Fields::default().link("/sandbox/inbox", &[("page_id", page_id), ("contact_id", contact_id)])
}

/// Shows a conversation, or the part of the page that changes.
pub async fn show(State(console): State<Arc<Console>>, visitor: Visitor, fields: Fields, headers: HeaderMap) -> Answer {
    let is_part = fields.is_live();
    let view = view(&console, &visitor, fields).await?;
    match is_part {
        true => fresh(&headers, &view.as_live()),
        false => html(&view),
    }
}

/// Writes to the Page as the contact.
pub async fn write(State(console): State<Arc<Console>>, visitor: Visitor, Form(fields): Form) -> Answer {
    let text = fields.get("text").unwrap_or_default().to_owned();
    let (page_id, contact_id) = conversation(&fields)?;
    if !text.is_empty() {
        console.sandbox()?.write(&page_id, &contact_id, &text).await?;
        return Ok(Redirect::to(&link(&page_id, &contact_id)).into_response());
    }
    let fault = Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "Write a text first");
    refused(&InboxView {
        fault: Some(fault),
        ..view(&console, &visitor, fields).await?
    })
}

async fn view(console: &Console, visitor: &Visitor, fields: Fields) -> Result<InboxView, Failure> {
    let sandbox = console.sandbox()?;
    let (page_id, contact_id) = conversation(&fields)?;
    let (chrome, newest, written, name) = tokio::join!(
        console.chrome(visitor, Section::Sandbox),
        newest(visitor),
        sandbox.conversation(&page_id, &contact_id),
        name(visitor, &contact_id),
    );
    Ok(InboxView {
        chrome,
        csrf: visitor.csrf.clone(),
        bubbles: written?.into_iter().map(Bubble::from).collect(),
        is_live: is_sending(&newest),
        text: fields.raw("text").to_owned(),
        fault: None,
        fields,
        page_id,
        contact_id,
        name,
    })
}

/// Returns the Page and the contact that are meant.
fn conversation(fields: &Fields) -> Result<(String, String), Failure> {
    match (fields.get("page_id"), fields.get("contact_id")) {
        (Some(page_id), Some(contact_id)) => Ok((page_id.to_owned(), contact_id.to_owned())),
        _ => Err(Failure::new(StatusCode::BAD_REQUEST, "An inbox is one of a Page and a contact").and("Choose both.")),
    }
}

async fn name(visitor: &Visitor, contact_id: &str) -> Option<String> {
    let contact_id = ContactId::parse(contact_id).ok()?;
    let contact = visitor.client.contact(&contact_id).await.ok()?;
    let names = [contact.first_name, contact.last_name].into_iter().flatten();
    let both = names.collect::<Vec<_>>().join(" ");
    contact.name.or(Some(both)).filter(|name| !name.is_empty())
}
