//! The whole system as one value: database, queue, functions, gateway, event source, schedule and sandbox.

mod error;
mod functions;
mod services;
mod settings;
mod template;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use client::Client;
use console::Entry;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use shared::domain::sending::{SendingChanged, SendingSwitch};
use shared::runtime::config::Config;
use shared::runtime::metrics::Metrics;
use shared::runtime::queue;
use shared::store::Store;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use self::functions::{Functions, environment, variable};
use self::services::Services;
use crate::data_dir::DataDir;
use crate::event_source::EventSource;
use crate::gateway::{self, Api, ApiTokens, Callers, JwtAuthorizer};
use crate::lambda::Function;
use crate::messenger::MessengerEndpoint;
use crate::notify::Notifier;
use crate::recovery;
use crate::resources::{Names, QueueUrls};
use crate::sandbox::Sandbox;
use crate::schedule;
use crate::secrets::SharedSecrets;
use crate::server::{self, HostNames, Server};

pub use self::error::StackError;
pub use self::functions::{SCHEDULED_TIMEOUT, SEND_TIMEOUT};
pub use self::settings::Settings;

/// The time that running invocations get to finish when the system stops.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// The limit for the API's first answer.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// The number of health checks within that time. Each waits for the function's process, so further ones would only
/// repeat its error.
const READY_ATTEMPTS: u32 = 3;

/// The path of the API to which Messenger posts its webhooks.
const WEBHOOKS: &str = "/v1/webhooks/messenger";

/// The running system.
#[derive(Debug)]
pub struct Stack {
    // Fields are dropped in this order: the sources of work first, and last the services that store its results.
    work_sources: JoinSet<()>,
    gateway: Server,
    functions: Functions,
    messenger: MessengerEndpoint,
    services: Services,
    secrets: Option<SharedSecrets>,
}

impl Stack {
    /// Starts the system, with the data of the data directory or with empty tables, and in any case with empty queues.
    ///
    /// # Errors
    ///
    /// Fails if the settings are not valid, if the port or the data directory is in use, or if a part does not start.
    pub async fn start(settings: Settings) -> Result<Stack, StackError> {
        // The steps that depend on the operator's input come first.
        let messenger = MessengerEndpoint::choose(settings.graph_url.clone(), settings.page_tokens.clone()).await?;
        let secrets = share_secrets(&settings, messenger.sandbox.as_ref())?;
        let callers = callers(&settings)?;
        let data = settings.data.as_deref().map(DataDir::take).transpose()?;
        // After the directory is there: it may be the place of the secret.
        let notifier = settings.notify.as_ref().map(Notifier::new).transpose()?;
        let listener = listen(settings.port).await?;

        let services = Services::start(&settings, data).await?;
        let env = environment(&settings, &services, &messenger, secrets.as_ref());
        let functions = Functions::new(&settings, &env);
        let api = Api {
            function: functions.send.clone(),
            callers: callers.map(Arc::new),
            storage: services.storage().clone(),
        };
        let names = HostNames::new(&settings.allow_hosts);
        let failed = |source| StackError::Listen {
            port: settings.port,
            source,
        };
        let console = console(&api, listener.local_addr().map_err(failed)?, messenger.sandbox.as_ref())?;
        let gateway = gateway::start(listener, names, api, console).map_err(failed)?;
        let work_sources = start_work(&settings, &services, &functions, &env, notifier).await?;
        Ok(Stack {
            work_sources,
            gateway,
            functions,
            messenger,
            services,
            secrets,
        })
    }

    /// Waits until `GET /v1/health` is answered with a success.
    ///
    /// # Errors
    ///
    /// Fails with [`StackError::NotReady`] if the API does not answer within 30 s, or answers three times with an
    /// error.
    pub async fn ready(&self) -> Result<(), StackError> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .map_err(StackError::HealthCheck)?;
        let health = format!("{}/v1/health", self.api_url());
        let give_up = Instant::now() + READY_WITHIN;
        for _ in 0..READY_ATTEMPTS {
            let left = give_up.saturating_duration_since(Instant::now());
            let answer = http.get(&health).timeout(left).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
        }
        Err(StackError::NotReady)
    }

    /// Subscribes the API to the webhooks of the sandbox, if there is one, after the API has answered the verification.
    ///
    /// # Errors
    ///
    /// Fails if the API does not answer the verification.
    pub async fn subscribe_to_sandbox(&self) -> Result<(), StackError> {
        let (Some(sandbox), Some(secrets)) = (&self.messenger.sandbox, &self.secrets) else {
            return Ok(());
        };
        let webhooks = format!("{}{WEBHOOKS}", self.api_url());
        let app_secret = secrets.app_secret.value.expose_secret();
        let verify_token = secrets.verify_token.value.expose_secret();
        sandbox
            .verify_and_subscribe(&webhooks, app_secret, verify_token)
            .await
            .map_err(StackError::Subscribe)
    }

    /// Stops the sources of work, gives running invocations a few seconds to finish, and ends all parts.
    pub async fn stop(mut self) {
        self.work_sources.shutdown().await;
        self.functions.stop(STOP_GRACE).await;
    }

    /// Returns the base URL of the HTTP API.
    pub fn api_url(&self) -> String {
        format!("http://{}", self.gateway.address())
    }

    /// Returns the base URL of DynamoDB.
    pub fn database_endpoint(&self) -> &str {
        self.services.database_endpoint()
    }

    /// Returns the base URL of SQS.
    pub fn queue_endpoint(&self) -> &str {
        self.services.queue_endpoint()
    }

    /// Returns the names of the tables and queues.
    pub fn names(&self) -> &Names {
        &self.services.names
    }

    /// Returns the URLs of the queues.
    pub fn queue_urls(&self) -> &QueueUrls {
        &self.services.queue_urls
    }

    /// Returns the sandbox, or `None` if messages go to the real Messenger.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.messenger.sandbox.as_ref()
    }

    /// Returns the function behind the API.
    pub fn send(&self) -> &Function {
        &self.functions.send
    }

    /// Returns the function that works on jobs.
    pub fn process_job(&self) -> &Function {
        &self.functions.process_job
    }

    /// Returns the function that the schedule invokes.
    pub fn scheduled(&self) -> &Function {
        &self.functions.scheduled
    }
}

/// Returns the secrets that the sandbox shares with the functions, and lets the sandbox check proofs with them. Without
/// a sandbox there are none.
fn share_secrets(settings: &Settings, sandbox: Option<&Sandbox>) -> Result<Option<SharedSecrets>, StackError> {
    let Some(sandbox) = sandbox else {
        return Ok(None);
    };
    let secrets = SharedSecrets::for_sandbox(|name| variable(&settings.env, name))?;
    sandbox.check_proofs(secrets.app_secret.value.expose_secret(), false);
    Ok(Some(secrets))
}

/// Sets the switch for sending, then starts the tasks that invoke the functions: the event source, the schedule, and the
/// wake-ups of unfinished jobs if the data is persistent; and the delivery of events.
async fn start_work(
    settings: &Settings,
    services: &Services,
    functions: &Functions,
    env: &BTreeMap<String, String>,
    notifier: Option<Notifier>,
) -> Result<JoinSet<()>, StackError> {
    let event_source = EventSource {
        sqs: services.sqs.clone(),
        queue_url: services.queue_urls.jobs.clone(),
        queue_arn: services.queue_arn.clone(),
        function: functions.process_job.clone(),
    };
    let config = Config::from_variables(|name| variable(env, name))?;
    let store = Store::new(services.dynamodb.clone(), &config, Metrics::default());
    if let Some(state) = settings.sending {
        let now = Timestamp::now();
        let switch = SendingSwitch {
            state,
            reason: Some("set at the start of the stack".to_owned()),
            changed_by: None,
            changed_at: Some(now),
        };
        let change = SendingChanged { switch, page_id: None };
        store.sending().set(&change, now).await.map_err(StackError::Sending)?;
    }
    let mut work_sources = JoinSet::new();
    if services.are_persistent() {
        // The jobs are read before any function runs, so that they are those of an earlier stack.
        let jobs = recovery::unfinished(&store).await.map_err(StackError::Unfinished)?;
        let queue = queue::Queue::new(services.sqs.clone(), &config, Metrics::default());
        work_sources.spawn(recovery::wake(queue, jobs));
    }
    if let Some(notifier) = notifier {
        work_sources.spawn(notifier.run(store));
    }
    work_sources.spawn(event_source.poll());
    work_sources.spawn(schedule::run(functions.scheduled.clone(), settings.schedule_every));
    Ok(work_sources)
}

/// Returns the pages for operators. Whom the API lets in without a token, they let in, too.
fn console(api: &Api, address: SocketAddr, sandbox: Option<&Sandbox>) -> Result<Router, StackError> {
    let http = reqwest::Client::builder().no_proxy().build();
    let client = Client::new(http.map_err(StackError::HealthCheck)?, &format!("http://{address}"));
    Ok(console::router(console::Settings {
        client: client.map_err(StackError::Console)?,
        entry: match api.callers {
            Some(_) => Entry::Token,
            None => Entry::Open,
        },
        sandbox: sandbox.map(Sandbox::control_url),
    }))
}

async fn listen(port: u16) -> Result<TcpListener, StackError> {
    server::bind(port).await.map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            StackError::PortTaken { port }
        } else {
            StackError::Listen { port, source }
        }
    })
}

/// Returns the check of callers that the settings ask for.
fn callers(settings: &Settings) -> Result<Option<Callers>, StackError> {
    if let Some(jwt) = settings.jwt.clone() {
        let authorizer = JwtAuthorizer::new(jwt).map_err(StackError::Jwt)?;
        return Ok(Some(Callers::Jwt(Box::new(authorizer))));
    }
    let tokens = settings.api_tokens.as_deref().map(ApiTokens::read).transpose()?;
    Ok(tokens.map(Callers::Tokens))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messenger::MessengerError;

    #[tokio::test]
    async fn taken_port_is_named() {
        let other = server::bind(0).await.unwrap();
        let port = other.local_addr().unwrap().port();

        let error = Stack::start(Settings {
            port,
            ..Settings::default()
        })
        .await
        .unwrap_err();

        assert!(matches!(error, StackError::PortTaken { port: taken } if taken == port));
    }

    #[tokio::test]
    async fn real_messenger_requires_page_tokens() {
        let error = Stack::start(Settings {
            graph_url: Some("https://graph.facebook.com/v25.0".to_owned()),
            ..Settings::default()
        })
        .await
        .unwrap_err();

        assert!(matches!(error, StackError::Messenger(MessengerError::NoPageTokens)));
    }

    #[tokio::test]
    async fn ready_fails_early_if_functions_cannot_start() {
        let stack = Stack::start(Settings {
            executable: "false".into(),
            ..Settings::default()
        });
        let stack = stack.await.unwrap();
        let begun = Instant::now();

        let error = stack.ready().await.unwrap_err();

        assert!(matches!(error, StackError::NotReady));
        assert!(begun.elapsed() < READY_WITHIN / 3, "{:?}", begun.elapsed());
    }
}
