//! SQS on this machine: rustack, in memory, as an HTTP endpoint for the AWS SDK.

use std::net::TcpListener;
use std::sync::Arc;
use std::{future, io};

use rustack_sqs_core::config::SqsConfig;
use rustack_sqs_core::handler::RustackSqsHandler;
use rustack_sqs_core::provider::RustackSqs;
use rustack_sqs_http::service::{SqsHttpConfig, SqsHttpService};

use crate::runtime_thread::RuntimeThread;
use crate::server::Server;

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
    let service = SqsHttpService::new(handler, SqsHttpConfig::default());
    let serving = tokio::net::TcpListener::from_std(listener).and_then(|listener| Server::serve(listener, service));
    match serving {
        Ok(_server) => future::pending().await,
        Err(error) => tracing::error!(error = %error, "the queue cannot listen on its port"),
    }
}
