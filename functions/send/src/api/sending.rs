//! The switch for sending, and the health check, which shows it.

use serde::{Deserialize, Serialize};
use shared::domain::sending::SendingState;
use utoipa::ToSchema;

/// The answer to a health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({"status": "ok", "sending": "on"})))]
pub struct Health {
    /// Always `ok`: the function runs, and the database answers it.
    pub status: String,
    /// The switch for sending.
    pub sending: SendingState,
}

/// A new position of the switch for sending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"state": "off", "reason": "wrong text"})))]
pub struct SendingChange {
    /// The position.
    pub state: SendingState,
    /// The reason, which the switch shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub reason: Option<String>,
}
