//! The AWS services of the system: the database and the queue, with the tables and queues in them.

use std::io;
use std::path::Path;

use shared::runtime::clock::Clock;

use super::error::StackError;
use super::settings::Settings;
use crate::calls::{CallLog, LoggingProxy};
use crate::clients;
use crate::data_dir::DataDir;
use crate::database::{Database, Reads, Storage};
use crate::queue::Queue;
use crate::resources::{self, Names, QueueUrls};

/// The running services.
#[derive(Debug)]
pub struct Services {
    pub names: Names,
    pub queue_urls: QueueUrls,
    /// The ARN of the jobs queue.
    pub queue_arn: String,
    pub dynamodb: aws_sdk_dynamodb::Client,
    pub sqs: aws_sdk_sqs::Client,
    // The remaining fields are dropped in this order: the data directory may be unlocked only after the database is
    // closed.
    proxies: Option<[LoggingProxy; 2]>,
    queue: Queue,
    database: Database,
    data: Option<DataDir>,
}

impl Services {
    /// Starts the database, with the tables of the data directory or with empty ones, and an empty queue.
    ///
    /// # Errors
    ///
    /// Fails if the data directory cannot be used, if a service does not start, or if the log of calls cannot be
    /// written.
    pub async fn start(settings: &Settings, data: Option<DataDir>) -> Result<Services, StackError> {
        let names = Names::default();
        let reads = match settings.lagging_reads {
            true => Reads::Lagging(Clock::default()),
            false => Reads::Current,
        };
        let database = match &data {
            Some(data) => data.start_database(&names, reads).await?,
            None => {
                let database = Database::start(reads)?;
                resources::create_tables(&clients::dynamodb(database.endpoint()), &names).await?;
                database
            }
        };
        let queue = Queue::start().map_err(StackError::Queue)?;
        let sqs = clients::sqs(queue.endpoint());
        let visibility = settings.process_timeout + settings.visibility_margin;
        let queue_urls = resources::create_queues(&sqs, &names, visibility).await?;
        let queue_arn = resources::queue_arn(&sqs, &names.jobs_queue, &queue_urls.jobs).await?;
        let proxies = settings.log_calls.as_ref().map(|path| {
            let endpoints = [database.endpoint(), queue.endpoint()];
            start_proxies(path, endpoints).map_err(|source| StackError::LogCalls {
                path: path.clone(),
                source,
            })
        });
        Ok(Services {
            names,
            queue_urls,
            queue_arn,
            dynamodb: clients::dynamodb(database.endpoint()),
            sqs,
            proxies: proxies.transpose()?,
            queue,
            database,
            data,
        })
    }

    /// Returns the base URL of DynamoDB.
    pub fn database_endpoint(&self) -> &str {
        self.database.endpoint()
    }

    /// Returns the base URL of SQS.
    pub fn queue_endpoint(&self) -> &str {
        self.queue.endpoint()
    }

    /// Returns the base URLs of DynamoDB and SQS for the functions: those of the logging proxies, if calls are logged.
    pub fn endpoints_for_functions(&self) -> [&str; 2] {
        match &self.proxies {
            Some(proxies) => proxies.each_ref().map(LoggingProxy::endpoint),
            None => [self.database.endpoint(), self.queue.endpoint()],
        }
    }

    /// Returns the state of the disk below the database.
    pub fn storage(&self) -> &Storage {
        self.database.storage()
    }

    /// Returns true if the data is kept from one start to the next.
    pub fn are_persistent(&self) -> bool {
        self.data.is_some()
    }
}

/// Starts logging proxies of DynamoDB and SQS that write to one file.
fn start_proxies(path: &Path, [dynamodb, sqs]: [&str; 2]) -> io::Result<[LoggingProxy; 2]> {
    let log = CallLog::open(path)?;
    Ok([
        LoggingProxy::start(dynamodb, log.clone())?,
        LoggingProxy::start(sqs, log)?,
    ])
}
