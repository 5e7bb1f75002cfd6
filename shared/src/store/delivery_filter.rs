//! The filter of a list of deliveries.

use jiff::Timestamp;

use super::statement::{Query, millis};
use crate::domain::delivery::Status;

/// The deliveries that a list has; all of them by default.
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    /// Their state.
    pub status: Option<Status>,
    /// The code of their reason; Messenger's code stands for all of its subcodes. Rows of earlier versions have no code.
    pub code: Option<String>,
    /// The time after which they changed last.
    pub updated_after: Option<Timestamp>,
    /// The time before which they changed last.
    pub updated_before: Option<Timestamp>,
}

impl DeliveryFilter {
    /// Leaves out the rows of a query that do not match.
    pub(super) fn apply<'q>(&self, mut query: Query<'q>) -> Query<'q> {
        let mut conditions = Vec::new();
        if let Some(status) = self.status {
            conditions.push("#status = :status");
            query = query.bind(":status", status);
        }
        if let Some(code) = &self.code {
            conditions.push("(code = :code OR begins_with(code, :with_subcode))");
            query = query.bind(":code", code).bind(":with_subcode", format!("{code}/"));
        }
        if let Some(after) = self.updated_after {
            conditions.push("updated_at > :after");
            query = query.bind(":after", millis(after));
        }
        if let Some(before) = self.updated_before {
            conditions.push("updated_at < :before");
            query = query.bind(":before", millis(before));
        }
        match conditions.is_empty() {
            true => query,
            false => query.filter(conditions.join(" AND ")),
        }
    }
}
