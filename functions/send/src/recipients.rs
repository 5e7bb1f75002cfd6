//! The contacts that a broadcast is for, as acceptance finds them: those that the request names, or an audience, whose contacts are
//! found when the broadcast starts.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use shared::app::App;
use shared::domain::audience::{Audience, AudienceName, Excluded, ExcludedCounts};
use shared::domain::ids::{ContactId, PageId, Pages, first_ten};
use shared::domain::job::ContactCounts;
use shared::runtime::metrics::Layer;
use shared::store;
use shared::store::members::Members;
use shared::worker::resolve::time_until_indexed;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::api::audiences::{AudienceChoice, AudienceRef};
use crate::api::broadcasts::NewBroadcast;
use crate::api::problems::Kind;
use crate::audience::chosen;
use crate::caller::Caller;
use crate::problem::Problem;

/// The maximum number of Pages in one request: each is a job, and a transaction has at most 100 items.
const MAX_PAGES: usize = 90;
/// The maximum number of unknown ids that an answer lists.
const MAX_UNKNOWN_IDS: usize = 100;
/// The time for which acceptance looks for the first contact of an audience.
const LOOK_TIME: Duration = Duration::from_secs(5);
/// The contacts of an audience that a look keeps, for the texts of a preview.
const KEPT: usize = 1_000;

/// The contacts that a broadcast is for.
pub enum Recipients {
    /// The request names them.
    Named(SortedIds),
    /// They are found when the broadcast starts.
    Audience(FoundAudience),
}

impl Recipients {
    /// Finds the contacts of a request; of an audience its Pages.
    ///
    /// # Errors
    /// If nothing would be sent to any contact (422), except for an audience at a later time; if there are too many Pages, or the
    /// audience is unknown (400); or if DynamoDB does not answer (503).
    pub async fn find(app: &App, caller: &Caller, new: &NewBroadcast, received: Timestamp) -> Result<Self, Problem> {
        let Some(choice) = &new.audience else {
            return Ok(Self::Named(sort_ids(app, &caller.pages, &new.contact_ids).await?));
        };
        let found = FoundAudience::find(app, caller, choice, new.scheduled_at.unwrap_or(received)).await?;
        if new.scheduled_at.is_none() {
            found.look(app, received, LOOK_TIME, 1).await?.refuse_if_empty()?;
        }
        Ok(Self::Audience(found))
    }

    /// Returns the Pages, sorted.
    pub fn pages(&self) -> Vec<PageId> {
        match self {
            Self::Named(ids) => ids.accepted.keys().cloned().collect(),
            Self::Audience(found) => found.pages.clone(),
        }
    }

    /// Logs and counts the repetitions that were removed.
    pub fn log_repeated(&self, app: &App) {
        if let Self::Named(ids) = self {
            ids.log_repeated(app);
        }
    }
}

/// The ids of a request, sorted by what acceptance does with them.
pub struct SortedIds {
    /// The ids by what becomes of them.
    pub counts: ContactCounts,
    /// The contacts that are sent to, by Page.
    pub accepted: BTreeMap<PageId, Vec<ContactId>>,
    repeated: Vec<ContactId>,
}

impl SortedIds {
    fn log_repeated(&self, app: &App) {
        if self.counts.duplicates_removed > 0 {
            let (count, ids) = (self.counts.duplicates_removed, first_ten(&self.repeated));
            app.metrics.prevented(Layer::Request, count);
            warn!(
                duplicates.layer = "request",
                duplicates.prevented = count,
                contact.ids = ids,
                "duplicates prevented: ids repeated in the request"
            );
        }
    }
}

/// Removes repetitions, finds the Page of each contact, and counts the ids to which nothing will be sent. Contacts of Pages
/// that the caller may not use are unknown to it.
async fn sort_ids(app: &App, pages: &Pages, ids: &[ContactId]) -> Result<SortedIds, Problem> {
    let mut seen = HashSet::with_capacity(ids.len());
    let (unique, repeated): (Vec<_>, Vec<_>) = ids.iter().partition(|id| seen.insert(*id));
    drop(seen);
    let mut contacts = app.store.contacts().find(&unique, pages).await?;
    let mut counts = ContactCounts {
        requested: ids.len() as u64,
        duplicates_removed: repeated.len() as u64,
        ..ContactCounts::default()
    };
    let mut accepted = BTreeMap::<_, Vec<_>>::new();
    for id in unique {
        let found = contacts.remove_entry(id);
        match found.filter(|(_, contact)| pages.allow(&contact.page_id)) {
            None => {
                counts.unknown += 1;
                if counts.unknown_ids.len() < MAX_UNKNOWN_IDS {
                    counts.unknown_ids.push(id.to_string());
                }
            }
            Some((_, contact)) if contact.opted_out => counts.opted_out += 1,
            Some((id, contact)) => {
                counts.accepted += 1;
                accepted.entry(contact.page_id).or_default().push(id);
            }
        }
    }
    if accepted.is_empty() {
        let ContactCounts { unknown, opted_out, .. } = counts;
        let detail = format!("No contact accepted: {unknown} unknown, {opted_out} opted out.");
        return Err(Problem::new(Kind::NoContactAccepted, detail));
    }
    check_pages("/contact_ids", accepted.len())?;
    Ok(SortedIds {
        counts,
        accepted,
        repeated: repeated.into_iter().cloned().collect(),
    })
}

fn check_pages(field: &str, pages: usize) -> Result<(), Problem> {
    match pages > MAX_PAGES {
        true => Err(Problem::fault(
            field,
            format!("are on {pages} Pages, more than {MAX_PAGES}"),
        )),
        false => Ok(()),
    }
}

/// An audience as it is when a request names it, and its Pages.
pub struct FoundAudience {
    /// The filters.
    pub audience: Audience,
    /// The name under which it is saved.
    pub name: Option<AudienceName>,
    /// The Pages that the caller may use, sorted.
    pub pages: Vec<PageId>,
}

impl FoundAudience {
    async fn find(app: &App, caller: &Caller, choice: &AudienceChoice, at: Timestamp) -> Result<Self, Problem> {
        let audience = chosen(app, caller, choice, "/audience", at).await?;
        let name = match choice {
            AudienceChoice::Saved(AudienceRef { name }) => Some(name.clone()),
            AudienceChoice::Filters(_) => None,
        };
        let pages = app.store.pages().of(&audience, &caller.pages).await?;
        if pages.is_empty() {
            let detail = "No contact accepted: no Page of the audience has contacts.";
            return Err(Problem::new(Kind::NoContactAccepted, detail));
        }
        check_pages("/audience", pages.len())?;
        Ok(Self { audience, name, pages })
    }

    /// Counts the contacts of the audience, until there are enough of them, or this time is over. If there are none, it looks a second
    /// time when the index shows what was stored before the request: an import of a moment ago counts.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn look(
        &self,
        app: &App,
        received: Timestamp,
        time: Duration,
        enough: u64,
    ) -> Result<Look, store::Error> {
        let behind = time_until_indexed(received, app.clock.now());
        let look = self.look_once(app, time, enough).await?;
        if !look.is_empty() || behind.is_zero() {
            return Ok(look);
        }
        sleep(time_until_indexed(received, app.clock.now())).await;
        self.look_once(app, time, enough).await
    }

    async fn look_once(&self, app: &App, time: Duration, enough: u64) -> Result<Look, store::Error> {
        let (now, until) = (app.clock.now(), Instant::now() + time);
        let mut look = Look::default();
        for page_id in &self.pages {
            let mut members = Members::new(&app.store, page_id, &self.audience, now, None);
            look.members.insert(page_id.clone(), 0);
            while let Some(batch) = members.next_batch().await? {
                look.considered += batch.considered;
                for (filter, contacts) in batch.excluded {
                    *look.excluded.entry(filter).or_default() += contacts;
                }
                *look.members.entry(page_id.clone()).or_default() += batch.members.len() as u64;
                let room = KEPT.saturating_sub(look.kept());
                let kept = batch.members.into_iter().take(room);
                look.first.entry(page_id.clone()).or_default().extend(kept);
                if look.accepted() >= enough || Instant::now() >= until {
                    look.is_cut = true;
                    return Ok(look);
                }
            }
        }
        Ok(look)
    }
}

/// The contacts of an audience as of a moment ago.
#[derive(Default)]
pub struct Look {
    /// The number of contacts of each Page that match.
    pub members: BTreeMap<PageId, u64>,
    /// The first thousand of them.
    pub first: BTreeMap<PageId, Vec<ContactId>>,
    /// True if there may be more.
    pub is_cut: bool,
    considered: u64,
    excluded: ExcludedCounts,
}

impl Look {
    /// Returns the number of contacts that match.
    pub fn accepted(&self) -> u64 {
        self.members.values().sum()
    }

    fn kept(&self) -> usize {
        self.first.values().map(Vec::len).sum()
    }

    fn is_empty(&self) -> bool {
        self.accepted() == 0 && !self.is_cut
    }

    /// Returns the contacts that were looked at, by what becomes of them.
    pub fn counts(&self) -> ContactCounts {
        ContactCounts {
            requested: self.considered,
            opted_out: self.excluded.get(&Excluded::OptedOut).copied().unwrap_or_default(),
            accepted: self.accepted(),
            ..ContactCounts::default()
        }
    }

    /// Refuses an audience of which no contact matches.
    ///
    /// # Errors
    /// With the numbers of contacts by the first filter that left them out (422).
    pub fn refuse_if_empty(&self) -> Result<(), Problem> {
        if !self.is_empty() {
            return Ok(());
        }
        let left_out = self.excluded.iter();
        let left_out: Vec<_> = left_out
            .map(|(filter, contacts)| format!("{contacts} by {filter}"))
            .collect();
        let (considered, pages) = (self.considered, self.members.len());
        let detail = match left_out.is_empty() {
            true => format!("No contact accepted: {pages} Pages have no contacts."),
            false => format!(
                "No contact accepted: of {considered} contacts on {pages} Pages are left out {}.",
                left_out.join(", ")
            ),
        };
        Err(Problem::new(Kind::NoContactAccepted, detail))
    }
}
