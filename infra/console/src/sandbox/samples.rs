//! Contacts to try things out with: made up, in the sandbox only.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect};
use client::api::contacts::{ContactChange, ContactImport};
use shared::domain::ids::{ContactId, PageId};

use crate::Console;
use crate::page::Answer;
use crate::session::{Form, Visitor};

/// The number of contacts.
const CONTACTS: usize = 100;
/// The id of the first of them.
const FIRST_ID: usize = 6_001;
/// Their first names, each again after the last; every seventh contact has none.
const FIRST_NAMES: [&str; 6] = ["Ana", "Ben", "فاطمة", "Zoë", "李雷", "Олексій"];

/// Creates the contacts on the Pages of the sandbox. Once more, it changes nothing.
pub async fn create(State(console): State<Arc<Console>>, visitor: Visitor, _: Form) -> Answer {
    let tokens = console.sandbox()?.tokens().await?;
    let pages: Vec<_> = tokens.keys().filter_map(|id| PageId::parse(id).ok()).collect();
    let contacts = (0..CONTACTS).filter_map(|number| contact(number, &pages)).collect();
    visitor.client.import_contacts(&ContactImport { contacts }).await?;
    Ok(Redirect::to("/new?everybody=on").into_response())
}

fn contact(number: usize, pages: &[PageId]) -> Option<ContactChange> {
    let contact_id = ContactId::parse(&(FIRST_ID + number).to_string()).ok()?;
    let page_id = pages.get(number % pages.len().max(1))?.clone();
    let name = FIRST_NAMES.get(number % (FIRST_NAMES.len() + 1));
    Some(ContactChange {
        first_name: name.map(|name| Some((*name).to_owned())),
        ..ContactChange::new(contact_id, page_id)
    })
}
