//! One Page: what it needs to send, its switch for sending, and the import of everybody who ever wrote to it.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect};
use client::api::checks::{Check, CheckState, CheckedThing, Checks};
use client::api::conversations::PageImport;
use client::api::pages::PageReport;
use client::api::sending::{SendingChange, SendingReport};
use client::{Client, Error, PartQuery};
use shared::domain::ids::PageId;
use shared::domain::job::JobStatus;
use shared::domain::sending::SendingState;

use crate::Console;
use crate::failure::Failure;
use crate::fields::Fields;
use crate::frame::{Chrome, Section};
use crate::page::{Answer, fresh, html, refused};
use crate::session::{Form, Visitor};

/// The Pages of a part of the list, in which this one is looked for.
const PART: u32 = 100;

#[derive(Template)]
#[template(path = "page.html", blocks = ["live"])]
struct PageView {
    chrome: Chrome,
    csrf: String,
    fault: Option<Failure>,
    page_id: PageId,
    path: String,
    /// The Page of the list; `None` if it has no contacts.
    page: Option<PageReport>,
    /// `None` in the part that changes.
    sending: Option<SendingReport>,
    import: LastImport,
    /// The reason that was typed.
    reason: String,
}

/// The last import of a Page.
enum LastImport {
    /// There was one.
    Some(Box<PageImport>),
    /// There was none.
    None,
    /// The visitor may not import contacts.
    Forbidden,
}

impl PageView {
    fn state(&self) -> Option<(&'static str, &'static str)> {
        self.page.as_ref().map(super::state)
    }

    /// Returns true if the import goes on.
    fn is_live(&self) -> bool {
        matches!(&self.import, LastImport::Some(import) if !is_over(import.status))
    }

    /// Returns the class of the colour of an import, and its state in words.
    fn import_state(&self, import: &PageImport) -> (&'static str, &'static str) {
        match (import.status, import.command) {
            (status, Some(_)) if !is_over(status) => ("waiting", "ending"),
            (JobStatus::Completed, _) => ("completed", "completed"),
            (JobStatus::Cancelled, _) => ("cancelled", "cancelled"),
            (JobStatus::Halted, _) => ("halted", "halted"),
            (JobStatus::Waiting, _) => ("waiting", "waiting"),
            _ => ("processing", "reading"),
        }
    }
}

fn is_over(status: JobStatus) -> bool {
    matches!(status, JobStatus::Completed | JobStatus::Cancelled | JobStatus::Halted)
}

/// Parses the id of a path.
fn parse_id(id: &str) -> Result<PageId, Failure> {
    PageId::parse(id).map_err(|_| Failure::not_found("Page"))
}

fn missing(error: Error) -> Failure {
    match error.status() {
        Some(StatusCode::NOT_FOUND) => Failure::not_found("Page"),
        _ => error.into(),
    }
}

/// Shows a Page, or the part of it that changes.
pub async fn show(
    State(console): State<Arc<Console>>,
    visitor: Visitor,
    Path(id): Path<String>,
    fields: Fields,
    headers: HeaderMap,
) -> Answer {
    let page_id = parse_id(&id)?;
    if !fields.is_live() {
        return html(&view(&console, visitor, page_id).await?);
    }
    let view = PageView {
        chrome: Chrome::bare(Section::Pages),
        csrf: visitor.csrf,
        fault: None,
        path: super::path(&page_id),
        page: None,
        sending: None,
        import: last_import(&visitor.client, &page_id).await?,
        reason: String::new(),
        page_id,
    };
    fresh(&headers, &view.as_live())
}

async fn view(console: &Console, visitor: Visitor, page_id: PageId) -> Result<PageView, Failure> {
    let client = &visitor.client;
    let (chrome, page, sending, import) = tokio::join!(
        console.chrome(&visitor, Section::Pages),
        listed(client, &page_id),
        client.sending(Some(&page_id)),
        last_import(client, &page_id),
    );
    Ok(PageView {
        chrome,
        csrf: visitor.csrf,
        fault: None,
        path: super::path(&page_id),
        page: page?,
        sending: Some(sending.map_err(missing)?),
        import: import?,
        reason: String::new(),
        page_id,
    })
}

/// Finds a Page in the list; a hundred Pages are one call.
async fn listed(client: &Client, page_id: &PageId) -> Result<Option<PageReport>, Error> {
    let mut query = PartQuery {
        limit: Some(PART),
        cursor: None,
    };
    loop {
        let part = client.pages(&query).await?;
        let found = part.items.into_iter().find(|page| page.page_id == *page_id);
        query.cursor = part.next_cursor;
        if found.is_some() || query.cursor.is_none() {
            return Ok(found);
        }
    }
}

async fn last_import(client: &Client, page_id: &PageId) -> Result<LastImport, Failure> {
    match client.page_import(page_id).await {
        Ok(import) => Ok(LastImport::Some(Box::new(import))),
        Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(LastImport::None),
        Err(error) if error.status() == Some(StatusCode::FORBIDDEN) => Ok(LastImport::Forbidden),
        Err(error) => Err(error.into()),
    }
}

#[derive(Template)]
#[template(path = "page-checks.html", blocks = ["live"])]
struct ChecksView {
    chrome: Chrome,
    page_id: PageId,
    path: String,
    checks: Checks,
}

impl ChecksView {
    fn words(&self, check: &Check) -> &'static str {
        match check.check {
            CheckedThing::Database => "Database",
            CheckedThing::Queue => "Queue",
            CheckedThing::Sending => "Sending",
            CheckedThing::Token => "Access token",
            CheckedThing::Conversations => "Permissions",
            CheckedThing::Webhook => "Webhook",
        }
    }

    /// Returns the class of the colour of a check, and its outcome in a word.
    fn state(&self, check: &Check) -> (&'static str, &'static str) {
        match check.state {
            CheckState::Ok => ("completed", "ok"),
            CheckState::Wrong => ("failed", "wrong"),
            CheckState::Unknown => ("waiting", "not known now"),
        }
    }
}

/// Asks Messenger about a Page: a request of its own, since it may take seconds.
pub async fn checks(
    State(console): State<Arc<Console>>,
    visitor: Visitor,
    Path(id): Path<String>,
    fields: Fields,
) -> Answer {
    let page_id = parse_id(&id)?;
    let checks = visitor.client.checks(Some(&page_id)).await.map_err(missing)?;
    let mut view = ChecksView {
        chrome: Chrome::bare(Section::Pages),
        path: super::path(&page_id),
        page_id,
        checks,
    };
    if fields.is_live() {
        return html(&view.as_live());
    }
    view.chrome = console.chrome(&visitor, Section::Pages).await;
    html(&view)
}

/// Sets the switch for sending of the Page.
pub async fn switch(
    State(console): State<Arc<Console>>,
    visitor: Visitor,
    Path(id): Path<String>,
    Form(fields): Form,
) -> Answer {
    let page_id = parse_id(&id)?;
    let state: Option<SendingState> = fields.word("state");
    let change = SendingChange {
        state: state.ok_or_else(|| Failure::new(StatusCode::BAD_REQUEST, "Choose on or off"))?,
        reason: fields.get("reason").map(str::to_owned),
        page_id: Some(page_id.clone()),
    };
    let changed = visitor.client.change_sending(&change).await;
    done(&console, visitor, page_id, changed.map(drop), fields.raw("reason")).await
}

/// Begins the import of the Page's contacts.
pub async fn import(State(console): State<Arc<Console>>, visitor: Visitor, Path(id): Path<String>, _: Form) -> Answer {
    let page_id = parse_id(&id)?;
    let started = visitor.client.start_page_import(&page_id).await;
    done(&console, visitor, page_id, started.map(drop), "").await
}

/// Ends the import of the Page's contacts.
pub async fn cancel_import(
    State(console): State<Arc<Console>>,
    visitor: Visitor,
    Path(id): Path<String>,
    _: Form,
) -> Answer {
    let page_id = parse_id(&id)?;
    let cancelled = visitor.client.cancel_page_import(&page_id).await;
    done(&console, visitor, page_id, cancelled.map(drop), "").await
}

/// Answers a form: with the Page as it is now, or with what was refused.
async fn done(console: &Console, visitor: Visitor, page_id: PageId, result: Result<(), Error>, reason: &str) -> Answer {
    let Err(error) = result else {
        return Ok(Redirect::to(&super::path(&page_id)).into_response());
    };
    let is_unknown = error.status() == Some(StatusCode::NOT_FOUND);
    let failure = Failure::from(error);
    if !failure.is_about_the_form() && !is_unknown {
        return Err(failure);
    }
    let view = PageView {
        fault: Some(failure),
        reason: reason.to_owned(),
        ..view(console, visitor, page_id).await?
    };
    refused(&view)
}
