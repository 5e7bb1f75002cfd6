//! Rows that go back to the backlog: those that a resend names one by one, and those that a retry names by status and reason.

use jiff::Timestamp;

use super::deliveries::{Deliveries, if_unchanged};
use super::keys;
use super::statement::{Update, millis};
use super::tables::{Error, Store};
use crate::domain::command::RetryCommand;
use crate::domain::delivery::{Delivery, Status};
use crate::domain::ids::{ContactId, JobId};
use crate::domain::job::Job;

impl Deliveries<'_> {
    /// Lists the rows of a job that a resend names, as of now, from after `after`; and the id to go on after, unless that
    /// was all.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn named_for_resend(
        &self,
        job: &JobId,
        after: Option<&ContactId>,
    ) -> Result<(Vec<Delivery>, Option<ContactId>), Error> {
        const NAMED: &str = "#status = :in_doubt AND resend = :yes";
        let query = self
            .rows(job, after)
            .filter(NAMED)
            .bind(":in_doubt", Status::InDoubt)
            .bind(":yes", true);
        self.page("list deliveries to resend", query).await
    }

    /// Lists the rows of a job that a retry is for, as of now, from after `after`; and the id to go on after, unless that was
    /// all. A contact whose message is known to have arrived is none of them, whatever its status.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn named_by_retry(
        &self,
        job: &JobId,
        retry: &RetryCommand,
        after: Option<&ContactId>,
    ) -> Result<(Vec<Delivery>, Option<ContactId>), Error> {
        const NAMED: &str = "#status IN (:failed, :skipped, :in_doubt) AND attribute_not_exists(arrived_as)";
        let query = self
            .rows(job, after)
            .filter(NAMED)
            .bind(":failed", Status::Failed)
            .bind(":skipped", Status::Skipped)
            .bind(":in_doubt", Status::InDoubt);
        let (mut rows, last) = self.page("list deliveries to retry", query).await?;
        rows.retain(|row| row.not_sent().is_some_and(|(status, code)| retry.is_for(status, &code)));
        Ok((rows, last))
    }
}

/// The part of a resend command that names a row in doubt.
pub(super) fn name_for_resend<'s>(store: &'s Store, job: &JobId, row: &Delivery) -> Update<'s> {
    const NAME: &str = "SET resend = :yes REMOVE doubt_shard, look_at";
    if_unchanged(store, job, row.into(), NAME).bind(":yes", true)
}

/// The part of a resend or a retry that puts a row back in the backlog, under this epoch. From here on a contact that was in
/// doubt is never `failed`: the attempt before may have arrived. A retry begins with fresh attempts.
pub(super) fn requeue<'s>(store: &'s Store, job: &Job, row: &Delivery, now: Timestamp) -> Update<'s> {
    const RESEND: &str = "SET #status = :waiting, epoch = :epoch, not_before = :now, updated_at = :now, \
                          earlier_doubt = if_not_exists(earlier_doubt, reserved_at) \
                          REMOVE counted, resend, doubt_shard, look_at";
    const RETRY_IN_DOUBT: &str = "SET #status = :waiting, epoch = :epoch, not_before = :now, updated_at = :now, \
                                  attempts = :none, earlier_doubt = if_not_exists(earlier_doubt, reserved_at) \
                                  REMOVE counted, resend, doubt_shard, look_at";
    const RETRY: &str = "SET #status = :waiting, epoch = :epoch, not_before = :now, updated_at = :now, \
                         attempts = :none REMOVE counted";
    const IF_STILL_NAMED: &str = "#status = :expected AND #token = :token AND resend = :yes";
    const IF_NOT_ARRIVED: &str = "#status = :expected AND #token = :token AND attribute_not_exists(arrived_as)";
    let status = row.state.status();
    let update = |expression| {
        Update::new(
            &store.deliveries,
            keys::delivery(&job.id(), &row.contact_id),
            expression,
        )
        .bind(":waiting", Status::Waiting)
        .bind(":expected", status)
        .bind(":token", &row.token)
        .bind(":epoch", job.epoch)
        .bind(":now", millis(now))
    };
    match (&job.retry, status) {
        (None, _) => update(RESEND).only_if(IF_STILL_NAMED).bind(":yes", true),
        (Some(_), Status::InDoubt) => update(RETRY_IN_DOUBT).only_if(IF_NOT_ARRIVED).bind(":none", 0),
        (Some(_), _) => update(RETRY).only_if(IF_NOT_ARRIVED).bind(":none", 0),
    }
}
