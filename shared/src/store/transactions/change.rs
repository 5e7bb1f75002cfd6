//! The change of a broadcast that has not begun, and its approval: each in one transaction with all of its jobs, so that a change
//! is whole, or the first claim of a job comes before it.

use aws_sdk_dynamodb::types::TransactWriteItem;
use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::Serialize;

use super::Transactions;
use crate::domain::history::HistoryEntry;
use crate::domain::ids::token;
use crate::domain::job::{Broadcast, Job, JobStatus};
use crate::store::calls::{Transaction, is_refusal};
use crate::store::history::{self, History};
use crate::store::jobs::WAKE_AGAIN_AFTER;
use crate::store::keys;
use crate::store::statement::{Update, millis};
use crate::store::tables::{Error, REPORT_OUTLIVES, Store, expiry, from_item};

/// The end of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The change is made.
    Made,
    /// Nothing is written: the broadcast or one of its jobs is not as it was read any more.
    Meanwhile,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Millis(#[serde(with = "millisecond::optional")] Option<Timestamp>);

impl Transactions<'_> {
    /// Replaces everything that a broadcast says, except for its contacts, while none of its jobs has been claimed and none is due.
    /// A broadcast that needs approval needs it anew.
    ///
    /// A worker reads the broadcast after its claim, and the claim moves the epoch: so a worker that has claimed a job before works
    /// by the broadcast as it was, and the change is refused.
    ///
    /// # Errors
    /// If DynamoDB does not answer; the change may then be made, and a repetition makes it again.
    pub async fn change_if_not_begun(
        &self,
        (seen, jobs, history): (&Broadcast, &[Job], &History),
        changed: &Broadcast,
        entry: &HistoryEntry,
        now: Timestamp,
    ) -> Result<Changed, Error> {
        const CHANGE: &str = "SET #message = :message, #envelope = :envelope, #name = :name, #metadata = :metadata, \
                              scheduled_at = :scheduled_at, time_zone = :time_zone, quiet_hours = :quiet_hours, \
                              not_after = :not_after, changed_by = :caller, change_id = :change_id, \
                              outside_window = :outside_window, expires_at = :expires_at REMOVE approved_at";
        const OPERATION: &str = "change a broadcast";
        let Self(store) = self;
        let change_id = token();
        let due_at = changed.scheduled_at;
        let retained_until = due_at.unwrap_or(seen.created_at) + store.retention;
        let broadcast = update_if_unchanged(store, seen, CHANGE, &change_id)
            .bind(":message", &changed.message)
            .bind(":envelope", &changed.envelope)
            .bind(":name", &changed.name)
            .bind(":metadata", &changed.metadata)
            .bind(":scheduled_at", Millis(due_at))
            .bind(":time_zone", &changed.time_zone)
            .bind(":quiet_hours", &changed.quiet_hours)
            .bind(":not_after", Millis(changed.expires_at))
            .bind(":outside_window", changed.outside_window)
            .bind(":caller", &entry.caller)
            .bind(":expires_at", expiry(retained_until, REPORT_OUTLIVES));
        let mut parts = vec![broadcast.into_part(OPERATION)?];
        for job in jobs {
            let status = match changed.requires_approval {
                true => JobStatus::AwaitingApproval,
                false => job.status,
            };
            let update = job_if_not_begun(store, job, status, due_at, now)
                .bind(":not_after", Millis(changed.expires_at))
                .bind(":retained_until", millis(retained_until))
                .bind(":expires_at", expiry(retained_until, REPORT_OUTLIVES));
            parts.push(update.into_part(OPERATION)?);
        }
        parts.extend(history::add(
            store,
            OPERATION,
            &seen.broadcast_id,
            history,
            (entry, &change_id),
            retained_until,
        )?);
        self.change(OPERATION, parts, &change_id).await
    }

    /// Approves a broadcast as it was read: its jobs are sent when they are due. Returns those that are to be woken now.
    ///
    /// # Errors
    /// If DynamoDB does not answer; the broadcast may then be approved, and a repetition finds it so.
    pub async fn approve_if_unchanged(
        &self,
        (seen, jobs, history): (&Broadcast, &[Job], &History),
        entry: &HistoryEntry,
        now: Timestamp,
    ) -> Result<(Changed, Vec<Job>), Error> {
        const APPROVE: &str = "SET approved_at = :now, change_id = :change_id";
        const RELEASE: &str = "SET #status = :status, wake_at = :wake_at, wake_shard = :shard";
        const IF_AWAITING: &str = "#status = :awaiting";
        const OPERATION: &str = "approve a broadcast";
        let Self(store) = self;
        let change_id = token();
        let broadcast = update_if_unchanged(store, seen, APPROVE, &change_id).bind(":now", millis(now));
        let (mut parts, mut due) = (vec![broadcast.into_part(OPERATION)?], Vec::new());
        for job in jobs {
            let later = job.due_at.filter(|due_at| *due_at > now);
            let (status, wake_at) = match later {
                Some(due_at) => (JobStatus::Scheduled, due_at),
                None => (JobStatus::Queued, now + WAKE_AGAIN_AFTER),
            };
            let release = Update::new(&store.broadcasts, keys::job(&job.id()), RELEASE)
                .only_if(IF_AWAITING)
                .bind(":awaiting", JobStatus::AwaitingApproval)
                .bind(":status", status)
                .bind(":wake_at", millis(wake_at))
                .bind(":shard", keys::wake_shard(&job.id()));
            parts.push(release.into_part(OPERATION)?);
            due.extend(later.is_none().then(|| Job {
                status,
                wake_at: Some(wake_at),
                ..job.clone()
            }));
        }
        let retained_until = jobs.iter().map(|job| job.retained_until).max().unwrap_or(now);
        parts.extend(history::add(
            store,
            OPERATION,
            &seen.broadcast_id,
            history,
            (entry, &change_id),
            retained_until,
        )?);
        Ok((self.change(OPERATION, parts, &change_id).await?, due))
    }

    /// Makes a change whose first part is that of the broadcast.
    async fn change(
        &self,
        operation: &'static str,
        parts: Vec<TransactWriteItem>,
        change_id: &str,
    ) -> Result<Changed, Error> {
        let Transaction::Refused(reasons) = self.0.transact(operation, parts, change_id).await? else {
            return Ok(Changed::Made);
        };
        let refused = reasons
            .into_iter()
            .next()
            .filter(is_refusal)
            .and_then(|reason| reason.item);
        let found: Option<Broadcast> = refused.map(|item| from_item(operation, item)).transpose()?;
        // Refused by its own first attempt, of which the answer was lost.
        let is_ours = found.is_some_and(|broadcast| broadcast.change_id.as_deref() == Some(change_id));
        Ok(if is_ours { Changed::Made } else { Changed::Meanwhile })
    }
}

/// An update of a broadcast that nobody has changed since it was read.
fn update_if_unchanged<'s>(
    store: &'s Store,
    seen: &Broadcast,
    expression: &'static str,
    change_id: &str,
) -> Update<'s> {
    const IF_AS_SEEN: &str = "change_id = :seen";
    const IF_NEVER_CHANGED: &str = "attribute_exists(pk) AND attribute_not_exists(change_id)";
    let update =
        Update::new(&store.broadcasts, keys::broadcast(&seen.broadcast_id), expression).bind(":change_id", change_id);
    match &seen.change_id {
        Some(seen) => update.only_if(IF_AS_SEEN).bind(":seen", seen),
        None => update.only_if(IF_NEVER_CHANGED),
    }
}

/// The part of a change that moves a job, if it is as it was read, has never been claimed and is not due.
fn job_if_not_begun<'s>(
    store: &'s Store,
    job: &Job,
    status: JobStatus,
    due_at: Option<Timestamp>,
    now: Timestamp,
) -> Update<'s> {
    const SCHEDULE: &str = "SET #status = :status, due_at = :due_at, wake_at = :due_at, wake_shard = :shard, \
                            retained_until = :retained_until, expires_at = :expires_at, not_after = :not_after";
    const HOLD: &str = "SET #status = :status, due_at = :due_at, retained_until = :retained_until, expires_at = :expires_at, \
                        not_after = :not_after REMOVE wake_at, wake_shard";
    const IF_NOT_BEGUN: &str = "epoch = :none AND #status = :seen AND (#status <> :scheduled OR due_at > :now)";
    let is_scheduled = status == JobStatus::Scheduled;
    let update = Update::new(
        &store.broadcasts,
        keys::job(&job.id()),
        if is_scheduled { SCHEDULE } else { HOLD },
    )
    .only_if(IF_NOT_BEGUN)
    .bind(":none", 0)
    .bind(":seen", job.status)
    .bind(":scheduled", JobStatus::Scheduled)
    .bind(":now", millis(now))
    .bind(":status", status)
    .bind(":due_at", Millis(due_at));
    match is_scheduled {
        true => update.bind(":shard", keys::wake_shard(&job.id())),
        false => update,
    }
}
