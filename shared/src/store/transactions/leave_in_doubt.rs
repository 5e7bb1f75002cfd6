//! A delivery that the last lookup leaves in doubt, and the event that tells of the first one of a run.

use super::Transactions;
use crate::domain::delivery::Delivery;
use crate::domain::event::BroadcastEvent;
use crate::domain::ids::{JobId, token};
use crate::domain::job::Broadcast;
use crate::runtime::metrics::Event;
use crate::store::calls::{Transaction, is_refusal};
use crate::store::doubts::{NextLookup, schedule_if_in_doubt};
use crate::store::events::new_event;
use crate::store::tables::Error;

impl Transactions<'_> {
    /// Leaves a delivery in doubt for good, while it is in doubt as it was seen, and stores the event. One that was settled
    /// meanwhile stays as it is, and nobody is told.
    ///
    /// # Errors
    /// If DynamoDB does not answer: the delivery is looked up again, or is left in doubt and told of.
    pub async fn leave_in_doubt(
        &self,
        job: &JobId,
        row: &Delivery,
        reason: &str,
        broadcast: &Broadcast,
        event: &BroadcastEvent,
    ) -> Result<(), Error> {
        const OPERATION: &str = "leave a delivery in doubt";
        let (Self(store), next) = (self, NextLookup::Never { reason });
        let parts = vec![
            schedule_if_in_doubt(store, job, row, next).into_part(OPERATION)?,
            new_event(store, broadcast, event).into_part(OPERATION)?,
        ];
        match store.transact(OPERATION, parts, &token()).await? {
            Transaction::Written => {
                store.metrics.count(Event::DoubtsLeft, 1);
                Ok(())
            }
            Transaction::Refused(reasons) if reasons.first().is_some_and(is_refusal) => Ok(()),
            // Another delivery of the run was left in doubt before.
            Transaction::Refused(_) => store.doubts().schedule_lookup_if_in_doubt(job, row, next).await,
        }
    }
}
