//! Messenger's Send API as a sandbox: it keeps what contacts receive, and fails on request.
//!
//! `/sandbox/…` shows the ledger and sets the faults, for whoever works with the sandbox from outside.

mod faults;
mod ledger;
mod request;
mod send_api;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::service::TowerToHyperService;
use secrecy::SecretString;
use tokio::net::TcpListener;

use crate::server::{self, Server};

pub use self::faults::{Answer, Fault, Faults, GraphError};
pub use self::ledger::{Received, Summary};
pub use self::request::{MessagingType, NotificationType};

/// A running sandbox.
#[derive(Debug)]
pub struct Sandbox {
    messenger: Arc<Messenger>,
    port: u16,
    server: tokio::sync::Mutex<Option<Server>>,
}

impl Sandbox {
    /// Starts on a free port. `tokens` are the Page access tokens by Page id; other Pages do not exist.
    pub async fn start(tokens: BTreeMap<String, String>) -> io::Result<Sandbox> {
        let secret = |(page_id, token)| (page_id, SecretString::from(token));
        let messenger = Arc::new(Messenger {
            tokens: tokens.into_iter().map(secret).collect(),
            contents: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            peak_in_flight: AtomicUsize::new(0),
        });
        let server = serve(server::bind(0).await?, &messenger)?;
        Ok(Sandbox {
            messenger,
            port: server.address().port(),
            server: tokio::sync::Mutex::new(Some(server)),
        })
    }

    /// The base of all Messenger calls, for `GRAPH_API_URL`.
    pub fn url(&self) -> String {
        format!("{}/v25.0", self.root_url())
    }

    /// The base of the ledger and the faults.
    pub fn control_url(&self) -> String {
        format!("{}/sandbox", self.root_url())
    }

    fn root_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Every message that a contact received, in order of arrival.
    pub fn received(&self) -> Vec<Received> {
        self.messenger.contents().received.clone()
    }

    /// How many messages contacts received.
    pub fn received_count(&self) -> usize {
        self.messenger.contents().received.len()
    }

    /// The ledger in numbers.
    pub fn summary(&self) -> Summary {
        ledger::summarize(&self.messenger.contents().received)
    }

    /// Empties the ledger.
    pub fn forget_messages(&self) {
        self.messenger.contents().received.clear();
    }

    /// Adds a fault behind those in force.
    pub fn add_fault(&self, fault: Fault) {
        self.messenger.contents().faults.faults.push(fault);
    }

    /// Replaces all faults and the base latency.
    pub fn set_faults(&self, faults: Faults) {
        self.messenger.contents().faults = faults;
    }

    /// Ends all faults and the base latency.
    pub fn clear_faults(&self) {
        self.set_faults(Faults::default());
    }

    /// Lets every answer take this long.
    pub fn set_latency_ms(&self, latency_ms: u64) {
        self.messenger.contents().faults.latency_ms = latency_ms;
    }

    /// The most sends that were under way at once, since the start.
    pub fn peak_in_flight(&self) -> usize {
        self.messenger.peak_in_flight.load(Ordering::SeqCst)
    }

    /// Stops listening: connections are cut, and new ones refused.
    pub async fn unreachable(&self) {
        if let Some(server) = self.server.lock().await.take() {
            server.stop().await;
        }
    }

    /// Listens again on the same port.
    pub async fn reachable(&self) -> io::Result<()> {
        let mut server = self.server.lock().await;
        if server.is_none() {
            *server = Some(serve(server::bind(self.port).await?, &self.messenger)?);
        }
        Ok(())
    }
}

/// What the routes share.
#[derive(Debug)]
struct Messenger {
    // The operator's own, if they gave us a file, so not for anybody's log.
    tokens: BTreeMap<String, SecretString>,
    contents: Mutex<Contents>,
    in_flight: AtomicUsize,
    peak_in_flight: AtomicUsize,
}

#[derive(Debug, Default)]
struct Contents {
    received: Vec<Received>,
    faults: Faults,
}

impl Messenger {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        // Every change is one statement, so a panic elsewhere leaves nothing half done.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a send as under way until the returned value is dropped, by an answer or by the caller's leaving.
    fn enter(&self) -> InFlight<'_> {
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak_in_flight.fetch_max(now, Ordering::SeqCst);
        InFlight(&self.in_flight)
    }
}

struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn serve(listener: TcpListener, messenger: &Arc<Messenger>) -> io::Result<Server> {
    let router = Router::new()
        .route("/v25.0/{page_id}/messages", post(send_api::send_message))
        .route("/sandbox/messages", get(messages).delete(forget_messages))
        .route("/sandbox/summary", get(summary))
        .route(
            "/sandbox/faults",
            get(faults).put(set_faults).delete(clear_faults),
        )
        .with_state(Arc::clone(messenger));
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = router.call(request);
        async move { sendable(answer.await?) }
    });
    Server::serve(listener, service)
}

/// Turns an answer that must not be sent into the error that makes the server close the connection.
fn sendable(response: Response) -> Result<Response, Box<dyn std::error::Error + Send + Sync>> {
    match response.extensions().get::<send_api::Unanswered>() {
        Some(_) => Err("the connection is closed without an answer, as asked".into()),
        None => Ok(response),
    }
}

async fn messages(State(messenger): State<Arc<Messenger>>) -> Json<Vec<Received>> {
    Json(messenger.contents().received.clone())
}

async fn forget_messages(State(messenger): State<Arc<Messenger>>) -> StatusCode {
    messenger.contents().received.clear();
    StatusCode::NO_CONTENT
}

async fn summary(State(messenger): State<Arc<Messenger>>) -> Json<Summary> {
    Json(ledger::summarize(&messenger.contents().received))
}

async fn faults(State(messenger): State<Arc<Messenger>>) -> Json<Faults> {
    Json(messenger.contents().faults.clone())
}

async fn set_faults(
    State(messenger): State<Arc<Messenger>>,
    Json(faults): Json<Faults>,
) -> Json<Faults> {
    messenger.contents().faults = faults.clone();
    Json(faults)
}

async fn clear_faults(State(messenger): State<Arc<Messenger>>) -> StatusCode {
    messenger.contents().faults = Faults::default();
    StatusCode::NO_CONTENT
}

#[cfg(test)]
mod tests;
