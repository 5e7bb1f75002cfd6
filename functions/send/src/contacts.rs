//! Contacts over HTTP: import, show, delete.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use shared::app::App;
use shared::domain::contact::{Contact, FIELDS};
use shared::domain::ids::{ContactId, first_ten};

use crate::caller::Caller;
use crate::erasure::{ErasureRequest, erase};
use crate::import;
use crate::problem::Problem;
use crate::request::{JsonOrCsv, PathId};

/// The header of an answer that tells the form in which a CSV file was read.
const CSV_READ_AS: &str = "x-csv-read-as";

/// `PUT /v1/contacts`: creates or changes contacts.
///
/// A contact of a Page that the caller may not use is neither changed nor moved to another Page.
///
/// # Errors
/// If the body has faults (400), names such a contact (403), makes a contact larger than 400 KB (409), or DynamoDB does not answer (503).
pub async fn upsert(
    State(app): State<Arc<App>>,
    caller: Caller,
    body: JsonOrCsv,
) -> Result<(Option<[(&'static str, String); 1]>, Json<Value>), Problem> {
    let pages = &caller.pages;
    let (patches, read_as) = match body {
        JsonOrCsv::Json { parsed, text } => (import::from_json(&parsed, &text, pages)?, None),
        JsonOrCsv::Csv(body) => {
            let (patches, read_as) = import::from_csv(&body, pages)?;
            (patches, Some([(CSV_READ_AS, read_as)]))
        }
    };
    let foreign = app.store.contacts().upsert_all(&patches, pages).await?;
    if !foreign.is_empty() {
        let detail = format!("Of a Page that you may not use: {}.", first_ten(&foreign));
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    Ok((read_as, Json(json!({"upserted": patches.len()}))))
}

/// `GET /v1/contacts/{contact_id}`: shows a contact as it is stored.
///
/// # Errors
/// If there is no such contact of a Page that the caller may use (404), or DynamoDB does not answer (503).
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(contact_id): PathId,
) -> Result<Json<Value>, Problem> {
    let contact_id = ContactId::parse_stored(&contact_id).ok_or_else(unknown)?;
    let contact = app.store.contacts().get(&contact_id).await?;
    let contact = contact.filter(|contact| caller.pages.allow(&contact.page_id));
    Ok(Json(shown(&contact.ok_or_else(unknown)?)))
}

/// `DELETE /v1/contacts/{contact_id}`: deletes a contact, its opt-out included. With `erase=true` everything else that is stored
/// of it is deleted, too, as [`erase`] says, also if the contact itself is gone already.
///
/// A job that has the contact in its backlog skips it.
///
/// # Errors
/// If there is no such contact of a Page that the caller may use (404), a parameter is wrong (400), or DynamoDB does not answer
/// (503).
pub async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(contact_id): PathId,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let contact_id = ContactId::parse_stored(&contact_id).ok_or_else(unknown)?;
    if let Some(erasure) = ErasureRequest::parse(query.as_deref().unwrap_or_default())? {
        return Ok(Json(erase(&app, &caller, &contact_id, erasure).await?).into_response());
    }
    let contacts = app.store.contacts();
    match contacts.delete_if_allowed(&contact_id, &caller.pages).await? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(unknown()),
    }
}

fn unknown() -> Problem {
    Problem::not_found("There is no such contact.")
}

fn shown(contact: &Contact) -> Value {
    let fields = FIELDS.iter();
    let fields = fields.map(|field| (field.name.to_owned(), (field.value)(contact)));
    Value::Object(fields.collect::<Map<_, _>>())
}
