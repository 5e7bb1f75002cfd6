//! Wake-ups: queue messages that name a job for a worker to claim. Losing or repeating one is harmless.
//!
//! SQS drops a repeated deduplication id for five minutes. That is one more layer against double work, and a trap: a needed
//! wake-up must not look like an earlier one, so its id holds the job's epoch and its `wake_at`. Source:
//! <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/using-messagededuplicationid-property.html>

use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::DisplayErrorContext;
use aws_sdk_sqs::types::QueueAttributeName;
use tracing::warn;

use crate::domain::job::Job;
use crate::runtime::config::Config;
use crate::runtime::metrics::{Event, Metrics};

/// The queue that feeds process-job.
#[derive(Clone)]
pub struct Queue {
    client: Client,
    url: String,
    metrics: Metrics,
}

impl Queue {
    /// Returns the queue that the configuration names.
    pub fn new(client: Client, config: &Config, metrics: Metrics) -> Self {
        Self {
            client,
            url: config.jobs_queue_url.clone(),
            metrics,
        }
    }

    /// Returns true if the queue is there and answers.
    pub async fn answers(&self) -> bool {
        let asked = self
            .client
            .get_queue_attributes()
            .queue_url(&self.url)
            .attribute_names(QueueAttributeName::QueueArn)
            .send()
            .await;
        if let Err(error) = &asked {
            warn!(error = %DisplayErrorContext(error), "the queue does not answer a check");
        }
        asked.is_ok()
    }

    /// Sends the wake-up of a job that has a `wake_at`.
    ///
    /// A failure is logged and counted only, since the job's `wake_at` brings it back.
    pub async fn wake(&self, job: &Job) {
        let (id, epoch) = (job.id(), job.epoch);
        let Some(wake_at) = job.wake_at else { return };
        let sent = self
            .client
            .send_message()
            .queue_url(&self.url)
            .message_body(serde_json::json!(id).to_string())
            .message_group_id(job.wake_up_group())
            .message_deduplication_id(format!("{id}/{epoch}/{}", wake_at.as_millisecond()))
            .send()
            .await;
        if let Err(error) = sent {
            self.metrics.count(Event::WakeUpsLost, 1);
            let error = DisplayErrorContext(&error);
            warn!(job.id = %id, %error, "wake-up perhaps not sent; the job is woken again at its wake_at");
        }
    }
}
