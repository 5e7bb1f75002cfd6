//! Contacts that are settled without sending, since their job is to send no more.

use jiff::Timestamp;

use super::calls::Conditional;
use super::deliveries::{Deliveries, holds, refusing_row};
use super::keys;
use super::statement::{Update, millis};
use super::tables::{Error, REPORT_OUTLIVES, SCHEMA, expiry};
use crate::domain::delivery::{Delivery, State, Status};
use crate::domain::ids::{ContactId, token};
use crate::domain::job::Job;
use crate::domain::reasons::code_of;

/// The end of settling a contact as `skipped`.
#[derive(Debug)]
pub enum Skip {
    /// The row holds this outcome, and the cursor will count it.
    Written(State),
    /// The contact is not free; the row says what to do.
    Refused(Box<Delivery>),
}

impl Deliveries<'_> {
    /// Settles a contact as `skipped` for this reason, under the conditions of a reservation; it need not be due, since nothing
    /// is sent. A contact of which an earlier attempt may have arrived is refused: it is in doubt, and a checkpoint says so.
    ///
    /// # Errors
    /// If DynamoDB does not answer: the row may be written, and the next claim finds it.
    pub async fn skip_if_free(
        &self,
        job: &Job,
        contact_id: &ContactId,
        reason: &str,
        now: Timestamp,
    ) -> Result<Skip, Error> {
        const SKIP: &str = "SET #status = :skipped, reason = :reason, code = :code, epoch = :epoch, #token = :token, \
                            attempts = if_not_exists(attempts, :none), reserved_at = if_not_exists(reserved_at, :now), \
                            updated_at = :now, expires_at = :expires_at, #schema = if_not_exists(#schema, :schema) \
                            REMOVE not_before";
        const IF_FREE: &str = "attribute_not_exists(contact_id) OR (#status = :waiting AND epoch <= :epoch \
                               AND attribute_not_exists(earlier_doubt))";
        const OPERATION: &str = "skip a delivery";
        let Self(store) = self;
        let token = token();
        let skipped = State::Skipped {
            reason: reason.to_owned(),
        };
        let skip = Update::new(&store.deliveries, keys::delivery(&job.id(), contact_id), SKIP)
            .only_if(IF_FREE)
            .bind(":skipped", Status::Skipped)
            .bind(":waiting", Status::Waiting)
            .bind(":reason", reason)
            .bind(":code", code_of(reason))
            .bind(":epoch", job.epoch)
            .bind(":token", &token)
            .bind(":none", 0)
            .bind(":now", millis(now))
            .bind(":expires_at", expiry(job.retained_until, REPORT_OUTLIVES))
            .bind(":schema", SCHEMA);
        if let Conditional::Refused(item) = store.update(OPERATION, skip).await? {
            let row = refusing_row(OPERATION, item)?;
            // Otherwise this very call wrote it, and its answer was lost.
            if !holds(&row, &token, &skipped) {
                return Ok(Skip::Refused(Box::new(row)));
            }
        }
        store.count_outcome(&skipped);
        Ok(Skip::Written(skipped))
    }
}
