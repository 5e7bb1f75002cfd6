//! A way to the database, the queue or Messenger on which things can happen.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// What becomes of the answer to a call that was carried out.
pub enum Fate {
    Arrives,
    IsLost,
}

/// A call on its way.
pub struct Call {
    way: Way,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Clone)]
struct Way {
    to: Arc<str>,
    http: reqwest::Client,
}

impl Call {
    pub fn body(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The AWS operation, or else the method and path.
    pub fn name(&self) -> String {
        let operation = self.headers.get("x-amz-target");
        match operation.and_then(|operation| operation.to_str().ok()) {
            Some(operation) => operation.to_owned(),
            None => format!("{} {}", self.method, self.path),
        }
    }

    /// Has it done what it asks for; its answer.
    pub async fn carry_out(self) -> Response {
        let call = self
            .way
            .http
            .request(self.method, format!("{}{}", self.way.to, self.path))
            .headers(self.headers)
            .body(self.body);
        let answer = match call.send().await {
            Ok(answer) => (answer.status(), answer.bytes().await),
            Err(error) => (StatusCode::BAD_GATEWAY, Err(error)),
        };
        match answer {
            (status, Ok(body)) => (status, body).into_response(),
            (_, Err(_)) => StatusCode::BAD_GATEWAY.into_response(),
        }
    }
}

/// Not carried out, or its answer is lost: whoever called may try again.
pub fn no_answer() -> Response {
    let error = json!({"__type": "com.amazonaws.dynamodb.v20120810#InternalServerError"});
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
}

/// Starts a proxy that leaves every call to `hook`; where it listens, path included.
pub async fn between<F>(
    to: &str,
    hook: impl Fn(Call) -> F + Clone + Send + Sync + 'static,
) -> String
where
    F: Future<Output = Response> + Send + 'static,
{
    let url = reqwest::Url::parse(to).unwrap();
    let way = Way {
        to: url.origin().ascii_serialization().into(),
        http: reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .build()
            .unwrap(),
    };
    let handle = async move |State(way): State<Way>,
                             method: Method,
                             uri: Uri,
                             headers: HeaderMap,
                             body: Bytes| {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        hook(Call {
            way,
            method,
            path: path.to_owned(),
            headers,
            body,
        })
        .await
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(handle).with_state(way);
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}{}", url.path().trim_end_matches('/'))
}

/// Starts a proxy that asks `hook` about the body of every call that was carried out; where it listens.
pub async fn start(to: &str, hook: impl Fn(&str) -> Fate + Send + Sync + 'static) -> String {
    let hook = Arc::new(hook);
    between(to, move |call| {
        let hook = Arc::clone(&hook);
        async move {
            let body = call.body().into_owned();
            let answer = call.carry_out().await;
            match hook(&body) {
                Fate::Arrives => answer,
                Fate::IsLost => no_answer(),
            }
        }
    })
    .await
}
