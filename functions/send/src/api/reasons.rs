//! The reasons why contacts are not known to have got a message.

use serde::{Deserialize, Serialize};
use shared::domain::reasons::NotSent;
use utoipa::ToSchema;

/// Contacts that are not known to have got the message, by reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({
    "status": "failed", "code": "551/1545041", "contacts": 12,
    "meaning": "Messenger does not deliver to the contact now: it may have blocked the Page, or its account is not active."
})))]
pub struct ReasonReport {
    /// The state of their deliveries.
    pub status: NotSent,
    /// The reason in short, by which deliveries can be listed: Messenger's code and subcode, or words of this API. `other` counts
    /// what is counted under no code of its own.
    pub code: String,
    /// The reason in words.
    pub meaning: String,
    /// The number of contacts.
    pub contacts: u64,
}
