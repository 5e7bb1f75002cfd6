//! The function send: the HTTP API. Accepts contacts, broadcasts and Messenger's events, and reports on broadcasts.

pub mod accept;
pub mod api;
pub mod approval;
pub mod audience;
pub mod audience_count;
pub mod audiences;
pub mod broadcasts;
pub mod caller;
pub mod change;
pub mod checks;
pub mod contact_export;
pub mod contact_list;
pub mod contact_values;
pub mod contacts;
pub mod controls;
pub mod conversations;
pub mod csv;
pub mod csv_answer;
pub mod csv_cells;
pub mod csv_form;
pub mod csv_lines;
pub mod deliveries;
pub mod document;
pub mod erasure;
pub mod etag;
pub mod evidence;
pub mod fields;
pub mod import;
pub mod invocation;
pub mod list;
pub mod negotiation;
pub mod new_broadcast;
pub mod new_message;
pub mod numbers;
pub mod pages;
pub mod preview;
pub mod problem;
pub mod problem_types;
pub mod progress;
pub mod query;
pub mod reasons;
pub mod recipients;
pub mod refused;
pub mod report;
pub mod request;
pub mod retry;
pub mod schedule;
pub mod sending;
mod stopped;
pub mod tags;
pub mod test_send;
pub mod webhook;
mod webhook_events;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use shared::app::App;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::problems::Kind;
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

/// Returns every route, and the document of them. The template declares the same routes: one that is missing there does not reach
/// the function.
fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(document::Head::openapi())
        .routes(routes!(sending::health))
        .routes(routes!(checks::show))
        .routes(routes!(document::show))
        .routes(routes!(sending::show, sending::change))
        .routes(routes!(contacts::upsert, contact_list::list))
        .routes(routes!(tags::change))
        .routes(routes!(pages::list))
        .routes(routes!(contacts::show, contacts::delete))
        .routes(routes!(evidence::list_of_contact))
        .routes(routes!(audiences::list))
        .routes(routes!(audiences::save, audiences::show, audiences::delete))
        .routes(routes!(audience_count::count))
        .routes(routes!(audience_count::count_unsaved))
        .routes(routes!(conversations::start, conversations::show))
        .routes(routes!(conversations::cancel))
        .routes(routes!(broadcasts::create, broadcasts::list))
        .routes(routes!(broadcasts::show, change::change))
        .routes(routes!(test_send::send))
        .routes(routes!(approval::approve))
        .routes(routes!(controls::pause))
        .routes(routes!(controls::resume))
        .routes(routes!(controls::cancel))
        .routes(routes!(retry::retry))
        .routes(routes!(deliveries::list))
        .routes(routes!(evidence::show))
        .routes(routes!(problem_types::describe))
        .routes(routes!(webhook::verify, webhook::receive))
}

/// Returns the OpenAPI document of the API.
pub fn document() -> OpenApi {
    let (_, mut document) = routes().split_for_parts();
    document::complete(&mut document);
    document
}

/// Returns the API as a service.
pub fn router(app: Arc<App>) -> Router {
    let unknown = || async { Problem::not_found("There is no such path.") };
    let wrong_method = || async {
        let detail = "This path does not support the method.";
        Problem::new(Kind::MethodNotAllowed, detail)
    };
    let (router, _) = routes().split_for_parts();
    router
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(negotiation::negotiate))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), invocation::run))
        .with_state(app)
}
