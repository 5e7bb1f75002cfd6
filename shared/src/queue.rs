//! Hints: queue messages that say "look at this job". Losing or repeating one is harmless.
//!
//! SQS drops a repeated deduplication id for five minutes. That is one more layer against double work, and a trap: a hint
//! that is needed must not look like one before it, so its id holds the job's epoch and the time of its next wake-up.

use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::DisplayErrorContext;
use jiff::Timestamp;

use crate::config::Config;
use crate::ids::JobId;

/// The queue that process-job is fed by.
#[derive(Clone)]
pub struct Queue {
    client: Client,
    url: String,
}

/// The hint was perhaps not sent; the job's `wake_at` brings it back.
#[derive(Debug, thiserror::Error)]
#[error("the hint was perhaps not sent: {0}")]
pub struct Error(String);

impl Queue {
    /// The queue that the configuration names.
    pub fn new(client: Client, config: &Config) -> Self {
        Self {
            client,
            url: config.jobs_queue_url.clone(),
        }
    }

    /// Has somebody look at a job. Hints for one Page are worked off one after the other.
    pub async fn hint(&self, job: &JobId, epoch: u64, wake_at: Timestamp) -> Result<(), Error> {
        let body = serde_json::to_string(job).map_err(|error| Error(error.to_string()))?;
        self.client
            .send_message()
            .queue_url(&self.url)
            .message_body(body)
            .message_group_id(job.page_id.to_string())
            .message_deduplication_id(format!("{job}/{epoch}/{}", wake_at.as_millisecond()))
            .send()
            .await
            .map_err(|error| Error(DisplayErrorContext(&error).to_string()))?;
        Ok(())
    }
}
