//! The switch for sending over HTTP, and the health check, which shows it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use shared::app::App;
use shared::domain::ids::{PageId, Pages};
use shared::domain::sending::{SendingChanged, SendingState, SendingSwitch};
use shared::domain::visible::trimmed;
use tracing::warn;

use crate::api::problems::{Invalid, Kind, NotFound, TooLarge, UnsupportedType};
use crate::api::sending::{Health, SendingChange, SendingReport};
use crate::caller::Caller;
use crate::fields::{Faults, Fields, word};
use crate::problem::Problem;
use crate::query::{NoParameters, Query};
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

/// `GET /v1/sending`: shows the switch for sending, for all Pages or for one.
///
/// # Errors
/// If a parameter is wrong (400), the caller may not use the Page (404), or DynamoDB does not answer (503).
#[utoipa::path(
    get, path = "/v1/sending", operation_id = "getSending", tag = "sending",
    summary = "Show the switch for sending",
    description = "The position, the reason, who set it when, and the last changes.",
    params((
        "page_id" = Option<PageId>, Query, example = "page-1",
        description = "Shows the switch of this Page. It is on if it was never set.",
    )),
    responses(
        (status = 200, description = "The switch as it was set last.", body = SendingReport),
        (status = 400, response = Invalid),
        (status = 404, response = NotFound),
    ),
    security(("jwt" = ["broadcasts:read"]), ("iam" = [])),
)]
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    mut query: Query,
) -> Result<Json<SendingReport>, Problem> {
    let page_id = query.take("page_id", |id| PageId::parse(id).map_err(|fault| fault.to_string()));
    query.finish()?;
    if page_id.as_ref().is_some_and(|page_id| !caller.pages.allow(page_id)) {
        return Err(unknown_page());
    }
    let pages: Vec<_> = page_id.iter().cloned().collect();
    let switches = app.store.sending().read_all_now(&pages, app.clock.now()).await?;
    let switch = match &page_id {
        None => switches.all.clone(),
        Some(page_id) => switches.of(page_id).page.switch.unwrap_or_default(),
    };
    let change = SendingChanged { switch, page_id };
    Ok(Json(report(&app, &caller, change, switches.all.state).await?))
}

/// Reports on a switch, with the changes that the caller may see.
async fn report(
    app: &App,
    caller: &Caller,
    change: SendingChanged,
    all_pages: SendingState,
) -> Result<SendingReport, Problem> {
    let mut history = app.store.sending().history().await?;
    history.retain(|changed| match (&changed.page_id, &change.page_id) {
        (None, _) => true,
        (Some(changed), None) => caller.pages.allow(changed),
        (Some(changed), Some(shown)) => changed == shown,
    });
    Ok(SendingReport {
        change,
        all_pages,
        history,
    })
}

fn unknown_page() -> Problem {
    Problem::not_found("There is no such Page.")
}

/// `PUT /v1/sending`: sets the switch for sending, for all Pages or for one. Within five seconds no run starts another send, or runs start again with the
/// next firing of the schedule.
///
/// # Errors
/// If the body has faults (400), the caller is limited to some Pages and names none (403), the Page has no access token or the
/// caller may not use it (404), or DynamoDB does not answer (503).
#[utoipa::path(
    put, path = "/v1/sending", operation_id = "changeSending", tag = "sending",
    summary = "Set the switch for sending",
    description = "`off`: within five seconds no new send starts, on any Page or on the one that is named, and nothing is lost. \
        `on`: jobs continue within a minute. `halt`: every due job is halted. A caller that is limited to some Pages has to name \
        one of them.",
    request_body = SendingChange,
    responses(
        (status = 200, description = "The switch as it is now.", body = SendingReport),
        (status = 400, response = Invalid),
        (status = 404, response = NotFound),
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
) -> Result<Json<SendingReport>, Problem> {
    let faults = Faults::default();
    let read = Fields::of(&body, "", &["state", "reason", "page_id"], &faults).and_then(|fields| {
        let state = fields.parsed("state", fields.required("state"), |text| word(text, "on, off and halt"));
        let reason = fields.parsed("reason", fields.optional("reason"), reason);
        let page_id = fields.parsed("page_id", fields.optional("page_id"), |id| {
            PageId::parse(id).map_err(|fault| fault.to_string())
        });
        Some(SendingChange {
            state: state?,
            reason,
            page_id,
        })
    });
    let SendingChange { state, reason, page_id } = faults.or(read)?;
    check_caller(&caller.pages, page_id.as_ref())?;
    if let Some(page_id) = &page_id
        && state != SendingState::On
    {
        check_page(&app, page_id).await?;
    }
    let (sending, now) = (app.store.sending(), app.clock.now());
    let change = SendingChanged {
        switch: SendingSwitch {
            state,
            reason,
            changed_by: caller.name.clone(),
            changed_at: Some(now),
        },
        page_id,
    };
    sending.set(&change, now).await?;
    warn!(sending.state = ?state, sending.reason = change.switch.reason, "sending switched");
    let all_pages = match change.page_id {
        None => state,
        Some(_) => sending.read(now).await?.state,
    };
    Ok(Json(report(&app, &caller, change, all_pages).await?))
}

/// Checks that the caller may set the switch of the Page, or that of all Pages.
fn check_caller(pages: &Pages, page_id: Option<&PageId>) -> Result<(), Problem> {
    match page_id {
        None if *pages != Pages::All => {
            let detail = "The switch concerns every Page, and you may not use all of them. Name a Page in page_id.";
            Err(Problem::new(Kind::Forbidden, detail))
        }
        Some(page_id) if !pages.allow(page_id) => Err(unknown_page()),
        _ => Ok(()),
    }
}

/// Checks that there is such a Page, since a misspelt one would stop nothing: a Page that sends has an access token.
async fn check_page(app: &App, page_id: &PageId) -> Result<(), Problem> {
    match app.secrets.access(page_id).await {
        Err(error) if !error.may_pass() => {
            let detail = format!("There is no access token of Page {page_id}, so it sends nothing.");
            Err(Problem::not_found(&detail))
        }
        _ => Ok(()),
    }
}

fn reason(text: &str) -> Result<String, String> {
    let text = trimmed(text);
    match text.chars().count() {
        0 => Err("must not be blank".to_owned()),
        n if n > MAX_REASON => Err(format!("must have at most {MAX_REASON} characters")),
        _ => Ok(text.to_owned()),
    }
}
