//! The switch for sending over HTTP, and the health check, which shows it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use shared::app::App;
use shared::domain::ids::Pages;
use shared::domain::sending::{SendingState, SendingSwitch};
use shared::domain::visible::trimmed;
use tracing::warn;

use crate::caller::Caller;
use crate::fields::{Faults, Fields, word};
use crate::problem::Problem;
use crate::request::JsonBody;

/// The maximum length of a reason, in characters.
const MAX_REASON: usize = 200;

/// The answer to a health check.
#[derive(Debug, Serialize)]
pub struct Health {
    /// Always `ok`: the function runs, and the database answers it.
    pub status: &'static str,
    /// The switch for sending.
    pub sending: SendingState,
}

/// `GET /v1/health`: tells that the API works, and whether sending is switched on.
///
/// # Errors
/// If DynamoDB does not answer (503).
pub async fn health(State(app): State<Arc<App>>) -> Result<Json<Health>, Problem> {
    let switch = app.store.sending().read(app.clock.now()).await?;
    Ok(Json(Health {
        status: "ok",
        sending: switch.state,
    }))
}

/// `GET /v1/sending`: shows the switch for sending.
///
/// # Errors
/// If DynamoDB does not answer (503).
pub async fn show(State(app): State<Arc<App>>, _: Caller) -> Result<Json<SendingSwitch>, Problem> {
    Ok(Json(app.store.sending().read(app.clock.now()).await?))
}

/// `PUT /v1/sending`: sets the switch for sending. Within five seconds no run starts another send, or runs start again with the
/// next firing of the schedule.
///
/// # Errors
/// If the body has faults (400), the caller is limited to some Pages (403), or DynamoDB does not answer (503).
pub async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    JsonBody(body): JsonBody,
) -> Result<Json<SendingSwitch>, Problem> {
    if caller.pages != Pages::All {
        let detail = "The switch concerns every Page, and you may not use all of them.";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    let faults = Faults::default();
    let read = Fields::of(&body, "", &["state", "reason"], &faults).and_then(|fields| {
        let state = fields.parsed("state", fields.required("state"), |text| word(text, "on, off and halt"));
        let reason = fields.parsed("reason", fields.optional("reason"), reason);
        Some((state?, reason))
    });
    let (state, reason) = faults.or(read)?;
    let sending = app.store.sending();
    let switch = sending.set(state, reason, caller.name, app.clock.now()).await?;
    warn!(sending.state = ?state, sending.reason = switch.reason, "sending switched");
    Ok(Json(switch))
}

fn reason(text: &str) -> Result<String, String> {
    let text = trimmed(text);
    match text.chars().count() {
        0 => Err("must not be blank".to_owned()),
        n if n > MAX_REASON => Err(format!("must have at most {MAX_REASON} characters")),
        _ => Ok(text.to_owned()),
    }
}
