//! `/sandbox/…`: the ledger and the faults, for whoever works with the sandbox from outside.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::Messenger;
use super::faults::Faults;
use super::ledger::{self, Received, Summary};

pub fn routes() -> Router<Arc<Messenger>> {
    Router::new()
        .route("/sandbox/messages", get(messages).delete(forget_messages))
        .route("/sandbox/summary", get(summary))
        .route(
            "/sandbox/faults",
            get(faults).put(set_faults).delete(clear_faults),
        )
}

async fn messages(State(messenger): State<Arc<Messenger>>) -> Json<Vec<Received>> {
    Json(messenger.contents().received.clone())
}

async fn forget_messages(State(messenger): State<Arc<Messenger>>) -> StatusCode {
    messenger.contents().received.clear();
    StatusCode::NO_CONTENT
}

async fn summary(State(messenger): State<Arc<Messenger>>) -> Json<Summary> {
    Json(ledger::summarize(&messenger.contents().received))
}

async fn faults(State(messenger): State<Arc<Messenger>>) -> Json<Faults> {
    Json(messenger.contents().faults.clone())
}

async fn set_faults(
    State(messenger): State<Arc<Messenger>>,
    faults: Result<Json<Faults>, JsonRejection>,
) -> Response {
    match faults {
        Ok(Json(faults)) => {
            messenger.contents().faults = faults.clone();
            Json(faults).into_response()
        }
        Err(rejection) => rejection.into_response(),
    }
}

async fn clear_faults(State(messenger): State<Arc<Messenger>>) -> StatusCode {
    messenger.contents().faults = Faults::default();
    StatusCode::NO_CONTENT
}
