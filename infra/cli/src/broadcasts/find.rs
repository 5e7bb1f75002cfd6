//! A broadcast by the beginning of its id.

use client::BroadcastQuery;
use client::api::broadcasts::BroadcastSummary;
use shared::domain::ids::BroadcastId;

use crate::api::Session;
use crate::failure::{Exit, Failure};
use crate::text::plain;

/// The fewest characters of an id that stand for it.
const MIN_PREFIX: usize = 6;
/// The first characters of an id, by which a person names a broadcast: they are the millisecond of its making.
const SHORT: usize = 12;
/// The length of an id.
const WHOLE: usize = 32;
/// The number of broadcasts in one answer.
const PART: u32 = 100;
/// The number of the newest broadcasts among which one is looked for.
const NEWEST: usize = 1_000;
/// The most broadcasts that are listed where several are meant.
const LISTED: usize = 5;

/// Parses an id, or its beginning, of the command line.
pub fn id_or_prefix(text: &str) -> Result<String, String> {
    let id = text.to_ascii_lowercase();
    let is_part = (MIN_PREFIX..=WHOLE).contains(&id.len()) && id.chars().all(|c| c.is_ascii_hexdigit());
    is_part
        .then_some(id)
        .ok_or_else(|| format!("write the id of a broadcast, 32 digits 0-9 a-f, or its first {MIN_PREFIX} or more"))
}

/// Returns the beginning of an id that stands for it.
pub fn short(id: &BroadcastId) -> String {
    id.to_string().chars().take(SHORT).collect()
}

/// Returns the broadcast that is meant: the one whose id begins so.
///
/// # Errors
///
/// Fails if none of the newest broadcasts is meant, or several are.
pub async fn find(session: &Session, prefix: &str) -> Result<BroadcastId, Failure> {
    if let Some(id) = BroadcastId::parse(prefix) {
        return Ok(id);
    }
    let newest = newest(session, NEWEST, |summary| {
        summary.broadcast_id.to_string().as_str() < prefix
    })
    .await?;
    let meant: Vec<_> = newest
        .into_iter()
        .filter(|summary| summary.broadcast_id.to_string().starts_with(prefix))
        .collect();
    match meant.as_slice() {
        [one] => Ok(one.broadcast_id.clone()),
        [] => Err(Failure::new(
            Exit::Refused,
            format!("there is no broadcast whose id begins with {prefix}"),
        )
        .and("`oncecast list` shows the newest; an older one is found by its whole id")),
        several => {
            let failure = Failure::new(
                Exit::Refused,
                format!("the ids of {} broadcasts begin with {prefix}:", several.len()),
            );
            Err(several.iter().take(LISTED).fold(failure, |failure, summary| {
                let name = summary.name.as_deref().unwrap_or_default();
                failure.and(format!("{}  {}", summary.broadcast_id, plain(name)))
            }))
        }
    }
}

/// Returns the newest broadcasts, sends to testers included, until there are so many or one is the last that is wanted.
async fn newest(
    session: &Session,
    count: usize,
    is_last: impl Fn(&BroadcastSummary) -> bool,
) -> Result<Vec<BroadcastSummary>, Failure> {
    let mut query = BroadcastQuery {
        tests: Some(true),
        limit: Some(PART),
        ..BroadcastQuery::default()
    };
    let mut found = Vec::new();
    loop {
        let part = session.client.broadcasts(&query).await?;
        found.extend(part.items);
        query.cursor = part.next_cursor;
        // Ids sort by time, and so does the list, but for a second or so: the rest of the part is looked at, too.
        if query.cursor.is_none() || found.len() >= count || found.last().is_some_and(&is_last) {
            return Ok(found);
        }
    }
}
