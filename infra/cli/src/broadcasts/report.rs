//! `oncecast report`: the outcome for each contact, as a file.

use clap::Args;
use client::DeliveryQuery;
use indicatif::{HumanCount, ProgressBar};
use shared::domain::delivery::Status;
use shared::domain::ids::{BroadcastId, PageId};

use super::find::{find, id_or_prefix};
use super::words;
use crate::api::Session;
use crate::failure::Failure;
use crate::text::counted;

/// The most rows in one answer of CSV.
const CSV_PART: u32 = 10_000;
/// The most rows in one answer of JSON.
const JSON_PART: u32 = 1_000;

/// The options of `report`.
#[derive(Debug, Args)]
#[command(after_help = "Write it into a file: oncecast report ID > out.csv")]
pub struct Options {
    /// Id of the broadcast, or its first 6 digits or more
    #[arg(value_parser = id_or_prefix)]
    id: String,
    /// Only contacts with this outcome: sent, failed, skipped, in-doubt or waiting
    #[arg(long, value_parser = words::delivery_status)]
    status: Option<Status>,
    /// Only contacts with this code of the reason, such as 551 or `opted_out`
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// Only contacts of this Page
    #[arg(long, value_name = "PAGE", value_parser = PageId::parse)]
    page: Option<PageId>,
}

/// Writes the outcome for each contact: as CSV, or as JSON.
///
/// # Errors
///
/// Fails if a call or the output fails.
pub async fn run(session: &Session, options: Options) -> Result<(), Failure> {
    let id = find(session, &options.id).await?;
    let query = DeliveryQuery {
        status: options.status,
        reason: options.reason,
        page_id: options.page,
        ..DeliveryQuery::default()
    };
    let reading = session.output.spinner("reading the report");
    match session.output.is_json() {
        true => json(session, &id, query, &reading).await?,
        false => csv(session, &id, query, &reading).await?,
    }
    reading.finish_and_clear();
    let counters = session.client.broadcast(&id).await?.summary.counters;
    if counters.pending > 0 {
        let pending = counted(counters.pending, "contact");
        session
            .output
            .note(&format!("{pending} not reached yet: they are no part of the report"));
    }
    Ok(())
}

/// Writes one file from the parts, which have a header each.
async fn csv(
    session: &Session,
    id: &BroadcastId,
    mut query: DeliveryQuery,
    reading: &ProgressBar,
) -> Result<(), Failure> {
    query.limit = Some(CSV_PART);
    let mut rows = 0;
    loop {
        let part = session.client.deliveries_csv(id, &query).await?;
        let header = part
            .csv
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(part.csv.len(), |end| end + 1);
        let begin = if query.cursor.is_none() { 0 } else { header };
        let new = part.csv.get(begin..).unwrap_or_default();
        session.output.write(new)?;
        rows += new.iter().filter(|byte| **byte == b'\n').count();
        reading.set_message(format!("{} rows", HumanCount(rows as u64)));
        query.cursor = part.next_cursor;
        if query.cursor.is_none() {
            return Ok(());
        }
    }
}

/// Writes an object in each line.
async fn json(
    session: &Session,
    id: &BroadcastId,
    mut query: DeliveryQuery,
    reading: &ProgressBar,
) -> Result<(), Failure> {
    query.limit = Some(JSON_PART);
    let mut rows = 0;
    loop {
        let part = session.client.deliveries(id, &query).await?;
        part.items.iter().try_for_each(|row| session.output.object(row))?;
        rows += part.items.len();
        reading.set_message(format!("{} rows", HumanCount(rows as u64)));
        query.cursor = part.next_cursor;
        if query.cursor.is_none() {
            return Ok(());
        }
    }
}
