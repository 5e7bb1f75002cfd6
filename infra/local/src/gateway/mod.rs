//! API Gateway's HTTP API on this machine: every request becomes an invocation of one function.

mod answer;
mod event;

use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::{self, Body};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::time;

use crate::lambda::{Function, InvokeError};
use crate::server::Server;

/// API Gateway accepts no larger body.
const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;

/// API Gateway waits no longer for an answer; the function's own time-out is the same.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(29);

/// A running gateway; dropping it closes its port.
#[derive(Debug)]
pub struct Gateway {
    server: Server,
}

impl Gateway {
    /// Serves the API on a bound port.
    pub fn start(listener: TcpListener, function: Function) -> io::Result<Gateway> {
        let router = Router::new().fallback(invoke).with_state(function);
        Ok(Gateway {
            server: Server::route(listener, router)?,
        })
    }

    /// The base URL of the API.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }
}

async fn invoke(State(function): State<Function>, request: Request) -> Response {
    let received = jiff::Timestamp::now();
    let (head, body) = request.into_parts();
    let Ok(body) = body::to_bytes(body, MAX_BODY_BYTES).await else {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, "Request Too Long");
    };
    let event = event::http_event(&head, &body, received);
    let invocation = time::timeout(ANSWER_TIMEOUT, function.invoke(event.to_string()));
    let error = match invocation.await {
        Ok(Ok(answer)) => match answer::http_response(&answer) {
            Some(response) => return response,
            None => InvokeError::Failed("its answer is not an HTTP answer".to_owned()),
        },
        Ok(Err(error)) => error,
        Err(_) => InvokeError::TimedOut,
    };
    tracing::error!(
        function.name = function.name(),
        http.method = %head.method,
        http.path = head.uri.path(),
        error = %error,
        "a request got no answer"
    );
    match error {
        InvokeError::TimedOut | InvokeError::Stopped => {
            refusal(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")
        }
        InvokeError::Crashed | InvokeError::Failed(_) | InvokeError::Start(_) => {
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
        }
    }
}

/// What API Gateway says when the function says nothing.
fn refusal(status: StatusCode, message: &str) -> Response {
    let body = serde_json::json!({ "message": message }).to_string();
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (status, headers, Body::from(body)).into_response()
}
