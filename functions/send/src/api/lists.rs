//! Parts of lists.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A part of a list. A part may be empty and still not be the last.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ListPart<T> {
    /// The items of this part.
    pub items: Vec<T>,
    /// The cursor of the next part, to be given as `cursor`; `null` if this is the last.
    #[schema(required)]
    pub next_cursor: Option<String>,
}
