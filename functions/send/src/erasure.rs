//! Erasure of a contact: deletes everything that is stored of it, but for what still keeps a message from being sent twice or
//! from being taken for another's.
//!
//! Deliveries have no index by contact, so an erasure walks over all broadcasts, from the newest, and asks each job for its
//! delivery to the contact. It walks twice: first it looks for a delivery that is still open, as every row tells a lookup which
//! messages are not that delivery's; then it erases. A request walks a part of the way, and its answer has the cursor of the
//! next.

use std::fmt;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use shared::app::App;
use shared::domain::delivery::{Delivery, State};
use shared::domain::ids::{BroadcastId, ContactId, PageId};
use shared::domain::job::{Broadcast, Job, JobStatus};
use shared::store;
use shared::store::broadcasts::{Listed, Listing};

use crate::api::contacts::{Erased, Erasure, Kept};
use crate::broadcasts::position;
use crate::caller::Caller;
use crate::list;
use crate::problem::Problem;
use crate::query::{Query, flag};

/// The maximum number of broadcasts, or of jobs of them, that one request reads, on both walks together: at most some seconds of
/// API Gateway's 29.
const MAX_LIMIT: usize = 1_000;
/// The number of concurrent reads.
const READS_AT_ONCE: usize = 16;

/// A request to erase a contact.
pub struct ErasureRequest {
    from: Position,
    limit: usize,
}

/// The position of an erasure on its way.
#[derive(Clone, Debug)]
struct Position {
    walk: Walk,
    /// A delivery to the contact is open, or may be.
    open: bool,
    /// The contact's Page, if it is known: no other Page's jobs have the contact in their backlog.
    page_id: Option<PageId>,
    /// The broadcast after which the walk goes on.
    after: Option<Listed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Walk {
    Look,
    Erase,
}

impl Position {
    fn start() -> Self {
        Self {
            walk: Walk::Look,
            open: false,
            page_id: None,
            after: None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(4, ' ');
        let (walk, open) = match words.next()? {
            "look" => (Walk::Look, false),
            "look-open" => (Walk::Look, true),
            "erase" => (Walk::Erase, false),
            "erase-open" => (Walk::Erase, true),
            _ => return None,
        };
        let page_id = match words.next()? {
            "*" => None,
            page_id => Some(PageId::parse(page_id).ok()?),
        };
        let after = match words.next()? {
            "*" => None,
            created_at => Some(position(&format!("{created_at} {}", words.next()?))?),
        };
        Some(Self {
            walk,
            open,
            page_id,
            after,
        })
    }
}

/// Writes the form that [`Position::parse`] reads; no id has a space.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let walk = match self.walk {
            Walk::Look => "look",
            Walk::Erase => "erase",
        };
        let open = if self.open { "-open" } else { "" };
        let page_id = self.page_id.as_ref().map_or("*", PageId::as_str);
        write!(f, "{walk}{open} {page_id} ")?;
        match &self.after {
            Some(after) => write!(f, "{} {}", after.created_at.as_millisecond(), after.broadcast_id),
            None => f.write_str("*"),
        }
    }
}

impl ErasureRequest {
    /// Parses the query of `DELETE /v1/contacts/{contact_id}`; `None` if it asks for no erasure.
    ///
    /// # Errors
    /// If a parameter is unknown or wrong (400).
    pub fn parse(mut query: Query, contact_id: &ContactId) -> Result<Option<Self>, Problem> {
        let asked = query.take("erase", flag);
        let limit = query.take("limit", |value| list::limit(value, MAX_LIMIT));
        let cursor = |value: &str| list::from_cursor(value, &list_id(contact_id), Position::parse);
        let from = query.take("cursor", cursor);
        let page_id = query.take("page_id", |value| PageId::parse(value).map_err(str::to_owned));
        if asked != Some(true) && (limit.is_some() || from.is_some() || page_id.is_some()) {
            query.fault("erase", "must be true, for other parameters are those of an erasure");
        }
        query.finish()?;
        let mut request = Self {
            from: from.unwrap_or_else(Position::start),
            limit: limit.unwrap_or(MAX_LIMIT),
        };
        request.from.page_id = page_id.or(request.from.page_id);
        Ok((asked == Some(true)).then_some(request))
    }
}

/// Returns the identity of the erasure of a contact, to which its cursors are bound. They hold its parameters themselves.
fn list_id(contact_id: &ContactId) -> String {
    format!("erasure\0{contact_id}")
}

/// Deletes a contact, and erases what else is stored of it, on as long a part of the way as the request asks for. Only jobs of
/// Pages that the caller may use are read, and of broadcasts only those that it may see.
///
/// # Errors
/// If DynamoDB does not answer (503); a repetition finds what is left.
pub async fn erase(
    app: &App,
    caller: &Caller,
    contact_id: &ContactId,
    request: ErasureRequest,
) -> Result<Erasure, Problem> {
    let contacts = app.store.contacts();
    let known = contacts.get(contact_id).await?;
    let mut at = request.from;
    if let Some(known) = known.filter(|known| caller.pages.allow(&known.page_id)) {
        at.page_id = Some(known.page_id);
    }
    let mut eraser = Eraser {
        app,
        caller,
        contact_id,
        now: app.clock.now(),
        done: Erasure {
            erased: Erased {
                // From here on no worker begins to send to the contact.
                contact: contacts.delete_if_allowed(contact_id, &caller.pages).await?,
                ..Erased::default()
            },
            kept: Vec::new(),
            next_cursor: None,
        },
        at,
    };
    eraser.walk(request.limit).await?;
    Ok(eraser.done)
}

struct Eraser<'a> {
    app: &'a App,
    caller: &'a Caller,
    contact_id: &'a ContactId,
    now: Timestamp,
    at: Position,
    done: Erasure,
}

impl Eraser<'_> {
    async fn walk(&mut self, mut left: usize) -> Result<(), store::Error> {
        let store = &self.app.store;
        while left > 0 {
            let limit = i32::try_from(left.min(list::DEFAULT_LIMIT)).unwrap_or(i32::MAX);
            let (listed, last) = store
                .broadcasts()
                .list(&Listing::default(), self.at.after.as_ref(), limit)
                .await?;
            let reads: Vec<_> = listed.iter().map(|listed| self.read(&listed.broadcast_id)).collect();
            let found: Vec<_> = stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
            let jobs: usize = found.iter().flatten().map(|(_, jobs)| jobs.len()).sum();
            left = left.saturating_sub(listed.len().max(jobs).max(1));
            for (broadcast, jobs) in found.into_iter().flatten() {
                match self.at.walk {
                    Walk::Look => self.look(&jobs),
                    Walk::Erase => self.erase_in(&broadcast, jobs).await?,
                }
            }
            self.at.after = last;
            if self.at.after.is_none() {
                match self.at.walk {
                    Walk::Look => self.at.walk = Walk::Erase,
                    Walk::Erase => return Ok(()),
                }
            }
        }
        self.done.next_cursor = Some(list::to_cursor(&list_id(self.contact_id), &self.at));
        Ok(())
    }

    /// Reads a broadcast, and the jobs of it that the caller may see with their deliveries to the contact.
    async fn read(&self, id: &BroadcastId) -> Result<Option<(Broadcast, Vec<(Job, Option<Delivery>)>)>, store::Error> {
        let store = &self.app.store;
        let Some((mut broadcast, mut jobs)) = store.broadcasts().get_with_jobs(id).await? else {
            return Ok(None);
        };
        let all = jobs.len();
        jobs.retain(|job| self.caller.pages.allow(&job.page_id));
        if jobs.len() < all {
            broadcast.contacts.unknown_ids.clear();
        }
        let mut found = Vec::with_capacity(jobs.len());
        for job in jobs {
            let row = store.deliveries().get(&job.id(), self.contact_id).await?;
            found.push((job, row));
        }
        Ok(Some((broadcast, found)))
    }

    fn look(&mut self, jobs: &[(Job, Option<Delivery>)]) {
        let rows = jobs.iter().filter_map(|(job, row)| Some((job, row.as_ref()?)));
        self.at.open |= rows.into_iter().any(|(job, row)| self.is_open(job, row));
    }

    async fn erase_in(
        &mut self,
        broadcast: &Broadcast,
        jobs: Vec<(Job, Option<Delivery>)>,
    ) -> Result<(), store::Error> {
        let store = &self.app.store;
        let (id, unknown_ids) = (&broadcast.broadcast_id, &broadcast.contacts.unknown_ids);
        let broadcasts = store.broadcasts();
        let was_unknown = broadcasts.erase_unknown(id, unknown_ids, self.contact_id).await?;
        self.done.erased.unknown_ids += u64::from(was_unknown);
        for (job, row) in jobs {
            let mut reason = self.reason_to_keep(&job, row.as_ref());
            if let (None, Some(row)) = (&reason, &row) {
                match store.transactions().erase_if_unchanged(&job.id(), row).await? {
                    true => self.done.erased.deliveries += 1,
                    false => reason = Some("it changed at this moment".to_owned()),
                }
            }
            self.done.kept.extend(reason.map(|reason| Kept {
                broadcast_id: id.clone(),
                page_id: job.page_id,
                status: row.map(|row| row.state.status()),
                reason,
            }));
        }
        Ok(())
    }

    /// Returns the reason to keep a delivery, or to expect one, if there is one.
    fn reason_to_keep(&self, job: &Job, row: Option<&Delivery>) -> Option<String> {
        let is_over = self.is_over(job);
        let Some(row) = row else {
            let is_of_page = self.at.page_id.as_ref().is_none_or(|page_id| *page_id == job.page_id);
            let may_come = !is_over && !has_ended(job) && is_of_page;
            return may_come.then(|| format!("the job is {}, and may have the contact in its backlog", job.status));
        };
        if !has_ended(job) && !is_over {
            return Some(format!("the job is {}", job.status));
        }
        if !is_over {
            return Some("the job ended a moment ago, and a worker that it lost may still be sending".to_owned());
        }
        if self.is_open(job, row) {
            return Some("it is still to be looked up".to_owned());
        }
        let reason = "another delivery to the contact is open, and this one tells which messages are not of it";
        self.at.open.then(|| reason.to_owned())
    }

    /// Returns `true` if no worker can reserve or send any more: the job is completed or cancelled, or its time of retention is over, for
    /// longer than a send may take.
    fn is_over(&self, job: &Job) -> bool {
        let ended = match has_ended(job) {
            true => job.may_send_until,
            false => Some(job.retained_until.as_millisecond()),
        };
        let since = self.now - self.app.config.longest_send();
        ended.unwrap_or(job.created_at.as_millisecond()) < since.as_millisecond()
    }

    /// Returns `true` if a lookup may yet look for the message of a delivery.
    fn is_open(&self, job: &Job, row: &Delivery) -> bool {
        match row.state {
            State::InDoubt { .. } => row.lookup_at.is_some() || !self.is_over(job),
            State::Reserved => !self.is_over(job),
            State::Waiting { .. } => row.earlier_doubt.is_some() && !self.is_over(job),
            State::Sent { .. } | State::Failed { .. } | State::Skipped { .. } => false,
        }
    }
}

/// Returns `true` if a job has been worked off, or been drained after its cancellation.
fn has_ended(job: &Job) -> bool {
    matches!(job.status, JobStatus::Completed | JobStatus::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_is_read_as_it_was_written() {
        for text in [
            "look * *",
            "look-open p_1 *",
            "erase-open * 17 00000000000000000000000000000001",
        ] {
            let position = Position::parse(text).map(|position| position.to_string());
            assert_eq!(position.as_deref(), Some(text));
        }
        for text in ["", "look", "look *", "look * 17", "sleep * *", "look p/1 *"] {
            assert!(Position::parse(text).is_none(), "{text}");
        }
    }
}
