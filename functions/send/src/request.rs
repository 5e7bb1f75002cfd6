//! Extractors for the parts of a request: body, path id, headers, time of receipt.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use jiff::Timestamp;
use lambda_http::request::RequestContext;
use serde_json::{Map, Value};
use shared::app::App;

use crate::api::problems::Kind;
use crate::problem::Problem;

/// The maximum size of a body, in bytes.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// The byte order mark in UTF-8.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

const JSON: &str = "application/json";
const CSV: &str = "text/csv";

/// A body of JSON, not checked yet.
pub struct JsonBody(pub Value);

impl FromRequest<Arc<App>> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _app: &Arc<App>) -> Result<Self, Problem> {
        if !has_type(JSON, request.headers()) {
            return Err(unsupported("The body must be application/json."));
        }
        Ok(Self(json(&whole_body(request).await?)?))
    }
}

/// A body of JSON, not checked yet; an absent one, and `null`, is an empty object.
pub struct OptionalJsonBody(pub Value);

impl FromRequest<Arc<App>> for OptionalJsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _app: &Arc<App>) -> Result<Self, Problem> {
        let is_json = has_type(JSON, request.headers());
        let body = whole_body(request).await?;
        match (body.is_empty(), is_json) {
            (true, _) => Ok(Self(Value::Object(Map::new()))),
            (false, true) => Ok(Self(match json(&body)? {
                Value::Null => Value::Object(Map::new()),
                body => body,
            })),
            (false, false) => Err(unsupported("The body must be application/json.")),
        }
    }
}

/// A body of JSON or of CSV, not checked yet.
pub enum JsonOrCsv {
    /// JSON.
    Json {
        /// The parsed body.
        parsed: Value,
        /// The body as it is written.
        text: Bytes,
    },
    /// The bytes of a CSV file.
    Csv(Bytes),
}

impl FromRequest<Arc<App>> for JsonOrCsv {
    type Rejection = Problem;

    async fn from_request(request: Request, _app: &Arc<App>) -> Result<Self, Problem> {
        if has_type(JSON, request.headers()) {
            let text = whole_body(request).await?;
            let parsed = json(&text)?;
            Ok(Self::Json { parsed, text })
        } else if has_type(CSV, request.headers()) {
            Ok(Self::Csv(whole_body(request).await?))
        } else {
            Err(unsupported("The body must be application/json or text/csv."))
        }
    }
}

/// Returns true if the `Content-Type` header names this media type, with any parameters.
fn has_type(media_type: &str, headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| is_type(value, media_type))
}

fn unsupported(detail: &str) -> Problem {
    Problem::new(Kind::UnsupportedMediaType, detail)
}

/// Reads a whole body.
///
/// # Errors
/// If the body is too large (413).
pub async fn whole_body(request: Request) -> Result<Bytes, Problem> {
    axum::body::to_bytes(request.into_body(), MAX_BODY).await.map_err(|_| {
        let detail = format!("The body must have at most {MAX_BODY} bytes.");
        Problem::new(Kind::BodyTooLarge, detail)
    })
}

/// Parses a body, which may begin with a byte order mark: some programs write one before UTF-8.
fn json(body: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body)).map_err(|error| {
        let message = format!(
            "must be JSON; the first error is at line {}, column {}",
            error.line(),
            error.column()
        );
        Problem::fault("", message)
    })
}

/// Returns true if a media type is this one, with any parameters.
fn is_type(value: &str, essence: &str) -> bool {
    let found = value.split(';').next().unwrap_or_default();
    found.trim().eq_ignore_ascii_case(essence)
}

/// The id in the path, not checked yet.
pub struct PathId(pub String);

impl FromRequestParts<Arc<App>> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let path = Path::from_request_parts(parts, app).await;
        let Path(id) = path.map_err(|_| Problem::not_found("There is no such path."))?;
        Ok(Self(id))
    }
}

/// The two ids in the path, not checked yet.
pub struct PathIds(pub String, pub String);

impl FromRequestParts<Arc<App>> for PathIds {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let path = Path::from_request_parts(parts, app).await;
        let Path((outer, inner)) = path.map_err(|_| Problem::not_found("There is no such path."))?;
        Ok(Self(outer, inner))
    }
}

/// The time at which API Gateway received the request. Validity of request keys is measured from it, however long the
/// request waited behind the gateway.
pub struct ReceivedAt(pub Timestamp);

impl FromRequestParts<Arc<App>> for ReceivedAt {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let by_gateway = match parts.extensions.get::<RequestContext>() {
            Some(RequestContext::ApiGatewayV2(context)) => Timestamp::from_millisecond(context.time_epoch).ok(),
            _ => None,
        };
        Ok(Self(by_gateway.unwrap_or_else(|| app.clock.now())))
    }
}

/// The `Idempotency-Key` header: the caller's own name for the request.
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
            return Err(Problem::fault(NAME, "must not be repeated"));
        }
        let key = key.as_bytes();
        if !(1..=255).contains(&key.len()) || !key.iter().all(u8::is_ascii_graphic) {
            return Err(Problem::fault(NAME, "must have 1 to 255 visible ASCII characters"));
        }
        Ok(Self(Some(String::from_utf8_lossy(key).into_owned())))
    }
}
