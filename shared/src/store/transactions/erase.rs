//! The erasure of a delivery: its row, and the claim of the message that settled it.

use super::Transactions;
use crate::domain::delivery::Delivery;
use crate::domain::ids::JobId;
use crate::store::calls::Conditional;
use crate::store::deliveries::IF_UNCHANGED;
use crate::store::keys;
use crate::store::statement::Delete;
use crate::store::tables::Error;

impl Transactions<'_> {
    /// Deletes a row as it was seen, and what says that its message is its own. Returns `false` if the row has been moved on
    /// meanwhile, and is kept.
    ///
    /// Without the row nothing keeps a worker from sending to the contact, or a lookup from taking the message for another
    /// delivery's: the caller makes sure that neither can come. The row goes last, so that a repetition finds what is left.
    ///
    /// # Errors
    /// If DynamoDB does not answer; repeating the call is harmless.
    pub async fn erase_if_unchanged(&self, job: &JobId, row: &Delivery) -> Result<bool, Error> {
        const IF_OURS: &str = "delivery = :delivery";
        let Self(store) = self;
        if let Some(message_id) = row.message_id() {
            let claim = Delete::new(&store.broadcasts, keys::message(message_id))
                .only_if(IF_OURS)
                .bind(":delivery", keys::claimed_by(job, &row.contact_id));
            // Refused: no lookup has claimed the message, or one has for another delivery.
            match store.delete("erase the claim of a message", claim).await? {
                Conditional::Written(_) | Conditional::Refused(_) => {}
            }
        }
        let delete = Delete::new(&store.deliveries, keys::delivery(job, &row.contact_id))
            .only_if(IF_UNCHANGED)
            .bind(":expected", row.state.status())
            .bind(":token", &row.token);
        match store.delete("erase a delivery", delete).await? {
            Conditional::Written(_) | Conditional::Refused(None) => Ok(true),
            Conditional::Refused(Some(_)) => Ok(false),
        }
    }
}
