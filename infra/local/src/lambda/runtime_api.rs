//! The Lambda Runtime API of one child process, from which the child fetches invocations and to which it sends its
//! answers.
//!
//! The API is documented at <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use crate::server::{self, Server};

/// The limit for a payload and for an answer. It is Lambda's own limit of 6 MB:
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>.
pub const MAX_PAYLOAD_BYTES: usize = 6 * 1024 * 1024;

/// An invocation for the child.
#[derive(Debug)]
pub struct Invocation {
    pub payload: Bytes,
    /// The trace header.
    pub trace: String,
    /// The time at which the child is killed, in milliseconds since 1970.
    pub deadline_ms: i64,
    /// The channel for the answer, or for the message of the function's error. It is dropped unused if the child never
    /// answers.
    pub answer: oneshot::Sender<Result<Bytes, String>>,
}

/// The API of one child, on a port of its own.
#[derive(Debug)]
pub struct RuntimeApi {
    server: Server,
    work: mpsc::Sender<Invocation>,
    ready: watch::Receiver<bool>,
}

impl RuntimeApi {
    /// Starts the API on a free port.
    ///
    /// # Errors
    ///
    /// Fails if no port is available.
    pub async fn start(function_arn: String) -> io::Result<RuntimeApi> {
        // The channel has room for one invocation: a child works on one at a time and gets the next only when it is
        // free.
        let (work, waiting) = mpsc::channel(1);
        let (ready_tx, ready) = watch::channel(false);
        let state = Arc::new(ApiState {
            function_arn,
            waiting: tokio::sync::Mutex::new(waiting),
            current: Mutex::new(None),
            ready: ready_tx,
        });
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{request_id}/response", post(response))
            .route("/2018-06-01/runtime/invocation/{request_id}/error", post(error))
            .route("/2018-06-01/runtime/init/error", post(init_error))
            // A body that is too large is refused only after it was read, because a child with an interrupted upload
            // would conclude that the Runtime API has ended.
            .layer(DefaultBodyLimit::disable())
            .with_state(state);
        let server = Server::route(server::bind(0).await?, router)?;
        Ok(RuntimeApi { server, work, ready })
    }

    /// Returns host and port, the value of `AWS_LAMBDA_RUNTIME_API`.
    pub fn address(&self) -> String {
        self.server.address().to_string()
    }

    /// Waits until the child has requested work for the first time.
    pub async fn ready(&self) {
        let mut ready = self.ready.clone();
        // The server holds the sender and exists as long as `self`.
        let _ = ready.wait_for(|ready| *ready).await;
    }

    /// Queues an invocation, which the child fetches with its next request.
    pub fn offer(&self, invocation: Invocation) {
        // An invocation that cannot be queued is dropped, which its caller sees as a missing answer.
        let _ = self.work.try_send(invocation);
    }
}

/// The state that the routes share.
#[derive(Debug)]
struct ApiState {
    function_arn: String,
    waiting: tokio::sync::Mutex<mpsc::Receiver<Invocation>>,
    current: Mutex<Option<CurrentInvocation>>,
    ready: watch::Sender<bool>,
}

/// The invocation that the child works on.
#[derive(Debug)]
struct CurrentInvocation {
    request_id: String,
    answer: oneshot::Sender<Result<Bytes, String>>,
}

impl ApiState {
    fn current(&self) -> MutexGuard<'_, Option<CurrentInvocation>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes on the answer to the invocation with this id, if the child still works on it.
    fn answer(&self, request_id: &str, answer: Result<Bytes, String>) -> StatusCode {
        let current = self.current().take_if(|current| current.request_id == request_id);
        let Some(current) = current else {
            return StatusCode::BAD_REQUEST;
        };
        // The receiver is gone if the time-out has just passed.
        let _ = current.answer.send(answer);
        StatusCode::ACCEPTED
    }
}

/// Answers with the next invocation. The request is held open until there is one, as on AWS, where the child is frozen
/// meanwhile.
async fn next(State(state): State<Arc<ApiState>>) -> Response {
    state.ready.send_replace(true);
    let Some(invocation) = state.waiting.lock().await.recv().await else {
        return StatusCode::GONE.into_response();
    };
    let request_id = Uuid::new_v4().to_string();
    *state.current() = Some(CurrentInvocation {
        request_id: request_id.clone(),
        answer: invocation.answer,
    });
    let headers = [
        ("lambda-runtime-aws-request-id", request_id),
        ("lambda-runtime-deadline-ms", invocation.deadline_ms.to_string()),
        ("lambda-runtime-invoked-function-arn", state.function_arn.clone()),
        ("lambda-runtime-trace-id", invocation.trace),
        ("content-type", "application/json".to_owned()),
    ];
    (headers, invocation.payload).into_response()
}

async fn response(State(state): State<Arc<ApiState>>, Path(request_id): Path<String>, answer: Bytes) -> StatusCode {
    if answer.len() > MAX_PAYLOAD_BYTES {
        let error = format!("its answer of {} bytes is too large", answer.len());
        state.answer(&request_id, Err(error));
        return StatusCode::PAYLOAD_TOO_LARGE;
    }
    state.answer(&request_id, Ok(answer))
}

async fn error(State(state): State<Arc<ApiState>>, Path(request_id): Path<String>, report: Bytes) -> StatusCode {
    state.answer(&request_id, Err(error_message(&report)))
}

/// Logs an error of the child's start. The child ends after this report, which fails the invocation that waits for it.
async fn init_error(report: Bytes) -> StatusCode {
    tracing::error!(
        error = error_message(&report),
        "a function could not start; its configuration may not be valid"
    );
    StatusCode::ACCEPTED
}

/// Returns the message of a function's error report.
fn error_message(report: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Report {
        error_message: String,
    }
    serde_json::from_slice(report).map_or_else(
        |_| "an error without a message".to_owned(),
        |report: Report| report.error_message,
    )
}
