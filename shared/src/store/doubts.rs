//! Deliveries in doubt, as the reconciler finds them: the index `doubt` holds the rows that are still to be looked up and,
//! like every index, only says where to look.
//!
//! A row enters and leaves doubt in one transaction with the job's counters: see `transactions`.

use jiff::Timestamp;

use super::calls::Conditional;
use super::deliveries::{Seen, if_unchanged};
use super::keys::{self, DeliveryKey};
use super::statement::{Query, Update, millis};
use super::tables::{Error, Store};
use crate::domain::delivery::{Delivery, Status};
use crate::domain::ids::{ContactId, JobId};
use crate::runtime::metrics::Event;

/// Rows of one partition of the index that are read for their age.
const OLDEST: i32 = 25;

/// The deliveries in doubt of a [`Store`].
pub struct Doubts<'a>(pub(super) &'a Store);

/// The next lookup of a delivery in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextLookup<'a> {
    /// The delivery is looked up at this time.
    At(Timestamp),
    /// The delivery is not looked up any more: it stays in doubt.
    Never {
        /// The reason, for the operator.
        reason: &'a str,
    },
}

impl Doubts<'_> {
    /// Lists deliveries that are due for a lookup, in one partition of the index, from the longest overdue; at most
    /// `limit`. The index lags.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn due_for_lookup(
        &self,
        shard: u64,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<(JobId, ContactId)>, Error> {
        const DUE: &str = "doubt_shard = :shard AND look_at <= :now";
        let Self(store) = self;
        let query = Query::index(&store.deliveries, "doubt", DUE)
            .bind(":shard", shard.to_string())
            .bind(":now", millis(now));
        let found: Vec<DeliveryKey> = store.query_all("list deliveries in doubt", query, limit).await?;
        Ok(found
            .into_iter()
            .take(limit)
            .filter_map(DeliveryKey::into_ids)
            .collect())
    }

    /// Returns the time at which the oldest delivery was reserved that is still to be looked up, if there is one. In each
    /// partition of the index only the few dozen rows are read that are due first; rows of which the lookups fail are among
    /// them.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn oldest(&self) -> Result<Option<Timestamp>, Error> {
        const OPERATION: &str = "find the oldest delivery in doubt";
        let Self(store) = self;
        let mut found = Vec::new();
        for shard in keys::doubt_shards() {
            let query = Query::index(&store.deliveries, "doubt", "doubt_shard = :shard")
                .bind(":shard", shard.to_string())
                .limit(OLDEST);
            let (rows, _) = store.query_page::<DeliveryKey>(OPERATION, query).await?;
            let ids = rows.into_iter().filter_map(DeliveryKey::into_ids);
            found.extend(ids.map(|(job, contact_id)| keys::delivery(&job, &contact_id)));
        }
        let rows = store.deliveries().get_all(OPERATION, &found).await?.into_iter();
        // The index lags.
        let waiting = rows.filter(|row| row.lookup_at.is_some());
        Ok(waiting.map(|row| row.reserved_at).min())
    }

    /// Sets the next lookup of a delivery, while it is in doubt as it was seen; a row that has been settled stays as it is.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn schedule_lookup_if_in_doubt(
        &self,
        job: &JobId,
        row: &Delivery,
        next: NextLookup<'_>,
    ) -> Result<(), Error> {
        let Self(store) = self;
        let update = schedule_if_in_doubt(store, job, row, next);
        let written = store.update("schedule a lookup", update).await?;
        if matches!((written, next), (Conditional::Written(_), NextLookup::Never { .. })) {
            store.metrics.count(Event::DoubtsLeft, 1);
        }
        Ok(())
    }
}

/// An update that sets the next lookup of a delivery, while it is in doubt as it was seen.
pub(super) fn schedule_if_in_doubt<'s>(
    store: &'s Store,
    job: &JobId,
    row: &Delivery,
    next: NextLookup<'_>,
) -> Update<'s> {
    const AGAIN: &str = "SET look_at = :look_at";
    const NO_MORE: &str = "SET reason = :reason REMOVE doubt_shard, look_at";
    let in_doubt = Seen {
        status: Status::InDoubt,
        ..row.into()
    };
    let update = |expression| if_unchanged(store, job, in_doubt, expression);
    match next {
        NextLookup::At(time) => update(AGAIN).bind(":look_at", millis(time)),
        NextLookup::Never { reason } => update(NO_MORE).bind(":reason", reason),
    }
}
