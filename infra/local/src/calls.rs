//! The log of calls: which function called which AWS action on which resource, as the function's role would have to
//! allow it.
//!
//! Each function has its own access key, and the key with which a call is signed identifies the function.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use crate::clients::function_of;
use crate::runtime_thread::RuntimeThread;
use crate::server::Server;

/// The placeholder for a part that a request lacks. No role allows it.
const UNKNOWN: &str = "?";

/// An AWS action that a function called on a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// The name of the function, from the access key with which the call is signed.
    pub function: String,
    /// The action's name in IAM, such as `dynamodb:UpdateItem`.
    pub action: String,
    /// The name of a table (with `/index/NAME` for an index of it), a queue or a parameter.
    pub resource: String,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (function, action, resource) = (&self.function, &self.action, &self.resource);
        write!(f, "{function}\t{action}\t{resource}")
    }
}

/// Returns the actions that a role must allow for a request. A transaction needs the actions of its items.
pub fn calls(authorization: &str, target: &str, body: &[u8]) -> Vec<Call> {
    let credential = authorization.split_once("Credential=");
    let key = credential.and_then(|(_, credential)| credential.split_once('/'));
    let function = key.map_or_else(|| UNKNOWN.to_owned(), |(key, _)| function_of(key));
    let (service, operation) = target.split_once('.').unwrap_or((UNKNOWN, UNKNOWN));
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or(UNKNOWN).to_owned();
    let allowed = match (service, operation) {
        ("DynamoDB_20120810", "TransactWriteItems" | "TransactGetItems") => {
            let items = body["TransactItems"].as_array().into_iter().flatten();
            let parts = items.filter_map(Value::as_object).flatten();
            parts
                .map(|(kind, part)| {
                    let action = match kind.as_str() {
                        "ConditionCheck" => "ConditionCheckItem".to_owned(),
                        kind => format!("{kind}Item"),
                    };
                    (format!("dynamodb:{action}"), text(&part["TableName"]))
                })
                .collect()
        }
        ("DynamoDB_20120810", "BatchGetItem" | "BatchWriteItem") => {
            let tables = body["RequestItems"].as_object().into_iter().flatten();
            tables
                .map(|(table, _)| (format!("dynamodb:{operation}"), table.clone()))
                .collect()
        }
        ("DynamoDB_20120810", "BatchExecuteStatement") => {
            let statements = body["Statements"].as_array().into_iter().flatten();
            statements
                .map(|statement| partiql(statement["Statement"].as_str().unwrap_or_default()))
                .collect()
        }
        ("DynamoDB_20120810", operation) => {
            let table = text(&body["TableName"]);
            let resource = match body["IndexName"].as_str() {
                Some(index) => format!("{table}/index/{index}"),
                None => table,
            };
            vec![(format!("dynamodb:{operation}"), resource)]
        }
        ("AmazonSQS", operation) => {
            let url = text(&body["QueueUrl"]);
            let queue = url.rsplit('/').next().unwrap_or(UNKNOWN);
            vec![(format!("sqs:{operation}"), queue.to_owned())]
        }
        ("AmazonSSM", operation) => vec![(format!("ssm:{operation}"), text(&body["Name"]))],
        _ => vec![(target.to_owned(), UNKNOWN.to_owned())],
    };
    let allowed = allowed.into_iter();
    allowed
        .map(|(action, resource)| Call {
            function: function.clone(),
            action,
            resource,
        })
        .collect()
}

/// Returns the action and the table of a statement that names its table first, in quotation marks.
fn partiql(statement: &str) -> (String, String) {
    let action = match statement.split(' ').next() {
        Some("INSERT") => "PartiQLInsert",
        Some("UPDATE") => "PartiQLUpdate",
        _ => UNKNOWN,
    };
    let table = statement.split('"').nth(1).unwrap_or(UNKNOWN);
    (format!("dynamodb:{action}"), table.to_owned())
}

/// Returns the actions that a role must allow for a request with these headers.
pub fn calls_of(headers: &HeaderMap, body: &[u8]) -> Vec<Call> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let authorization = text(header::AUTHORIZATION.as_str()).unwrap_or_default();
    calls(authorization, text("x-amz-target").unwrap_or_default(), body)
}

/// A file with one line for each distinct call, however often it is made.
#[derive(Clone, Debug)]
pub struct CallLog(Arc<Mutex<(File, BTreeSet<Call>)>>);

impl CallLog {
    /// Opens the file for appending, and creates it if it does not exist.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be opened for writing.
    pub fn open(path: &Path) -> io::Result<CallLog> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(CallLog(Arc::new(Mutex::new((file, BTreeSet::new())))))
    }

    fn record(&self, calls: Vec<Call>) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, known) = &mut *log;
        for call in calls {
            if known.insert(call.clone())
                && let Err(error) = writeln!(file, "{call}")
            {
                tracing::error!(%error, "a call could not be written to the log of calls; the log is incomplete");
            }
        }
    }
}

/// A proxy in front of a service that writes every call to a log.
#[derive(Debug)]
pub struct LoggingProxy {
    endpoint: String,
    _thread: RuntimeThread,
}

#[derive(Clone)]
struct ProxyState {
    log: CallLog,
    to: Arc<str>,
    http: reqwest::Client,
}

impl LoggingProxy {
    /// Starts a proxy of the service at the URL `to`, on a free port.
    ///
    /// # Errors
    ///
    /// Fails if no port or thread is available.
    pub fn start(to: &str, log: CallLog) -> io::Result<LoggingProxy> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let http = reqwest::Client::builder().no_proxy().build();
        let http = http.map_err(io::Error::other)?;
        let to = to.into();
        let router = Router::new().fallback(forward).with_state(ProxyState { log, to, http });
        let thread = RuntimeThread::spawn("calls", || serve(listener, router))?;
        Ok(LoggingProxy {
            endpoint,
            _thread: thread,
        })
    }

    /// Returns the base URL, the value of the service's `AWS_ENDPOINT_URL_…` variable.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

async fn serve(listener: TcpListener, router: Router) {
    let listener = tokio::net::TcpListener::from_std(listener);
    match listener.and_then(|listener| Server::route(listener, router)) {
        Ok(_server) => std::future::pending().await,
        Err(error) => tracing::error!(%error, "the log of calls cannot listen on its port"),
    }
}

async fn forward(State(proxy): State<ProxyState>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    proxy.log.record(calls_of(&head.headers, &body));
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let call = proxy
        .http
        .request(head.method, format!("{}{path}", proxy.to))
        .headers(head.headers)
        .body(body);
    let answer = match call.send().await {
        Ok(answer) => (answer.status(), answer.headers().clone(), answer.bytes().await),
        Err(error) => return not_forwarded(&error),
    };
    match answer {
        (status, headers, Ok(body)) => {
            let mut answer = (status, Body::from(body)).into_response();
            answer.headers_mut().extend(headers);
            answer
        }
        (_, _, Err(error)) => not_forwarded(&error),
    }
}

fn not_forwarded(error: &reqwest::Error) -> Response {
    tracing::warn!(%error, "a call could not be forwarded to the service; answered with 502");
    StatusCode::BAD_GATEWAY.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_is_named_by_the_actions_that_its_role_must_allow() {
        const SIGNED: &str = "AWS4-HMAC-SHA256 Credential=send/20261125/us-east-1/dynamodb/aws4_request, Signature=0";
        for (target, body, expected) in [
            (
                "DynamoDB_20120810.GetItem",
                r#"{"TableName": "t"}"#,
                &["send\tdynamodb:GetItem\tt"][..],
            ),
            (
                "DynamoDB_20120810.Query",
                r#"{"TableName": "t", "IndexName": "i"}"#,
                &["send\tdynamodb:Query\tt/index/i"],
            ),
            (
                "DynamoDB_20120810.BatchWriteItem",
                r#"{"RequestItems": {"a": [], "b": []}}"#,
                &["send\tdynamodb:BatchWriteItem\ta", "send\tdynamodb:BatchWriteItem\tb"],
            ),
            (
                "DynamoDB_20120810.TransactWriteItems",
                r#"{"TransactItems": [{"Put": {"TableName": "a"}}, {"ConditionCheck": {"TableName": "b"}}]}"#,
                &["send\tdynamodb:PutItem\ta", "send\tdynamodb:ConditionCheckItem\tb"],
            ),
            (
                "DynamoDB_20120810.BatchExecuteStatement",
                r#"{"Statements": [{"Statement": "INSERT INTO \"a\" VALUE {'b': ?}"}, {"Statement": "UPDATE \"c\" SET d = ?"}]}"#,
                &["send\tdynamodb:PartiQLInsert\ta", "send\tdynamodb:PartiQLUpdate\tc"],
            ),
            (
                "AmazonSQS.SendMessage",
                r#"{"QueueUrl": "http://127.0.0.1:1/000000000000/jobs.fifo"}"#,
                &["send\tsqs:SendMessage\tjobs.fifo"],
            ),
            (
                "AmazonSSM.GetParameter",
                r#"{"Name": "/a/b"}"#,
                &["send\tssm:GetParameter\t/a/b"],
            ),
            ("Else.Where", "{}", &["send\tElse.Where\t?"]),
        ] {
            let calls = calls(SIGNED, target, body.as_bytes());
            let calls: Vec<_> = calls.iter().map(Call::to_string).collect();
            assert_eq!(calls, expected);
        }
    }
}
