//! The list of the contacts.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use client::api::contacts::Contact;
use client::api::lists::ListPart;
use client::{Client, ContactQuery, PartQuery};
use shared::domain::ids::PageId;

use crate::Console;
use crate::failure::Failure;
use crate::fields::Fields;
use crate::frame::{Chrome, Section};
use crate::page::{Answer, html, refused};
use crate::session::Visitor;

/// The contacts of a page.
const PART: u32 = 50;
/// The Pages that are proposed as a filter.
const PROPOSED: u32 = 100;

#[derive(Template)]
#[template(path = "contacts.html")]
struct ListView {
    chrome: Chrome,
    fields: Fields,
    fault: Option<Failure>,
    contacts: Vec<Contact>,
    pages: Vec<PageId>,
    next: Option<String>,
}

impl ListView {
    fn name(&self, contact: &Contact) -> String {
        super::name(contact)
    }

    fn path(&self, contact: &Contact) -> String {
        super::path(&contact.contact_id)
    }

    fn is_filtered(&self) -> bool {
        ["q", "tag", "page_id"]
            .iter()
            .any(|name| self.fields.get(name).is_some())
    }

    /// Returns the path of the same contacts as a file.
    fn export(&self) -> String {
        self.fields.link("/contacts.csv", &[("cursor", "")])
    }
}

/// Shows the list.
pub async fn show(State(console): State<Arc<Console>>, visitor: Visitor, fields: Fields) -> Answer {
    let (chrome, part, pages) = tokio::join!(
        console.chrome(&visitor, Section::Contacts),
        part(&visitor.client, &fields),
        pages(&visitor.client),
    );
    let view = |contacts, next, fault| ListView {
        chrome,
        fields: fields.clone(),
        fault,
        contacts,
        pages,
        next,
    };
    match part {
        Ok(part) => {
            let next = part
                .next_cursor
                .map(|cursor| fields.link("/contacts", &[("cursor", &cursor)]));
            html(&view(part.items, next, None))
        }
        Err(failure) if failure.is_about_the_form() => refused(&view(Vec::new(), None, Some(failure))),
        Err(failure) => Err(failure),
    }
}

async fn part(client: &Client, fields: &Fields) -> Result<ListPart<Contact>, Failure> {
    let query = ContactQuery {
        limit: Some(PART),
        cursor: fields.get("cursor").map(str::to_owned),
        ..super::query(fields)?
    };
    Ok(client.contacts(&query).await?)
}

/// Returns the Pages that are proposed. A caller who may not list them writes one by hand.
async fn pages(client: &Client) -> Vec<PageId> {
    let query = PartQuery {
        limit: Some(PROPOSED),
        cursor: None,
    };
    let pages = client.pages(&query).await.map(|part| part.items).unwrap_or_default();
    pages.into_iter().map(|page| page.page_id).collect()
}
