//! Contacts over HTTP: import, show, delete.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use shared::app::App;
use shared::domain::ids::{ContactId, PageId, Pages, first_ten};
use shared::store::contacts::ContactPatch;

use crate::api::contacts::{Contact, ContactImport, Erasure, Imported};
use crate::api::problems::{Conflict, Fault, Invalid, Kind, NotFound, TooLarge, UnsupportedType};
use crate::caller::Caller;
use crate::erasure::{ErasureRequest, erase};
use crate::import::{self, ImportedContacts};
use crate::problem::Problem;
use crate::query::{NoParameters, Query};
use crate::request::{JsonOrCsv, PathId};

/// The header of an answer that tells the form in which a CSV file was read.
const CSV_READ_AS: &str = "x-csv-read-as";

/// `PUT /v1/contacts`: creates or changes contacts.
///
/// A contact stays on its Page. One of a Page that the caller may not use is not changed either.
///
/// # Errors
/// If the body has faults (400), names a contact that is stored on a Page which the caller may not use (403) or on another Page
/// (409), makes a contact larger than 400 KB (409), or DynamoDB does not answer (503).
#[utoipa::path(
    put, path = "/v1/contacts", operation_id = "importContacts", tag = "contacts",
    summary = "Create or change contacts",
    description = "Up to 1,000 contacts, each once. If one is wrong, none is stored. A field that is absent keeps its stored value; \
        `null` clears it. A contact stays on its Page: to move it, delete it first. A CSV file has the same names as columns, a column `attributes.NAME` for each attribute, and tags \
        separated by `;`; an empty cell keeps the stored value.",
    request_body(content(
        (ContactImport = "application/json"),
        (String = "text/csv", example = "contact_id,page_id,first_name,tags,opted_out,attributes.city\n6001,page-1,Ana,vip;new,,Porto\n"),
    )),
    responses(
        (
            status = 200, description = "All contacts are stored.", body = Imported,
            headers(("X-Csv-Read-As" = String, description = "CSV only: the form in which the file was read."))
        ),
        (status = 400, response = Invalid),
        (status = 409, response = Conflict),
        (status = 413, response = TooLarge),
        (status = 415, response = UnsupportedType),
    ),
    security(("jwt" = ["contacts:write"]), ("iam" = [])),
)]
pub async fn upsert(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: NoParameters,
    body: JsonOrCsv,
) -> Result<(Option<[(&'static str, String); 1]>, Json<Imported>), Problem> {
    let pages = &caller.pages;
    let (contacts, read_as) = match body {
        JsonOrCsv::Json { parsed, text } => (import::from_json(&parsed, &text, pages)?, None),
        JsonOrCsv::Csv(body) => {
            let (contacts, read_as) = import::from_csv(&body, pages)?;
            (contacts, Some([(CSV_READ_AS, read_as)]))
        }
    };
    let elsewhere = app.store.contacts().upsert_all(&contacts.patches).await?;
    if !elsewhere.is_empty() {
        return Err(on_other_pages(&contacts, &elsewhere, pages));
    }
    Ok((
        read_as,
        Json(Imported {
            upserted: contacts.patches.len() as u64,
        }),
    ))
}

/// Reports contacts that are stored on other Pages than the request names. A caller does not learn the Pages that it may not use.
fn on_other_pages(contacts: &ImportedContacts, elsewhere: &HashMap<ContactId, PageId>, pages: &Pages) -> Problem {
    let elsewhere = |patch: &ContactPatch| Some((patch.contact_id.clone(), elsewhere.get(&patch.contact_id)?));
    let elsewhere: Vec<_> = contacts.patches.iter().filter_map(elsewhere).collect();
    let foreign = elsewhere.iter().filter(|(_, page_id)| !pages.allow(page_id));
    let foreign: Vec<_> = foreign.map(|(contact_id, _)| contact_id.clone()).collect();
    if !foreign.is_empty() {
        let detail = format!("Of a Page that you may not use: {}.", first_ten(&foreign));
        return Problem::new(Kind::Forbidden, detail);
    }
    let fault = |(contact_id, page_id): &(ContactId, &PageId)| Fault {
        field: contacts
            .locations
            .get(contact_id)
            .map(|location| location.field("page_id"))
            .unwrap_or_default(),
        message: format!("must be {page_id}, on which the contact is stored"),
    };
    let detail = "A contact stays on its Page. To move one, delete it and create it anew.";
    Problem::new(Kind::ContactOnAnotherPage, detail).with(elsewhere.iter().map(fault).collect())
}

/// `GET /v1/contacts/{contact_id}`: shows a contact as it is stored.
///
/// # Errors
/// If there is no such contact of a Page that the caller may use (404), or DynamoDB does not answer (503).
#[utoipa::path(
    get, path = "/v1/contacts/{contact_id}", operation_id = "getContact", tag = "contacts",
    summary = "Show a contact",
    description = "A contact of a Page that the caller may not use is unknown to it.",
    params(("contact_id" = ContactId, Path, description = "The id of the contact.", example = "6001")),
    responses(
        (status = 200, description = "The contact as it is stored.", body = Contact),
        (status = 404, response = NotFound),
    ),
    security(("jwt" = ["contacts:write"]), ("iam" = [])),
)]
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(contact_id): PathId,
    _: NoParameters,
) -> Result<Json<Contact>, Problem> {
    let contact_id = ContactId::parse_stored(&contact_id).ok_or_else(unknown)?;
    let contact = app.store.contacts().get(&contact_id).await?;
    let contact = contact.filter(|contact| caller.pages.allow(&contact.page_id));
    Ok(Json(contact.ok_or_else(unknown)?.into()))
}

/// `DELETE /v1/contacts/{contact_id}`: deletes a contact, its opt-out included. With `erase=true` everything else that is stored
/// of it is deleted, too, as [`erase`] says, also if the contact itself is gone already.
///
/// A job that has the contact in its backlog skips it.
///
/// # Errors
/// If there is no such contact of a Page that the caller may use (404), a parameter is wrong (400), or DynamoDB does not answer
/// (503).
#[utoipa::path(
    delete, path = "/v1/contacts/{contact_id}", operation_id = "deleteContact", tag = "contacts",
    summary = "Delete a contact, or erase all that is stored of it",
    description = "Deletes the contact, its opt-out included; a job that has it in its backlog skips it. With `erase=true` all that is \
        stored of it is deleted, in parts: repeat the request with `cursor` until `next_cursor` is null.",
    params(
        ("contact_id" = ContactId, Path, description = "The id of the contact.", example = "6001"),
        ("erase" = Option<bool>, Query, description = "True to erase all that is stored of the contact.", example = true),
        (
            "limit" = Option<u64>, Query, minimum = 1, maximum = 1_000, example = 1_000,
            description = "Erasure only: the number of jobs that one request reads, about; 1,000 if absent.",
        ),
        ("cursor" = Option<String>, Query, description = "Erasure only: `next_cursor` of the part before.", example = "ZXJhc2UgKiAq"),
        (
            "page_id" = Option<PageId>, Query, example = "page-1",
            description = "Erasure only: the Page of a contact that is gone; jobs of other Pages are left out.",
        ),
    ),
    responses(
        (status = 200, description = "A part of the erasure is done.", body = Erasure),
        (status = 204, description = "The contact is deleted."),
        (status = 400, response = Invalid),
        (status = 404, response = NotFound),
    ),
    security(("jwt" = ["contacts:write"]), ("iam" = [])),
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(contact_id): PathId,
    query: Query,
) -> Result<Response, Problem> {
    let contact_id = ContactId::parse_stored(&contact_id).ok_or_else(unknown)?;
    if let Some(erasure) = ErasureRequest::parse(query, &contact_id)? {
        return Ok(Json(erase(&app, &caller, &contact_id, erasure).await?).into_response());
    }
    let contacts = app.store.contacts();
    match contacts.delete_if_allowed(&contact_id, &caller.pages).await? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(unknown()),
    }
}

/// The problem of a contact that there is not, or that the caller may not see.
pub fn unknown() -> Problem {
    Problem::not_found("There is no such contact.")
}
