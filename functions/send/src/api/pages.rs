//! Pages.

use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::domain::ids::PageId;
use shared::domain::sending::SendingSwitch;
use utoipa::ToSchema;

use crate::api::progress::TokenState;

/// A Page that has contacts, or had some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({
    "page_id": "page-1", "token": "ok", "rate": 30, "paused_until": null, "backoffs": 0, "switch": null,
    "webhook_heard_at": "2026-12-01T01:00:00Z"
})))]
pub struct PageReport {
    /// The id of the Page.
    pub page_id: PageId,
    /// The state of its access token: `ok` if there is one, which Messenger may refuse all the same.
    pub token: TokenState,
    /// The messages per second that are sent at most, over all broadcasts of the Page.
    #[schema(value_type = u32, minimum = 1)]
    pub rate: NonZeroU32,
    /// The end of the Page's pause, for a limit or an outage of Messenger; `null` if it does not pause.
    #[schema(required)]
    pub paused_until: Option<Timestamp>,
    /// The pauses since the Page's last success. While there are any, the rate is half of the whole.
    pub backoffs: u32,
    /// The switch for sending of this Page alone; `null` if it was never set. Sending is on if the switch for all Pages is, too.
    #[schema(required)]
    pub switch: Option<SendingSwitch>,
    /// The time of a call of the Page's webhook by Messenger; the last call came at most ten minutes later. `null` if none was
    /// heard since the Page has contacts.
    #[schema(required)]
    pub webhook_heard_at: Option<Timestamp>,
}
