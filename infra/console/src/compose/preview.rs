//! The message as contacts would get it, while it is written.

use askama::Template;
use client::api::previews::{BroadcastPreview, PagePreview};
use shared::domain::message::MessagingType;

use super::faults::Refusal;
use super::form;
use crate::fields::Fields;
use crate::page::{Answer, html};
use crate::session::{Form, Visitor};

/// The ids of a list that the message is written for: a look at all of them would take long.
const MOST_IDS: usize = 1_000;

/// A warning, about all Pages that have the same.
pub struct Notice {
    /// The Pages; empty if it is about all.
    pub pages: String,
    /// The explanation.
    pub message: String,
}

/// Returns the warnings, each once. Those about Pages without a contact are left out.
pub fn warnings(preview: &BroadcastPreview) -> Vec<Notice> {
    let mut notices: Vec<Notice> = Vec::new();
    let warnings = preview.warnings.iter();
    for warning in warnings.filter(|warning| warning.page_id.is_none() || warning.contacts > 0) {
        let page = warning.page_id.as_ref().map_or("", |page| page.as_str());
        match notices.iter_mut().find(|notice| notice.message == warning.message) {
            Some(notice) => notice.pages = format!("{}, {page}", notice.pages),
            None => notices.push(Notice {
                pages: page.to_owned(),
                message: warning.message.clone(),
            }),
        }
    }
    notices
}

/// Returns the Pages that have contacts to send to.
pub fn sending(preview: &BroadcastPreview) -> Vec<&PagePreview> {
    preview.pages.iter().filter(|page| page.contacts > 0).collect()
}

#[derive(Template)]
#[template(path = "new-preview.html")]
struct PreviewView {
    preview: Option<BroadcastPreview>,
    refusal: Option<Refusal>,
    has_text: bool,
    is_template: bool,
    /// The number of ids, if they are the first ones only.
    first: Option<u64>,
}

impl PreviewView {
    fn of(fields: &Fields) -> Self {
        Self {
            preview: None,
            refusal: None,
            has_text: form::has_text(fields),
            is_template: form::messaging_type(fields) == MessagingType::Utility,
            first: None,
        }
    }
}

/// Shows the message for the first contacts of those that the form has now. It is always answered with a part of the page: a fault
/// of what is not written yet to its end is no failure.
pub async fn show(visitor: Visitor, Form(fields): Form) -> Answer {
    let view = PreviewView::of(&fields);
    let new = match form::read_for_preview(&fields, MOST_IDS) {
        Ok(new) => new,
        Err(refusal) => {
            return html(&PreviewView {
                refusal: Some(refusal),
                ..view
            });
        }
    };
    let first = (new.contact_ids.len() == MOST_IDS).then_some(MOST_IDS as u64);
    match visitor.client.preview_broadcast(&new).await {
        Ok(preview) => html(&PreviewView {
            preview: Some(preview),
            first,
            ..view
        }),
        Err(error) => html(&PreviewView {
            refusal: Some(error.into()),
            ..view
        }),
    }
}
