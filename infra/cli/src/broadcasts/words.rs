//! Words of the API, as the command line reads and writes them.

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error;
use shared::domain::job::JobStatus;

/// Parses a word of the API.
fn word<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, String> {
    let word = text.replace('-', "_");
    T::deserialize(word.into_deserializer()).map_err(|error: Error| error.to_string())
}

/// Parses a status of a broadcast.
pub fn job_status(text: &str) -> Result<JobStatus, String> {
    word(text)
}

/// Returns a status in an operator's word.
pub fn status(status: JobStatus) -> &'static str {
    match status {
        JobStatus::Processing => "sending",
        JobStatus::Queued => "queued",
        JobStatus::Waiting => "waiting",
        JobStatus::Paused => "paused",
        JobStatus::Scheduled => "scheduled",
        JobStatus::AwaitingApproval => "awaiting approval",
        JobStatus::Halted => "halted",
        JobStatus::Cancelled => "cancelled",
        JobStatus::Completed => "completed",
    }
}
