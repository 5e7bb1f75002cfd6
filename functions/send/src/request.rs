//! What every handler asks of a request before it looks at its fields.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use lambda_http::request::RequestContext;
use serde_json::Value;
use shared::app::App;

use crate::problem::Problem;

/// Bytes in one body.
const MAX_BODY: usize = 4 * 1024 * 1024;

const JSON: &str = "application/json";
const CSV: &str = "text/csv";

/// A body of JSON, whatever it holds.
pub struct JsonBody(pub Value);

impl FromRequest<Arc<App>> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _app: &Arc<App>) -> Result<Self, Problem> {
        if !is(JSON, request.headers()) {
            return Err(unsupported("The body must be application/json."));
        }
        Ok(Self(json(&whole(request).await?)?))
    }
}

/// A body of JSON or of CSV, whatever it holds.
pub enum JsonOrCsv {
    /// As JSON.
    Json(Value),
    /// As CSV, not read yet.
    Csv(Bytes),
}

impl FromRequest<Arc<App>> for JsonOrCsv {
    type Rejection = Problem;

    async fn from_request(request: Request, _app: &Arc<App>) -> Result<Self, Problem> {
        if is(JSON, request.headers()) {
            Ok(Self::Json(json(&whole(request).await?)?))
        } else if is(CSV, request.headers()) {
            Ok(Self::Csv(whole(request).await?))
        } else {
            Err(unsupported(
                "The body must be application/json or text/csv.",
            ))
        }
    }
}

/// Whether the body is said to be of this type, whatever its parameters.
fn is(media_type: &str, headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| is_type(value, media_type))
}

fn unsupported(detail: &str) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
}

/// All of a body, whatever it holds.
pub async fn whole(request: Request) -> Result<Bytes, Problem> {
    axum::body::to_bytes(request.into_body(), MAX_BODY)
        .await
        .map_err(|_| {
            let detail = format!("The body must have at most {MAX_BODY} bytes.");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
        })
}

fn json(body: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let message = format!(
            "must be JSON; it is not at line {}, column {}",
            error.line(),
            error.column()
        );
        Problem::fault("", message)
    })
}

/// Whether a media type is this one, whatever its parameters.
fn is_type(value: &str, essence: &str) -> bool {
    let found = value.split(';').next().unwrap_or_default();
    found.trim().eq_ignore_ascii_case(essence)
}

/// Whether the caller names CSV among what they take; others get JSON.
pub struct AcceptsCsv(pub bool);

impl FromRequestParts<Arc<App>> for AcceptsCsv {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _app: &Arc<App>) -> Result<Self, Infallible> {
        let accepted = parts.headers.get_all(header::ACCEPT).into_iter();
        let mut accepted = accepted
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        Ok(Self(accepted.any(|value| is_type(value, CSV))))
    }
}

/// The id in the path.
pub struct PathId(pub String);

impl FromRequestParts<Arc<App>> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let path = Path::from_request_parts(parts, app).await;
        let Path(id) = path.map_err(|_| Problem::not_found("There is nothing here."))?;
        Ok(Self(id))
    }
}

/// When API Gateway received the request: what it promises is measured from here, however long it waited behind that.
pub struct ReceivedAt(pub Timestamp);

impl FromRequestParts<Arc<App>> for ReceivedAt {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let by_gateway = match parts.extensions.get::<RequestContext>() {
            Some(RequestContext::ApiGatewayV2(context)) => {
                Timestamp::from_millisecond(context.time_epoch).ok()
            }
            _ => None,
        };
        Ok(Self(by_gateway.unwrap_or_else(|| app.clock.now())))
    }
}

/// What the caller knows the request by, if they say.
pub struct IdempotencyKey(pub Option<String>);

impl FromRequestParts<Arc<App>> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _app: &Arc<App>) -> Result<Self, Problem> {
        const NAME: &str = "Idempotency-Key";
        let mut keys = parts.headers.get_all(NAME).into_iter();
        let Some(key) = keys.next() else {
            return Ok(Self(None));
        };
        if keys.next().is_some() {
            return Err(Problem::fault(NAME, "must be there once at most"));
        }
        let key = key.as_bytes();
        if !(1..=255).contains(&key.len()) || !key.iter().all(u8::is_ascii_graphic) {
            return Err(Problem::fault(
                NAME,
                "must have 1 to 255 visible ASCII characters",
            ));
        }
        Ok(Self(Some(String::from_utf8_lossy(key).into_owned())))
    }
}
