//! The error of creating a table or queue.

/// Failure to create a table or queue, or to read its description.
#[derive(Debug, thiserror::Error)]
pub enum ResourcesError {
    #[error("the table `{table}` could not be created")]
    Table {
        table: String,
        #[source]
        source: Box<aws_sdk_dynamodb::Error>,
    },
    #[error("the queue `{queue}` could not be created")]
    Queue {
        queue: String,
        #[source]
        source: Box<aws_sdk_sqs::Error>,
    },
    #[error("the queue `{queue}` was created, but SQS did not return its {missing}")]
    Incomplete { queue: String, missing: &'static str },
}
