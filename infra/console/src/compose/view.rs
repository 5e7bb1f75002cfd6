//! The page with the form.

use std::fmt;
use std::sync::Arc;

use askama::Template;
use askama::filters::HtmlSafe;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _};
use client::api::broadcasts::BroadcastSummary;
use client::api::previews::BroadcastPreview;
use client::{BroadcastQuery, PartQuery};
use jiff::Timestamp;
use shared::domain::contact::template_variables;
use shared::domain::schedule::Zone;
use uuid::Uuid;

use super::faults::Refusal;
use super::form;
use super::recipients::Way;
use crate::Console;
use crate::broadcasts;
use crate::fields::Fields;
use crate::frame::{Chrome, Section};
use crate::page::{Answer, rendered};
use crate::session::Visitor;

/// The saved audiences, and the Pages, that are listed: the most of one part of a list.
const MOST_LISTED: u32 = 100;
/// The earlier broadcasts that are listed, whose contacts can be left out: as many as a filter takes.
const MOST_EARLIER: u32 = 20;
/// A time that is further ahead than this many seconds is no beginning at once.
const AHEAD: i64 = 60;
/// The most unknown ids that a check names.
const MOST_UNKNOWN: usize = 20;
/// The characters of a key: those of a random UUID without its hyphens.
const KEY: usize = 32;

/// The kinds of message, each with its word in Messenger's API, its name, and its meaning.
const KINDS: [(&str, &str, &str); 4] = [
    (
        "UPDATE",
        "News",
        "to contacts who wrote to the Page within the last 24 hours",
    ),
    ("RESPONSE", "Answer", "to what contacts wrote within the last 24 hours"),
    (
        "MESSAGE_TAG",
        "Answer of a person",
        "within seven days; HUMAN_AGENT. Meta forbids automatic messages of this kind",
    ),
    (
        "UTILITY",
        "Approved template",
        "at any time, such as a confirmation of an order; Meta has approved its words",
    ),
];

/// The kinds of notification, each with its meaning.
const NOTIFICATIONS: [(&str, &str); 3] = [
    ("REGULAR", "Sound or vibration"),
    ("SILENT_PUSH", "On the screen only, without a sound"),
    ("NO_PUSH", "No notification"),
];

/// The outcome of a check.
#[derive(Debug)]
pub struct Check {
    /// The effect that the broadcast would have.
    pub preview: BroadcastPreview,
    /// The digest of what was checked.
    pub digest: String,
    /// True if the broadcast waits for the approval of another caller.
    pub needs_approval: bool,
}

impl Check {
    /// Returns the number of contacts that would get the message.
    pub fn accepted(&self) -> &u64 {
        &self.preview.contacts.accepted
    }

    /// Returns the time at which the first message is sent, unless that is now.
    fn begins_at(&self) -> Option<&Timestamp> {
        let is_ahead = self.preview.begins_at.as_second() > Timestamp::now().as_second() + AHEAD;
        is_ahead.then_some(&self.preview.begins_at)
    }

    /// Returns the same by the clock of the broadcast's time zone.
    fn begins_local(&self) -> Option<String> {
        let local = self.preview.begins_local.as_ref()?;
        let (time, zone) = local.split_once('[')?;
        let (date, time) = (time.get(..10)?, time.get(11..16)?);
        Some(format!("{date} {time} in {}", zone.trim_end_matches(']')))
    }

    /// Returns the words on the button that sends.
    fn action(&self) -> &'static str {
        match self.begins_at() {
            _ if self.needs_approval => "Hand in for approval, to",
            Some(_) => "Schedule for",
            None => "Send to",
        }
    }

    fn unknown_ids(&self) -> String {
        let ids = &self.preview.contacts.unknown_ids;
        let named: Vec<_> = ids.iter().take(MOST_UNKNOWN).map(String::as_str).collect();
        let more = if self.preview.contacts.unknown > named.len() as u64 {
            ", …"
        } else {
            ""
        };
        format!("{}{more}", named.join(", "))
    }
}

/// The part of the page that an attempt to go on has led to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The reason why the form is shown again.
    pub refusal: Option<Refusal>,
    /// Something that was done.
    pub done: Vec<String>,
    /// The check, if there was one.
    pub check: Option<Check>,
    /// True if the key was used for another broadcast.
    pub is_used: bool,
}

/// The lists that the form offers.
struct Lists {
    audiences: Vec<String>,
    has_more_audiences: bool,
    pages: Vec<String>,
    /// True if no Page has contacts.
    has_no_contacts: bool,
    earlier: Vec<BroadcastSummary>,
}

/// An earlier broadcast, whose contacts can be left out.
struct Earlier {
    id: String,
    /// The name; the id, if the broadcast is not one of the latest.
    name: String,
    created_at: Option<Timestamp>,
    is_chosen: bool,
}

#[derive(Template)]
#[template(path = "new.html")]
struct NewView {
    chrome: Chrome,
    csrf: String,
    fields: Fields,
    lists: Lists,
    key: String,
    /// The key of the next send to testers.
    test_key: String,
    /// The digest of a send that was not answered.
    attempted: String,
    outcome: Outcome,
    /// True if nothing is filled in, so that a draft may be.
    is_blank: bool,
}

/// The attributes by which a field says that it has a fault.
struct Aria<'a>(Option<&'a str>);

impl fmt::Display for Aria<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(field) => write!(f, "aria-invalid=\"true\" aria-describedby=\"{field}-fault\""),
            None => Ok(()),
        }
    }
}

impl HtmlSafe for Aria<'_> {}

impl NewView {
    fn is_way(&self, way: &str) -> bool {
        let chosen = match Way::of(&self.fields) {
            Way::Filters => "filters",
            Way::Saved => "saved",
            Way::Ids => "ids",
        };
        chosen == way
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.fields.all(name).any(|chosen| chosen == value)
    }

    /// Returns the faults of a field.
    fn fault(&self, field: &str) -> Option<String> {
        let refusal = self.outcome.refusal.as_ref()?;
        let faults = refusal.faults.iter().filter(|fault| fault.field == field);
        let messages: Vec<_> = faults.map(|fault| fault.message.as_str()).collect();
        (!messages.is_empty()).then(|| messages.join("; "))
    }

    /// Returns the attributes of a field.
    fn aria(&self, field: &'static str) -> Aria<'static> {
        Aria(self.fault(field).map(|_| field))
    }

    /// Returns what a list offers, and what was chosen beside that, each with true if it is chosen.
    fn offered(&self, name: &str, listed: &[String]) -> Vec<(String, bool)> {
        let chosen: Vec<_> = self.fields.all(name).collect();
        let others = chosen
            .iter()
            .filter(|value| !listed.iter().any(|known| known == *value));
        let offered = listed.iter().map(String::as_str).chain(others.copied());
        offered
            .map(|value| (value.to_owned(), chosen.contains(&value)))
            .collect()
    }

    fn earlier(&self) -> Vec<Earlier> {
        let listed = &self.lists.earlier;
        let ids: Vec<_> = listed.iter().map(|summary| summary.broadcast_id.to_string()).collect();
        let offered = self.offered("not_sent_in", &ids).into_iter().enumerate();
        let earlier = offered.map(|(at, (id, is_chosen))| {
            let summary = listed.get(at);
            Earlier {
                name: summary.map_or_else(|| id.clone(), broadcasts::name),
                created_at: summary.map(|summary| summary.created_at),
                id,
                is_chosen,
            }
        });
        earlier.collect()
    }

    fn kinds(&self) -> [(&'static str, &'static str, &'static str, bool); 4] {
        let chosen = self.fields.get("messaging_type").unwrap_or("UPDATE");
        KINDS.map(|(word, name, meaning)| (word, name, meaning, word == chosen))
    }

    fn notifications(&self) -> [(&'static str, &'static str, bool); 3] {
        let chosen = self.fields.get("notification_type").unwrap_or("REGULAR");
        NOTIFICATIONS.map(|(word, meaning)| (word, meaning, word == chosen))
    }

    /// Returns the variables as a text has them.
    fn variables(&self) -> Vec<String> {
        let of_all = template_variables().map(|name| match name {
            "contact_id" => format!("{{{{ {name} }}}}"),
            "first_name" => format!("{{{{ {name} | default('there') }}}}"),
            _ => format!("{{{{ {name} | default('–') }}}}"),
        });
        of_all
            .chain(["{{ attributes.city | default('–') }}".to_owned()])
            .collect()
    }

    fn replies(&self) -> Vec<String> {
        form::replies(&self.fields)
    }

    fn zone(&self) -> &str {
        self.fields.get("zone").unwrap_or(form::UTC)
    }

    /// Returns the names of all time zones.
    fn zones(&self) -> Vec<String> {
        Zone::names()
    }

    /// Returns true if a part of the form that is folded is used.
    fn uses(&self, names: &[&str]) -> bool {
        names
            .iter()
            .any(|name| self.fields.get(name).is_some() || self.fault(name).is_some())
    }
}

/// A form, and the visitor who has it.
pub struct Page {
    console: Arc<Console>,
    /// The visitor.
    pub visitor: Visitor,
    /// The values of the form.
    pub fields: Fields,
    /// The key of the broadcast that the form becomes.
    pub key: String,
    /// The digest of a send that was not answered.
    pub attempted: String,
    is_blank: bool,
}

impl Page {
    /// Returns the form that a browser has sent.
    pub fn of(console: Arc<Console>, visitor: Visitor, fields: Fields) -> Self {
        let key = fields.get("key").filter(|key| is_key(key)).map(str::to_owned);
        let attempted = fields.raw("attempted").to_owned();
        Self {
            console,
            visitor,
            key: key.unwrap_or_else(new_key),
            attempted,
            fields,
            is_blank: false,
        }
    }

    /// Answers with the page.
    pub async fn answer(self, status: StatusCode, outcome: Outcome) -> Answer {
        let lists = Lists::of(&self.visitor);
        let (chrome, lists) = tokio::join!(self.console.chrome(&self.visitor, Section::New), lists);
        let view = NewView {
            chrome,
            csrf: self.visitor.csrf,
            fields: self.fields,
            lists,
            key: self.key,
            test_key: new_key(),
            attempted: self.attempted,
            outcome,
            is_blank: self.is_blank,
        };
        Ok((status, Html(rendered(&view)?)).into_response())
    }

    /// Answers with the page, which says why it is shown again.
    pub async fn refused(self, refusal: Refusal) -> Answer {
        let outcome = Outcome {
            refusal: Some(refusal),
            ..Outcome::default()
        };
        self.answer(StatusCode::UNPROCESSABLE_ENTITY, outcome).await
    }
}

impl Lists {
    /// Asks for the lists. One that the visitor may not read is empty.
    async fn of(visitor: &Visitor) -> Self {
        let part = PartQuery {
            limit: Some(MOST_LISTED),
            cursor: None,
        };
        let earlier = BroadcastQuery {
            limit: Some(MOST_EARLIER),
            ..BroadcastQuery::default()
        };
        let client = &visitor.client;
        let (audiences, pages, earlier) = tokio::join!(
            client.audiences(&part),
            client.pages(&part),
            client.broadcasts(&earlier)
        );
        let has_more_audiences = audiences.as_ref().is_ok_and(|part| part.next_cursor.is_some());
        let audiences = audiences.map_or_else(|_| Vec::new(), |part| part.items);
        let has_no_contacts = pages.as_ref().is_ok_and(|part| part.items.is_empty());
        let pages = pages.map_or_else(|_| Vec::new(), |part| part.items);
        Self {
            audiences: audiences.iter().map(|saved| saved.name.as_str().to_owned()).collect(),
            has_more_audiences,
            pages: pages.iter().map(|page| page.page_id.as_str().to_owned()).collect(),
            has_no_contacts,
            earlier: earlier.map_or_else(|_| Vec::new(), |part| part.items),
        }
    }
}

/// Returns a new key.
pub fn new_key() -> String {
    Uuid::new_v4().simple().to_string()
}

/// Returns true if the text is a key that a page has had.
pub fn is_key(key: &str) -> bool {
    key.len() == KEY && key.chars().all(|c| c.is_ascii_hexdigit())
}

/// Shows the form, with the values that the URL has.
pub async fn show(State(console): State<Arc<Console>>, visitor: Visitor, fields: Fields) -> Answer {
    let is_blank = fields.is_empty();
    let page = Page {
        is_blank,
        key: new_key(),
        attempted: String::new(),
        ..Page::of(console, visitor, fields)
    };
    page.answer(StatusCode::OK, Outcome::default()).await
}
