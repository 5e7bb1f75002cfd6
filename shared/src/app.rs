//! What every function is made of: its configuration and its clients, made once per process.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;

use crate::clock::Clock;
use crate::config::{Config, ConfigError};
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::secrets::{self, Secrets};
use crate::store::Store;

/// The parts of a running function.
#[derive(Clone)]
pub struct App {
    /// What the environment said.
    pub config: Config,
    /// The three tables.
    pub store: Store,
    /// The queue of hints.
    pub queue: Queue,
    /// Page access tokens, and what the app and Meta both know.
    pub secrets: Secrets,
    /// What has been counted, for each function to print at the end of an invocation.
    pub metrics: Metrics,
    /// What time it is.
    pub clock: Clock,
}

/// Why a function cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A variable is missing or wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file of secrets cannot be used.
    #[error(transparent)]
    Secrets(#[from] secrets::Error),
}

impl App {
    /// The function as this process's environment describes it.
    pub async fn from_env() -> Result<Self, StartError> {
        let config = Config::from_env()?;
        // 2 s × 3 attempts: a lost answer is asked for again while the invocation still has time.
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(Duration::from_secs(2))
            .build();
        let aws = aws_config::defaults(BehaviorVersion::latest())
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .timeout_config(timeouts)
            .load()
            .await;
        let dynamodb = aws_sdk_dynamodb::Client::new(&aws);
        let sqs = aws_sdk_sqs::Client::new(&aws);
        let ssm = aws_sdk_ssm::Client::new(&aws);
        Self::new(config, dynamodb, sqs, ssm, Clock::default())
    }

    /// The function as told.
    pub fn new(
        config: Config,
        dynamodb: aws_sdk_dynamodb::Client,
        sqs: aws_sdk_sqs::Client,
        ssm: aws_sdk_ssm::Client,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let metrics = Metrics::new(config.metrics_namespace.clone());
        Ok(Self {
            store: Store::new(dynamodb, &config, metrics.clone()),
            queue: Queue::new(sqs, &config, metrics.clone()),
            metrics,
            secrets: Secrets::new(&config, ssm, clock.clone())?,
            clock,
            config,
        })
    }

    /// What is left of an invocation that Lambda ends at this time, in milliseconds of the epoch.
    pub fn time_left(deadline: u64) -> Duration {
        let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
        Duration::from_millis(deadline.saturating_sub(now))
    }
}
