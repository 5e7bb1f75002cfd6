//! The span of an invocation, which gives its fields to each log line within it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use lambda_http::Context;
use shared::app::App;
use shared::domain::ids::BroadcastId;
use shared::runtime::spans;
use tracing::{Instrument as _, Span, error_span, field};

/// Answers a request within a span of its own, and prints what the request counted.
pub async fn run(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let span = span(request.extensions().get::<Context>());
    let answer = next.run(request).instrument(span).await;
    app.metrics.print(None, app.clock.now());
    spans::export().await;
    answer
}

/// Makes the span. It has the level `error`, so that no filter that shows a line leaves its span out.
fn span(context: Option<&Context>) -> Span {
    error_span!(
        "invocation",
        requestId = context.map(|context| context.request_id.as_str()),
        broadcast.id = field::Empty,
    )
}

/// Records the broadcast that the request of the current span concerns.
pub fn record_broadcast(id: &BroadcastId) {
    Span::current().record("broadcast.id", field::display(id));
}
