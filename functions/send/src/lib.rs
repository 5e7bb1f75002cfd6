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
use axum::routing::MethodRouter;
use shared::app::App;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::{PathItemExt as _, routes};

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

/// Adds every route to a router: the handlers of one path in each line. The template declares the same routes: one that is missing
/// there does not reach the function.
macro_rules! add_routes {
    ($router:expr, $add:ident) => {{
        let router = $router;
        let router = $add!(router, sending::health);
        let router = $add!(router, checks::show);
        let router = $add!(router, document::show);
        let router = $add!(router, sending::show, sending::change);
        let router = $add!(router, contacts::upsert, contact_list::list);
        let router = $add!(router, tags::change);
        let router = $add!(router, pages::list);
        let router = $add!(router, contacts::show, contacts::delete);
        let router = $add!(router, evidence::list_of_contact);
        let router = $add!(router, audiences::list);
        let router = $add!(router, audiences::save, audiences::show, audiences::delete);
        let router = $add!(router, audience_count::count);
        let router = $add!(router, audience_count::count_unsaved);
        let router = $add!(router, conversations::start, conversations::show);
        let router = $add!(router, conversations::cancel);
        let router = $add!(router, broadcasts::create, broadcasts::list);
        let router = $add!(router, broadcasts::show, change::change);
        let router = $add!(router, test_send::send);
        let router = $add!(router, approval::approve);
        let router = $add!(router, controls::pause);
        let router = $add!(router, controls::resume);
        let router = $add!(router, controls::cancel);
        let router = $add!(router, retry::retry);
        let router = $add!(router, deliveries::list);
        let router = $add!(router, evidence::show);
        let router = $add!(router, problem_types::describe);
        let router = $add!(router, webhook::verify, webhook::receive);
        router
    }};
}

/// Adds a path to a router that makes the document.
macro_rules! documented {
    ($router:ident, $($module:ident::$handler:ident),+) => {
        $router.routes(routes!($($module::$handler),+))
    };
}

/// Adds a path without its part of the document, which takes longer to make than all else at the start of the function.
macro_rules! undocumented {
    ($router:ident, $($module:ident::$handler:ident),+) => {
        utoipa_axum::paste! {{
            let handlers = MethodRouter::new();
            $(
                let methods = <$module::[<__path_ $handler>] as utoipa::Path>::methods();
                let handlers = methods.iter().fold(handlers, |handlers, method| {
                    handlers.on(method.to_method_filter(), $module::$handler)
                });
            )+
            let [path, ..] = [$(<$module::[<__path_ $handler>] as utoipa::Path>::path()),+];
            $router.route(&path, handlers)
        }}
    };
}

/// Returns the OpenAPI document of the API.
pub fn document() -> OpenApi {
    let router: OpenApiRouter<Arc<App>> = OpenApiRouter::with_openapi(document::Head::openapi());
    let (_, mut document) = add_routes!(router, documented).split_for_parts();
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
    add_routes!(Router::new(), undocumented)
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(negotiation::negotiate))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), invocation::run))
        .with_state(app)
}
