//! The checkpoint of a claimed job, with the rows that it puts in doubt and the segment that it appends.

use std::time::Instant;

use aws_sdk_dynamodb::types::CancellationReason;
use jiff::Timestamp;

use super::Transactions;
use crate::domain::backlog::{Entry, Progress, Segment};
use crate::domain::breakers::Breakers;
use crate::domain::delivery::{Delivery, Doubt};
use crate::domain::ids::token;
use crate::domain::reasons::{NotSent, Reasons, code_of};
use crate::runtime::metrics::Event;
use crate::store::calls::{Conditional, Transaction, is_refusal};
use crate::store::jobs::{self, Claim, ClaimRefusal, extend_lease, update_if_claimed};
use crate::store::statement::Update;
use crate::store::tables::{Error, Store, from_item};
use crate::store::{deliveries, segments};

/// The content of a checkpoint.
#[derive(Debug, Default)]
pub struct Checkpoint<'a> {
    /// The move of the cursor, and the outcomes that it passes.
    pub progress: Progress,
    /// Rows to put in doubt; at most [`ROWS_AT_ONCE`](super::ROWS_AT_ONCE).
    pub doubts: &'a [(Entry, Doubt)],
    /// Settled contacts that were met since the last checkpoint.
    pub prevented: u64,
    /// Failures in a row.
    pub breakers: Breakers,
}

/// The end of a checkpoint.
#[derive(Debug)]
pub enum Checkpointed {
    /// All of it is written, with the segment that it appended.
    Written(Option<Segment>),
    /// Nothing is written: these rows, by their index among the doubts, have changed; the others have not.
    Changed(Vec<(usize, Delivery)>),
    /// Nothing is written: the job has been claimed by another worker.
    Stale,
}

impl Transactions<'_> {
    /// Moves a claimed job on by the work since its last checkpoint, and extends its lease. One update, unless contacts are
    /// requeued or rows are put in doubt. The claim knows afterwards which command to stop stands.
    ///
    /// # Errors
    /// If DynamoDB does not answer: the checkpoint may be written, so the claim must not be used any more.
    pub async fn checkpoint(
        &self,
        claim: &mut Claim,
        checkpoint: &Checkpoint<'_>,
        now: Timestamp,
    ) -> Result<Checkpointed, Error> {
        loop {
            if let Some(end) = self.try_checkpoint(claim, checkpoint, now).await? {
                return Ok(end);
            }
        }
    }

    /// Writes a checkpoint under the command to stop that the claim knows of; `None` if that is another one now.
    async fn try_checkpoint(
        &self,
        claim: &mut Claim,
        checkpoint: &Checkpoint<'_>,
        now: Timestamp,
    ) -> Result<Option<Checkpointed>, Error> {
        const OPERATION: &str = "checkpoint a job";
        let Self(store) = self;
        let (checkpoint_id, asked_at) = (token(), Instant::now());
        let appended = next_segment(claim, &checkpoint.progress);
        let after = JobAfter::new(claim, checkpoint, appended.is_some());
        let update = checkpoint_update(store, claim, checkpoint, &after, &checkpoint_id, now);
        let refused = if appended.is_none() && checkpoint.doubts.is_empty() {
            match store.update(OPERATION, update).await? {
                Conditional::Written(_) => None,
                Conditional::Refused(item) => Some((item, Vec::new())),
            }
        } else {
            let mut parts = vec![update.into_part(OPERATION)?];
            for ((entry, doubt), code) in checkpoint.doubts.iter().zip(&after.doubt_codes) {
                let in_doubt = deliveries::put_in_doubt(store, &claim.job.id(), &entry.contact_id, doubt, code, now);
                parts.push(in_doubt.into_part(OPERATION)?);
            }
            if let Some(segment) = &appended {
                parts.push(segments::put(store, OPERATION, &claim.job, segment)?);
            }
            match store.transact(OPERATION, parts, &checkpoint_id).await? {
                Transaction::Written => None,
                Transaction::Refused(mut reasons) => {
                    let rows = reasons.split_off(1);
                    Some((reasons.pop().filter(is_refusal).and_then(|reason| reason.item), rows))
                }
            }
        };
        match refused {
            None => {}
            Some((None, rows)) => return Ok(Some(changed_rows(OPERATION, rows)?)),
            Some((job, _)) => match jobs::refusal(claim, job, &checkpoint_id)? {
                ClaimRefusal::Written => {}
                ClaimRefusal::StopChanged => return Ok(None),
                ClaimRefusal::Stale => return Ok(Some(Checkpointed::Stale)),
            },
        }
        store.metrics.count(Event::InDoubt, checkpoint.doubts.len() as u64);
        claim.record_written(checkpoint_id, now);
        claim.told_at = asked_at;
        (claim.job.cursor, claim.job.segments, claim.job.stalls) = (after.cursor, after.segments, after.stalls);
        claim.job.reasons = after.reasons;
        Ok(Some(Checkpointed::Written(appended)))
    }
}

/// The segment that a checkpoint appends for the contacts which its cursor passes and which go back to the backlog.
fn next_segment(claim: &Claim, progress: &Progress) -> Option<Segment> {
    let due_at = progress.requeued.iter().map(|(_, due)| *due).min()?;
    Some(Segment {
        number: claim.job.segments,
        contacts: progress
            .requeued
            .iter()
            .map(|(contact_id, _)| contact_id.clone())
            .collect(),
        due_at: Some(due_at),
    })
}

/// The fields of a job that a checkpoint sets.
struct JobAfter {
    cursor: u64,
    segments: u32,
    stalls: u32,
    reasons: Reasons,
    /// The codes under which the doubts are counted.
    doubt_codes: Vec<String>,
}

impl JobAfter {
    fn new(claim: &Claim, checkpoint: &Checkpoint<'_>, appends: bool) -> Self {
        let cursor = checkpoint.progress.cursor;
        let stalls = if cursor == claim.job.cursor {
            claim.job.stalls
        } else {
            0
        };
        let mut reasons = claim.job.reasons.clone();
        for (status, code, contacts) in &checkpoint.progress.reasons {
            reasons.count(status, code, contacts);
        }
        let doubts = checkpoint.doubts.iter().map(|(_, doubt)| code_of(&doubt.reason));
        let doubt_codes = doubts.map(|code| reasons.count(NotSent::InDoubt, &code, 1)).collect();
        Self {
            cursor,
            segments: claim.job.segments + u32::from(appends),
            stalls,
            reasons,
            doubt_codes,
        }
    }
}

/// The job's part of a checkpoint.
fn checkpoint_update<'s>(
    store: &'s Store,
    claim: &Claim,
    checkpoint: &Checkpoint<'_>,
    after: &JobAfter,
    checkpoint_id: &str,
    now: Timestamp,
) -> Update<'s> {
    const CHECKPOINT: &str = "SET #cursor = :cursor, #segments = :segments, stalls = :stalls, breakers = :breakers, \
                              waiting = waiting + :waiting, sent = sent + :sent, failed = failed + :failed, \
                              skipped = skipped + :skipped, in_doubt = in_doubt + :in_doubt, \
                              prevented_reservation = prevented_reservation + :prevented, \
                              lease_until = :lease_until, wake_at = :wake_at, checkpoint_id = :new_checkpoint_id";
    let progress = &checkpoint.progress;
    // A requeued contact that is put in doubt leaves its second position.
    let requeued = checkpoint.doubts.iter().filter(|(entry, _)| entry.requeued).count();
    let waiting = progress.waiting - i64::try_from(requeued).unwrap_or(i64::MAX);
    let update = extend_lease(update_if_claimed(store, claim, CHECKPOINT, checkpoint_id), claim, now);
    update
        .add_all(&after.reasons.changes_since(&claim.job.reasons))
        .bind(":cursor", after.cursor)
        .bind(":segments", after.segments)
        .bind(":stalls", after.stalls)
        .bind(":breakers", &checkpoint.breakers)
        .bind(":waiting", waiting)
        .bind(":sent", progress.sent)
        .bind(":failed", progress.failed)
        .bind(":skipped", progress.skipped)
        .bind(":in_doubt", checkpoint.doubts.len())
        .bind(":prevented", checkpoint.prevented)
}

/// Judges a checkpoint that its job did not refuse: by the rows that have changed, if any.
fn changed_rows(operation: &'static str, rows: Vec<CancellationReason>) -> Result<Checkpointed, Error> {
    let mut changed = Vec::new();
    for (index, reason) in rows.into_iter().enumerate().filter(|(_, reason)| is_refusal(reason)) {
        changed.push((index, from_item(operation, reason.item.unwrap_or_default())?));
    }
    if changed.is_empty() {
        return Ok(Checkpointed::Stale);
    }
    Ok(Checkpointed::Changed(changed))
}
