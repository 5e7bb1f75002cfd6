//! The import of a Page's contacts from its conversations.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::domain::command::JobCommand;
use shared::domain::ids::PageId;
use shared::domain::job::JobStatus;
use utoipa::ToSchema;

/// The last import of a Page's contacts, as of its last checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({
    "page_id": "page-1", "status": "processing", "reason": null, "remedy": null, "conversations": 1200, "unreadable": 3,
    "created": 1150, "known": 46, "on_another_page": 1, "started_over": false, "command": null, "due_at": null,
    "started_at": "2026-12-01T01:00:00Z", "updated_at": "2026-12-01T01:00:06Z", "ended_at": null
})))]
pub struct PageImport {
    /// The Page.
    pub page_id: PageId,
    /// `completed` if the list of conversations was read to its end; `waiting` if Messenger limits the calls or did not answer.
    pub status: JobStatus,
    /// The reason why the import is halted or waits: Messenger's code, or words; `null` otherwise.
    #[schema(required)]
    pub reason: Option<String>,
    /// The remedy, if the import is halted; `null` otherwise.
    #[schema(required)]
    pub remedy: Option<String>,
    /// Conversations that were read.
    pub conversations: u64,
    /// Those in which no person could be read, as of a deleted account.
    pub unreadable: u64,
    /// Contacts that the import has created.
    pub created: u64,
    /// People who were contacts of the Page already. What is known of them stays; a name is added to those without one. People
    /// who are read twice, because a worker died, count as known.
    pub known: u64,
    /// People who are contacts of another Page, and stay so.
    pub on_another_page: u64,
    /// True if Messenger forgot the place in the list, so that it is read from its beginning again. Its counts are those of
    /// the second reading, except for `created`.
    pub started_over: bool,
    /// The command that a worker is still to carry out; `null` if there is none.
    #[schema(required)]
    pub command: Option<JobCommand>,
    /// The time at which an import that waits goes on; `null` otherwise.
    #[schema(required)]
    pub due_at: Option<Timestamp>,
    /// The time at which the import was requested.
    pub started_at: Timestamp,
    /// The time of the last checkpoint; `null` if there was none.
    #[schema(required)]
    pub updated_at: Option<Timestamp>,
    /// The time at which the import was completed or cancelled; `null` otherwise.
    #[schema(required)]
    pub ended_at: Option<Timestamp>,
}
