//! Pages.

use serde::{Deserialize, Serialize};
use shared::domain::ids::PageId;
use utoipa::ToSchema;

use crate::api::progress::TokenState;

/// A Page that has contacts, or had some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({"page_id": "page-1", "token": "ok"})))]
pub struct PageReport {
    /// The id of the Page.
    pub page_id: PageId,
    /// The state of its access token: `ok` if there is one, which Messenger may refuse all the same.
    pub token: TokenState,
}
