//! SQS on this machine: rustack, in memory, as an HTTP endpoint for the AWS SDK.

mod trace_header;

use std::net::TcpListener;
use std::sync::Arc;
use std::{future, io};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use axum::routing::post;
use http_body_util::BodyExt;
use rustack_sqs_core::config::SqsConfig;
use rustack_sqs_core::handler::RustackSqsHandler;
use rustack_sqs_core::provider::RustackSqs;
use rustack_sqs_http::dispatch::dispatch_operation;
use rustack_sqs_http::response::error_to_response;
use rustack_sqs_http::router::resolve_operation;
use rustack_sqs_model::error::SqsError;
use rustack_sqs_model::operations::SqsOperation;
use uuid::Uuid;

use crate::runtime_thread::RuntimeThread;
use crate::server::Server;

/// The limit for the body of a request. It is above SQS's own limit for the messages of a request, 1 MiB:
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>.
const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;

/// A running queue service. Dropping it loses its queues and their messages.
#[derive(Debug)]
pub struct Queue {
    endpoint: String,
    _thread: RuntimeThread,
}

impl Queue {
    /// Starts a queue service without queues, on a free port.
    ///
    /// # Errors
    ///
    /// Fails if no port or thread is available.
    pub fn start() -> io::Result<Queue> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        // Queue URLs are made of host and port, so both must be known before the first queue.
        let config = SqsConfig {
            host: address.ip().to_string(),
            port: address.port(),
            ..SqsConfig::default()
        };
        let thread = RuntimeThread::spawn("queue", || serve(listener, config))?;
        Ok(Queue {
            endpoint: format!("http://{address}"),
            _thread: thread,
        })
    }

    /// Returns the base URL, the value of `AWS_ENDPOINT_URL_SQS`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

async fn serve(listener: TcpListener, config: SqsConfig) {
    let handler = Arc::new(RustackSqsHandler::new(Arc::new(RustackSqs::new(config))));
    // The requests go past rustack's own HTTP service, which lets every web page read its answers.
    let router = Router::new()
        .fallback(post(call))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(handler);
    let serving = tokio::net::TcpListener::from_std(listener).and_then(|listener| Server::route(listener, router));
    match serving {
        Ok(_server) => future::pending().await,
        Err(error) => tracing::error!(error = %error, "the queue cannot listen on its port"),
    }
}

async fn call(State(handler): State<Arc<RustackSqsHandler>>, headers: HeaderMap, body: Bytes) -> Response {
    let answer = match resolve_operation(&headers) {
        Ok(operation) => carry_out(&handler, operation, &headers, body).await,
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(|error| error_to_response(&error, &Uuid::new_v4().to_string()).map(Body::new))
}

async fn carry_out(
    handler: &RustackSqsHandler,
    operation: SqsOperation,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response, SqsError> {
    let body = trace_header::store(operation, headers, body);
    let (mut head, body) = dispatch_operation(handler, operation, body).await?.into_parts();
    // The body is in memory, and reading it cannot fail.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    head.headers.remove(header::CONTENT_LENGTH);
    Ok(Response::from_parts(
        head,
        Body::from(trace_header::show(operation, body)),
    ))
}
