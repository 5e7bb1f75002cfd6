//! A lost answer is not a refusal: every conditional write of a broadcast, applied but not answered, and asked for again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use local::database::Database;
use local::sandbox::{Answer, Fault};
use serde_json::json;

use crate::stack::Stack;

/// A way to the database that loses the answer to the first call whose body holds a text.
#[derive(Clone)]
struct Lossy {
    database: String,
    http: reqwest::Client,
    lose: Arc<Mutex<&'static str>>,
    lost: Arc<AtomicBool>,
}

impl Lossy {
    async fn to(database: &Database) -> (Self, String) {
        let lossy = Self {
            database: database.endpoint().to_owned(),
            http: reqwest::Client::new(),
            lose: Arc::default(),
            lost: Arc::default(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(forward).with_state(lossy.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (lossy, endpoint)
    }
}

async fn forward(State(lossy): State<Lossy>, headers: HeaderMap, body: Bytes) -> Response {
    let call = lossy
        .http
        .post(&lossy.database)
        .headers(headers)
        .body(body.clone());
    let answer = call.send().await.unwrap();
    let (status, answer) = (answer.status(), answer.bytes().await.unwrap());
    let lose = *lossy.lose.lock().unwrap();
    let matches = !lose.is_empty() && String::from_utf8_lossy(&body).contains(lose);
    if matches && status == StatusCode::OK && !lossy.lost.swap(true, Ordering::SeqCst) {
        let error = json!({"__type": "com.amazonaws.dynamodb.v20120810#InternalServerError"});
        return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
    }
    (status, answer).into_response()
}

#[tokio::test]
async fn a_lost_answer_is_not_a_refusal() {
    for write in [
        "attribute_not_exists(pk) OR valid_until",
        "SET holder = :holder",
        "SET #status = :processing",
        "SET #status = :reserved",
        "message_id = :message_id",
        "not_before = :not_before, attempts",
        "SET #status = :in_doubt",
        "SET #cursor = :cursor",
        "due_at = :wake_at",
        "SET wake_at = :wake_at",
        "SET #status = :status, stalls = :none, checkpoint_id",
        "REMOVE holder",
    ] {
        let database = Database::start().unwrap();
        let (lossy, endpoint) = Lossy::to(&database).await;
        let stack = Stack::over(database, &endpoint, &[]).await;
        let ids = stack.contacts(6).await;
        // One is refused for a while, and one is never answered: so that every kind of write is made.
        let busy = local::sandbox::GraphError::new(613, "too fast");
        stack
            .sandbox
            .add_fault(Fault::answering(busy).to_contacts([&ids[2]]).times(1));
        stack
            .sandbox
            .add_fault(Fault::answering(Answer::Reset).to_contacts([&ids[4]]));
        *lossy.lose.lock().unwrap() = write;

        let id = stack.broadcast(&ids).await;
        let report = stack.finish(&id).await;

        assert!(lossy.lost.load(Ordering::SeqCst), "no call holds {write:?}");
        let counters = json!({"pending": 0, "waiting": 0, "sent": 5, "failed": 0, "skipped": 0, "in_doubt": 1});
        assert_eq!(report["counters"], counters, "{write}");
        assert_eq!(report["duplicates_prevented"]["replay"], 0, "{write}");
        assert_eq!(stack.received(&id).len(), 5, "{write}");
    }
}
