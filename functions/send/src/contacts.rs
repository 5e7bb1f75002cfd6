//! Contacts: imported by the caller, shown as stored, forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use shared::app::App;
use shared::contact::Contact;
use shared::ids::ContactId;

use crate::import;
use crate::problem::Problem;
use crate::request::{JsonOrCsv, PathId};

/// `PUT /v1/contacts`
pub async fn upsert(State(app): State<Arc<App>>, body: JsonOrCsv) -> Result<Json<Value>, Problem> {
    let patches = match body {
        JsonOrCsv::Json(body) => import::from_json(&body)?,
        JsonOrCsv::Csv(body) => import::from_csv(&body)?,
    };
    app.store.upsert_contacts(&patches).await?;
    Ok(Json(json!({"upserted": patches.len()})))
}

/// `GET /v1/contacts/{contact_id}`
pub async fn show(
    State(app): State<Arc<App>>,
    PathId(contact_id): PathId,
) -> Result<Json<Value>, Problem> {
    let contact_id = ContactId::parse(&contact_id).map_err(|_| unknown())?;
    let contact = app.store.contact(&contact_id).await?.ok_or_else(unknown)?;
    Ok(Json(shown(&contact)))
}

/// `DELETE /v1/contacts/{contact_id}`
///
/// Forgets everything that is known of the contact, an opt-out too. Who still stands in line is skipped.
pub async fn delete(
    State(app): State<Arc<App>>,
    PathId(contact_id): PathId,
) -> Result<StatusCode, Problem> {
    let contact_id = ContactId::parse(&contact_id).map_err(|_| unknown())?;
    if app.store.delete_contact(&contact_id).await? {
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
