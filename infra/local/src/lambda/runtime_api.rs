//! The Lambda Runtime API for one child process: where it asks for work and leaves its answers.

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

/// Lambda's own limit for an answer is 6 MB.
const MAX_ANSWER_BYTES: usize = 6 * 1024 * 1024;

/// One piece of work for the child.
#[derive(Debug)]
pub struct Invocation {
    pub payload: Bytes,
    /// When the child is killed, in milliseconds since 1970.
    pub deadline_ms: i64,
    /// The answer, or the message of the function's error. Dropped unused if the child never answers.
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
    pub async fn start(function_arn: String) -> io::Result<RuntimeApi> {
        // One place: a child has at most one invocation, and is given it only when it is free.
        let (work, waiting) = mpsc::channel(1);
        let (ready_tx, ready) = watch::channel(false);
        let desk = Arc::new(Desk {
            function_arn,
            waiting: tokio::sync::Mutex::new(waiting),
            taken: Mutex::new(None),
            ready: ready_tx,
        });
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route(
                "/2018-06-01/runtime/invocation/{request_id}/response",
                post(response),
            )
            .route(
                "/2018-06-01/runtime/invocation/{request_id}/error",
                post(error),
            )
            .route("/2018-06-01/runtime/init/error", post(init_error))
            // Refused only once it is read: a child whose upload is cut takes that for the end of the Runtime API.
            .layer(DefaultBodyLimit::disable())
            .with_state(desk);
        let server = Server::route(server::bind(0).await?, router)?;
        Ok(RuntimeApi {
            server,
            work,
            ready,
        })
    }

    /// Host and port, for `AWS_LAMBDA_RUNTIME_API`.
    pub fn address(&self) -> String {
        self.server.address().to_string()
    }

    /// Returns once the child has asked for work for the first time.
    pub async fn ready(&self) {
        let mut ready = self.ready.clone();
        // The sender lives in the server, and that as long as `self`.
        let _ = ready.wait_for(|ready| *ready).await;
    }

    /// Gives the child work, which it takes with its next request.
    pub fn offer(&self, invocation: Invocation) {
        // An invocation that cannot be left is dropped, which its waiter sees as "no answer".
        let _ = self.work.try_send(invocation);
    }
}

/// What the routes share.
#[derive(Debug)]
struct Desk {
    function_arn: String,
    waiting: tokio::sync::Mutex<mpsc::Receiver<Invocation>>,
    taken: Mutex<Option<Taken>>,
    ready: watch::Sender<bool>,
}

/// The invocation that the child works on.
#[derive(Debug)]
struct Taken {
    request_id: String,
    answer: oneshot::Sender<Result<Bytes, String>>,
}

impl Desk {
    fn taken(&self) -> MutexGuard<'_, Option<Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request_id: &str, answer: Result<Bytes, String>) -> StatusCode {
        let taken = self.taken().take_if(|taken| taken.request_id == request_id);
        let Some(taken) = taken else {
            return StatusCode::BAD_REQUEST;
        };
        // Nobody waits any more if the time-out struck just now.
        let _ = taken.answer.send(answer);
        StatusCode::ACCEPTED
    }
}

/// Held open until there is work, as on AWS, where the child is frozen meanwhile.
async fn next(State(desk): State<Arc<Desk>>) -> Response {
    desk.ready.send_replace(true);
    let Some(invocation) = desk.waiting.lock().await.recv().await else {
        return StatusCode::GONE.into_response();
    };
    let request_id = Uuid::new_v4().to_string();
    *desk.taken() = Some(Taken {
        request_id: request_id.clone(),
        answer: invocation.answer,
    });
    let headers = [
        ("lambda-runtime-aws-request-id", request_id),
        (
            "lambda-runtime-deadline-ms",
            invocation.deadline_ms.to_string(),
        ),
        (
            "lambda-runtime-invoked-function-arn",
            desk.function_arn.clone(),
        ),
        (
            "lambda-runtime-trace-id",
            "Root=1-00000000-000000000000000000000000;Sampled=0".to_owned(),
        ),
        ("content-type", "application/json".to_owned()),
    ];
    (headers, invocation.payload).into_response()
}

async fn response(
    State(desk): State<Arc<Desk>>,
    Path(request_id): Path<String>,
    answer: Bytes,
) -> StatusCode {
    if answer.len() > MAX_ANSWER_BYTES {
        let error = format!("its answer of {} bytes is too large", answer.len());
        desk.answer(&request_id, Err(error));
        return StatusCode::PAYLOAD_TOO_LARGE;
    }
    desk.answer(&request_id, Ok(answer))
}

async fn error(
    State(desk): State<Arc<Desk>>,
    Path(request_id): Path<String>,
    report: Bytes,
) -> StatusCode {
    desk.answer(&request_id, Err(error_message(&report)))
}

/// The child ends after this report, and whoever waits for it sees that.
async fn init_error(report: Bytes) -> StatusCode {
    tracing::error!(error = error_message(&report), "a function could not start");
    StatusCode::ACCEPTED
}

/// What a function says of its error.
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
