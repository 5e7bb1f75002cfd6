//! Page leases: one sender per Page at a time. For pacing only; that nobody gets a message twice never depends on them.

use std::time::Duration;

use aws_sdk_dynamodb::types::ReturnValue;
use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::Deserialize;

use super::{Error, SCHEMA, Store, at, conditionally, from_item, value};
use crate::ids::{JobId, PageId, token};

/// The right to send for a Page.
#[derive(Debug)]
pub struct PageLease {
    page_id: PageId,
    /// What it is a lease of.
    sk: &'static str,
    holder: String,
    /// Until when it may be taken for alive.
    pub until: Timestamp,
    /// Pauses since the Page's last success.
    pub backoffs: u32,
    /// Before this nobody is to send for the Page; written when it is given back.
    pub not_before: Option<Timestamp>,
}

/// Whether the Page is ours.
#[derive(Debug)]
pub enum Acquired {
    /// It is.
    Lease(PageLease),
    /// Somebody works on this very job.
    SameJob,
    /// Another job has the Page, until this time or until it is given back.
    Held(Timestamp),
    /// Nobody sends for the Page before this time.
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

/// The sort key of the right to send for a Page …
const SENDING: &str = "lease";
/// … and of the right to look up what it has sent.
const LOOK_UPS: &str = "looks";

fn partition(page_id: &PageId) -> String {
    format!("page#{page_id}")
}

impl Store {
    /// Takes the Page for work on this job, unless somebody sends for it or it pauses.
    pub async fn acquire_page(
        &self,
        job: &JobId,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Acquired, Error> {
        self.acquire(SENDING, &job.page_id, &job.to_string(), lease, now)
            .await
    }

    /// Takes the right to look things up for a Page, unless somebody has it.
    pub async fn acquire_look_ups(
        &self,
        page_id: &PageId,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Option<PageLease>, Error> {
        let acquired = self.acquire(LOOK_UPS, page_id, "", lease, now).await?;
        Ok(match acquired {
            Acquired::Lease(lease) => Some(lease),
            Acquired::SameJob | Acquired::Held(_) | Acquired::Paused(_) => None,
        })
    }

    async fn acquire(
        &self,
        sk: &'static str,
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
        let (holder, until) = (token(), now + lease);
        let call = self
            .client
            .update_item()
            .table_name(&self.broadcasts)
            .key("pk", value(partition(page_id))?)
            .key("sk", value(sk)?)
            .update_expression(ACQUIRE)
            .condition_expression(IF_FREE)
            .expression_attribute_names("#schema", "schema")
            .expression_attribute_values(":schema", value(SCHEMA)?)
            .expression_attribute_values(":holder", value(&holder)?)
            .expression_attribute_values(":job", value(job)?)
            .expression_attribute_values(":until", at(until)?)
            .expression_attribute_values(":now", at(now)?)
            .return_values(ReturnValue::AllNew);
        let item = conditionally(OPERATION, call)
            .await?
            .unwrap_or_else(Option::unwrap_or_default);
        let stored: Stored = from_item(OPERATION, item)?;
        if stored.holder.as_ref() == Some(&holder) {
            return Ok(Acquired::Lease(PageLease {
                page_id: page_id.clone(),
                sk,
                holder,
                until,
                backoffs: stored.backoffs,
                not_before: None,
            }));
        }
        let held = stored.lease_until.filter(|until| *until >= now);
        if held.is_some() && stored.job.as_deref() == Some(job) {
            return Ok(Acquired::SameJob);
        }
        Ok(
            match stored.not_before.filter(|not_before| *not_before > now) {
                Some(not_before) => Acquired::Paused(not_before),
                None => Acquired::Held(held.unwrap_or(now)),
            },
        )
    }

    /// Extends the lease; false if somebody else has the Page meanwhile.
    pub async fn extend_page(
        &self,
        page: &mut PageLease,
        lease: Duration,
        now: Timestamp,
    ) -> Result<bool, Error> {
        const EXTEND: &str = "SET lease_until = :until";
        let until = now + lease;
        let extended = self
            .change_page(page, EXTEND, &[(":until", until.as_millisecond())])
            .await?;
        page.until = until;
        Ok(extended)
    }

    /// Gives the Page back, to send on at once or after a pause.
    pub async fn release_page(&self, page: &PageLease) -> Result<(), Error> {
        const RELEASE: &str =
            "SET backoffs = :backoffs REMOVE holder, job, lease_until, not_before";
        const PAUSE: &str =
            "SET backoffs = :backoffs, not_before = :not_before REMOVE holder, job, lease_until";
        let backoffs = (":backoffs", i64::from(page.backoffs));
        match page.not_before {
            None => self.change_page(page, RELEASE, &[backoffs]).await?,
            Some(until) => {
                let not_before = (":not_before", until.as_millisecond());
                self.change_page(page, PAUSE, &[backoffs, not_before])
                    .await?
            }
        };
        Ok(())
    }

    /// False if somebody else has the Page: then there is nothing to change.
    async fn change_page(
        &self,
        page: &PageLease,
        update: &str,
        values: &[(&str, i64)],
    ) -> Result<bool, Error> {
        const IF_OURS: &str = "holder = :holder";
        let mut call = self
            .client
            .update_item()
            .table_name(&self.broadcasts)
            .key("pk", value(partition(&page.page_id))?)
            .key("sk", value(page.sk)?)
            .update_expression(update)
            .condition_expression(IF_OURS)
            .expression_attribute_values(":holder", value(&page.holder)?);
        for (name, number) in values {
            call = call.expression_attribute_values(*name, value(number)?);
        }
        Ok(conditionally("change a Page lease", call).await?.is_ok())
    }
}
