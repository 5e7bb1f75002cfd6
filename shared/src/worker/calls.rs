//! The pace of the calls of the Conversations API for a Page.
//!
//! Messenger takes two of them a second. Lookups and imports take a slot for each call from one row, in whatever process they
//! are, and the next only after the answer. So their sum keeps the limit, and neither waits for more than one call of each other.
//! Source: <https://developers.facebook.com/documentation/business-messaging/messenger-platform/overview/rate-limiting>

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep_until};

use crate::app::App;
use crate::domain::ids::PageId;
use crate::store;
use crate::store::page_leases::{Demand, Taken};

/// The time from one slot to the next: two a second, and a hundredth of a second more for two calls of which the second has the
/// shorter way.
pub const CALL_INTERVAL: SignedDuration = SignedDuration::from_millis(510);
/// The time after its slot within which a call may start: a process may have been frozen meanwhile.
const SLOT_VALID_FOR: Duration = Duration::from_millis(50);
/// The longest wait for a slot: those of twenty processes at once.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_secs(10);

/// The answer to a request for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The call may be made now.
    Now,
    /// No call is to be made for the Page before this time.
    NotBefore(Timestamp),
}

/// The calls for one Page, as one run makes them.
pub struct Calls<'a> {
    app: &'a App,
    page_id: &'a PageId,
    /// The start of the last call of this run.
    last: Option<Instant>,
    /// The first slot that nobody has taken, as far as is known.
    next_slot_at: Option<Timestamp>,
}

impl<'a> Calls<'a> {
    /// Returns the pace of the calls for a Page.
    pub fn new(app: &'a App, page_id: &'a PageId) -> Self {
        Self {
            app,
            page_id,
            last: None,
            next_slot_at: None,
        }
    }

    /// Waits until the next call may be made, unless the calls pause.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn wait(&mut self) -> Result<Turn, store::Error> {
        loop {
            let (asked_at, now) = (Instant::now(), self.app.clock.now());
            // The last call may have started a little after its slot.
            let next = self.last.map(|last| last + CALL_INTERVAL.unsigned_abs());
            let lead = next.map_or(Duration::ZERO, |next| next.saturating_duration_since(asked_at));
            let demand = Demand {
                count: 1,
                length: CALL_INTERVAL,
                lead: SignedDuration::try_from(lead).unwrap_or(SignedDuration::ZERO),
                ahead: LONGEST_WAIT,
            };
            let pages = self.app.store.page_leases();
            let taken = pages
                .take_call_slot(self.page_id, demand, self.next_slot_at, now)
                .await?;
            let slots = match taken {
                Taken::Slots(slots) => slots,
                Taken::Busy(until) | Taken::Paused(until) => return Ok(Turn::NotBefore(until)),
                // No lease was named.
                Taken::LeaseLost => return Ok(Turn::NotBefore(now)),
            };
            self.next_slot_at = Some(slots.end);
            let slot = asked_at + Duration::try_from(slots.first.duration_since(now)).unwrap_or_default();
            sleep_until(slot).await;
            let starts = Instant::now();
            if starts <= slot + SLOT_VALID_FOR {
                self.last = Some(starts);
                return Ok(Turn::Now);
            }
        }
    }

    /// Has no call made for the Page before this time, by this process or another.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn pause(&self, until: Timestamp) -> Result<(), store::Error> {
        let pages = self.app.store.page_leases();
        pages.pause_calls_if_longer(self.page_id, until).await
    }
}
