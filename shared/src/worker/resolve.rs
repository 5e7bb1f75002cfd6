//! The resolution of an audience: the contacts of the job's Page that match join its backlog, in the order of their ids.
//!
//! It is one more use of the claim and its checkpoints. Each write adds the contacts that were found since the last one, together
//! with the position up to which the Page's contacts have been looked at, on top of the claim's last checkpoint. So the next claim
//! goes on where the last write ended: no contact joins twice, and none that matches all the while is missed. Sending begins when
//! the resolution is over: until then the backlog has one writer, and grows at one end only.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tracing::info;

use crate::app::App;
use crate::domain::audience::{Audience, Excluded};
use crate::domain::backlog::SEGMENT_SIZE;
use crate::domain::ids::Pages;
use crate::domain::job::{Broadcast, Job, Resolving};
use crate::store;
use crate::store::hand_over::HandOver;
use crate::store::jobs::Claim;
use crate::store::members::{MemberBatch, Members};
use crate::store::transactions::Resolution;
use crate::worker::drain::last_start;
use crate::worker::run::{CHECKPOINT_EVERY, RunEnd};

/// The time from the request to the first look at the index of contacts, which may be behind the table by about as much: an import
/// counts for a broadcast that is requested right after it. DynamoDB states no bound, and usually takes less than a second.
pub const INDEX_LAG: Duration = Duration::from_secs(3);
/// The most contacts that one write adds: ten full segments.
const CONTACTS_AT_ONCE: usize = 10 * SEGMENT_SIZE;
/// The most bytes of ids that one write adds: a transaction takes 4 MB.
const BYTES_AT_ONCE: usize = 2_000_000;

/// A resolution in progress.
struct Course<'a> {
    app: &'a App,
    broadcast: &'a Broadcast,
    claim: Claim,
    /// The work since the last write.
    found: Resolution,
    /// The bytes of the ids among it.
    bytes: usize,
}

/// Resolves the audience of a claimed job, until `ends` at the latest.
///
/// # Errors
/// If a table does not answer; the claim then ends with its lease, and the next one goes on.
pub async fn resolve(app: &App, claim: Claim, ends: Instant) -> Result<RunEnd, store::Error> {
    let last_start = last_start(ends);
    let left = |claim, to| Ok(RunEnd::HandOver(Box::new(claim), to));
    let broadcast = app.store.broadcasts().get(&claim.job.broadcast_id).await?;
    let Some((broadcast, audience)) = broadcast
        .as_ref()
        .and_then(|found| Some((found, found.audience.as_ref()?)))
    else {
        return left(
            claim,
            HandOver::Halted("expired: the broadcast's audience is gone".to_owned()),
        );
    };
    if let Some(to) = reason_not_to_begin(app, &claim.job, broadcast, audience).await? {
        return left(claim, to);
    }
    sleep(time_until_indexed(claim.job.created_at, app.clock.now())).await;
    let mut rest = claim.job.resolving.clone().unwrap_or_default();
    let since = *rest.since.get_or_insert_with(|| app.clock.now());
    let mut members = Members::new(&app.store, &claim.job.page_id, audience, since, rest.after.clone());
    let mut course = Course {
        app,
        broadcast,
        claim,
        found: Resolution::default(),
        bytes: 0,
    };
    let mut write_at = Instant::now() + CHECKPOINT_EVERY;
    loop {
        let batch = members.next_batch().await?;
        let is_last = batch.is_none();
        if let Some(batch) = batch {
            if course.is_full_with(&batch) && !course.write(Some(rest.clone())).await? {
                return Ok(RunEnd::Overtaken);
            }
            rest.after = Some(batch.up_to.clone());
            course.add(batch);
        }
        let reason = course.reason_to_stop(last_start);
        if is_last || reason.is_some() || Instant::now() >= write_at {
            if !course.write((!is_last).then(|| rest.clone())).await? {
                return Ok(RunEnd::Overtaken);
            }
            write_at = Instant::now() + CHECKPOINT_EVERY;
        }
        let Course { claim, .. } = &course;
        let to = match (is_last, reason) {
            // The hand-over obeys the command. What was found since the last write is found again.
            _ if claim.job.stop.is_some() => HandOver::Queued,
            (true, _) if claim.job.contacts == 0 => HandOver::Completed,
            (true, _) => HandOver::Queued,
            (false, Some(to)) => to,
            (false, None) => continue,
        };
        course.log(is_last);
        return left(course.claim, to);
    }
}

/// Returns the hand-over of a job whose audience is not to be resolved now.
async fn reason_not_to_begin(
    app: &App,
    job: &Job,
    broadcast: &Broadcast,
    audience: &Audience,
) -> Result<Option<HandOver>, store::Error> {
    let now = app.clock.now();
    if job.stop.is_some() {
        // The hand-over obeys it.
        return Ok(Some(HandOver::Queued));
    }
    if let Some(until) = broadcast.quiet_until(now) {
        return Ok(Some(HandOver::Quiet(until)));
    }
    for id in audience.sent_in.iter().chain(&audience.not_sent_in) {
        if !app.store.broadcasts().keeps_deliveries(id, &Pages::All, now).await? {
            // Without its deliveries nobody would have got it.
            let reason = format!("expired: the broadcast {id}, which the audience names, is no longer kept");
            return Ok(Some(HandOver::Halted(reason)));
        }
    }
    Ok(None)
}

/// Returns the time until the index shows what was stored before a request that was received at this time.
pub fn time_until_indexed(received: Timestamp, now: Timestamp) -> Duration {
    let left = Duration::try_from((received + INDEX_LAG).duration_since(now)).unwrap_or_default();
    // The clock may have gone back.
    left.min(INDEX_LAG)
}

impl Course<'_> {
    /// Returns true if a write would be too large with this batch.
    fn is_full_with(&self, batch: &MemberBatch) -> bool {
        let contacts = self.found.members.len() + batch.members.len();
        contacts > CONTACTS_AT_ONCE || self.bytes + bytes(batch) > BYTES_AT_ONCE
    }

    fn add(&mut self, batch: MemberBatch) {
        self.bytes += bytes(&batch);
        self.found.considered += batch.considered;
        self.found.opted_out += batch.excluded.get(&Excluded::OptedOut).copied().unwrap_or_default();
        self.found.members.extend(batch.members);
    }

    /// Writes the work since the last write, with the rest that it leaves; `false` if another worker has claimed the job.
    async fn write(&mut self, rest: Option<Resolving>) -> Result<bool, store::Error> {
        self.bytes = 0;
        let found = Resolution {
            rest,
            ..std::mem::take(&mut self.found)
        };
        let (transactions, now) = (self.app.store.transactions(), self.app.clock.now());
        transactions.resolve(&mut self.claim, &found, now).await
    }

    /// Returns the hand-over of a resolution that must not go on now: the invocation ends, the quiet hours begin, or the broadcast
    /// has come to its end, so that the next run drains the job.
    fn reason_to_stop(&self, last_start: Instant) -> Option<HandOver> {
        let now = self.app.clock.now();
        if let Some(until) = self.broadcast.quiet_until(now) {
            return Some(HandOver::Quiet(until));
        }
        (self.claim.job.is_expired(now) || Instant::now() >= last_start).then_some(HandOver::Queued)
    }

    fn log(&self, is_last: bool) {
        let Job {
            contacts, considered, ..
        } = self.claim.job;
        match is_last {
            true => info!(
                job.contacts = contacts,
                job.considered = considered,
                "audience resolved"
            ),
            false => info!(
                job.contacts = contacts,
                job.considered = considered,
                "audience resolved in part"
            ),
        }
    }
}

fn bytes(batch: &MemberBatch) -> usize {
    batch.members.iter().map(|id| id.as_str().len()).sum()
}
