//! The span of an invocation, which gives its fields to each log line within it, and the id of the request, which the answer
//! names, too.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use lambda_http::Context;
use shared::app::App;
use shared::domain::ids::{BroadcastId, token};
use shared::runtime::spans;
use tracing::{Instrument as _, Span, error_span, field};

/// The header of every answer that names the request: Lambda's id of the invocation, by which its log lines are found.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Answers a request within a span of its own, and prints what the request counted.
pub async fn run(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let context = request.extensions().get::<Context>();
    let request_id = context.map_or_else(token, |context| context.request_id.clone());
    let span = span(&request_id);
    let mut answer = next.run(request).instrument(span).await;
    if let Ok(request_id) = HeaderValue::from_str(&request_id) {
        answer.headers_mut().insert(REQUEST_ID, request_id);
    }
    app.metrics.print(None, app.clock.now());
    spans::export().await;
    answer
}

/// Makes the span. It has the level `error`, so that no filter that shows a line leaves its span out.
fn span(request_id: &str) -> Span {
    error_span!("invocation", requestId = request_id, broadcast.id = field::Empty)
}

/// Records the broadcast that the request of the current span concerns.
pub fn record_broadcast(id: &BroadcastId) {
    Span::current().record("broadcast.id", field::display(id));
}
