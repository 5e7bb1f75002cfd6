//! `oncecast contacts show ID` and `contacts delete ID`.

use clap::Args;
use client::ErasureQuery;
use client::api::contacts::{Contact, Erased, Erasure};
use serde_json::{Value, json};
use shared::domain::contact::FIELDS;
use shared::domain::ids::{ContactId, PageId};

use crate::api::Session;
use crate::failure::{Exit, Failure};
use crate::text::{Align, counted, plain, table};

/// The options of `contacts show`.
#[derive(Debug, Args)]
pub struct ShowOptions {
    /// Id of the contact
    #[arg(value_name = "ID", value_parser = ContactId::parse)]
    id: ContactId,
}

/// The options of `contacts delete`.
#[derive(Debug, Args)]
pub struct DeleteOptions {
    /// Id of the contact
    #[arg(value_name = "ID", value_parser = ContactId::parse)]
    id: ContactId,
    /// Deletes everything that is stored of the contact: its deliveries, too
    #[arg(long)]
    erase: bool,
    /// Page of a contact that is deleted already, to erase the rest
    #[arg(long, value_name = "PAGE", requires = "erase", value_parser = PageId::parse)]
    page: Option<PageId>,
    /// Does not ask
    #[arg(long)]
    yes: bool,
}

/// Shows a contact.
///
/// # Errors
///
/// Fails if there is none, or a call or the output fails.
pub async fn show(session: &Session, options: &ShowOptions) -> Result<(), Failure> {
    let contact = session.client.contact(&options.id).await?;
    if session.output.is_json() {
        return session.output.object(&contact);
    }
    for line in table(&[Align::Left, Align::Left], &rows(&contact), session.output.columns()) {
        session.output.line(&line)?;
    }
    Ok(())
}

/// Returns the fields that a contact has, and its attributes.
fn rows(contact: &Contact) -> Vec<Vec<String>> {
    let contact = json!(contact);
    let mut rows = Vec::new();
    for name in FIELDS.iter().map(|field| field.name) {
        match &contact[name] {
            Value::Null => {}
            Value::Array(list) if list.is_empty() => {}
            Value::Object(attributes) => {
                let attributes = attributes.iter();
                rows.extend(attributes.map(|(attribute, value)| vec![format!("{name}.{attribute}"), text(value)]));
            }
            value => rows.push(vec![name.to_owned(), text(value)]),
        }
    }
    rows
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text).into_owned(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Deletes a contact, or erases all that is stored of it.
///
/// # Errors
///
/// Fails if there is none, nobody confirms it, or a call fails.
pub async fn delete(session: &Session, options: &DeleteOptions) -> Result<(), Failure> {
    let id = &options.id;
    if !options.yes {
        let what = if options.erase { "everything of" } else { "the contact" };
        session
            .output
            .confirm_word(
                &format!("Type the id to delete {what} {}", plain(id.as_str())),
                id.as_str(),
            )
            .await?;
    }
    if options.erase {
        return erase(session, options).await;
    }
    match session.client.delete_contact(id).await? {
        true if session.output.is_json() => Ok(()),
        true => session.output.line(&format!("deleted {}", plain(id.as_str()))),
        false => Err(Failure::new(Exit::Refused, "there is no such contact")
            .and("--erase deletes what else may be stored of it")),
    }
}

async fn erase(session: &Session, options: &DeleteOptions) -> Result<(), Failure> {
    let mut query = ErasureQuery {
        page_id: options.page.clone(),
        ..ErasureQuery::default()
    };
    let mut all = Erasure {
        erased: Erased::default(),
        kept: Vec::new(),
        next_cursor: None,
    };
    session.if_interrupted(&["the erasure is done in part: the same command does the rest".to_owned()]);
    loop {
        let part = session.client.erase_contact(&options.id, &query).await?;
        all.erased.contact |= part.erased.contact;
        all.erased.deliveries += part.erased.deliveries;
        all.erased.unknown_ids += part.erased.unknown_ids;
        all.kept.extend(part.kept);
        query.cursor = part.next_cursor;
        if query.cursor.is_none() {
            break;
        }
    }
    if session.output.is_json() {
        session.output.object(&all)?;
    } else {
        let contact = if all.erased.contact {
            "the contact"
        } else {
            "no contact"
        };
        let deliveries = match all.erased.deliveries {
            1 => "1 delivery".to_owned(),
            number => format!("{number} deliveries"),
        };
        session.output.line(&format!("erased {contact}, {deliveries}"))?;
        for kept in &all.kept {
            let status = kept
                .status
                .map_or_else(|| "to come".to_owned(), |status| status.to_string());
            session.output.line(&format!(
                "  kept for now: broadcast {} on {}, {status}: {}",
                kept.broadcast_id,
                plain(kept.page_id.as_str()),
                plain(&kept.reason)
            ))?;
        }
    }
    match all.kept.len() {
        0 => Ok(()),
        kept => Err(
            Failure::new(Exit::InPart, format!("{} kept for now", counted(kept as u64, "item")))
                .and("the same command erases them later"),
        ),
    }
}
