//! The configuration and the clients that every function needs, built once per process.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

use crate::runtime::clock::Clock;
use crate::runtime::config::{Config, ConfigError};
use crate::runtime::metrics::Metrics;
use crate::runtime::parameters::{ATTEMPT_TIMEOUT, ATTEMPTS, ParameterClient};
use crate::runtime::queue::Queue;
use crate::runtime::secrets::{self, Secrets};
use crate::store::Store;

/// The time after which a connection to DynamoDB or SQS is not used again. It is shorter than the time for which any server,
/// load balancer or address translation keeps an idle one, so that the connections of a process that was frozen between two
/// invocations are not found dead one after the other, each at the cost of an attempt.
const IDLE_CONNECTION: Duration = Duration::from_secs(20);

/// The parts of a running function.
#[derive(Clone)]
pub struct App {
    /// The environment's configuration.
    pub config: Config,
    /// The three tables.
    pub store: Store,
    /// The queue of wake-ups.
    pub queue: Queue,
    /// Page access tokens, the app's secret and the webhooks' verify token.
    pub secrets: Secrets,
    /// Counters, which each function prints at the end of an invocation.
    pub metrics: Metrics,
    /// The wall clock.
    pub clock: Clock,
}

/// The reason why a function cannot start.
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
    /// Builds the parts from this process's environment.
    ///
    /// # Errors
    ///
    /// [`StartError::Config`] if a variable is missing or wrong, [`StartError::Secrets`] if a file of secrets cannot be used.
    pub async fn from_env() -> Result<Self, StartError> {
        let config = Config::from_env()?;
        // 2 s × 3 attempts: a call whose answer is lost is repeated while the invocation still has time.
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .build();
        // Otherwise the SDK's own client.
        let http_client = Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .pool_idle_timeout(IDLE_CONNECTION)
            .build_https();
        let aws = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http_client)
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(timeouts)
            // The time-outs end a call that stalls.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .load()
            .await;
        let dynamodb = aws_sdk_dynamodb::Client::new(&aws);
        let sqs = aws_sdk_sqs::Client::new(&aws);
        let parameters = ParameterClient::new(&aws);
        Self::new(config, dynamodb, sqs, parameters, Clock::default())
    }

    /// Builds the parts from a configuration and clients.
    ///
    /// # Errors
    ///
    /// [`StartError::Secrets`] if a file of secrets cannot be used.
    pub fn new(
        config: Config,
        dynamodb: aws_sdk_dynamodb::Client,
        sqs: aws_sdk_sqs::Client,
        parameters: ParameterClient,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let metrics = Metrics::new(config.metrics_namespace.clone());
        Ok(Self {
            store: Store::new(dynamodb, &config, metrics.clone()),
            queue: Queue::new(sqs, &config, metrics.clone()),
            metrics,
            secrets: Secrets::new(&config, parameters, clock.clone())?,
            clock,
            config,
        })
    }

    /// Returns the time left of an invocation at its beginning, whose deadline is given in milliseconds since the Unix epoch,
    /// and whose time-out is `timeout` at most.
    ///
    /// A deadline that has passed already, or is farther off than the time-out, is that of a clock that differs from this
    /// process's. Without time left a worker would hand its job over at once, and the next worker, too.
    pub fn time_left(deadline: u64, timeout: Duration) -> Duration {
        let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
        match Duration::from_millis(deadline.saturating_sub(now)) {
            Duration::ZERO => timeout,
            left => left.min(timeout),
        }
    }
}
