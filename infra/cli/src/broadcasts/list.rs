//! `oncecast list`: the newest broadcasts.

use clap::Args;
use client::BroadcastQuery;
use client::api::broadcasts::BroadcastSummary;
use indicatif::HumanCount;
use shared::domain::ids::PageId;
use shared::domain::job::JobStatus;

use super::words;
use crate::api::Session;
use crate::failure::Failure;
use crate::output::Tone;
use crate::text::{Align, plain, table};

/// The most broadcasts in one answer.
const PART: u32 = 100;
/// The fewest digits of an id that are shown.
const MIN_DIGITS: usize = 8;

/// The options of `list`.
#[derive(Debug, Args)]
pub struct Options {
    /// Only broadcasts with this status, such as processing, scheduled, halted or completed
    #[arg(long, value_parser = words::job_status)]
    status: Option<JobStatus>,
    /// Only broadcasts that this Page sends
    #[arg(long, value_name = "PAGE", value_parser = PageId::parse)]
    page: Option<PageId>,
    /// Number of broadcasts
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Lists sends to testers, too
    #[arg(long)]
    tests: bool,
}

/// Lists broadcasts.
///
/// # Errors
///
/// Fails if a call or the output fails.
pub async fn run(session: &Session, options: Options) -> Result<(), Failure> {
    let mut query = BroadcastQuery {
        status: options.status,
        page_id: options.page,
        tests: options.tests.then_some(true),
        ..BroadcastQuery::default()
    };
    let (mut left, mut listed) = (options.limit, Vec::new());
    while left > 0 {
        query.limit = Some(left.min(PART));
        let part = session.client.broadcasts(&query).await?;
        left = left.saturating_sub(u32::try_from(part.items.len()).unwrap_or(u32::MAX));
        for summary in &part.items {
            if session.output.is_json() {
                session.output.object(summary)?;
            }
        }
        listed.extend(part.items);
        query.cursor = part.next_cursor;
        if query.cursor.is_none() {
            break;
        }
    }
    if session.output.is_json() {
        return Ok(());
    }
    let columns = session.output.columns();
    for (number, line) in lines(&listed, columns).iter().enumerate() {
        let is_heading = number == 0 && columns.is_some();
        session.output.line(&if is_heading {
            session.output.paint(Tone::Faint, line)
        } else {
            line.clone()
        })?;
    }
    if listed.is_empty() {
        session.output.note("there is no such broadcast");
    }
    Ok(())
}

/// Returns the table; on a terminal with a heading, and with ids as short as they can be.
fn lines(listed: &[BroadcastSummary], columns: Option<usize>) -> Vec<String> {
    let ids: Vec<_> = listed.iter().map(|summary| summary.broadcast_id.to_string()).collect();
    let digits = columns.map(|_| distinct(&ids));
    let row = |(summary, id): (&BroadcastSummary, &String)| {
        let outcomes = &summary.counters.outcomes;
        vec![
            id.chars().take(digits.unwrap_or(usize::MAX)).collect(),
            words::date_and_time(summary.created_at),
            client::words::status(summary.status).to_owned(),
            HumanCount(outcomes.sent).to_string(),
            format!("of {}", HumanCount(summary.contacts.accepted)),
            plain(summary.name.as_deref().unwrap_or_default()).into_owned(),
        ]
    };
    let heading = ["id", "accepted", "status", "sent", "", "name"]
        .map(str::to_owned)
        .to_vec();
    let heading = columns.filter(|_| !listed.is_empty()).map(|_| heading);
    let rows: Vec<_> = heading.into_iter().chain(listed.iter().zip(&ids).map(row)).collect();
    let columns_of = [
        Align::Left,
        Align::Left,
        Align::Left,
        Align::Right,
        Align::Left,
        Align::Left,
    ];
    table(&columns_of, &rows, columns)
}

/// Returns the number of digits by which the ids differ.
fn distinct(ids: &[String]) -> usize {
    let mut sorted: Vec<_> = ids.iter().collect();
    sorted.sort();
    let common = |(a, b): (&&String, &&String)| a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count() + 1;
    let pairs = sorted.iter().zip(sorted.iter().skip(1));
    pairs.map(common).max().unwrap_or_default().max(MIN_DIGITS)
}
