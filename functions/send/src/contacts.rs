//! Contacts over HTTP: import, show, delete.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use shared::app::App;
use shared::domain::ids::{ContactId, PageId, Pages, first_ten};

use crate::api::contacts::{Contact, ContactImport, Erasure, Imported, RefusedContacts};
use crate::api::problems::{Conflict, Fault, Invalid, Kind, NotFound, ProblemDetails, TooLarge, UnsupportedType};
use crate::caller::Caller;
use crate::erasure::{ErasureRequest, erase};
use crate::fields::word;
use crate::import::{self, ReadImport};
use crate::negotiation::Form;
use crate::problem::Problem;
use crate::query::{NoParameters, Query};
use crate::refused::{self, refusal, summary};
use crate::request::{JsonOrCsv, PathId};

/// The header of an answer that tells the form in which a CSV file was read.
const CSV_READ_AS: &str = "x-csv-read-as";
/// The header of an answer with the number of contacts that were created or changed.
const UPSERTED: &str = "x-upserted";

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
    description = "Up to 1,000 contacts, each once. If one is wrong, none is stored, unless `refused=skip` asks for the others to be \
        stored. A field that is absent keeps its stored value; `null` clears it. A contact stays on its Page: to move it, delete it \
        first. A CSV file has the same names as columns, a column `attributes.NAME` for each attribute, and tags separated by `;`; an \
        empty cell keeps the stored value. With `Accept: text/csv` the faults come as CSV: line, column and message, or field and \
        message if the body is JSON.",
    params((
        "refused" = Option<RefusedContacts>, Query, example = "skip",
        description = "`skip` stores the contacts that are right, and lists the faults of the others. A body or a file that is wrong as \
            a whole is refused in any case.",
    )),
    request_body(content(
        (ContactImport = "application/json"),
        (String = "text/csv", example = "contact_id,page_id,first_name,tags,opted_out,attributes.city\n6001,page-1,Ana,vip;new,,Porto\n"),
    )),
    responses(
        (
            status = 200, description = "The contacts are stored; with `refused=skip`, those that are not listed.",
            content(
                (Imported = "application/json"),
                (String = "text/csv", example = "line,column,message\r\n3,opted_out,must be true or false\r\n"),
            ),
            headers(
                ("X-Csv-Read-As" = String, description = "CSV only: the form in which the file was read."),
                ("X-Upserted" = u64, description = "The number of contacts that were created or changed.")
            )
        ),
        (
            status = 400, description = "The request has faults, which are listed; nothing was stored.",
            content(
                (
                    ProblemDetails = "application/problem+json",
                    example = json!({
                        "type": "/v1/problems/invalid-request", "title": "Bad Request", "status": 400,
                        "detail": "The request has 1 fault; nothing was stored.",
                        "errors": [{"field": "/contacts/0/page_id", "message": "is required"}]
                    })
                ),
                (String = "text/csv", example = "line,column,message\r\n3,page_id,is required\r\n"),
            )
        ),
        (status = 409, response = Conflict),
        (status = 413, response = TooLarge),
        (status = 415, response = UnsupportedType),
    ),
    security(("jwt" = ["contacts:write"]), ("iam" = [])),
)]
pub async fn upsert(
    State(app): State<Arc<App>>,
    caller: Caller,
    Extension(form): Extension<Form>,
    mut query: Query,
    body: JsonOrCsv,
) -> Result<Response, Problem> {
    let refused = query.take("refused", |value| word::<RefusedContacts>(value, "skip"));
    query.finish()?;
    let pages = &caller.pages;
    let read = match body {
        JsonOrCsv::Json { parsed, text } => import::from_json(&parsed, &text, pages),
        JsonOrCsv::Csv(body) => import::from_csv(&body, pages),
    };
    let mut import = match read {
        Ok(import) if refused.is_none() && !import.faults.is_empty() => {
            return Ok(refusal(Problem::invalid(import.faults), form));
        }
        Ok(import) => import,
        Err(problem) => return Ok(refusal(problem, form)),
    };
    loop {
        let elsewhere = app.store.contacts().upsert_all(&import.patches).await?;
        if elsewhere.is_empty() {
            break;
        }
        if refused.is_none() {
            return Err(on_other_pages(&import, &elsewhere, pages));
        }
        import.faults.extend(elsewhere_faults(&import, &elsewhere, pages));
        import
            .patches
            .retain(|patch| !elsewhere.contains_key(&patch.contact_id));
    }
    let upserted = import.patches.len() as u64;
    let faults = summary(import.faults);
    let headers = (
        import.read_as.map(|read_as| [(CSV_READ_AS, read_as)]),
        [(UPSERTED, upserted.to_string())],
    );
    Ok(match form {
        Form::Csv => (headers, refused::csv(&faults)?).into_response(),
        _ => {
            let refused = refused.map(|RefusedContacts::Skip| faults);
            (headers, Json(Imported { upserted, refused })).into_response()
        }
    })
}

/// Contacts that are stored on other Pages than the request names, each with that Page.
type Elsewhere = HashMap<ContactId, PageId>;

/// Reports contacts that are stored on other Pages than the request names. A caller does not learn the Pages that it may not use.
fn on_other_pages(import: &ReadImport, elsewhere: &Elsewhere, pages: &Pages) -> Problem {
    let ids = import.patches.iter().map(|patch| &patch.contact_id);
    let foreign = ids.filter(|id| elsewhere.get(id).is_some_and(|page_id| !pages.allow(page_id)));
    let foreign: Vec<_> = foreign.cloned().collect();
    if !foreign.is_empty() {
        let detail = format!("Of a Page that you may not use: {}.", first_ten(&foreign));
        return Problem::new(Kind::Forbidden, detail);
    }
    let detail = "A contact stays on its Page. To move one, delete it and create it anew.";
    Problem::new(Kind::ContactOnAnotherPage, detail).with(elsewhere_faults(import, elsewhere, pages))
}

/// Returns the fault of each of these contacts, in the order of the request.
fn elsewhere_faults(import: &ReadImport, elsewhere: &Elsewhere, pages: &Pages) -> Vec<Fault> {
    let faults = import.patches.iter().filter_map(|patch| {
        let page_id = elsewhere.get(&patch.contact_id)?;
        let location = import.locations.get(&patch.contact_id)?;
        Some(match pages.allow(page_id) {
            true => location.field_fault("page_id", format!("must be {page_id}, on which the contact is stored")),
            false => location.field_fault("contact_id", "is a contact of a Page that you may not use"),
        })
    });
    faults.collect()
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
