//! The commit of a broadcast: from it on, the broadcast will be sent.

use jiff::Timestamp;

use super::Transactions;
use crate::domain::job::{Broadcast, Job};
use crate::store::calls::{Transaction, is_refusal};
use crate::store::requests::{self, Answered, RequestKey};
use crate::store::tables::{Error, REPORT_OUTLIVES, expiry, from_item};
use crate::store::{broadcasts, jobs};

/// The end of a commit.
#[derive(Debug)]
pub enum Committed {
    /// The broadcast exists.
    New,
    /// The request was answered before.
    Taken(Answered),
}

impl Transactions<'_> {
    /// Takes the request key and creates the broadcast and its jobs, all or nothing. From here on the broadcast will be
    /// sent.
    ///
    /// # Errors
    /// If DynamoDB does not answer: the broadcast may exist, and a repeated request finds out.
    pub async fn commit(
        &self,
        key: &RequestKey,
        received: Timestamp,
        broadcast: &Broadcast,
        jobs: &[Job],
    ) -> Result<Committed, Error> {
        const OPERATION: &str = "commit a broadcast";
        let Self(store) = self;
        let broadcast_id = &broadcast.broadcast_id;
        let kept_until = jobs.iter().map(|job| job.retained_until).max().unwrap_or(received);
        let expires_at = expiry(kept_until, REPORT_OUTLIVES);
        let mut parts = vec![
            requests::put_if_free(store, OPERATION, key, broadcast_id, received)?,
            broadcasts::put(store, OPERATION, broadcast, expires_at)?,
        ];
        for job in jobs {
            parts.push(jobs::put(store, OPERATION, job, expires_at)?);
        }
        let Transaction::Refused(reasons) = store.transact(OPERATION, parts, &broadcast_id.to_string()).await? else {
            return Ok(Committed::New);
        };
        let taken = reasons.into_iter().find(is_refusal).and_then(|reason| reason.item);
        let answered: Answered = from_item(OPERATION, taken.unwrap_or_default())?;
        if answered.broadcast_id == *broadcast_id {
            return Ok(Committed::New);
        }
        Ok(Committed::Taken(answered))
    }
}
