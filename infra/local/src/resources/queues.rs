//! The queues: the jobs queue and its dead-letter queue.

use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;

use super::error::ResourcesError;
use super::names::Names;

/// The number of receives after which a message goes to the dead-letter queue.
const MAX_RECEIVES: u32 = 5;

/// The URLs of the queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueUrls {
    /// The queue of wake-ups.
    pub jobs: String,
    /// The queue of wake-ups that failed too often.
    pub dead_letters: String,
}

/// Creates the jobs queue and its dead-letter queue. The `visibility` time-out must exceed the longest invocation, or a
/// message is delivered again while its first invocation still works on it.
///
/// # Errors
///
/// Fails if SQS cannot be reached or refuses a queue.
pub async fn create_queues(
    sqs: &aws_sdk_sqs::Client,
    names: &Names,
    visibility: Duration,
) -> Result<QueueUrls, ResourcesError> {
    let dead_letters = create_fifo_queue(sqs, &names.dead_letters, []).await?;
    let dead_letters_arn = queue_arn(sqs, &names.dead_letters, &dead_letters).await?;
    let redrive = serde_json::json!({
        "deadLetterTargetArn": dead_letters_arn,
        "maxReceiveCount": MAX_RECEIVES,
    });
    let attributes = [
        (QueueAttributeName::VisibilityTimeout, visibility.as_secs().to_string()),
        (QueueAttributeName::RedrivePolicy, redrive.to_string()),
        (QueueAttributeName::DeduplicationScope, "messageGroup".to_owned()),
        (QueueAttributeName::FifoThroughputLimit, "perMessageGroupId".to_owned()),
    ];
    let jobs = create_fifo_queue(sqs, &names.jobs_queue, attributes).await?;
    let jobs_arn = queue_arn(sqs, &names.jobs_queue, &jobs).await?;
    allow_only_source(sqs, &names.dead_letters, &dead_letters, &jobs_arn).await?;
    Ok(QueueUrls { jobs, dead_letters })
}

/// Lets no other queue than the source use a dead-letter queue.
async fn allow_only_source(
    sqs: &aws_sdk_sqs::Client,
    name: &str,
    url: &str,
    source_arn: &str,
) -> Result<(), ResourcesError> {
    let allowed = serde_json::json!({
        "redrivePermission": "byQueue",
        "sourceQueueArns": [source_arn],
    });
    let set = sqs
        .set_queue_attributes()
        .queue_url(url)
        .attributes(QueueAttributeName::RedriveAllowPolicy, allowed.to_string())
        .send()
        .await;
    set.map(drop).map_err(|error| ResourcesError::Queue {
        queue: name.to_owned(),
        source: Box::new(error.into()),
    })
}

async fn create_fifo_queue(
    sqs: &aws_sdk_sqs::Client,
    name: &str,
    attributes: impl IntoIterator<Item = (QueueAttributeName, String)>,
) -> Result<String, ResourcesError> {
    let fifo = [
        (QueueAttributeName::FifoQueue, "true".to_owned()),
        (QueueAttributeName::ContentBasedDeduplication, "false".to_owned()),
    ];
    let created = sqs
        .create_queue()
        .queue_name(name)
        .set_attributes(Some(fifo.into_iter().chain(attributes).collect()))
        .send()
        .await
        .map_err(|error| ResourcesError::Queue {
            queue: name.to_owned(),
            source: Box::new(error.into()),
        })?;
    created.queue_url.ok_or_else(|| ResourcesError::Incomplete {
        queue: name.to_owned(),
        missing: "URL",
    })
}

/// Returns the ARN of a queue, which identifies it in events and redrive policies.
///
/// # Errors
///
/// Fails if SQS cannot be reached or does not know the queue.
pub async fn queue_arn(sqs: &aws_sdk_sqs::Client, name: &str, url: &str) -> Result<String, ResourcesError> {
    let answer = sqs
        .get_queue_attributes()
        .queue_url(url)
        .attribute_names(QueueAttributeName::QueueArn)
        .send()
        .await
        .map_err(|error| ResourcesError::Queue {
            queue: name.to_owned(),
            source: Box::new(error.into()),
        })?;
    answer
        .attributes
        .and_then(|mut attributes| attributes.remove(&QueueAttributeName::QueueArn))
        .ok_or_else(|| ResourcesError::Incomplete {
            queue: name.to_owned(),
            missing: "ARN",
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients;
    use crate::queue::Queue;

    #[tokio::test]
    async fn message_becomes_a_dead_letter_after_five_receives() {
        let queue = Queue::start().unwrap();
        let sqs = clients::sqs(queue.endpoint());
        let urls = create_queues(&sqs, &Names::default(), Duration::ZERO).await.unwrap();
        sqs.send_message()
            .queue_url(&urls.jobs)
            .message_body("wake-up")
            .message_group_id("page")
            .message_deduplication_id("once")
            .send()
            .await
            .unwrap();

        for _ in 0..=MAX_RECEIVES {
            sqs.receive_message().queue_url(&urls.jobs).send().await.unwrap();
        }

        let dead = sqs.receive_message().queue_url(&urls.dead_letters).wait_time_seconds(2);
        assert_eq!(dead.send().await.unwrap().messages().len(), 1);
    }
}
