//! send: the HTTP API. Accepts contacts and broadcasts, and reports what became of them.

pub mod accept;
pub mod broadcasts;
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
use axum::routing::{get, post, put};
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

/// The API, as DESIGN's contract has it.
pub fn router(app: Arc<App>) -> Router {
    let health = || async { Json(json!({"status": "ok"})) };
    let unknown = || async { Problem::not_found("There is nothing here.") };
    let wrong_method = || async {
        let status = axum::http::StatusCode::METHOD_NOT_ALLOWED;
        Problem::new(status, "This method is not for this path.")
    };
    Router::new()
        .route("/v1/health", get(health))
        .route("/v1/contacts", put(contacts::upsert))
        .route(
            "/v1/contacts/{contact_id}",
            get(contacts::show).delete(contacts::delete),
        )
        .route("/v1/broadcasts/{id}/resume", post(broadcasts::resume))
        .route(
            "/v1/broadcasts",
            post(broadcasts::create).get(broadcasts::list),
        )
        .route("/v1/broadcasts/{id}", get(broadcasts::show))
        .route("/v1/broadcasts/{id}/deliveries", get(deliveries::list))
        .route(
            "/v1/webhooks/messenger",
            get(webhook::verify).post(webhook::receive),
        )
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
