//! The function send: the HTTP API. Accepts contacts, broadcasts and Messenger's events, and reports on broadcasts.

pub mod accept;
pub mod broadcasts;
pub mod caller;
pub mod contact_values;
pub mod contacts;
pub mod csv;
pub mod csv_form;
pub mod csv_lines;
pub mod deliveries;
pub mod erasure;
pub mod fields;
pub mod import;
pub mod invocation;
pub mod list;
pub mod new_broadcast;
pub mod new_message;
pub mod numbers;
pub mod problem;
pub mod report;
pub mod request;
pub mod sending;
pub mod webhook;
mod webhook_events;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware;
use axum::routing::{MethodRouter, delete, get, post, put};
use shared::app::App;

use crate::problem::Problem;

/// Runs as a Lambda function until the process is told to end.
///
/// # Errors
/// If the configuration is missing or wrong, or the Lambda Runtime API fails.
pub async fn run() -> Result<(), lambda_http::Error> {
    shared::runtime::telemetry::init();
    let app = App::from_env().await.map_err(|error| error.to_string())?;
    lambda_http::run(router(Arc::new(app))).await
}

/// Returns every route, by method and path as API Gateway names it.
pub fn routes() -> [(&'static str, MethodRouter<Arc<App>>); 13] {
    [
        ("GET /v1/health", get(sending::health)),
        ("GET /v1/sending", get(sending::show)),
        ("PUT /v1/sending", put(sending::change)),
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

/// Returns the API as a service.
pub fn router(app: Arc<App>) -> Router {
    let unknown = || async { Problem::not_found("There is no such path.") };
    let wrong_method = || async {
        let detail = "This path does not support the method.";
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
    };
    let mut router = Router::new();
    for (route, handler) in routes() {
        let (_, path) = route.split_once(' ').unwrap_or_default();
        router = router.route(path, handler);
    }
    router
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), invocation::run))
        .with_state(app)
}
