//! Pages as their senders share them: the slots, the pause, and leases. For pacing only; the promise never depends on them.

use std::num::NonZeroU32;
use std::time::Duration;

use jiff::fmt::serde::timestamp::millisecond;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::calls::Conditional;
use super::keys::{self, PAGE_SENDING};
use super::statement::{Update, millis};
use super::tables::{Error, Item, SCHEMA, Store, from_item};
use crate::domain::ids::{JobId, PageId, token};

/// The sort key of the right to look up the Page's messages, and of the slots of the calls of the Conversations API.
const LOOKUPS: &str = "looks";
/// The distance of the next free slot that only another clock can have made: nobody takes slots so far ahead.
const BROKEN_CLOCK: SignedDuration = SignedDuration::from_secs(60);

/// The Pages of a [`Store`].
pub struct PageLeases<'a>(pub(super) &'a Store);

/// The right of a large job to send for a Page, or the right to look messages up.
#[derive(Clone, Debug)]
pub struct PageLease {
    page_id: PageId,
    /// The sort key: what it is a lease of.
    purpose: &'static str,
    holder: String,
    /// The end of the lease, unless it is extended.
    pub until: Timestamp,
}

/// The slots that a run asks for.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// The number of slots.
    pub count: u32,
    /// The time that they take together, in whole milliseconds.
    pub length: SignedDuration,
    /// The time until the first of them can be used: the answer has to come first.
    pub lead: SignedDuration,
    /// The time within which the first of them has to be.
    pub ahead: SignedDuration,
}

/// Slots of a Page that a run has taken, one after the other: at each, one send or call may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// The time of the first.
    pub first: Timestamp,
    /// The time from one to the next.
    pub interval: Duration,
    /// Their number.
    pub count: u32,
    /// The end of the last: the first slot that is free.
    pub end: Timestamp,
}

/// The answer to a request for slots.
#[derive(Debug)]
pub enum Taken {
    /// The slots are the run's.
    Slots(Slots),
    /// Others have taken the slots up to this time.
    Busy(Timestamp),
    /// The Page pauses until this time.
    Paused(Timestamp),
    /// The run's lease of the Page has been lost to another job.
    LeaseLost,
}

impl Demand {
    /// Returns the time that slots take together at a rate, in the whole milliseconds that are stored.
    pub fn length_of(count: u32, per_second: NonZeroU32) -> SignedDuration {
        let (count, per_second) = (i64::from(count), i64::from(per_second.get()));
        SignedDuration::from_millis((count * 1_000 + per_second - 1) / per_second)
    }
}

/// The answer to a request for a Page's lease.
#[derive(Debug)]
pub enum Acquired {
    /// The lease was granted.
    Lease(PageLease),
    /// Another worker holds it for this very job, until this time or until it is released.
    SameJob(Timestamp),
    /// Another job holds it, until this time or until it is released.
    Held(Timestamp),
    /// The Page pauses until this time.
    Paused(Timestamp),
}

#[derive(Default, Deserialize)]
struct Stored {
    #[serde(default)]
    holder: Option<String>,
    #[serde(default)]
    job: Option<String>,
    #[serde(default, with = "millisecond::optional")]
    lease_until: Option<Timestamp>,
    #[serde(default, with = "millisecond::optional")]
    not_before: Option<Timestamp>,
    #[serde(default, with = "millisecond::optional")]
    next_slot_at: Option<Timestamp>,
}

impl PageLeases<'_> {
    /// Acquires the right to send for a job's Page, unless it is held or the Page pauses.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn acquire(&self, job: &JobId, lease: Duration, now: Timestamp) -> Result<Acquired, Error> {
        self.acquire_for(PAGE_SENDING, &job.page_id, &job.to_string(), lease, now)
            .await
    }

    /// Acquires the right to look up a Page's messages, unless it is held, or the calls of the Conversations API pause.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn acquire_lookups(&self, page_id: &PageId, lease: Duration, now: Timestamp) -> Result<Acquired, Error> {
        self.acquire_for(LOOKUPS, page_id, "", lease, now).await
    }

    async fn acquire_for(
        &self,
        purpose: &'static str,
        page_id: &PageId,
        job: &str,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Acquired, Error> {
        const ACQUIRE: &str = "SET holder = :holder, job = :job, lease_until = :until, \
                               #schema = if_not_exists(#schema, :schema)";
        const IF_FREE: &str = "(attribute_not_exists(lease_until) OR lease_until < :now) \
                               AND (attribute_not_exists(not_before) OR not_before <= :now)";
        const OPERATION: &str = "acquire a Page";
        let Self(store) = self;
        let (holder, until) = (token(), now + lease);
        let acquire = Update::new(&store.broadcasts, keys::page_lease(page_id, purpose), ACQUIRE)
            .only_if(IF_FREE)
            .bind(":holder", &holder)
            .bind(":job", job)
            .bind(":until", millis(until))
            .bind(":now", millis(now))
            .bind(":schema", SCHEMA)
            .returning_new();
        let item = match store.update(OPERATION, acquire).await? {
            Conditional::Written(item) | Conditional::Refused(Some(item)) => item,
            Conditional::Refused(None) => return Ok(Acquired::Held(now)),
        };
        let stored: Stored = from_item(OPERATION, item)?;
        if stored.holder.as_ref() == Some(&holder) {
            let page_id = page_id.clone();
            return Ok(Acquired::Lease(PageLease {
                page_id,
                purpose,
                holder,
                until,
            }));
        }
        Ok(stored.refusal(job, now))
    }

    /// Extends a lease; `false` if it has been lost to another holder.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn extend_if_held(&self, page: &mut PageLease, lease: Duration, now: Timestamp) -> Result<bool, Error> {
        let until = now + lease;
        let extend = self
            .update(page, "SET lease_until = :until")
            .bind(":until", millis(until));
        let extended = self.is_written(extend).await?;
        page.until = until;
        Ok(extended)
    }

    /// Releases a lease.
    ///
    /// # Errors
    /// If DynamoDB does not answer; then the lease ends by itself.
    pub async fn release_if_held(&self, page: &PageLease) -> Result<(), Error> {
        const RELEASE: &str = "REMOVE holder, job, lease_until";
        self.is_written(self.update(page, RELEASE)).await?;
        Ok(())
    }

    /// Takes the next free slots of a Page, unless it pauses or they are too far ahead. In the same write extends the lease
    /// of a large job, which has to hold it still.
    ///
    /// Neither of the two writes asks for the next free slot that was seen: any number of runs may take slots at once, and each
    /// gets slots of its own. One whose answer was lost leaves some unused.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn take_slots(
        &self,
        page_id: &PageId,
        lease: Option<&PageLease>,
        demand: Demand,
        next_slot_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Taken, Error> {
        let key = keys::page_lease(page_id, PAGE_SENDING);
        self.take_slots_of(&key, lease, demand, next_slot_at, now).await
    }

    /// Takes the next free slot of the calls of the Conversations API for a Page, as [`PageLeases::take_slots`] does for sends.
    /// Lookups and imports take theirs from this one row.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn take_call_slot(
        &self,
        page_id: &PageId,
        demand: Demand,
        next_slot_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Taken, Error> {
        let key = keys::page_lease(page_id, LOOKUPS);
        self.take_slots_of(&key, None, demand, next_slot_at, now).await
    }

    async fn take_slots_of(
        &self,
        key: &Item,
        lease: Option<&PageLease>,
        demand: Demand,
        mut next_slot_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Taken, Error> {
        const FOLLOW: &str = "next_slot_at = next_slot_at + :length";
        const IF_SOON: &str = "next_slot_at BETWEEN :from AND :latest";
        const BEGIN: &str = "next_slot_at = :end";
        const IF_PAST: &str = "(attribute_not_exists(next_slot_at) OR next_slot_at < :from OR next_slot_at > :broken)";
        const IF_NOT_PAUSED: &str = "(attribute_not_exists(not_before) OR not_before <= :now)";
        const IF_HELD: &str = "holder = :holder";
        const OPERATION: &str = "take slots of a Page";
        // In whole milliseconds, as the table compares them: a slot of this very millisecond would be neither free nor past.
        let now = Timestamp::from_millisecond(millis(now)).unwrap_or(now);
        let lead = SignedDuration::from_millis(i64::try_from(demand.lead.as_millis()).unwrap_or_default());
        let (from, latest, broken) = (now + lead, now + demand.ahead, now + BROKEN_CLOCK);
        let whole = demand.length;
        loop {
            let follows = next_slot_at.is_some_and(|next| (from..=broken).contains(&next));
            let (set, condition) = if follows { (FOLLOW, IF_SOON) } else { (BEGIN, IF_PAST) };
            let (extend, conditions) = match lease {
                Some(_) => (", lease_until = :until", vec![condition, IF_NOT_PAUSED, IF_HELD]),
                None => ("", vec![condition, IF_NOT_PAUSED]),
            };
            let expression = format!("SET {set}{extend}, #schema = if_not_exists(#schema, :schema)");
            let mut take = Update::new(&self.0.broadcasts, key.clone(), expression)
                .only_if(conditions.join(" AND "))
                .bind(":now", millis(now))
                .bind(":from", millis(from))
                .bind(":schema", SCHEMA)
                .returning_new();
            take = match follows {
                true => take
                    .bind(":length", i64::try_from(whole.as_millis()).unwrap_or(i64::MAX))
                    .bind(":latest", millis(latest)),
                false => take.bind(":end", millis(from + whole)).bind(":broken", millis(broken)),
            };
            if let Some(lease) = lease {
                take = take.bind(":until", millis(lease.until)).bind(":holder", &lease.holder);
            }
            let stored: Stored = match self.0.update(OPERATION, take).await? {
                Conditional::Written(item) => {
                    let stored: Stored = from_item(OPERATION, item)?;
                    let end = stored.next_slot_at.unwrap_or(from + whole);
                    return Ok(Taken::Slots(Slots {
                        first: end - whole,
                        interval: whole.unsigned_abs() / demand.count.max(1),
                        count: demand.count,
                        end,
                    }));
                }
                Conditional::Refused(Some(item)) => from_item(OPERATION, item)?,
                Conditional::Refused(None) => Stored::default(),
            };
            if lease.is_some_and(|lease| stored.holder.as_ref() != Some(&lease.holder)) {
                return Ok(Taken::LeaseLost);
            }
            if let Some(until) = stored.not_before.filter(|until| *until > now) {
                return Ok(Taken::Paused(until));
            }
            next_slot_at = stored.next_slot_at;
            if let Some(next) = next_slot_at.filter(|next| latest < *next && *next <= broken) {
                return Ok(Taken::Busy(next));
            }
        }
    }

    /// Pauses a Page, unless a longer pause stands.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn pause_if_longer(&self, page_id: &PageId, until: Timestamp, backoffs: u32) -> Result<(), Error> {
        const PAUSE: &str = "SET not_before = :until, backoffs = :backoffs, #schema = if_not_exists(#schema, :schema)";
        const IF_LONGER: &str = "attribute_not_exists(not_before) OR not_before < :until";
        let pause = Update::new(&self.0.broadcasts, keys::page_lease(page_id, PAGE_SENDING), PAUSE)
            .only_if(IF_LONGER)
            .bind(":until", millis(until))
            .bind(":backoffs", backoffs)
            .bind(":schema", SCHEMA);
        self.is_written(pause).await?;
        Ok(())
    }

    /// Pauses the calls of the Conversations API for a Page, unless a longer pause stands.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn pause_calls_if_longer(&self, page_id: &PageId, until: Timestamp) -> Result<(), Error> {
        const PAUSE: &str = "SET not_before = :until, #schema = if_not_exists(#schema, :schema)";
        const IF_LONGER: &str = "attribute_not_exists(not_before) OR not_before < :until";
        let pause = Update::new(&self.0.broadcasts, keys::page_lease(page_id, LOOKUPS), PAUSE)
            .only_if(IF_LONGER)
            .bind(":until", millis(until))
            .bind(":schema", SCHEMA);
        self.is_written(pause).await?;
        Ok(())
    }

    /// Ends the back-off of a Page after a success, unless it has paused again since.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn end_backoff_if_unchanged(&self, page_id: &PageId, backoffs: u32) -> Result<(), Error> {
        const END: &str = "SET backoffs = :none";
        const IF_UNCHANGED: &str = "backoffs = :backoffs";
        let end = Update::new(&self.0.broadcasts, keys::page_lease(page_id, PAGE_SENDING), END)
            .only_if(IF_UNCHANGED)
            .bind(":none", 0)
            .bind(":backoffs", backoffs);
        self.is_written(end).await?;
        Ok(())
    }

    fn update(&self, page: &PageLease, expression: &'static str) -> Update<'_> {
        const IF_OURS: &str = "holder = :holder";
        let key = keys::page_lease(&page.page_id, page.purpose);
        Update::new(&self.0.broadcasts, key, expression)
            .only_if(IF_OURS)
            .bind(":holder", &page.holder)
    }

    /// `false` if the lease has been lost: then there is nothing to change.
    async fn is_written(&self, update: Update<'_>) -> Result<bool, Error> {
        let written = self.0.update("change a Page", update).await?;
        Ok(matches!(written, Conditional::Written(_)))
    }
}

impl Stored {
    /// The reason why this lease was not granted for a job.
    fn refusal(&self, job: &str, now: Timestamp) -> Acquired {
        let held = self.lease_until.filter(|until| *until >= now);
        if let (Some(until), Some(holder)) = (held, self.job.as_deref())
            && holder == job
        {
            return Acquired::SameJob(until);
        }
        match self.not_before.filter(|not_before| *not_before > now) {
            Some(not_before) => Acquired::Paused(not_before),
            None => Acquired::Held(held.unwrap_or(now)),
        }
    }
}
