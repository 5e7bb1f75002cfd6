//! Tokens and secrets stay where they are, and texts out of logs.
//!
//! Every story looks after this: a stack searches each answer, at its end each stored item, and the log of all functions, that
//! is, of all stories that run beside it. Here are the stories that try to make them leak.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use local::sandbox::{Answer, Fault, GraphError};
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::stack::{APP_SECRET, PAGES, Stack, VERIFY_TOKEN, request};

/// Every token of a test begins so.
const TOKEN: &str = "EAAB-";
/// Of the text of every broadcast that does not say otherwise, as asked for and as rendered.
const TEXT: &str = "we open at nine";

/// The secret that stands in a text, if there is one.
pub fn secret_in(text: &str) -> Option<&'static str> {
    let secrets = [TOKEN, APP_SECRET, VERIFY_TOKEN].into_iter();
    secrets.into_iter().find(|secret| text.contains(secret))
}

/// Log lines that should not be.
static LEAKED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// How many lines were searched.
static SEARCHED: AtomicUsize = AtomicUsize::new(0);

/// Has every line of the functions' logs searched from now on, `debug` included.
pub fn search_logs() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| shared::telemetry::log_to(Search, "debug"));
}

/// Lines of the log that hold a secret or a text.
pub fn leaked_in_logs() -> Vec<String> {
    LEAKED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

#[derive(Clone, Copy)]
struct Search;

impl io::Write for Search {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        SEARCHED.fetch_add(1, Ordering::Relaxed);
        let text = String::from_utf8_lossy(line);
        if secret_in(&text).is_some() || text.contains(TEXT) {
            let mut leaked = LEAKED.lock().unwrap_or_else(PoisonError::into_inner);
            leaked.push(text.into_owned());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Search {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

/// Meta's errors are known to quote the token that they refuse.
#[tokio::test]
async fn an_error_that_quotes_the_token_is_not_quoted() {
    let stack = Stack::start().await;
    let ids = stack.contacts(6).await;
    let message = format!("Malformed access token EAAB-{} for {APP_SECRET}", PAGES[0]);
    let codes = [551, 100, 613, 1, 987_654];
    for (code, id) in codes.into_iter().zip(&ids) {
        let fault = Fault::answering(GraphError::new(code, &*message));
        stack.sandbox.add_fault(fault.to_contacts([id]).times(1));
    }
    let body = Answer::Raw {
        status: 400,
        body: message.clone(),
    };
    stack
        .sandbox
        .add_fault(Fault::answering(body).to_contacts([&ids[5]]));

    let id = stack.broadcast(&ids).await;
    let report = stack.finish(&id).await;
    let fault = Fault::answering(GraphError::new(190, message));
    stack.sandbox.add_fault(fault);
    let mut again = request(&ids);
    again["message"]["text"] = json!("Again, we open at nine");
    let halted = stack.post(&again).await.broadcast_id();
    stack.work_off().await;

    assert_eq!(report["status"], "completed", "{report:#}");
    assert_eq!(stack.report(&halted).await["status"], "halted");
    let searched = SEARCHED.load(Ordering::Relaxed);
    assert!(
        searched > 20,
        "{searched} lines of log: that would prove nothing"
    );
}

/// What is wrong with a request is said without what it holds where that may be a secret.
#[tokio::test]
async fn a_request_with_a_secret_in_the_wrong_place_is_answered_without_it() {
    let stack = Stack::start().await;
    let wrong = format!("EAAB-{}", PAGES[0]);
    let query = format!("hub.mode=subscribe&hub.challenge=7&hub.verify_token=not-{VERIFY_TOKEN}");
    for request in [
        Request::get(format!("/v1/webhooks/messenger?{query}")).body(Body::empty()),
        Request::post("/v1/webhooks/messenger")
            .header("x-hub-signature-256", format!("sha256={APP_SECRET}"))
            .body(Body::from("{}")),
        Request::get("/v1/broadcasts")
            .header("authorization", format!("Bearer {wrong}"))
            .body(Body::empty()),
        Request::post("/v1/broadcasts")
            .header("content-type", "application/json")
            .header("idempotency-key", format!("{wrong} {wrong}"))
            .body(Body::from("{")),
    ] {
        let answer = stack.raw(request.unwrap()).await;
        assert!(
            answer.status() != StatusCode::INTERNAL_SERVER_ERROR,
            "{answer:?}"
        );
    }
}
