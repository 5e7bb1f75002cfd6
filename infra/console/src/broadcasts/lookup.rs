//! The next lookup of the deliveries of a broadcast that are in doubt, which the page asks for by itself: to find them may take a while.

use askama::Template;
use axum::extract::Path;
use client::DeliveryQuery;
use futures_util::future::join_all;
use jiff::Timestamp;
use shared::domain::delivery::Status;

use super::{missing, parse_id};
use crate::page::{Answer, html};
use crate::session::Visitor;

/// The deliveries whose lookups are asked for.
const LOOKED_AT: u32 = 5;

#[derive(Template)]
#[template(
    source = "{% if let Some(at) = next %}The next lookup is {{ crate::show::until(at) }}, at {{ crate::show::When(at) }}.\
              {% else if found %}No lookup is left: an echo from Messenger settles them, or you send again to them.{% endif %}",
    ext = "html"
)]
struct LookupView {
    found: bool,
    next: Option<Timestamp>,
}

/// Shows the earliest of the next lookups of some deliveries.
pub async fn show(visitor: Visitor, Path(id): Path<String>) -> Answer {
    let id = parse_id(&id)?;
    let query = DeliveryQuery {
        status: Some(Status::InDoubt),
        limit: Some(LOOKED_AT),
        ..DeliveryQuery::default()
    };
    let part = visitor.client.deliveries(&id, &query).await.map_err(missing)?;
    let contacts = part
        .items
        .iter()
        .map(|delivery| visitor.client.delivery(&id, &delivery.contact_id));
    let found = join_all(contacts).await;
    let in_doubt = found
        .into_iter()
        .flatten()
        .filter(|found| found.delivery.status == Status::InDoubt);
    let lookups: Vec<_> = in_doubt.map(|found| found.next_lookup_at).collect();
    html(&LookupView {
        found: !lookups.is_empty(),
        next: lookups.into_iter().flatten().min(),
    })
}
