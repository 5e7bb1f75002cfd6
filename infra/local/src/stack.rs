//! The whole system in one value: database, queue, functions, gateway, event source, schedule and sandbox.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use shared::config::{Config, ConfigError};
use shared::metrics::Metrics;
use shared::store::{self, Store};
use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::calls::{self, Way};
use crate::clients;
use crate::data_dir::{self, DataDir};
use crate::database::{self, Database};
use crate::event_source::EventSource;
use crate::gateway;
use crate::lambda::{Definition, Function};
use crate::messenger::{self, Messenger};
use crate::queue::Queue;
use crate::recovery;
use crate::resources::{self, Names, QueueUrls};
use crate::sandbox::{Sandbox, SubscribeError};
use crate::schedule;
use crate::secrets::{self, Secrets};
use crate::server::{self, Server};

/// How long running invocations may go on when the stack stops.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long the API may take to answer for the first time.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often it is asked: an answer waits for the function's process, so asking on and on would only repeat its error.
const READY_ATTEMPTS: u32 = 3;
/// How many processes a function may have, and so how many Pages are worked on at once.
const MAX_CHILDREN: u32 = 10;
/// The `send` function has this long, on AWS too.
pub const SEND_TIMEOUT: Duration = gateway::ANSWER_TIMEOUT;
/// … and the `scheduled` function this long.
pub const SCHEDULED_TIMEOUT: Duration = Duration::from_secs(60);

/// Where the API takes Messenger's webhooks.
const WEBHOOKS: &str = "/v1/webhooks/messenger";

/// How to run the system.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The port of the API; 0 takes any free one.
    pub port: u16,
    /// Messenger's base URL, version included; none: the sandbox.
    pub graph_url: Option<String>,
    /// A JSON file of Page access tokens; may be absent only with the sandbox.
    pub page_tokens: Option<PathBuf>,
    /// The directory that keeps everything from one start to the next; none: it is kept in memory.
    pub data: Option<PathBuf>,
    /// How often `scheduled` is invoked.
    pub schedule_every: Duration,
    /// How long one invocation of `process-job` may take.
    pub process_timeout: Duration,
    /// By how much a message's visibility time-out exceeds `process_timeout`.
    pub visibility_margin: Duration,
    /// What runs as the functions' processes: an executable whose `main` is [`crate::main`].
    pub executable: PathBuf,
    /// A file for the calls that the functions make of AWS; none: nobody notes them.
    pub log_calls: Option<PathBuf>,
    /// Further variables for the functions.
    pub env: BTreeMap<String, String>,
}

impl Default for Settings {
    /// The settings of `up`, with a free port and the current executable.
    fn default() -> Settings {
        Settings {
            port: 0,
            graph_url: None,
            page_tokens: None,
            data: None,
            schedule_every: Duration::from_secs(60),
            process_timeout: Duration::from_secs(120),
            visibility_margin: Duration::from_secs(30),
            executable: std::env::current_exe().unwrap_or_default(),
            log_calls: None,
            env: BTreeMap::new(),
        }
    }
}

/// Why the system did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Data(#[from] data_dir::Error),
    #[error(transparent)]
    Database(#[from] database::Error),
    #[error("the queue cannot listen on 127.0.0.1")]
    Queue(#[source] io::Error),
    #[error(transparent)]
    Resources(#[from] resources::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the unfinished jobs cannot be found")]
    Unfinished(#[source] store::Error),
    #[error(transparent)]
    Messenger(#[from] messenger::Error),
    #[error(transparent)]
    Secrets(#[from] secrets::Error),
    #[error("calls cannot be noted in {}", path.display())]
    LogCalls {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("port {port} is taken by another program; choose another with --port")]
    PortTaken { port: u16 },
    #[error("the API cannot listen on port {port}")]
    Listen {
        port: u16,
        #[source]
        source: io::Error,
    },
    #[error("the API's health cannot be asked for")]
    HealthCheck(#[source] reqwest::Error),
    #[error("the API was not subscribed to the sandbox's webhooks")]
    Subscribe(#[source] SubscribeError),
    #[error("the API does not answer as it should; the log above says why")]
    NotReady,
}

/// The running system.
#[derive(Debug)]
pub struct Stack {
    // In the order in which they are to end: first what brings work, last what it is kept in.
    bringing_work: JoinSet<()>,
    gateway: Server,
    send: Function,
    process_job: Function,
    scheduled: Function,
    sandbox: Option<Sandbox>,
    names: Names,
    queue_urls: QueueUrls,
    _ways: Option<[Way; 2]>,
    queue: Queue,
    database: Database,
    _data: Option<DataDir>,
    _made_up_tokens: Option<NamedTempFile>,
    secrets: Option<Secrets>,
}

impl Stack {
    /// Starts everything: on what the data directory holds, or on empty tables; on empty queues in any case.
    pub async fn start(settings: Settings) -> Result<Stack, Error> {
        // What the operator can have got wrong comes first.
        let messenger = Messenger::choose(settings.graph_url, settings.page_tokens).await?;
        let given = |name: &str| {
            let own = settings.env.get(name).cloned();
            own.or_else(|| std::env::var(name).ok())
        };
        let secrets = match &messenger.sandbox {
            Some(sandbox) => {
                let secrets = Secrets::for_sandbox(given)?;
                sandbox.check_proofs(secrets.app_secret.value.expose_secret(), false);
                Some(secrets)
            }
            None => None,
        };
        let data = settings.data.as_deref().map(DataDir::take).transpose()?;
        let listener = listen(settings.port).await?;

        let names = Names::default();
        let database = match &data {
            Some(data) => data.start_database(&names).await?,
            None => {
                let database = Database::start()?;
                resources::create_tables(&clients::dynamodb(database.endpoint()), &names).await?;
                database
            }
        };
        let queue = Queue::start().map_err(Error::Queue)?;
        let sqs = clients::sqs(queue.endpoint());
        let visibility = settings.process_timeout + settings.visibility_margin;
        let queue_urls = resources::create_queues(&sqs, &names, visibility).await?;
        let queue_arn = resources::queue_arn(&sqs, &names.jobs_queue, &queue_urls.jobs).await?;

        let ways = settings.log_calls.map(|path| {
            let endpoints = [database.endpoint(), queue.endpoint()];
            ways(&path, endpoints).map_err(|source| Error::LogCalls { path, source })
        });
        let ways = ways.transpose()?;
        let [dynamodb_endpoint, sqs_endpoint] = match &ways {
            Some(ways) => ways.each_ref().map(Way::endpoint),
            None => [database.endpoint(), queue.endpoint()],
        };
        let variables = [
            ("AWS_ENDPOINT_URL_DYNAMODB", dynamodb_endpoint),
            ("AWS_ENDPOINT_URL_SQS", sqs_endpoint),
            ("BROADCASTS_TABLE", &names.broadcasts),
            ("DELIVERIES_TABLE", &names.deliveries),
            ("CONTACTS_TABLE", &names.contacts),
            ("JOBS_QUEUE_URL", &queue_urls.jobs),
            ("GRAPH_API_URL", &messenger.url),
            ("PAGE_TOKENS", &messenger.page_tokens),
        ];
        let mut env =
            BTreeMap::from(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        env.extend(settings.env);
        env.extend(secrets.iter().flat_map(Secrets::variables));
        let function = |name: &str, timeout| {
            Function::new(Definition {
                name: name.to_owned(),
                executable: settings.executable.clone(),
                args: vec!["function".to_owned(), name.to_owned()],
                env: env.clone(),
                timeout,
                max_children: MAX_CHILDREN,
            })
        };
        let send = function("send", SEND_TIMEOUT);
        let process_job = function("process-job", settings.process_timeout);
        let scheduled = function("scheduled", SCHEDULED_TIMEOUT);

        let gateway = gateway::start(listener, send.clone()).map_err(|source| Error::Listen {
            port: settings.port,
            source,
        })?;
        let event_source = EventSource {
            sqs,
            queue_url: queue_urls.jobs.clone(),
            queue_arn,
            function: process_job.clone(),
        };
        let mut bringing_work = JoinSet::new();
        if data.is_some() {
            let config = Config::from_variables(|name| {
                let own = env.get(name).cloned();
                own.or_else(|| std::env::var(name).ok())
            })?;
            let store = Store::new(
                clients::dynamodb(database.endpoint()),
                &config,
                Metrics::default(),
            );
            // Before anybody works, so that what is found is what an earlier stack left.
            let jobs = recovery::unfinished(&store)
                .await
                .map_err(Error::Unfinished)?;
            let queue =
                shared::queue::Queue::new(event_source.sqs.clone(), &config, Metrics::default());
            bringing_work.spawn(recovery::hint(queue, jobs));
        }
        bringing_work.spawn(event_source.poll());
        bringing_work.spawn(schedule::run(scheduled.clone(), settings.schedule_every));
        Ok(Stack {
            bringing_work,
            gateway,
            send,
            process_job,
            scheduled,
            sandbox: messenger.sandbox,
            names,
            queue_urls,
            _ways: ways,
            queue,
            database,
            _data: data,
            _made_up_tokens: messenger.made_up_tokens,
            secrets,
        })
    }

    /// Waits until `GET /v1/health` answers 200.
    pub async fn ready(&self) -> Result<(), Error> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .map_err(Error::HealthCheck)?;
        let health = format!("{}/v1/health", self.api_url());
        let ask_on = Instant::now() + READY_WITHIN;
        for _ in 0..READY_ATTEMPTS {
            let left = ask_on.saturating_duration_since(Instant::now());
            let answer = http.get(&health).timeout(left).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
        }
        Err(Error::NotReady)
    }

    /// Lets the sandbox, if there is one, tell the API of every message, once the API has answered its verification.
    pub async fn subscribe_to_sandbox(&self) -> Result<(), Error> {
        let (Some(sandbox), Some(secrets)) = (&self.sandbox, &self.secrets) else {
            return Ok(());
        };
        let webhooks = format!("{}{WEBHOOKS}", self.api_url());
        let app_secret = secrets.app_secret.value.expose_secret();
        let verify_token = secrets.verify_token.value.expose_secret();
        sandbox
            .verify_and_subscribe(&webhooks, app_secret, verify_token)
            .await
            .map_err(Error::Subscribe)
    }

    /// Stops bringing work, gives running invocations a few seconds, and ends everything.
    pub async fn stop(mut self) {
        self.bringing_work.shutdown().await;
        tokio::join!(
            self.send.stop(STOP_GRACE),
            self.process_job.stop(STOP_GRACE),
            self.scheduled.stop(STOP_GRACE)
        );
    }

    /// The base URL of the HTTP API.
    pub fn api_url(&self) -> String {
        format!("http://{}", self.gateway.address())
    }

    /// Where DynamoDB is.
    pub fn database_endpoint(&self) -> &str {
        self.database.endpoint()
    }

    /// Where SQS is.
    pub fn queue_endpoint(&self) -> &str {
        self.queue.endpoint()
    }

    /// What tables and queues are called.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Where the queues are.
    pub fn queue_urls(&self) -> &QueueUrls {
        &self.queue_urls
    }

    /// The sandbox, unless the run is for the real Messenger.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandbox.as_ref()
    }

    /// The function behind the API.
    pub fn send(&self) -> &Function {
        &self.send
    }

    /// The function that works on jobs.
    pub fn process_job(&self) -> &Function {
        &self.process_job
    }

    /// The function of the schedule.
    pub fn scheduled(&self) -> &Function {
        &self.scheduled
    }
}

/// Ways to these services that note in this file who calls what.
fn ways(path: &Path, endpoints: [&str; 2]) -> io::Result<[Way; 2]> {
    let log = calls::Log::open(path)?;
    let [dynamodb, sqs] = endpoints;
    Ok([Way::start(dynamodb, log.clone())?, Way::start(sqs, log)?])
}

async fn listen(port: u16) -> Result<TcpListener, Error> {
    server::bind(port).await.map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            Error::PortTaken { port }
        } else {
            Error::Listen { port, source }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let other = server::bind(0).await.unwrap();
        let port = other.local_addr().unwrap().port();

        let error = Stack::start(Settings {
            port,
            ..Settings::default()
        })
        .await
        .unwrap_err();

        assert!(matches!(error, Error::PortTaken { port: taken } if taken == port));
    }

    #[tokio::test]
    async fn the_real_messenger_needs_tokens() {
        let error = Stack::start(Settings {
            graph_url: Some("https://graph.facebook.com/v25.0".to_owned()),
            ..Settings::default()
        })
        .await
        .unwrap_err();

        assert!(matches!(
            error,
            Error::Messenger(messenger::Error::NoPageTokens)
        ));
    }

    #[tokio::test]
    async fn functions_that_cannot_start_are_not_waited_for() {
        let stack = Stack::start(Settings {
            executable: "false".into(),
            ..Settings::default()
        });
        let stack = stack.await.unwrap();
        let asked = Instant::now();

        let error = stack.ready().await.unwrap_err();

        assert!(matches!(error, Error::NotReady));
        assert!(asked.elapsed() < READY_WITHIN / 3, "{:?}", asked.elapsed());
    }
}
