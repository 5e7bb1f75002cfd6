//! What every function is made of: its configuration and its clients, made once per process.

use std::path::PathBuf;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use secrecy::SecretString;
use tracing::warn;

use crate::clock::Clock;
use crate::config::{Config, ConfigError};
use crate::ids::PageId;
use crate::queue::Queue;
use crate::store::Store;
use crate::tokens::{self, Tokens};

/// The parts of a running function.
#[derive(Clone)]
pub struct App {
    /// What the environment said.
    pub config: Config,
    /// The three tables.
    pub store: Store,
    /// The queue of hints.
    pub queue: Queue,
    /// Page access tokens, as they were at start.
    tokens: Tokens,
    /// The app's secret, if calls are to be proved and webhooks are to be verified.
    pub app_secret: Option<SecretString>,
    /// What Meta must know to subscribe to webhooks for us.
    pub webhook_verify_token: Option<SecretString>,
    /// What time it is.
    pub clock: Clock,
}

/// Why a function cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A variable is missing or wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There are no Page tokens.
    #[error(transparent)]
    Tokens(#[from] tokens::Error),
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
        Self::new(config, dynamodb, sqs, Clock::default())
    }

    /// The function as told.
    pub fn new(
        config: Config,
        dynamodb: aws_sdk_dynamodb::Client,
        sqs: aws_sdk_sqs::Client,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let secret = |path: &Option<PathBuf>| path.as_deref().map(tokens::read_secret).transpose();
        Ok(Self {
            store: Store::new(dynamodb, &config),
            queue: Queue::new(sqs, &config),
            tokens: Tokens::read(&config.page_tokens)?,
            app_secret: secret(&config.app_secret)?,
            webhook_verify_token: secret(&config.webhook_verify_token)?,
            clock,
            config,
        })
    }

    /// The token of a Page, as it is now: the operator may have given a new one.
    pub fn token(&self, page_id: &PageId) -> Option<SecretString> {
        match Tokens::read(&self.config.page_tokens) {
            Ok(tokens) => tokens.of(page_id).cloned(),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn!(error, "Page tokens as they were at start");
                self.tokens.of(page_id).cloned()
            }
        }
    }

    /// What is left of an invocation that Lambda ends at this time, in milliseconds of the epoch.
    pub fn time_left(deadline: u64) -> Duration {
        let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
        Duration::from_millis(deadline.saturating_sub(now))
    }
}
