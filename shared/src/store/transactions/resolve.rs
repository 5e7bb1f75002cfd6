//! The resolution of an audience: contacts that join the backlog of a claimed job, in one transaction with the position up to which
//! the Page's contacts have been looked at.

use std::time::Instant;

use jiff::Timestamp;

use super::Transactions;
use crate::domain::backlog::{Segment, split_into_segments};
use crate::domain::ids::{ContactId, token};
use crate::domain::job::Resolving;
use crate::store::calls::{Conditional, Transaction, is_refusal};
use crate::store::jobs::{self, Claim, ClaimRefusal, extend_lease, update_if_claimed};
use crate::store::segments;
use crate::store::statement::Update;
use crate::store::tables::{Error, Store};

/// The progress of a resolution since its last write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// The contacts that join the backlog. Their segments fit into a transaction.
    pub members: Vec<ContactId>,
    /// The contacts that were looked at, these included.
    pub considered: u64,
    /// Those that the audience has, and that have opted out.
    pub opted_out: u64,
    /// The point up to which that is so; `None` if no contact is left to be looked at.
    pub rest: Option<Resolving>,
}

impl Transactions<'_> {
    /// Adds contacts to the backlog of a claimed job, moves the position of its resolution past them, and extends its lease. One
    /// update, if there are no contacts. The claim knows afterwards which command to stop stands. Returns `false` if another worker
    /// has claimed the job: nothing is written.
    ///
    /// On top of this claim's last checkpoint: so neither a write that is repeated after a lost answer nor a worker that was
    /// overtaken adds a contact again, or over another one's segment.
    ///
    /// # Errors
    /// If DynamoDB does not answer: the contacts may be added, so the claim must not be used any more.
    pub async fn resolve(&self, claim: &mut Claim, found: &Resolution, now: Timestamp) -> Result<bool, Error> {
        loop {
            if let Some(is_written) = self.try_resolve(claim, found, now).await? {
                return Ok(is_written);
            }
        }
    }

    /// Adds contacts under the command to stop that the claim knows of; `None` if that is another one now.
    async fn try_resolve(&self, claim: &mut Claim, found: &Resolution, now: Timestamp) -> Result<Option<bool>, Error> {
        const OPERATION: &str = "resolve an audience";
        let Self(store) = self;
        let (checkpoint_id, asked_at) = (token(), Instant::now());
        let added = split_into_segments(found.members.iter().cloned(), claim.job.first_segments);
        let after = SegmentsAfter::new(claim.job.first_segments, &added, found);
        let update = job_update(store, claim, found, &after, &checkpoint_id, now);
        let refused = if added.is_empty() {
            match store.update(OPERATION, update).await? {
                Conditional::Written(_) => None,
                Conditional::Refused(job) => Some(job),
            }
        } else {
            let mut parts = vec![update.into_part(OPERATION)?];
            for segment in &added {
                parts.push(segments::put(store, OPERATION, &claim.job, segment)?);
            }
            match store.transact(OPERATION, parts, &checkpoint_id).await? {
                Transaction::Written => None,
                Transaction::Refused(reasons) => {
                    let job = reasons.into_iter().next().filter(is_refusal);
                    Some(job.and_then(|reason| reason.item))
                }
            }
        };
        if let Some(job) = refused {
            match jobs::refusal(claim, job, &checkpoint_id)? {
                ClaimRefusal::Written => {}
                ClaimRefusal::StopChanged => return Ok(None),
                ClaimRefusal::Stale => return Ok(Some(false)),
            }
        }
        claim.record_written(checkpoint_id, now);
        claim.told_at = asked_at;
        let job = &mut claim.job;
        (job.segments, job.first_segments) = (after.all, after.first);
        job.contacts += found.members.len() as u64;
        job.considered += found.considered;
        job.opted_out += found.opted_out;
        job.stalls = 0;
        job.resolving.clone_from(&found.rest);
        Ok(Some(true))
    }
}

/// The numbers of segments that a resolution leaves.
struct SegmentsAfter {
    first: u32,
    /// One more, while others are to come.
    all: u32,
}

impl SegmentsAfter {
    fn new(before: u32, added: &[Segment], found: &Resolution) -> Self {
        let first = added.last().map_or(before, |last| last.number + 1);
        let goes_on = found.rest.as_ref().is_some_and(|rest| !rest.given_up);
        let all = first + u32::from(goes_on);
        Self { first, all }
    }
}

/// The job's part of a resolution.
fn job_update<'s>(
    store: &'s Store,
    claim: &Claim,
    found: &Resolution,
    after: &SegmentsAfter,
    checkpoint_id: &str,
    now: Timestamp,
) -> Update<'s> {
    const GO_ON: &str = "SET #segments = :segments, first_segments = :first, contacts = contacts + :members, \
                         considered = considered + :considered, opted_out = opted_out + :opted_out, \
                         #resolving = :rest, stalls = :none, lease_until = :lease_until, wake_at = :wake_at, \
                         checkpoint_id = :new_checkpoint_id";
    const END: &str = "SET #segments = :segments, first_segments = :first, contacts = contacts + :members, \
                       considered = considered + :considered, opted_out = opted_out + :opted_out, \
                       stalls = :none, lease_until = :lease_until, wake_at = :wake_at, \
                       checkpoint_id = :new_checkpoint_id REMOVE #resolving";
    let expression = if found.rest.is_some() { GO_ON } else { END };
    let update = extend_lease(update_if_claimed(store, claim, expression, checkpoint_id), claim, now)
        .bind(":segments", after.all)
        .bind(":first", after.first)
        .bind(":members", found.members.len())
        .bind(":considered", found.considered)
        .bind(":opted_out", found.opted_out)
        .bind(":none", 0);
    match &found.rest {
        Some(rest) => update.bind(":rest", rest),
        None => update,
    }
}
