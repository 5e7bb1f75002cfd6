//! Checks of the installation and of a Page.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::domain::ids::PageId;
use utoipa::ToSchema;

/// The checks of one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({
    "time": "2026-12-01T01:00:00Z", "page_id": "page-1",
    "checks": [
        {"check": "token", "state": "ok", "detail": "Messenger takes the access token", "remedy": null},
        {"check": "webhook", "state": "wrong", "detail": "no app gets message_echoes",
         "remedy": "Subscribe the webhook to these events, for this Page, in the app's dashboard at Meta."}
    ]
})))]
pub struct Checks {
    /// The time of the answer by the clock of the API.
    pub time: Timestamp,
    /// The Page that was checked; `null` if it is the installation.
    #[schema(required)]
    pub page_id: Option<PageId>,
    /// The checks.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// The thing that was checked.
    pub check: CheckedThing,
    /// The outcome.
    pub state: CheckState,
    /// The outcome in words.
    pub detail: String,
    /// The step that an operator has to take; `null` if there is none.
    #[schema(required)]
    pub remedy: Option<String>,
}

/// A thing that is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckedThing {
    /// The database answers.
    Database,
    /// The queue of wake-ups answers.
    Queue,
    /// Sending is switched on, for all Pages or for this one.
    Sending,
    /// The Page has an access token that Messenger takes.
    Token,
    /// The app has the permissions to read the Page's conversations, by which doubts are settled and contacts are imported.
    Conversations,
    /// Messenger sends the Page's events to the app.
    Webhook,
}

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// All is well.
    Ok,
    /// An operator has to do something.
    Wrong,
    /// It cannot be told at the moment.
    Unknown,
}
