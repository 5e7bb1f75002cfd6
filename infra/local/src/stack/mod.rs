//! The whole system in one value: database, queue, functions, gateway, event source, schedule and sandbox.

mod functions;
mod messenger;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio::time;

use crate::clients;
use crate::database::{self, Database};
use crate::event_source::EventSource;
use crate::gateway::Gateway;
use crate::lambda::Function;
use crate::page_tokens;
use crate::queue::{self, Queue};
use crate::resources::{self, Names, QueueUrls};
use crate::sandbox::{self, Sandbox};
use crate::schedule::Schedule;
use crate::server;

use self::functions::Functions;
use self::messenger::Messenger;

/// How long running invocations may go on when the stack stops.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long the functions may take until they answer for the first time.
const READY_WITHIN: Duration = Duration::from_secs(30);
const READY_POLL: Duration = Duration::from_millis(50);

/// How to run the system.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The port of the API; 0 takes any free one.
    pub port: u16,
    /// Messenger's base URL, version included; none: the sandbox.
    pub graph_url: Option<String>,
    /// A JSON file of Page access tokens; may be absent only with the sandbox.
    pub page_tokens: Option<PathBuf>,
    /// How often `scheduled` is invoked.
    pub schedule_every: Duration,
    /// How long one invocation of `process-job` may take.
    pub process_timeout: Duration,
    /// By how much a message's visibility time-out exceeds `process_timeout`.
    pub visibility_margin: Duration,
    /// What runs as the functions' processes: an executable whose `main` is [`crate::main`].
    pub executable: PathBuf,
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
            schedule_every: Duration::from_secs(60),
            process_timeout: Duration::from_secs(120),
            visibility_margin: Duration::from_secs(30),
            executable: std::env::current_exe().unwrap_or_default(),
            env: BTreeMap::new(),
        }
    }
}

/// Why the system did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Database(#[from] database::Error),
    #[error(transparent)]
    Queue(#[from] queue::Error),
    #[error(transparent)]
    Resources(#[from] resources::Error),
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    #[error(transparent)]
    PageTokens(#[from] page_tokens::Error),
    #[error("--graph-url needs --page-tokens FILE, a JSON object of page id to token")]
    NoPageTokens,
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
    #[error("the API did not answer within {} s; see the log above", READY_WITHIN.as_secs())]
    NotReady,
}

/// The running system.
#[derive(Debug)]
pub struct Stack {
    // In the order in which they are to end: first what brings work, last what it is kept in.
    schedule: Schedule,
    event_source: EventSource,
    gateway: Gateway,
    functions: Functions,
    sandbox: Option<Sandbox>,
    names: Names,
    queue_urls: QueueUrls,
    queue: Queue,
    database: Database,
    _made_up_tokens: Option<NamedTempFile>,
}

impl Stack {
    /// Starts everything, on empty tables and queues.
    pub async fn start(settings: Settings) -> Result<Stack, Error> {
        // What the operator can have got wrong comes first.
        let messenger = Messenger::choose(&settings).await?;
        let listener = listen(settings.port).await?;

        let names = Names::default();
        let database = Database::start()?;
        resources::create_tables(&clients::dynamodb(database.endpoint()), &names).await?;
        let queue = Queue::start()?;
        let sqs = clients::sqs(queue.endpoint());
        let visibility = settings.process_timeout + settings.visibility_margin;
        let queue_urls = resources::create_queues(&sqs, &names, visibility).await?;
        let queue_arn = resources::queue_arn(&sqs, &names.jobs_queue, &queue_urls.jobs).await?;

        let variables = BTreeMap::from([
            ("AWS_ENDPOINT_URL_DYNAMODB", database.endpoint()),
            ("AWS_ENDPOINT_URL_SQS", queue.endpoint()),
            ("BROADCASTS_TABLE", &names.broadcasts),
            ("DELIVERIES_TABLE", &names.deliveries),
            ("CONTACTS_TABLE", &names.contacts),
            ("JOBS_QUEUE_URL", &queue_urls.jobs),
            ("GRAPH_API_URL", &messenger.url),
            ("PAGE_TOKENS", &messenger.page_tokens),
        ]);
        let functions = Functions::new(&settings, &variables);

        let gateway =
            Gateway::start(listener, functions.send.clone()).map_err(|source| Error::Listen {
                port: settings.port,
                source,
            })?;
        Ok(Stack {
            schedule: Schedule::start(functions.scheduled.clone(), settings.schedule_every),
            event_source: EventSource::start(
                sqs,
                queue_urls.jobs.clone(),
                queue_arn,
                functions.process_job.clone(),
            ),
            gateway,
            functions,
            sandbox: messenger.sandbox,
            names,
            queue_urls,
            queue,
            database,
            _made_up_tokens: messenger.made_up_tokens,
        })
    }

    /// Waits until `GET /v1/health` answers 200.
    pub async fn ready(&self) -> Result<(), Error> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .map_err(Error::HealthCheck)?;
        let health = format!("{}/v1/health", self.api_url());
        let give_up = Instant::now() + READY_WITHIN;
        while Instant::now() < give_up {
            let answer = http.get(&health).timeout(READY_WITHIN).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            time::sleep(READY_POLL).await;
        }
        Err(Error::NotReady)
    }

    /// Stops bringing work, gives running invocations a few seconds, and ends everything.
    pub async fn stop(self) {
        drop(self.schedule);
        drop(self.event_source);
        self.functions.stop(STOP_GRACE).await;
    }

    /// The base URL of the HTTP API.
    pub fn api_url(&self) -> String {
        self.gateway.url()
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
        &self.functions.send
    }

    /// The function that works on jobs.
    pub fn process_job(&self) -> &Function {
        &self.functions.process_job
    }

    /// The function of the schedule.
    pub fn scheduled(&self) -> &Function {
        &self.functions.scheduled
    }
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

        assert!(matches!(error, Error::NoPageTokens));
    }
}
