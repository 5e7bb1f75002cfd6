//! The contacts.
//!
//! - `list`, `export`: the list, and the same as a file
//! - `one`: one contact with its deliveries, and its marks
//! - `delete`: deletes a contact, or all that is stored of it
//! - `upload`, `imports`: the file that is imported, and the imports of this console

mod delete;
mod export;
mod imports;
mod list;
mod one;
mod upload;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{get, post};
use client::ContactQuery;
use client::api::contacts::Contact;
use shared::domain::ids::{ContactId, PageId};

use crate::Console;
use crate::failure::Failure;
use crate::fields::{Fields, in_path};

pub use imports::Imports;

/// Returns the views of the contacts.
pub fn routes() -> Router<Arc<Console>> {
    // A file has a limit of its own.
    let upload = get(upload::ask).post(upload::begin).layer(DefaultBodyLimit::disable());
    Router::new()
        .route("/contacts", get(list::show))
        .route("/contacts.csv", get(export::show))
        .route("/contacts/{id}", get(one::show))
        .route("/contacts/{id}/change", post(one::change))
        .route("/contacts/{id}/delete", get(delete::ask).post(delete::delete))
        .route("/import", upload)
        .route("/import/{id}", get(upload::show))
        .route("/import/{id}/stop", post(upload::stop))
        .route("/import/{id}/refused.csv", get(upload::refused_rows))
}

/// Returns the name of a contact, or else its id.
fn name(contact: &Contact) -> String {
    let whole = contact.name.clone().filter(|name| !name.trim().is_empty());
    let parts = [&contact.first_name, &contact.last_name];
    let parts: Vec<_> = parts.into_iter().flatten().map(|part| part.trim()).collect();
    let name = whole.unwrap_or_else(|| parts.join(" "));
    match name.trim().is_empty() {
        true => contact.contact_id.to_string(),
        false => name,
    }
}

/// Returns the path of a contact.
fn path(contact_id: &ContactId) -> String {
    format!("/contacts/{}", in_path(contact_id.as_str()))
}

/// Parses the id of a path.
///
/// # Errors
///
/// Fails with status 404 if the text is no id.
fn parse_id(id: &str) -> Result<ContactId, Failure> {
    ContactId::parse(id).map_err(|_| Failure::not_found("contact"))
}

/// Returns the contacts that are asked for.
///
/// # Errors
///
/// Fails with status 400 if the Page is no id: a list of all contacts would be taken for that of the Page.
fn query(fields: &Fields) -> Result<ContactQuery, Failure> {
    let page_id = fields.get("page_id").map(PageId::parse).transpose();
    Ok(ContactQuery {
        page_id: page_id.map_err(|fault| Failure::new(StatusCode::BAD_REQUEST, format!("The Page {fault}")))?,
        tag: fields.get("tag").map(str::to_owned),
        q: fields.get("q").map(str::to_owned),
        ..ContactQuery::default()
    })
}
