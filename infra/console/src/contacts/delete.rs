//! Deletes a contact, or erases all that is stored of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect};
use client::api::contacts::{Erased, Erasure};
use client::{Client, ErasureQuery};
use shared::domain::ids::{ContactId, PageId};

use crate::Console;
use crate::failure::Failure;
use crate::fields::Fields;
use crate::frame::{Chrome, Section};
use crate::page::{Answer, html, refused};
use crate::session::{Form, Visitor};

/// The time for the parts of an erasure that one form does. The page that follows goes on.
const ERASING_TIME: Duration = Duration::from_secs(20);

#[derive(Template)]
#[template(path = "contact-delete.html")]
struct DeleteView {
    chrome: Chrome,
    csrf: String,
    fault: Option<Failure>,
    contact_id: ContactId,
    path: String,
    /// The contact's name; `None` if it is not stored.
    name: Option<String>,
    /// The Page that the visitor gave for a contact that is not stored.
    page_id: String,
}

#[derive(Template)]
#[template(path = "contact-erased.html")]
struct ErasedView {
    chrome: Chrome,
    csrf: String,
    contact_id: ContactId,
    path: String,
    page_id: String,
    erasure: Erasure,
}

/// Shows what can be deleted, and what that means.
pub async fn ask(State(console): State<Arc<Console>>, visitor: Visitor, Path(id): Path<String>) -> Answer {
    let contact_id = super::parse_id(&id)?;
    html(&view(&console, visitor, contact_id, &Fields::default(), None).await?)
}

async fn view(
    console: &Console,
    visitor: Visitor,
    contact_id: ContactId,
    fields: &Fields,
    fault: Option<Failure>,
) -> Result<DeleteView, Failure> {
    let (chrome, contact) = tokio::join!(
        console.chrome(&visitor, Section::Contacts),
        visitor.client.contact(&contact_id),
    );
    let name = match contact {
        Ok(contact) => Some(super::name(&contact)),
        Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(DeleteView {
        chrome,
        csrf: visitor.csrf,
        fault,
        path: super::path(&contact_id),
        contact_id,
        name,
        page_id: fields.raw("page_id").to_owned(),
    })
}

/// Deletes the contact, or everything once its id was typed. Both may be repeated.
pub async fn delete(
    State(console): State<Arc<Console>>,
    visitor: Visitor,
    Path(id): Path<String>,
    Form(fields): Form,
) -> Answer {
    let contact_id = super::parse_id(&id)?;
    if fields.get("what") != Some("everything") {
        visitor.client.delete_contact(&contact_id).await?;
        return Ok(Redirect::to(&super::path(&contact_id)).into_response());
    }
    let erased = match is_confirmed(&fields, &contact_id) {
        true => erase(&visitor.client, &contact_id, &fields).await,
        false => Err(Failure::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Type the id of the contact to erase everything",
        )),
    };
    match erased {
        Ok(erasure) => html(&ErasedView {
            chrome: console.chrome(&visitor, Section::Contacts).await,
            csrf: visitor.csrf,
            path: super::path(&contact_id),
            contact_id,
            page_id: fields.raw("page_id").to_owned(),
            erasure,
        }),
        Err(failure) if failure.is_about_the_form() => {
            refused(&view(&console, visitor, contact_id, &fields, Some(failure)).await?)
        }
        Err(failure) => Err(failure),
    }
}

/// Returns true if the id of the contact was typed.
fn is_confirmed(fields: &Fields, contact_id: &ContactId) -> bool {
    fields.get("typed") == Some(contact_id.as_str())
}

/// Erases part after part, for as long as a form may take.
async fn erase(client: &Client, contact_id: &ContactId, fields: &Fields) -> Result<Erasure, Failure> {
    let page_id = fields.get("page_id").map(PageId::parse).transpose();
    let mut query = ErasureQuery {
        page_id: page_id.map_err(|fault| Failure::new(StatusCode::BAD_REQUEST, format!("The Page {fault}")))?,
        cursor: fields.get("cursor").map(str::to_owned),
        ..ErasureQuery::default()
    };
    let mut all = Erasure {
        erased: Erased::default(),
        kept: Vec::new(),
        next_cursor: None,
    };
    let ends = Instant::now() + ERASING_TIME;
    loop {
        let part = client.erase_contact(contact_id, &query).await?;
        all.erased.contact |= part.erased.contact;
        all.erased.deliveries += part.erased.deliveries;
        all.erased.unknown_ids += part.erased.unknown_ids;
        all.kept.extend(part.kept);
        all.next_cursor.clone_from(&part.next_cursor);
        query.cursor = part.next_cursor;
        if query.cursor.is_none() || Instant::now() > ends {
            return Ok(all);
        }
    }
}
