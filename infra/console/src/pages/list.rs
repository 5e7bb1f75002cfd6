//! The list of the Pages.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect};
use client::PartQuery;
use client::api::pages::PageReport;
use shared::domain::ids::PageId;

use crate::Console;
use crate::failure::Failure;
use crate::fields::Fields;
use crate::frame::{Chrome, Section};
use crate::page::{Answer, html, refused};
use crate::session::Visitor;

/// The Pages of a page.
const PART: u32 = 50;

#[derive(Template)]
#[template(path = "pages.html")]
struct ListView {
    chrome: Chrome,
    fields: Fields,
    fault: Option<Failure>,
    pages: Vec<PageReport>,
    next: Option<String>,
}

impl ListView {
    fn path(&self, page: &PageReport) -> String {
        super::path(&page.page_id)
    }

    fn state(&self, page: &PageReport) -> (&'static str, &'static str) {
        super::state(page)
    }

    fn reason<'a>(&self, page: &'a PageReport) -> Option<&'a str> {
        page.switch.as_ref().and_then(super::reason)
    }
}

/// Shows the list, or goes to the Page whose id was typed.
pub async fn show(State(console): State<Arc<Console>>, visitor: Visitor, fields: Fields) -> Answer {
    let typed = fields.get("open").map(PageId::parse).transpose();
    if let Ok(Some(page_id)) = &typed {
        return Ok(Redirect::to(&super::path(page_id)).into_response());
    }
    let query = PartQuery {
        limit: Some(PART),
        cursor: fields.get("cursor").map(str::to_owned),
    };
    let (chrome, part) = tokio::join!(console.chrome(&visitor, Section::Pages), visitor.client.pages(&query));
    let part = part?;
    let fault = typed.err();
    let view = ListView {
        chrome,
        next: part
            .next_cursor
            .map(|cursor| fields.link("/pages", &[("cursor", &cursor)])),
        pages: part.items,
        fault: fault.map(|fault| Failure::new(StatusCode::BAD_REQUEST, format!("The id of the Page {fault}"))),
        fields,
    };
    match view.fault {
        Some(_) => refused(&view),
        None => html(&view),
    }
}
