//! The switch for sending over HTTP, and the health check, which shows it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use shared::app::App;
use shared::domain::ids::Pages;
use shared::domain::sending::SendingSwitch;
use shared::domain::visible::trimmed;
use tracing::warn;

use crate::api::problems::{Invalid, Kind, TooLarge, UnsupportedType};
use crate::api::sending::{Health, SendingChange};
use crate::caller::Caller;
use crate::fields::{Faults, Fields, word};
use crate::problem::Problem;
use crate::query::NoParameters;
use crate::request::JsonBody;

/// The maximum length of a reason, in characters.
const MAX_REASON: usize = 200;

/// `GET /v1/health`: tells that the API works, and whether sending is switched on.
///
/// # Errors
/// If there is a parameter (400), or DynamoDB does not answer (503).
#[utoipa::path(
    get, path = "/v1/health", operation_id = "getHealth", tag = "service",
    summary = "Check that the API works",
    description = "Answered with 200 when the function runs and the database answers it.",
    responses((status = 200, description = "The API works.", body = Health)),
    security(("jwt" = []), ("iam" = [])),
)]
pub async fn health(State(app): State<Arc<App>>, _: NoParameters) -> Result<Json<Health>, Problem> {
    let switch = app.store.sending().read(app.clock.now()).await?;
    Ok(Json(Health {
        status: "ok".to_owned(),
        sending: switch.state,
    }))
}

/// `GET /v1/sending`: shows the switch for sending.
///
/// # Errors
/// If there is a parameter (400), or DynamoDB does not answer (503).
#[utoipa::path(
    get, path = "/v1/sending", operation_id = "getSending", tag = "sending",
    summary = "Show the switch for sending",
    description = "The position, the reason, and who set it when.",
    responses((status = 200, description = "The switch as it was set last.", body = SendingSwitch)),
    security(("jwt" = ["broadcasts:read"]), ("iam" = [])),
)]
pub async fn show(State(app): State<Arc<App>>, _: Caller, _: NoParameters) -> Result<Json<SendingSwitch>, Problem> {
    Ok(Json(app.store.sending().read(app.clock.now()).await?))
}

/// `PUT /v1/sending`: sets the switch for sending. Within five seconds no run starts another send, or runs start again with the
/// next firing of the schedule.
///
/// # Errors
/// If the body has faults (400), the caller is limited to some Pages (403), or DynamoDB does not answer (503).
#[utoipa::path(
    put, path = "/v1/sending", operation_id = "changeSending", tag = "sending",
    summary = "Set the switch for sending",
    description = "`off`: within five seconds no new send starts, on any Page, and nothing is lost. `on`: jobs continue within a \
        minute. `halt`: every due job is halted. A caller that is limited to some Pages cannot set it.",
    request_body = SendingChange,
    responses(
        (status = 200, description = "The switch as it is now.", body = SendingSwitch),
        (status = 400, response = Invalid),
        (status = 413, response = TooLarge),
        (status = 415, response = UnsupportedType),
    ),
    security(("jwt" = ["broadcasts:write"]), ("iam" = [])),
)]
pub async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: NoParameters,
    JsonBody(body): JsonBody,
) -> Result<Json<SendingSwitch>, Problem> {
    if caller.pages != Pages::All {
        let detail = "The switch concerns every Page, and you may not use all of them.";
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    let faults = Faults::default();
    let read = Fields::of(&body, "", &["state", "reason"], &faults).and_then(|fields| {
        let state = fields.parsed("state", fields.required("state"), |text| word(text, "on, off and halt"));
        let reason = fields.parsed("reason", fields.optional("reason"), reason);
        Some(SendingChange { state: state?, reason })
    });
    let SendingChange { state, reason } = faults.or(read)?;
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
