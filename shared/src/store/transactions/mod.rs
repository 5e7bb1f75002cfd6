//! Transitions that write several items at once: commit, control, change, resolve, checkpoint, settle, resend and leave in doubt;
//! and the erasure of a delivery.
//!
//! A row enters and leaves doubt in one transaction with the job's counters, which marks the row `counted`; and a contact
//! enters a new segment in one transaction with the job that counts it. The parts of a transaction are made in the files of
//! their items; here each transaction is put together, written, and its refusal judged. So these are the only files that
//! import several items.

mod change;
mod checkpoint;
mod commit;
mod control;
mod erase;
mod leave_in_doubt;
mod resend;
mod resolve;
mod settle;

pub use self::change::Changed;
pub use self::checkpoint::{Checkpoint, Checkpointed};
pub use self::commit::Committed;
pub use self::control::Controlled;
pub use self::resend::{CommandOutcome, Resent};
pub use self::resolve::Resolution;
pub use self::settle::{Record, Settled};
use super::tables::Store;

/// The most rows in one transaction, besides the job and a segment: DynamoDB takes 100 items.
pub const ROWS_AT_ONCE: usize = 90;

/// The transactions of a [`Store`].
pub struct Transactions<'a>(pub(super) &'a Store);
