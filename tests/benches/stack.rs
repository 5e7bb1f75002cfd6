//! A whole local stack whose functions are the deployed executables, and the broadcasts that it sends.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use local::clients;
use local::stack::{Settings, Stack};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use shared::domain::ids::{ContactId, PageId};
use shared::store::keys::page_shard;
use tokio::time::sleep;
use uuid::Uuid;

use crate::counter::Counter;

/// The Page of single-Page benchmarks, one of the sandbox's own.
pub const PAGE: &str = "page-1";
/// The rate at which the pace is no limit. At a rate that is far too high the slots would be lost before they are used.
pub const UNPACED: u32 = 10_000;
/// The contacts of one request that imports them.
const IMPORT: usize = 1_000;
/// The contacts of one call that writes them past the API: DynamoDB takes no more.
const WRITE: usize = 25;
/// The time between two looks at a broadcast.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The longest time for a broadcast. The largest has a million contacts.
const PATIENCE: Duration = Duration::from_secs(3_000);

/// A stack, and a client of its API.
pub struct Bench {
    pub stack: Stack,
    http: Client,
}

/// The counters before the services of a stack.
pub struct Counters {
    pub dynamodb: Counter,
    pub sqs: Counter,
    pub messenger: Counter,
}

impl Bench {
    /// Starts a stack that sends at a rate for each Page, with its data in memory or in a directory, and these variables.
    pub async fn start(rate: u32, data: Option<PathBuf>, variables: &[(&str, &str)]) -> Result<Self, Box<dyn Error>> {
        let bench = Self::launch(rate, data, variables).await?;
        bench.stack.ready().await?;
        Ok(bench)
    }

    /// Starts a stack with its data in memory, whose functions reach their services through counters.
    pub async fn start_counted(rate: u32, variables: &[(&str, &str)]) -> Result<(Self, Counters), Box<dyn Error>> {
        let counters = Counters {
            dynamodb: Counter::start().await?,
            sqs: Counter::start().await?,
            messenger: Counter::start().await?,
        };
        let endpoints = [
            ("AWS_ENDPOINT_URL_DYNAMODB", counters.dynamodb.url()),
            ("AWS_ENDPOINT_URL_SQS", counters.sqs.url()),
            ("GRAPH_API_URL", counters.messenger.url()),
        ];
        let bench = Self::launch(rate, None, &[&endpoints, variables].concat()).await?;
        let sandbox = bench.stack.sandbox().ok_or("no sandbox")?;
        counters.dynamodb.forward_to(bench.stack.database_endpoint());
        counters.sqs.forward_to(bench.stack.queue_endpoint());
        counters.messenger.forward_to(&sandbox.url());
        bench.stack.ready().await?;
        Ok((bench, counters))
    }

    async fn launch(rate: u32, data: Option<PathBuf>, variables: &[(&str, &str)]) -> Result<Self, Box<dyn Error>> {
        let mut env: BTreeMap<_, _> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        env.insert("PAGE_RATE_PER_SECOND".to_owned(), rate.to_string());
        Self::open(Settings {
            data,
            env,
            ..Settings::default()
        })
        .await
    }

    /// Starts a stack with these settings.
    pub async fn start_with(settings: Settings) -> Result<Self, Box<dyn Error>> {
        let bench = Self::open(settings).await?;
        bench.stack.ready().await?;
        Ok(bench)
    }

    async fn open(mut settings: Settings) -> Result<Self, Box<dyn Error>> {
        // The results are printed among the logs.
        let log = settings.env.entry("RUST_LOG".to_owned());
        log.or_insert_with(|| "warn".to_owned());
        let stack = Stack::start(settings).await?;
        let http = Client::builder().no_proxy().build()?;
        Ok(Self { stack, http })
    }

    /// Imports contacts of a Page, numbered from `first` on.
    pub async fn import(&self, page: &str, first: usize, count: usize) -> Result<(), Box<dyn Error>> {
        let url = format!("{}/v1/contacts", self.stack.api_url());
        let numbers: Vec<_> = (first..first + count).collect();
        let imports = numbers.chunks(IMPORT).map(|numbers| {
            let rows = numbers.iter().map(|n| format!("{},{page},Ana {n}\n", contact(*n)));
            let file = format!("contact_id,page_id,first_name\n{}", rows.collect::<String>());
            let call = self.http.put(&url).header("content-type", "text/csv").body(file);
            async move { call.send().await?.error_for_status() }
        });
        let imports: Vec<_> = imports.collect();
        stream::iter(imports)
            .buffer_unordered(4)
            .try_collect::<Vec<Response>>()
            .await?;
        Ok(())
    }

    /// Writes contacts of a Page, numbered from `first` on, as an import stores them, but several times as fast. One is imported,
    /// so that the Page is known.
    pub async fn store(&self, page: &str, first: usize, count: usize) -> Result<(), Box<dyn Error>> {
        let dynamodb = clients::dynamodb(self.stack.database_endpoint());
        let table = &self.stack.names().contacts;
        let page_id = PageId::parse(page)?;
        let numbers: Vec<_> = (first..first + count).collect();
        let writes = numbers.chunks(WRITE).map(|numbers| {
            let puts = numbers.iter().map(|n| {
                let put = PutRequest::builder().set_item(Some(stored(&page_id, *n)));
                Ok(WriteRequest::builder().put_request(put.build()?).build())
            });
            let puts: Result<Vec<_>, BuildError> = puts.collect();
            let call = dynamodb.batch_write_item();
            async move {
                let written = call.request_items(table, puts?).send().await?;
                match written.unprocessed_items.unwrap_or_default().is_empty() {
                    true => Ok(()),
                    false => Err("contacts were left out".into()),
                }
            }
        });
        let written: Result<Vec<()>, Box<dyn Error>> = stream::iter(writes).buffer_unordered(4).try_collect().await;
        written?;
        self.import(page, first, 1).await
    }

    /// Accepts a broadcast to contacts of any Pages; returns its id.
    pub async fn accept(&self, contacts: &[String]) -> Result<String, Box<dyn Error>> {
        self.broadcast(json!({"contact_ids": contacts})).await
    }

    /// Accepts a broadcast to all contacts of a Page; returns its id.
    pub async fn accept_audience(&self, page: &str) -> Result<String, Box<dyn Error>> {
        self.broadcast(json!({"audience": {"page_id": page}})).await
    }

    /// Accepts a broadcast, of which the message is added; returns its id.
    pub async fn broadcast(&self, mut body: Value) -> Result<String, Box<dyn Error>> {
        let url = format!("{}/v1/broadcasts", self.stack.api_url());
        body["message"] = json!({"text": "Hello {{ first_name }}, the shop opens at nine."});
        // Without a key of its own a repeated request is answered with the broadcast of before.
        let key = Uuid::new_v4().to_string();
        let call = self.http.post(url).header("idempotency-key", key).json(&body);
        let answer = call.send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        let id = body["broadcast_id"].as_str().map(str::to_owned);
        id.ok_or_else(|| format!("not accepted: {status} {body}").into())
    }

    /// Reads the report of a broadcast.
    pub async fn report(&self, broadcast: &str) -> Result<Value, Box<dyn Error>> {
        let url = format!("{}/v1/broadcasts/{broadcast}", self.stack.api_url());
        Ok(self.http.get(url).send().await?.error_for_status()?.json().await?)
    }

    /// Reads the deliveries of a broadcast with this status, up to 1,000.
    pub async fn deliveries(&self, broadcast: &str, status: &str) -> Result<Vec<Value>, Box<dyn Error>> {
        let path = format!("broadcasts/{broadcast}/deliveries?limit=1000&status={status}");
        let answer = self
            .http
            .get(format!("{}/v1/{path}", self.stack.api_url()))
            .send()
            .await?;
        let list: Value = answer.error_for_status()?.json().await?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Orders what has this status to be sent again.
    pub async fn retry(&self, broadcast: &str, status: &str) -> Result<(), Box<dyn Error>> {
        let url = format!("{}/v1/broadcasts/{broadcast}/retry", self.stack.api_url());
        let call = self.http.post(url).json(&json!({"statuses": [status]}));
        call.send().await?.error_for_status()?;
        Ok(())
    }

    /// Waits until a broadcast has completed; every contact of it must have been sent to. Returns the time.
    pub async fn complete(&self, broadcast: &str, contacts: usize) -> Result<Duration, Box<dyn Error>> {
        let begun = Instant::now();
        let mut every = LOOK_EVERY;
        while begun.elapsed() < PATIENCE {
            let report = self.report(broadcast).await?;
            if report["status"] == "completed" {
                return match report["counters"]["sent"] == contacts {
                    true => Ok(begun.elapsed()),
                    false => Err(format!("not every contact was sent to: {report}").into()),
                };
            }
            sleep(every).await;
            every = (every * 2).min(Duration::from_millis(500));
        }
        Err("a broadcast took too long".into())
    }

    /// Waits until no process of `process-job` works. A report shows the end of a broadcast before the worker's last call ends, and
    /// the next Page would get a worker of its own.
    pub async fn idle(&self) {
        let is_busy = || {
            let workers = self.stack.process_job().processes_running();
            workers.iter().any(|worker| worker.busy)
        };
        while is_busy() {
            sleep(LOOK_EVERY).await;
        }
        sleep(LOOK_EVERY).await;
    }

    /// Returns the process of `process-job`, of which there is one while only one Page is sent for.
    pub fn worker(&self) -> Result<u32, Box<dyn Error>> {
        match self.stack.process_job().processes_running()[..] {
            [worker] => Ok(worker.pid),
            ref others => Err(format!("{} workers", others.len()).into()),
        }
    }
}

/// Returns the id of the nth contact, as long as Messenger's.
pub fn contact(n: usize) -> String {
    format!("{n:017}")
}

/// Returns a contact as an import stores it.
fn stored(page_id: &PageId, n: usize) -> HashMap<String, AttributeValue> {
    let id = contact(n);
    let shard = ContactId::parse(&id).map(|id| page_shard(page_id, &id));
    let text = AttributeValue::S;
    HashMap::from([
        ("contact_id".to_owned(), text(id)),
        ("page_id".to_owned(), text(page_id.to_string())),
        ("page_shard".to_owned(), text(shard.unwrap_or_default())),
        ("first_name".to_owned(), text(format!("Ana {n}"))),
        ("source".to_owned(), text("api".to_owned())),
        ("schema".to_owned(), AttributeValue::N("1".to_owned())),
    ])
}
