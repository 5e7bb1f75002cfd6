//! A way to the database on which things can happen.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use local::database::Database;
use serde_json::json;

/// What becomes of the answer to a call that was carried out.
pub enum Fate {
    Arrives,
    IsLost,
}

type Hook = Arc<dyn Fn(&str) -> Fate + Send + Sync>;

#[derive(Clone)]
struct Proxy {
    database: String,
    http: reqwest::Client,
    hook: Hook,
}

/// Starts a proxy that asks `hook` about the body of every call; where it listens.
pub async fn start(
    database: &Database,
    hook: impl Fn(&str) -> Fate + Send + Sync + 'static,
) -> String {
    let proxy = Proxy {
        database: database.endpoint().to_owned(),
        http: reqwest::Client::new(),
        hook: Arc::new(hook),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(forward).with_state(proxy);
    tokio::spawn(async move { axum::serve(listener, router).await });
    endpoint
}

async fn forward(State(proxy): State<Proxy>, headers: HeaderMap, body: Bytes) -> Response {
    let call = proxy
        .http
        .post(&proxy.database)
        .headers(headers)
        .body(body.clone());
    let answer = call.send().await.unwrap();
    let (status, answer) = (answer.status(), answer.bytes().await.unwrap());
    let fate = (proxy.hook)(&String::from_utf8_lossy(&body));
    if matches!(fate, Fate::IsLost) {
        let error = json!({"__type": "com.amazonaws.dynamodb.v20120810#InternalServerError"});
        return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
    }
    (status, answer).into_response()
}
