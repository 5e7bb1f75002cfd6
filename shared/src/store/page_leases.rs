//! Leases of Pages: one sender per Page at a time. For pacing only; the promise never depends on them.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::Deserialize;

use super::calls::Conditional;
use super::keys;
use super::statement::{Update, millis};
use super::tables::{Error, SCHEMA, Store, from_item};
use crate::domain::ids::{JobId, PageId, token};

/// The sort key of the right to send for a Page.
const SENDING: &str = "lease";
/// The sort key of the right to look up the Page's messages.
const LOOKUPS: &str = "looks";

/// The Page leases of a [`Store`].
pub struct PageLeases<'a>(pub(super) &'a Store);

/// The right to send, or to look messages up, for a Page.
#[derive(Debug)]
pub struct PageLease {
    page_id: PageId,
    /// The sort key: what it is a lease of.
    purpose: &'static str,
    holder: String,
    /// The end of the lease, unless it is extended.
    pub until: Timestamp,
    /// Pauses since the Page's last success.
    pub backoffs: u32,
    /// The end of the Page's pause, or the time of its next lookup; written at release.
    pub not_before: Option<Timestamp>,
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

#[derive(Deserialize)]
struct Stored {
    #[serde(default)]
    holder: Option<String>,
    #[serde(default)]
    job: Option<String>,
    #[serde(default, with = "millisecond::optional")]
    lease_until: Option<Timestamp>,
    #[serde(default, with = "millisecond::optional")]
    not_before: Option<Timestamp>,
    #[serde(default)]
    backoffs: u32,
}

impl PageLeases<'_> {
    /// Acquires the right to send for a job's Page, unless it is held or the Page pauses.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn acquire(&self, job: &JobId, lease: Duration, now: Timestamp) -> Result<Acquired, Error> {
        self.acquire_for(SENDING, &job.page_id, &job.to_string(), lease, now)
            .await
    }

    /// Acquires the right to look up a Page's messages, unless it is held, or the next call would be too soon after the last
    /// one of the holder before.
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
            let backoffs = stored.backoffs;
            return Ok(Acquired::Lease(PageLease {
                page_id,
                purpose,
                holder,
                until,
                backoffs,
                not_before: None,
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

    /// Releases a lease, at once or with a pause of the Page.
    ///
    /// # Errors
    /// If DynamoDB does not answer; then the lease ends by itself.
    pub async fn release_if_held(&self, page: &PageLease) -> Result<(), Error> {
        const RELEASE: &str = "SET backoffs = :backoffs REMOVE holder, job, lease_until, not_before";
        const PAUSE: &str = "SET backoffs = :backoffs, not_before = :not_before REMOVE holder, job, lease_until";
        let release = match page.not_before {
            None => self.update(page, RELEASE),
            Some(until) => self.update(page, PAUSE).bind(":not_before", millis(until)),
        };
        self.is_written(release.bind(":backoffs", page.backoffs)).await?;
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
        let written = self.0.update("change a Page lease", update).await?;
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
