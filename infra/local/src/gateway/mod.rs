//! API Gateway's HTTP API on this machine: each request is an invocation of one function.

mod docs;
mod event;
mod jwt;
mod tokens;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{self, Body};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use serde_json::Value;
use shared::domain::access::HEALTH;
use tokio::net::TcpListener;
use tokio::time;
use uuid::Uuid;

use crate::database::Storage;
use crate::lambda::{Function, InvokeError};
use crate::server::{HostNames, Problem, Rules, Server};

pub use self::jwt::{JwtAuthorizer, JwtSettings};
pub use self::tokens::{ApiTokens, OPTIONAL_PAGES_CLAIM, TokensError};

/// The limit for the body of a request. It is API Gateway's own limit:
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html>.
const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;

/// The limit for the answer to a request. It is the time-out of the function, which has to be below API Gateway's own
/// limit of 30 s: <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html>.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(29);

/// The header that names a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The number of connections of the API at the same time.
const MAX_CONNECTIONS: usize = 256;

/// The API.
#[derive(Clone, Debug)]
pub struct Api {
    /// The function behind all routes.
    pub function: Function,
    /// The check of the callers; without one every caller is allowed.
    pub callers: Option<Arc<Callers>>,
    /// The disk below the database, which the health check reports.
    pub storage: Storage,
}

/// The check of the callers of the API.
#[derive(Debug)]
pub enum Callers {
    /// By the tokens of a file.
    Tokens(ApiTokens),
    /// By the JWT of an identity provider.
    Jwt(Box<JwtAuthorizer>),
}

impl Callers {
    async fn authorize(&self, head: &Parts) -> Result<Option<Value>, Problem> {
        let (method, path, headers) = (&head.method, head.uri.path(), &head.headers);
        match self {
            Callers::Tokens(tokens) => tokens.authorize(method, path, headers),
            Callers::Jwt(jwt) => jwt.authorize(method, path, headers).await,
        }
    }
}

/// Serves the API and the pages of the console on a bound port, under these names beside those of this machine.
///
/// # Errors
///
/// Fails if the listener has no local address.
pub fn start(listener: TcpListener, names: HostNames, api: Api, console: Router) -> io::Result<Server> {
    let router = Router::new().fallback(answer).with_state(api).merge(console);
    let rules = Rules {
        names,
        connections: MAX_CONNECTIONS,
        ..Rules::default()
    };
    Server::serve(listener, TowerToHyperService::new(router), rules)
}

/// Answers a request. The function names the request in its answer; an answer of the gateway itself has the gateway's id.
async fn answer(State(api): State<Api>, request: Request) -> Response {
    let request_id = Uuid::new_v4().to_string();
    let mut answer = forward(api, request, &request_id).await;
    if let header::Entry::Vacant(vacant) = answer.headers_mut().entry(REQUEST_ID)
        && let Ok(request_id) = HeaderValue::from_str(&request_id)
    {
        vacant.insert(request_id);
    }
    answer
}

async fn forward(api: Api, request: Request, request_id: &str) -> Response {
    let received = jiff::Timestamp::now();
    let (mut head, body) = request.into_parts();
    if let Some(page) = docs::page(&head.method, head.uri.path()) {
        return page;
    }
    let authorizer = match &api.callers {
        None => None,
        Some(callers) => match callers.authorize(&head).await {
            Ok(authorizer) => authorizer,
            Err(problem) => return problem.into_response(),
        },
    };
    // The token has served its purpose, and no function reads it.
    head.headers.remove(header::AUTHORIZATION);
    if let Some(fault) = api.storage.fault().filter(|_| head.uri.path() == HEALTH) {
        let (cause, remedy) = (fault.cause, fault.remedy);
        let detail = format!("The last write failed: {cause}. The operator must {remedy}.");
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
    }
    let Ok(body) = body::to_bytes(body, MAX_BODY_BYTES).await else {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, "Request Too Long");
    };
    let event = event::http_event(&head, &body, request_id, received, authorizer);
    invoke(&api.function, &head, request_id, event.to_string()).await
}

async fn invoke(function: &Function, head: &Parts, request_id: &str, event: String) -> Response {
    let invocation = time::timeout(ANSWER_TIMEOUT, function.invoke(event));
    let error = match invocation.await {
        Ok(Ok(answer)) => match http_response(&answer) {
            Some(response) => return response,
            None => InvokeError::Failed("its answer is not an HTTP response in format 2.0".to_owned()),
        },
        Ok(Err(error)) => error,
        Err(_) => InvokeError::TimedOut,
    };
    tracing::error!(
        requestId = request_id,
        function.name = function.name(),
        http.method = %head.method,
        http.path = head.uri.path(),
        error = %error,
        "a request failed because the function did not answer it"
    );
    match error {
        InvokeError::TimedOut | InvokeError::Stopped => refusal(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
        InvokeError::TooLarge(_) => refusal(StatusCode::PAYLOAD_TOO_LARGE, "Request Too Long"),
        InvokeError::Crashed | InvokeError::Failed(_) | InvokeError::Start(_) | InvokeError::RecursiveLoop => {
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
        }
    }
}

/// Returns the response that API Gateway sends when the function does not answer.
fn refusal(status: StatusCode, message: &str) -> Response {
    let body = serde_json::json!({ "message": message }).to_string();
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (status, headers, Body::from(body)).into_response()
}

/// A function's answer in format 2.0.
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FunctionAnswer {
    status_code: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    cookies: Vec<String>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

/// Returns the response that API Gateway makes of a function's answer, or `None` if the answer is not an HTTP response.
/// As in format 2.0, `multiValueHeaders` are ignored.
fn http_response(answer: &[u8]) -> Option<Response> {
    let answer: FunctionAnswer = serde_json::from_slice(answer).ok()?;
    let body = answer.body.unwrap_or_default();
    let body = if answer.is_base64_encoded {
        BASE64_STANDARD.decode(body).ok()?
    } else {
        body.into_bytes()
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(answer.status_code).ok()?;

    let cookies = answer
        .cookies
        .into_iter()
        .map(|cookie| (header::SET_COOKIE.to_string(), cookie));
    for (name, value) in answer.headers.into_iter().chain(cookies) {
        let name: HeaderName = name.parse().ok()?;
        // The server sets the length itself, to that of the body as it is sent.
        if name != header::CONTENT_LENGTH {
            response.headers_mut().append(name, HeaderValue::from_str(&value).ok()?);
        }
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answer_of_a_function_becomes_a_response() {
        let answer = br#"{
            "statusCode": 202,
            "headers": {"content-type": "application/json", "idempotent-replayed": "true"},
            "multiValueHeaders": {"content-type": ["text/plain"]},
            "cookies": ["a=1", "b=2"],
            "body": "e30=",
            "isBase64Encoded": true
        }"#;

        let response = http_response(answer).unwrap();

        assert_eq!(response.status(), 202);
        assert_eq!(response.headers()["idempotent-replayed"], "true");
        assert_eq!(response.headers().get_all("content-type").iter().count(), 1);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
        assert_eq!(body::to_bytes(response.into_body(), 100).await.unwrap(), "{}");
    }

    #[test]
    fn answer_that_is_not_http_is_refused() {
        for answer in ["", "null", "{}", r#"{"statusCode": 99999}"#] {
            assert!(http_response(answer.as_bytes()).is_none(), "{answer}");
        }
    }
}
