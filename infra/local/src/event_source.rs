//! SQS as Lambda's event source: one message at a time of each message group, several groups at once.
//!
//! The queue itself keeps the FIFO order: it does not deliver a message while another one of its group is in flight.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time;

use crate::clients::REGION;
use crate::lambda::{Function, Slot};

/// The time that one receive waits for a message. SQS allows 20 s, but this queue does not notify a waiting receive
/// when a message becomes a dead letter and no longer blocks its group. So the receive is repeated as often as the
/// queue checks its time-outs.
const WAIT_SECONDS: i32 = 1;
/// The pause after a receive has failed.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// A queue and the function that processes its messages.
#[derive(Debug, Clone)]
pub struct EventSource {
    pub sqs: aws_sdk_sqs::Client,
    pub queue_url: String,
    pub queue_arn: String,
    pub function: Function,
}

impl EventSource {
    /// Polls until the function is stopped. Dropping the future ends the polling but not the running invocations.
    pub async fn poll(self) {
        // The slot comes first, because a message that waits for one would use up its visibility time-out.
        while let Ok(slot) = self.function.slot().await {
            match self.receive().await {
                Ok(Some(message)) => {
                    let source = self.clone();
                    tokio::spawn(async move { source.deliver(message, slot).await });
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(error = %error, "receiving from the jobs queue failed; trying again in 1 s");
                    time::sleep(PAUSE_AFTER_ERROR).await;
                }
            }
        }
    }

    async fn receive(&self) -> Result<Option<Message>, aws_sdk_sqs::Error> {
        let received = self
            .sqs
            .receive_message()
            .queue_url(&self.queue_url)
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .max_number_of_messages(1)
            .wait_time_seconds(WAIT_SECONDS)
            .send()
            .await?;
        Ok(received.messages.and_then(|mut messages| messages.pop()))
    }

    /// Invokes the function with one message and deletes the message if that succeeds. Otherwise the queue delivers it
    /// again after its visibility time-out, and moves it to the dead-letter queue after its last receive.
    async fn deliver(&self, message: Message, slot: Slot) {
        let message_id = message.message_id().unwrap_or_default();
        let event = sqs_event(&message, &self.queue_arn);
        let attributes = message.attributes.as_ref();
        let trace = attributes.and_then(|attributes| attributes.get(&MessageSystemAttributeName::AwsTraceHeader));
        let invocation = self
            .function
            .invoke_in(slot, event.to_string(), trace.map(String::as_str));
        match invocation.await {
            Ok(answer) if reports_failure(&answer, message_id) => {
                tracing::warn!(
                    sqs.message_id = message_id,
                    "the function reported a message as failed; the queue delivers it again"
                );
            }
            Ok(_) => self.delete(&message).await,
            Err(error) => tracing::warn!(
                sqs.message_id = message_id,
                function.name = self.function.name(),
                error = %error,
                "a message was not processed; the queue delivers it again"
            ),
        }
    }

    /// Deletes a processed message. If that fails, the message is delivered again, which the function has to tolerate
    /// anyway.
    async fn delete(&self, message: &Message) {
        let deleted = self
            .sqs
            .delete_message()
            .queue_url(&self.queue_url)
            .set_receipt_handle(message.receipt_handle.clone())
            .send()
            .await;
        if let Err(error) = deleted {
            let error = aws_sdk_sqs::Error::from(error);
            tracing::warn!(error = %error, "a processed message could not be deleted; the queue delivers it again");
        }
    }
}

/// Returns the event that Lambda makes of a message.
fn sqs_event(message: &Message, queue_arn: &str) -> Value {
    let attributes: BTreeMap<&str, &str> = message
        .attributes()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    json!({
        "Records": [{
            "messageId": message.message_id(),
            "receiptHandle": message.receipt_handle(),
            "body": message.body(),
            "md5OfBody": message.md5_of_body(),
            "attributes": attributes,
            "messageAttributes": {},
            "eventSource": "aws:sqs",
            "eventSourceARN": queue_arn,
            "awsRegion": REGION,
        }]
    })
}

/// Returns true if the answer reports the message as failed. As in Lambda, an empty or missing list means success; an
/// entry without an id, or an answer that cannot be read, means that all messages failed.
/// <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>
fn reports_failure(answer: &[u8], message_id: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        batch_item_failures: Option<Vec<Failure>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Failure {
        item_identifier: Option<String>,
    }
    if answer.is_empty() {
        return false;
    }
    let Ok(answer) = serde_json::from_slice::<Option<Answer>>(answer) else {
        return true;
    };
    answer
        .and_then(|answer| answer.batch_item_failures)
        .unwrap_or_default()
        .iter()
        .any(|failure| match failure.item_identifier.as_deref() {
            None | Some("") => true,
            Some(identifier) => identifier == message_id,
        })
}

#[cfg(test)]
mod tests {
    use aws_lambda_events::sqs::SqsEvent;
    use aws_sdk_sqs::types::QueueAttributeName;

    use super::*;
    use tokio::task::JoinSet;

    use crate::queue::Queue;
    use crate::resources::{self, Names, QueueUrls};
    use crate::{clients, lambda};

    /// A queue and its event source, with a function that does what its messages say.
    struct PolledQueue {
        sqs: aws_sdk_sqs::Client,
        urls: QueueUrls,
        _polling: JoinSet<()>,
        _queue: Queue,
    }

    impl PolledQueue {
        async fn start(visibility: Duration) -> PolledQueue {
            let queue = Queue::start().unwrap();
            let sqs = clients::sqs(queue.endpoint());
            let names = Names::default();
            let urls = resources::create_queues(&sqs, &names, visibility).await.unwrap();
            let arn = resources::queue_arn(&sqs, &names.jobs_queue, &urls.jobs).await.unwrap();
            let source = EventSource {
                sqs: sqs.clone(),
                queue_url: urls.jobs.clone(),
                queue_arn: arn,
                function: lambda::tests::function(Duration::from_secs(20)),
            };
            PolledQueue {
                _polling: JoinSet::from_iter([source.poll()]),
                _queue: queue,
                sqs,
                urls,
            }
        }

        async fn send(&self, body: &str) {
            self.sqs
                .send_message()
                .queue_url(&self.urls.jobs)
                .message_body(body)
                .message_group_id("page-1")
                .message_deduplication_id(body)
                .send()
                .await
                .unwrap();
        }

        /// Returns the number of messages in the queue, including those in flight.
        async fn remaining(&self) -> u32 {
            let counts = [
                QueueAttributeName::ApproximateNumberOfMessages,
                QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            ];
            let request = self.sqs.get_queue_attributes().queue_url(&self.urls.jobs);
            let answer = request.set_attribute_names(Some(counts.to_vec())).send().await.unwrap();
            let attributes = answer.attributes.unwrap();
            counts
                .iter()
                .map(|count| attributes[count].parse::<u32>().unwrap())
                .sum()
        }
    }

    #[tokio::test]
    async fn processed_message_is_deleted() {
        let polled = PolledQueue::start(Duration::from_secs(30)).await;

        polled.send("hello").await;

        while polled.remaining().await > 0 {
            time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn message_becomes_a_dead_letter_after_its_last_crash() {
        let polled = PolledQueue::start(Duration::ZERO).await;

        polled.send("exit").await;

        let dead = polled.sqs.receive_message().queue_url(&polled.urls.dead_letters);
        let dead = dead.wait_time_seconds(20).send().await.unwrap();
        assert_eq!(dead.messages()[0].body(), Some("exit"));
    }

    #[test]
    fn event_deserializes_as_an_sqs_event() {
        let message = Message::builder()
            .message_id("id-1")
            .receipt_handle("handle")
            .body("{}")
            .md5_of_body("99914b932bd37a50b983c5e7c90ae93b")
            .attributes(MessageSystemAttributeName::ApproximateReceiveCount, "2")
            .attributes(MessageSystemAttributeName::MessageGroupId, "page-1")
            .build();

        let event = sqs_event(&message, "arn:aws:sqs:us-east-1:000000000000:jobs.fifo");

        let event: SqsEvent = serde_json::from_value(event).unwrap();
        let record = &event.records[0];
        assert_eq!(record.message_id.as_deref(), Some("id-1"));
        assert_eq!(record.body.as_deref(), Some("{}"));
        assert_eq!(record.attributes["ApproximateReceiveCount"], "2");
        assert_eq!(record.attributes["MessageGroupId"], "page-1");
        assert_eq!(record.aws_region.as_deref(), Some("us-east-1"));
    }

    #[test]
    fn message_failed_if_named_or_if_the_answer_is_unreadable() {
        let named = br#"{"batchItemFailures":[{"itemIdentifier":"id-1"}]}"#;
        assert!(reports_failure(named, "id-1"));
        assert!(!reports_failure(named, "id-2"));
        assert!(reports_failure(
            br#"{"batchItemFailures":[{"itemIdentifier":""}]}"#,
            "id-2"
        ));
        for success in [
            "null",
            "{}",
            "",
            r#"{"batchItemFailures":[]}"#,
            r#"{"batchItemFailures":null}"#,
        ] {
            assert!(!reports_failure(success.as_bytes(), "id-1"), "{success}");
        }
        for unreadable in [r#"{"batchItemFailures":"id-1"}"#, r#""done""#, "<html>"] {
            assert!(reports_failure(unreadable.as_bytes(), "id-1"), "{unreadable}");
        }
    }
}
