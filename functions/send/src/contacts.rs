//! Contacts: imported by the caller, shown as stored, forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use shared::app::App;
use shared::contact::Contact;
use shared::ids::{ContactId, first_ten};

use crate::caller::Caller;
use crate::import;
use crate::problem::Problem;
use crate::request::{JsonOrCsv, PathId};

/// `PUT /v1/contacts`
///
/// A contact of a Page that the caller may not use is neither changed nor moved away.
pub async fn upsert(
    State(app): State<Arc<App>>,
    caller: Caller,
    body: JsonOrCsv,
) -> Result<Json<Value>, Problem> {
    let pages = &caller.pages;
    let patches = match body {
        JsonOrCsv::Json(body) => import::from_json(&body, pages)?,
        JsonOrCsv::Csv(body) => import::from_csv(&body, pages)?,
    };
    let foreign = app.store.upsert_contacts(&patches, pages).await?;
    if !foreign.is_empty() {
        let detail = format!("Of a Page that you may not use: {}.", first_ten(&foreign));
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    Ok(Json(json!({"upserted": patches.len()})))
}

/// `GET /v1/contacts/{contact_id}`
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(contact_id): PathId,
) -> Result<Json<Value>, Problem> {
    let contact_id = ContactId::parse(&contact_id).map_err(|_| unknown())?;
    let contact = app.store.contact(&contact_id).await?;
    let contact = contact.filter(|contact| caller.pages.allow(&contact.page_id));
    Ok(Json(shown(&contact.ok_or_else(unknown)?)))
}

/// `DELETE /v1/contacts/{contact_id}`
///
/// Forgets everything that is known of the contact, an opt-out too. Who still stands in line is skipped.
pub async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(contact_id): PathId,
) -> Result<StatusCode, Problem> {
    let contact_id = ContactId::parse(&contact_id).map_err(|_| unknown())?;
    if app.store.delete_contact(&contact_id, &caller.pages).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown())
    }
}

fn unknown() -> Problem {
    Problem::not_found("There is no such contact.")
}

fn shown(contact: &Contact) -> Value {
    json!({
        "contact_id": contact.contact_id,
        "page_id": contact.page_id,
        "first_name": contact.first_name,
        "last_name": contact.last_name,
        "tags": contact.tags,
        "opted_out": contact.opted_out,
        "last_interaction_at": contact.last_interaction_at,
        "attributes": contact.attributes().collect::<BTreeMap<_, _>>(),
    })
}
