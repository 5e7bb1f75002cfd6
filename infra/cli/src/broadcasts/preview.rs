//! The look at a broadcast before it is sent.

use client::api::previews::{BroadcastPreview, PagePreview, Warning};
use indicatif::HumanCount;
use jiff::Timestamp;
use shared::domain::job::ContactCounts;

use super::words;
use crate::api::Session;
use crate::output::Tone;
use crate::text::{counted, padded, plain, shortened, width};

/// The Pages that are named; the others are counted.
const PAGES: usize = 3;
/// The unknown ids that are named.
const UNKNOWN: usize = 5;
/// The columns of the labels.
const LABEL: usize = 9;
/// The most columns of a contact's id beside its text.
const ID: usize = 20;
/// A time that is further ahead than this many seconds is shown.
const AHEAD: i64 = 60;

/// Returns the lines of the look.
pub fn lines(session: &Session, preview: &BroadcastPreview, is_audience: bool) -> Vec<String> {
    let (output, counts) = (&session.output, &preview.contacts);
    let columns = output.columns();
    let fit = |line: String| columns.map_or_else(|| line.clone(), |columns| shortened(&line, columns));
    let at_least = if preview.complete { "" } else { "at least " };
    let counted = match is_audience {
        true => format!(
            "  {at_least}{} match on {}: {} opted out, {} to be sent to",
            counted(counts.accepted + counts.opted_out, "contact"),
            counted(preview.pages.len() as u64, "Page"),
            HumanCount(counts.opted_out),
            HumanCount(counts.accepted),
        ),
        false => format!("  {}", contacts(counts, preview.pages.len())),
    };
    let mut lines = vec![fit(counted), fit(pages(&preview.pages))];
    let shown = preview
        .texts
        .iter()
        .map(|text| plain(text.contact_id.as_str()))
        .collect::<Vec<_>>();
    let id_width = shown.iter().map(|id| width(id)).max().unwrap_or_default().min(ID);
    for (number, (id, text)) in shown.iter().zip(&preview.texts).enumerate() {
        let label = if number == 0 { "preview" } else { "" };
        let id = padded(&shortened(id, id_width), id_width);
        lines.push(fit(format!("  {}  {id}  {}", padded(label, LABEL), plain(&text.text))));
    }
    if let Some(longest) = preview
        .longest
        .as_ref()
        .filter(|longest| !preview.texts.contains(longest))
    {
        let (label, id) = (
            padded("longest", LABEL),
            padded(&shortened(longest.contact_id.as_str(), id_width), id_width),
        );
        lines.push(fit(format!("  {label}  {}  {}", plain(&id), plain(&longest.text))));
    }
    if !counts.unknown_ids.is_empty() {
        let ids = counts
            .unknown_ids
            .iter()
            .take(UNKNOWN)
            .map(|id| plain(id))
            .collect::<Vec<_>>()
            .join(", ");
        let more = if counts.unknown > UNKNOWN as u64 { ", …" } else { "" };
        lines.push(fit(format!("  {}  {ids}{more}", padded("unknown", LABEL))));
    }
    for warning in &preview.warnings {
        let label = output.paint(Tone::Warning, &padded("warning", LABEL));
        lines.push(format!("  {label}  {}", about(warning)));
    }
    let duration = words::duration(preview.expected_seconds);
    let begins = match preview.begins_at.as_second() > Timestamp::now().as_second() + AHEAD {
        false => String::new(),
        true => match &preview.begins_local {
            Some(local) => format!(", from {}", plain(local)),
            None => format!(", from {}", words::date_and_time(preview.begins_at)),
        },
    };
    lines.push(format!("  about {duration}{begins}"));
    lines
}

/// Returns the counts of ids that a request named.
pub fn contacts(counts: &ContactCounts, pages: usize) -> String {
    let pages = counted(pages as u64, "Page");
    let mut parts = vec![format!(
        "{} to be sent to on {pages}",
        counted(counts.accepted, "contact")
    )];
    let left_out = [
        (counts.duplicates_removed, "repeated"),
        (counts.unknown, "unknown"),
        (counts.opted_out, "opted out"),
    ];
    parts.extend(
        left_out
            .iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, what)| format!("{} {what}", HumanCount(*number))),
    );
    parts.join(" · ")
}

fn pages(pages: &[PagePreview]) -> String {
    let mut largest: Vec<_> = pages.iter().collect();
    largest.sort_by_key(|page| std::cmp::Reverse(page.contacts));
    let named = largest.iter().take(PAGES);
    let mut parts: Vec<_> = named
        .map(|page| format!("{} {}", page.page_id.as_str(), HumanCount(page.contacts)))
        .collect();
    if pages.len() > PAGES {
        parts.push(format!("{} more", pages.len() - PAGES));
    }
    format!("  {}", parts.join(" · "))
}

fn about(warning: &Warning) -> String {
    let page = warning
        .page_id
        .as_ref()
        .map(|page_id| format!("{}: ", page_id.as_str()))
        .unwrap_or_default();
    format!("{page}{}", plain(&warning.message))
}
