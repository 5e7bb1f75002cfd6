//! A proxy before DynamoDB, SQS, Messenger or the API that counts the requests, and what DynamoDB charges for them.
//!
//! DynamoDB says what a request consumed if the request asks for it, so the proxy adds that question to each. The local database
//! answers by AWS's rules: a write by the larger of the item before and after, in KB; each index by what changes in it, and twice if the
//! item moves; a transaction twice; a read by items of 4 KB, half if it is eventually consistent
//! (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html>). What a refused write consumed is
//! not in its answer. It is counted here: a refused write as one of the item that refused it, a refused transaction as if it had been made.

use std::collections::BTreeMap;
use std::io;
use std::ops::AddAssign;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use local::calls::calls_of;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The operations that consume units, and `true` for those that read.
const OPERATIONS: [(&str, bool); 11] = [
    ("GetItem", true),
    ("BatchGetItem", true),
    ("TransactGetItems", true),
    ("Query", true),
    ("Scan", true),
    ("PutItem", false),
    ("UpdateItem", false),
    ("DeleteItem", false),
    ("BatchWriteItem", false),
    ("BatchExecuteStatement", false),
    ("TransactWriteItems", false),
];

/// Requests, and the units that they consumed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    pub requests: f64,
    pub write_units: f64,
    pub read_units: f64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.write_units += other.write_units;
        self.read_units += other.read_units;
    }
}

/// The origin of a count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The function that called, by its access key; `?` for calls without one.
    pub function: String,
    /// AWS's name of the operation; of other calls the method and the end of the path.
    pub operation: String,
    /// The table; empty where there is none. A request to several tables is counted for the first, its units for each.
    pub table: String,
}

/// All that was counted since the last look, by its origin.
#[derive(Clone, Debug, Default)]
pub struct Counts(pub BTreeMap<Origin, Count>);

impl Counts {
    /// Returns the sum of the counts of some origins.
    pub fn sum(&self, of: impl Fn(&Origin) -> bool) -> Count {
        let mut sum = Count::default();
        for (_, count) in self.0.iter().filter(|(origin, _)| of(origin)) {
            sum += *count;
        }
        sum
    }

    /// Returns the sum of all counts.
    pub fn total(&self) -> Count {
        self.sum(|_| true)
    }
}

/// The counting proxy. It runs until the runtime ends.
#[derive(Clone)]
pub struct Counter {
    url: String,
    proxy: Arc<Proxy>,
}

struct Proxy {
    http: reqwest::Client,
    /// The service, once it is known: a stack starts its services after the proxy.
    to: watch::Sender<Option<String>>,
    counts: Mutex<Counts>,
}

impl Counter {
    /// Starts a proxy on a free port. Requests wait until [`forward_to`](Self::forward_to) names the service.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .map_err(io::Error::other)?;
        let proxy = Arc::new(Proxy {
            http,
            to: watch::Sender::new(None),
            counts: Mutex::default(),
        });
        let router = Router::new()
            .fallback(forward)
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&proxy));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { url, proxy })
    }

    /// Returns the base URL for those whose requests are counted.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Names the service.
    pub fn forward_to(&self, url: &str) {
        self.proxy.to.send_replace(Some(url.trim_end_matches('/').to_owned()));
    }

    /// Returns what was counted since the last call.
    pub fn take(&self) -> Counts {
        std::mem::take(&mut *self.proxy.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn forward(
    State(proxy): State<Arc<Proxy>>,
    method: Method,
    uri: Uri,
    mut headers: HeaderMap,
    body: Bytes,
) -> Response {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let (operation, function) = match target.and_then(|target| target.split_once('.')) {
        Some((_, operation)) => (operation.to_owned(), calls_of(&headers, &body).first().cloned()),
        None => {
            let end = uri.path().rsplit('/').next().unwrap_or_default();
            (format!("{method} {end}"), None)
        }
    };
    let charged = OPERATIONS.iter().find(|(name, _)| *name == operation);
    let mut question: Option<Value> = charged.and_then(|_| serde_json::from_slice(&body).ok());
    let body = match &mut question {
        Some(question) => {
            question["ReturnConsumedCapacity"] = json!("INDEXES");
            Bytes::from(question.to_string())
        }
        None => body,
    };
    for name in [HOST, CONTENT_LENGTH] {
        headers.remove(name);
    }
    let service = match proxy.to.subscribe().wait_for(Option::is_some).await {
        Ok(service) => service.clone().unwrap_or_default(),
        Err(_) => return StatusCode::BAD_GATEWAY.into_response(),
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let call = proxy.http.request(method, format!("{service}{path}"));
    let answered = async {
        let answer = call.headers(headers).body(body).send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        Ok::<_, reqwest::Error>((status, headers, answer.bytes().await?))
    };
    let Ok((status, mut headers, answer)) = answered.await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    let units = match (question, charged) {
        (Some(question), Some((_, is_read))) => units(&question, *is_read, &answer),
        _ => BTreeMap::new(),
    };
    proxy.count(&operation, function.map(|call| call.function), units);
    (status, headers, answer).into_response()
}

impl Proxy {
    /// Counts one request, for the first of the tables that it was to.
    fn count(&self, operation: &str, function: Option<String>, mut units: BTreeMap<String, Count>) {
        if units.is_empty() {
            units.insert(String::new(), Count::default());
        }
        let function = function.unwrap_or_else(|| "?".to_owned());
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut requests = 1.0;
        for (table, mut count) in units {
            count.requests = std::mem::take(&mut requests);
            let origin = Origin {
                function: function.clone(),
                operation: operation.to_owned(),
                table,
            };
            *counts.0.entry(origin).or_default() += count;
        }
    }
}

/// Returns what a request consumed of each table, by its answer.
fn units(question: &Value, is_read: bool, answer: &[u8]) -> BTreeMap<String, Count> {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let consumed = match &answer["ConsumedCapacity"] {
        Value::Array(tables) => tables.iter().collect(),
        Value::Null => return refused(question, &answer),
        table => vec![table],
    };
    let mut units = BTreeMap::<_, Count>::new();
    for table in consumed {
        let amount = table["CapacityUnits"].as_f64().unwrap_or_default();
        let count = units.entry(text(&table["TableName"])).or_default();
        match is_read {
            true => count.read_units += amount,
            false => count.write_units += amount,
        }
    }
    units
}

/// Returns what a refused write consumed: a write of the item that refused it, as far as the answer shows it; of a transaction each part
/// twice.
fn refused(question: &Value, answer: &Value) -> BTreeMap<String, Count> {
    static NONE: Value = Value::Null;
    let error = answer["__type"].as_str().unwrap_or_default();
    let of_item = |item: &Value| match item {
        Value::Null => 1.0,
        item => (item.to_string().len() as f64 / 1024.0).ceil(),
    };
    let mut units = BTreeMap::<_, Count>::new();
    if error.ends_with("ConditionalCheckFailedException") {
        units.entry(text(&question["TableName"])).or_default().write_units += of_item(&answer["Item"]);
    } else if error.ends_with("TransactionCanceledException") {
        let parts = question["TransactItems"].as_array().into_iter().flatten();
        let reasons = answer["CancellationReasons"].as_array().into_iter().flatten();
        let items = reasons.map(|reason| &reason["Item"]).chain(std::iter::repeat(&NONE));
        for (part, item) in parts.zip(items) {
            let table = part.as_object().and_then(|part| part.values().next());
            let table = table.map(|part| text(&part["TableName"])).unwrap_or_default();
            units.entry(table).or_default().write_units += 2.0 * of_item(item);
        }
    }
    units
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
