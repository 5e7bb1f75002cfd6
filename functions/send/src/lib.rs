//! send: the HTTP API. Accepts contacts and broadcasts, and reports what became of them.

pub mod accept;
pub mod broadcasts;
pub mod caller;
pub mod contacts;
pub mod deliveries;
pub mod fields;
pub mod import;
pub mod list;
pub mod new_broadcast;
pub mod new_message;
pub mod problem;
pub mod request;
pub mod rows;
pub mod webhook;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, post, put};
use axum::{Json, Router};
use problem::Problem;
use serde_json::json;
use shared::app::App;

/// Runs as a Lambda function until the process is told to end.
pub async fn run() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    let app = App::from_env().await.map_err(|error| error.to_string())?;
    lambda_http::run(router(Arc::new(app))).await
}

/// Every route, by method and path as API Gateway names it.
pub fn routes() -> [(&'static str, MethodRouter<Arc<App>>); 11] {
    let health = || async { Json(json!({"status": "ok"})) };
    [
        ("GET /v1/health", get(health)),
        ("PUT /v1/contacts", put(contacts::upsert)),
        ("GET /v1/contacts/{contact_id}", get(contacts::show)),
        ("DELETE /v1/contacts/{contact_id}", delete(contacts::delete)),
        ("POST /v1/broadcasts", post(broadcasts::create)),
        ("GET /v1/broadcasts", get(broadcasts::list)),
        ("GET /v1/broadcasts/{id}", get(broadcasts::show)),
        ("POST /v1/broadcasts/{id}/resume", post(broadcasts::resume)),
        ("GET /v1/broadcasts/{id}/deliveries", get(deliveries::list)),
        ("GET /v1/webhooks/messenger", get(webhook::verify)),
        ("POST /v1/webhooks/messenger", post(webhook::receive)),
    ]
}

/// The API, as DESIGN's contract has it.
pub fn router(app: Arc<App>) -> Router {
    let unknown = || async { Problem::not_found("There is nothing here.") };
    let wrong_method = || async {
        let status = axum::http::StatusCode::METHOD_NOT_ALLOWED;
        Problem::new(status, "This method is not for this path.")
    };
    let mut router = Router::new();
    for (route, handler) in routes() {
        let (_, path) = route.split_once(' ').unwrap_or_default();
        router = router.route(path, handler);
    }
    router
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            print_metrics,
        ))
        .with_state(app)
}

async fn print_metrics(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let answer = next.run(request).await;
    app.metrics.print(None, app.clock.now());
    answer
}
