//! The import of a Page's contacts: a job that reads the list of the Page's conversations and stores the people in them.

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};

/// The progress of an import, as of its last checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImportProgress {
    /// Messenger's cursor: the people of the conversations before it are stored. `None` at the beginning of the list.
    pub after: Option<String>,
    /// `true` once the end of the list is reached.
    pub is_whole: bool,
    /// `true` if Messenger did not know the cursor any more, so that the list is read from its beginning again.
    pub started_over: bool,
    /// Conversations before the cursor.
    pub conversations: u64,
    /// Those in which no person could be read.
    pub unreadable: u64,
    /// Contacts that the import has created. A restart from the beginning of the list keeps them.
    pub created: u64,
    /// People who were contacts of the Page already.
    pub known: u64,
    /// People who are contacts of another Page, and stay so.
    pub on_another_page: u64,
    /// Calls in a row that Messenger refused because of a rate limit.
    pub limited: u32,
    /// Calls in a row that failed for a reason that may pass.
    pub failed: u32,
    /// The time of the last checkpoint.
    #[serde(with = "millisecond::optional", skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
}

impl ImportProgress {
    /// Returns the progress of the same import at the beginning of the list. The contacts that it has created so far count as
    /// known, too, once it comes to them again.
    pub fn at_the_beginning_again(&self) -> Self {
        Self {
            started_over: true,
            created: self.created,
            ..Self::default()
        }
    }
}
