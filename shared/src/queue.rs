//! Hints: queue messages that say "look at this job". Losing or repeating one is harmless.
//!
//! SQS drops a repeated deduplication id for five minutes. That is one more layer against double work, and a trap: a hint
//! that is needed must not look like one before it, so its id holds the job's epoch and the time of its next wake-up.

use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::DisplayErrorContext;
use jiff::Timestamp;
use tracing::warn;

use crate::config::Config;
use crate::ids::JobId;
use crate::metrics::{Event, Metrics};

/// The queue that process-job is fed by.
#[derive(Clone)]
pub struct Queue {
    client: Client,
    url: String,
    metrics: Metrics,
}

impl Queue {
    /// The queue that the configuration names.
    pub fn new(client: Client, config: &Config, metrics: Metrics) -> Self {
        Self {
            client,
            url: config.jobs_queue_url.clone(),
            metrics,
        }
    }

    /// Has somebody look at a job. Hints for one Page are worked off one after the other.
    ///
    /// A failure is logged and no more: the job's `wake_at` brings it back.
    pub async fn hint(&self, job: &JobId, epoch: u64, wake_at: Timestamp) {
        let sent = self
            .client
            .send_message()
            .queue_url(&self.url)
            .message_body(serde_json::json!(job).to_string())
            .message_group_id(job.page_id.to_string())
            .message_deduplication_id(format!("{job}/{epoch}/{}", wake_at.as_millisecond()))
            .send()
            .await;
        if let Err(error) = sent {
            self.metrics.count(Event::HintsLost, 1);
            let error = DisplayErrorContext(&error);
            warn!(job.id = %job, %error, "hint perhaps not sent; the job comes back at its wake-up");
        }
    }
}
