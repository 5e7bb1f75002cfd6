//! The preview of a broadcast: everything that acceptance and the sends to come would find out, without a write.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use shared::app::App;
use shared::domain::digest::with_line_feeds;
use shared::domain::ids::{BroadcastId, ContactId, PageId};
use shared::domain::job::{ContactCounts, Job, JobStatus};
use shared::domain::message::MessagingType;
use shared::domain::template::{Template, TextError};
use shared::domain::window;

use crate::api::broadcasts::NewBroadcast;
use crate::api::previews::{BroadcastPreview, PagePreview, RenderedText, Warning, WarningKind};
use crate::caller::Caller;
use crate::problem::Problem;
use crate::recipients::Recipients;
use crate::report::local_time;

/// The number of contacts whose texts a preview shows.
const SHOWN_TEXTS: usize = 3;
/// The time for which the contacts of an audience are counted.
const COUNT_TIME: Duration = Duration::from_secs(10);
/// The number of contacts that are in memory at once, with all of their attributes.
const AT_ONCE: usize = 1_000;
/// The write units of a delivered contact: its row is reserved and recorded.
const WRITES_PER_CONTACT: u64 = 2;
/// The write units of a Page: commit, claims, leases and hand-overs.
const WRITES_PER_PAGE: u64 = 8;
/// The bytes of one write unit.
const WRITE_UNIT: u64 = 1_024;

/// Returns what a broadcast would do if it were requested now. Writes nothing.
///
/// # Errors
/// As [`accept`](crate::accept::accept), except for repetitions.
pub async fn preview(
    app: &App,
    caller: &Caller,
    new: &NewBroadcast,
    received: Timestamp,
) -> Result<BroadcastPreview, Problem> {
    new.check_time(received)?;
    let contacts = Contacts::find(app, caller, new, received).await?;
    let wished = new.scheduled_at.unwrap_or(received);
    let quiet_until = new.quiet_hours.as_ref().and_then(|quiet| quiet.end(wished));
    let begins_at = quiet_until.unwrap_or(wished);
    let rate = u64::from(
        new.message
            .most_per_second()
            .map_or(app.config.page_rate, |most| most.min(app.config.page_rate))
            .get(),
    );
    let pages = contacts.pages(rate);
    let expected_seconds = pages.iter().map(|page| page.seconds).max().unwrap_or_default();
    let texts = Texts::of(app, new, &contacts, begins_at).await?;
    let mut warnings = tokens(app, &pages).await;
    warnings.extend(texts.warnings(new));
    if quiet_until.is_some() {
        let message = "It would begin in its quiet hours, and wait for their end.";
        warnings.push(about_all(WarningKind::QuietHours, message, contacts.counts.accepted));
    }
    warnings.extend(
        new.expires_at
            .and_then(|expires_at| expires(&pages, rate, expires_at - begins_at)),
    );
    warnings.extend(still_sending(app, &contacts.not_sent_in).await?);
    Ok(BroadcastPreview {
        dry_run: true,
        write_units: write_units(new, &contacts, &pages),
        complete: contacts.are_complete,
        contacts: contacts.counts,
        pages,
        texts: texts.first,
        longest: texts.longest,
        warnings,
        begins_at,
        begins_local: local_time(Some(begins_at), new.time_zone.as_ref()),
        expected_seconds,
    })
}

/// The contacts that a broadcast would send to.
struct Contacts {
    counts: ContactCounts,
    by_page: BTreeMap<PageId, u64>,
    /// Those whose texts are written: all that the request names, or the first thousand of an audience.
    known: BTreeMap<PageId, Vec<ContactId>>,
    /// False if an audience has more than could be counted in time.
    are_complete: bool,
    /// The broadcasts whose contacts an audience leaves out.
    not_sent_in: Vec<BroadcastId>,
}

impl Contacts {
    async fn find(app: &App, caller: &Caller, new: &NewBroadcast, received: Timestamp) -> Result<Self, Problem> {
        Ok(match Recipients::find(app, caller, new, received).await? {
            Recipients::Named(ids) => {
                let by_page = ids.accepted.iter();
                Self {
                    by_page: by_page
                        .map(|(page_id, ids)| (page_id.clone(), ids.len() as u64))
                        .collect(),
                    counts: ids.counts,
                    known: ids.accepted,
                    are_complete: true,
                    not_sent_in: Vec::new(),
                }
            }
            Recipients::Audience(found) => {
                let look = found.look(app, received, COUNT_TIME, u64::MAX).await?;
                Self {
                    counts: look.counts(),
                    by_page: look.members,
                    known: look.first,
                    are_complete: !look.is_cut,
                    not_sent_in: found.audience.not_sent_in,
                }
            }
        })
    }

    fn pages(&self, rate: u64) -> Vec<PagePreview> {
        let pages = self.by_page.iter().map(|(page_id, contacts)| PagePreview {
            page_id: page_id.clone(),
            contacts: *contacts,
            seconds: contacts.div_ceil(rate),
        });
        pages.collect()
    }
}

/// Returns the write units, about: the rows of the contacts, the segments and the items of the broadcast, and a checkpoint for every
/// two seconds.
fn write_units(new: &NewBroadcast, contacts: &Contacts, pages: &[PagePreview]) -> u64 {
    let accepted = contacts.counts.accepted;
    let ids = contacts.known.values().flatten();
    let (known, bytes) = ids.fold((0, 0), |(known, bytes), id| {
        (known + 1, bytes + id.as_str().len() as u64 + 3)
    });
    let segments = (bytes * accepted).checked_div(known).unwrap_or_default();
    let message = serde_json::to_string(&new.message).map_or(0, |text| text.len() as u64);
    let checkpoints: u64 = pages.iter().map(|page| page.seconds.div_ceil(2)).sum();
    WRITES_PER_CONTACT * accepted
        + checkpoints
        + WRITES_PER_PAGE * pages.len() as u64
        + segments.div_ceil(WRITE_UNIT)
        + 2 * (1 + message.div_ceil(WRITE_UNIT))
}

/// Warns of Pages whose token cannot be read.
async fn tokens(app: &App, pages: &[PagePreview]) -> Vec<Warning> {
    let read = pages.iter().map(|page| async move {
        let error = app.secrets.access(&page.page_id).await.err()?;
        let message = match error.may_pass() {
            true => "The Page's access token cannot be read at the moment.",
            false => "The Page has no access token: its part of the broadcast would be halted.",
        };
        Some(Warning {
            kind: WarningKind::NoToken,
            message: message.to_owned(),
            contacts: page.contacts,
            page_id: Some(page.page_id.clone()),
        })
    });
    join_all(read).await.into_iter().flatten().collect()
}

/// Warns of contacts that would not be reached in this time.
fn expires(pages: &[PagePreview], rate: u64, time: SignedDuration) -> Option<Warning> {
    let seconds = u64::try_from(time.as_secs()).unwrap_or_default();
    let late = pages
        .iter()
        .map(|page| page.contacts.saturating_sub(seconds.saturating_mul(rate)));
    let late: u64 = late.sum();
    let message = format!("It would expire before {} are reached.", counted(late));
    (late > 0).then(|| about_all(WarningKind::Expires, message, late))
}

/// Warns of contacts that an audience does not leave out, because these broadcasts have not come to them yet.
async fn still_sending(app: &App, not_sent_in: &[BroadcastId]) -> Result<Vec<Warning>, Problem> {
    let mut warnings = Vec::new();
    for id in not_sent_in {
        let jobs = app
            .store
            .broadcasts()
            .get_with_jobs(id)
            .await?
            .map_or_else(Vec::new, |(_, jobs)| jobs);
        let open = jobs
            .iter()
            .filter(|job| job.status != JobStatus::Cancelled)
            .map(Job::counters);
        let open: u64 = open.map(|counts| counts.pending + counts.outcomes.waiting).sum();
        if open > 0 || jobs.iter().any(|job| job.resolving.is_some()) {
            let message = format!(
                "The broadcast {id} has not come to {} yet, who would get both.",
                counted(open)
            );
            warnings.push(about_all(WarningKind::StillSending, message, open));
        }
    }
    Ok(warnings)
}

fn about_all(kind: WarningKind, message: impl Into<String>, contacts: u64) -> Warning {
    Warning {
        kind,
        message: message.into(),
        contacts,
        page_id: None,
    }
}

fn counted(contacts: u64) -> String {
    match contacts {
        1 => "1 contact".to_owned(),
        n => format!("{n} contacts"),
    }
}

/// The message as the contacts would get it.
#[derive(Default)]
struct Texts {
    first: Vec<RenderedText>,
    longest: Option<RenderedText>,
    /// The contacts that get none, by the reason.
    failures: BTreeMap<String, u64>,
    /// The contacts whose last message is too old.
    outside_window: u64,
}

impl Texts {
    async fn of(app: &App, new: &NewBroadcast, contacts: &Contacts, begins_at: Timestamp) -> Result<Self, Problem> {
        let template = new.message.text.as_deref().map(Template::compile).transpose();
        let template = template.map_err(|error| Problem::fault("/message/text", error.to_string()))?;
        let needs_window = [MessagingType::Update, MessagingType::Response].contains(&new.messaging_type);
        let mut texts = Self::default();
        if template.is_none() && !needs_window {
            return Ok(texts);
        }
        let ids: Vec<_> = contacts
            .known
            .iter()
            .flat_map(|(page, ids)| ids.iter().map(move |id| (page, id)))
            .collect();
        for ids in ids.chunks(AT_ONCE) {
            let only_ids: Vec<_> = ids.iter().map(|(_, id)| (*id).clone()).collect();
            let found = app.store.contacts().get_all(&only_ids).await?;
            for (page_id, id) in ids {
                // A contact that is deleted at this moment.
                let Some(contact) = found.get(*id) else {
                    continue;
                };
                let is_over = window::is_over(new.messaging_type, contact.last_interaction_at, begins_at);
                texts.outside_window += u64::from(is_over);
                if let Some(template) = &template {
                    texts.add(page_id, id, template.render(contact));
                }
            }
        }
        Ok(texts)
    }

    fn add(&mut self, page_id: &PageId, contact_id: &ContactId, text: Result<String, TextError>) {
        let text = match text {
            Ok(text) => with_line_feeds(&text).into_owned(),
            Err(error) => {
                let reason = match error {
                    TextError::TooLong(_) => "the text is too long for Messenger".to_owned(),
                    other => other.to_string(),
                };
                *self.failures.entry(reason).or_default() += 1;
                return;
            }
        };
        let length = text.encode_utf16().count();
        let is_longest = self.longest.as_ref().is_none_or(|longest| longest.length < length);
        if !is_longest && self.first.len() >= SHOWN_TEXTS {
            return;
        }
        let text = RenderedText {
            contact_id: contact_id.clone(),
            page_id: page_id.clone(),
            text,
            length,
        };
        if self.first.len() < SHOWN_TEXTS {
            self.first.push(text.clone());
        }
        if is_longest {
            self.longest = Some(text);
        }
    }

    fn warnings(&self, new: &NewBroadcast) -> Vec<Warning> {
        let failures = self.failures.iter().map(|(reason, contacts)| {
            let message = format!("The message cannot be written for {}: {reason}.", counted(*contacts));
            about_all(WarningKind::Fails, message, *contacts)
        });
        let mut warnings: Vec<_> = failures.collect();
        if self.outside_window > 0 {
            let kind = serde_json::to_value(new.messaging_type).unwrap_or_default();
            let message = format!(
                "{} will not have written for 24 hours: Messenger takes no {} message to them.",
                counted(self.outside_window),
                kind.as_str().unwrap_or_default()
            );
            warnings.push(about_all(WarningKind::OutsideWindow, message, self.outside_window));
        }
        warnings
    }
}
