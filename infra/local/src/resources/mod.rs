//! The tables and queues that the functions need, made through the AWS SDK: the local twin of the AWS template.

mod tables;

use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;

pub use self::tables::{create_missing_indexes, create_tables};

/// How often a message may be received before it goes to the dead-letter queue.
const MAX_RECEIVES: u32 = 5;

/// Why a table or queue could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the table `{table}` could not be made")]
    Table {
        table: String,
        #[source]
        source: Box<aws_sdk_dynamodb::Error>,
    },
    #[error("the queue `{queue}` could not be made")]
    Queue {
        queue: String,
        #[source]
        source: Box<aws_sdk_sqs::Error>,
    },
    #[error("the queue `{queue}` was made, but has no {what}")]
    Incomplete { queue: String, what: &'static str },
}

/// What tables and queues are called. Queue names end in `.fifo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Broadcasts, jobs, segments, request keys and Page leases.
    pub broadcasts: String,
    /// A row per contact and job.
    pub deliveries: String,
    /// Who can be sent to.
    pub contacts: String,
    /// Hints to look at a job.
    pub jobs_queue: String,
    /// Hints that failed too often.
    pub dead_letters: String,
}

impl Names {
    /// Names that begin alike, so that several stacks can share one account.
    pub fn with_prefix(prefix: &str) -> Names {
        Names {
            broadcasts: format!("{prefix}-broadcasts"),
            deliveries: format!("{prefix}-deliveries"),
            contacts: format!("{prefix}-contacts"),
            jobs_queue: format!("{prefix}-jobs.fifo"),
            dead_letters: format!("{prefix}-jobs-dead.fifo"),
        }
    }
}

impl Default for Names {
    fn default() -> Names {
        Names::with_prefix("oncecast")
    }
}

/// Where the queues are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueUrls {
    /// Hints to look at a job.
    pub jobs: String,
    /// Hints that failed too often.
    pub dead_letters: String,
}

/// Makes the jobs queue and its dead-letter queue. `visibility` must outlast the longest invocation,
/// or a message comes back while its first invocation still works on it.
pub async fn create_queues(
    sqs: &aws_sdk_sqs::Client,
    names: &Names,
    visibility: Duration,
) -> Result<QueueUrls, Error> {
    let dead_letters = create_fifo_queue(sqs, &names.dead_letters, []).await?;
    let dead_letters_arn = queue_arn(sqs, &names.dead_letters, &dead_letters).await?;
    let redrive = serde_json::json!({
        "deadLetterTargetArn": dead_letters_arn,
        "maxReceiveCount": MAX_RECEIVES,
    });
    let attributes = [
        (
            QueueAttributeName::VisibilityTimeout,
            visibility.as_secs().to_string(),
        ),
        (QueueAttributeName::RedrivePolicy, redrive.to_string()),
    ];
    let jobs = create_fifo_queue(sqs, &names.jobs_queue, attributes).await?;
    Ok(QueueUrls { jobs, dead_letters })
}

async fn create_fifo_queue(
    sqs: &aws_sdk_sqs::Client,
    name: &str,
    attributes: impl IntoIterator<Item = (QueueAttributeName, String)>,
) -> Result<String, Error> {
    let fifo = [
        (QueueAttributeName::FifoQueue, "true".to_owned()),
        (
            QueueAttributeName::ContentBasedDeduplication,
            "false".to_owned(),
        ),
    ];
    let created = sqs
        .create_queue()
        .queue_name(name)
        .set_attributes(Some(fifo.into_iter().chain(attributes).collect()))
        .send()
        .await
        .map_err(|error| Error::Queue {
            queue: name.to_owned(),
            source: Box::new(error.into()),
        })?;
    created.queue_url.ok_or_else(|| Error::Incomplete {
        queue: name.to_owned(),
        what: "URL",
    })
}

/// The ARN of a queue, by which events and redrive policies name it.
pub async fn queue_arn(sqs: &aws_sdk_sqs::Client, name: &str, url: &str) -> Result<String, Error> {
    let answer = sqs
        .get_queue_attributes()
        .queue_url(url)
        .attribute_names(QueueAttributeName::QueueArn)
        .send()
        .await
        .map_err(|error| Error::Queue {
            queue: name.to_owned(),
            source: Box::new(error.into()),
        })?;
    answer
        .attributes
        .and_then(|mut attributes| attributes.remove(&QueueAttributeName::QueueArn))
        .ok_or_else(|| Error::Incomplete {
            queue: name.to_owned(),
            what: "ARN",
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients;
    use crate::queue::Queue;

    #[tokio::test]
    async fn a_message_received_five_times_goes_to_the_dead_letters() {
        let queue = Queue::start().unwrap();
        let sqs = clients::sqs(queue.endpoint());
        let urls = create_queues(&sqs, &Names::default(), Duration::ZERO)
            .await
            .unwrap();
        sqs.send_message()
            .queue_url(&urls.jobs)
            .message_body("hint")
            .message_group_id("page")
            .message_deduplication_id("once")
            .send()
            .await
            .unwrap();

        for _ in 0..=MAX_RECEIVES {
            sqs.receive_message()
                .queue_url(&urls.jobs)
                .send()
                .await
                .unwrap();
        }

        let dead = sqs
            .receive_message()
            .queue_url(&urls.dead_letters)
            .wait_time_seconds(2);
        assert_eq!(dead.send().await.unwrap().messages().len(), 1);
    }
}
