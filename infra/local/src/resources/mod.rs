//! The tables and queues that the functions need, made through the AWS SDK: the local twin of the AWS template.

mod queues;
mod tables;

pub use self::queues::{QueueUrls, create_queues, queue_arn};
pub use self::tables::create_tables;

/// Why a table or queue could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the table definition `{table}` is incomplete")]
    Definition {
        table: String,
        #[source]
        source: aws_sdk_dynamodb::error::BuildError,
    },
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
