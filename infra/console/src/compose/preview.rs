//! The message as contacts would get it, while it is written.

use askama::Template;
use client::api::broadcasts::NewBroadcast;
use client::api::previews::{BroadcastPreview, PagePreview};
use shared::domain::ids::ContactId;
use shared::domain::message::MessagingType;

use super::faults::Refusal;
use super::form;
use crate::fields::Fields;
use crate::page::{Answer, html};
use crate::session::{Form, Visitor};
use crate::show::{counted, number};

/// The ids of a list that the message is written for, and the contacts of an audience that is not counted twice: a look at all of them
/// takes long.
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

/// A few contacts of a large audience, which is not counted again for every change of the text. The page sends them back.
struct Sample {
    /// The digest of the audience.
    of: String,
    ids: String,
    /// The number of contacts, in words.
    words: String,
}

#[derive(Template)]
#[template(path = "new-preview.html")]
struct PreviewView<'a> {
    fields: &'a Fields,
    preview: Option<BroadcastPreview>,
    refusal: Option<Refusal>,
    sample: Option<Sample>,
    /// The number of ids, if they are the first ones only.
    first: Option<u64>,
}

impl<'a> PreviewView<'a> {
    fn of(fields: &'a Fields) -> Self {
        Self {
            fields,
            preview: None,
            refusal: None,
            sample: None,
            first: None,
        }
    }

    fn refused(fields: &'a Fields, refusal: Refusal) -> Self {
        Self {
            refusal: Some(refusal),
            ..Self::of(fields)
        }
    }

    fn has_text(&self) -> bool {
        form::has_text(self.fields)
    }

    fn is_template(&self) -> bool {
        form::messaging_type(self.fields) == MessagingType::Utility
    }

    fn replies(&self) -> Vec<String> {
        form::replies(self.fields)
    }
}

/// Returns the number of contacts, in words.
fn words(preview: &BroadcastPreview) -> String {
    let counts = &preview.contacts;
    let at_least = if preview.complete { "" } else { "at least " };
    let contacts = counted(&counts.accepted, "contact");
    let pages = counted(&(sending(preview).len() as u64), "Page");
    let others = [(counts.unknown, "unknown"), (counts.opted_out, "opted out")];
    let others = others.into_iter().filter(|(others, _)| *others > 0);
    let others = others.map(|(others, what)| format!(", {} {what}", number(&others)));
    format!("{at_least}{contacts} on {pages}{}", others.collect::<String>())
}

impl Sample {
    /// Returns the one that the page has, if it is of this audience.
    fn known(fields: &Fields, new: &NewBroadcast) -> Option<Self> {
        let known = Self {
            of: form::audience_digest(new)?,
            ids: fields.get("sample")?.to_owned(),
            words: fields.get("sample_words")?.to_owned(),
        };
        (fields.raw("sample_of") == known.of).then_some(known)
    }

    /// Returns one of those whose texts were written, if the audience is large.
    fn taken(new: &NewBroadcast, preview: &BroadcastPreview) -> Option<Self> {
        let texts = preview.texts.iter().chain(&preview.longest);
        let ids: Vec<_> = texts.map(|text| text.contact_id.as_str()).collect();
        let is_large = preview.contacts.accepted > MOST_IDS as u64;
        (is_large && !ids.is_empty()).then_some(Self {
            of: form::audience_digest(new)?,
            ids: ids.join(" "),
            words: words(preview),
        })
    }
}

/// Shows the message for the first contacts of those that the form has now. It is always answered with a part of the page: a fault
/// of what is not written yet to its end is no failure.
pub async fn show(visitor: Visitor, Form(fields): Form) -> Answer {
    let mut new = match form::read_for_preview(&fields, MOST_IDS) {
        Ok(new) => new,
        Err(refusal) => return html(&PreviewView::refused(&fields, refusal)),
    };
    let known = Sample::known(&fields, &new);
    if let Some(known) = &known {
        new.audience = None;
        new.contact_ids = known
            .ids
            .split(' ')
            .filter_map(|id| ContactId::parse(id).ok())
            .collect();
    }
    match visitor.client.preview_broadcast(&new).await {
        Ok(preview) => html(&PreviewView {
            first: (new.contact_ids.len() == MOST_IDS).then_some(MOST_IDS as u64),
            sample: known.or_else(|| Sample::taken(&new, &preview)),
            preview: Some(preview),
            ..PreviewView::of(&fields)
        }),
        Err(error) => html(&PreviewView::refused(&fields, error.into())),
    }
}
