//! Checks of the installation and of a Page, for an operator who looks for a fault. None of them sends a message.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use shared::app::App;
use shared::domain::ids::PageId;
use shared::domain::reasons::code_of;
use shared::domain::sending::{SendingState, SendingSwitch};
use shared::messenger::MessengerClient;
use shared::messenger::errors::{SendError, Verdict};
use shared::messenger::meanings::{concerns_permission, concerns_token};
use shared::worker::calls::{Calls, Turn};

use crate::api::checks::{Check, CheckState, CheckedThing, Checks};
use crate::api::problems::{Invalid, NotFound};
use crate::caller::Caller;
use crate::problem::Problem;
use crate::query::Query;

const TOKEN_TAKEN: &str = "Messenger takes the access token";
const NOT_NOW: &str = "the calls for the Page pause at the moment";
const SEE_LOG: &str = "See the log of the function send.";
const PERMISSIONS: &str = "Grant the app pages_messaging, pages_manage_metadata and pages_read_engagement for this Page, and give the \
    Page a new access token.";
const SUBSCRIBE: &str = "Subscribe the webhook to these events, for this Page, in the app's dashboard at Meta.";

/// `GET /v1/checks`: checks the installation, or a Page.
///
/// # Errors
/// If a parameter is wrong (400), or the caller may not use the Page (404).
#[utoipa::path(
    get, path = "/v1/checks", operation_id = "getChecks", tag = "service",
    summary = "Check the installation, or a Page",
    description = "Without `page_id`: database, queue and the switch for sending. With it: the Page's switch, its access token, the \
        permissions for its conversations, and its webhook subscription, by two calls of Messenger. Nothing is sent, so the \
        permission to send shows with the first message only. Answered with 200 also if something is wrong.",
    params(("page_id" = Option<PageId>, Query, example = "page-1", description = "Checks this Page.")),
    responses(
        (status = 200, description = "The checks, each with its outcome.", body = Checks),
        (status = 400, response = Invalid),
        (status = 404, response = NotFound),
    ),
    security(("jwt" = ["broadcasts:read"]), ("iam" = [])),
)]
pub async fn show(State(app): State<Arc<App>>, caller: Caller, mut query: Query) -> Result<Json<Checks>, Problem> {
    let page_id = query.take("page_id", |id| PageId::parse(id).map_err(|fault| fault.to_string()));
    query.finish()?;
    if page_id.as_ref().is_some_and(|page_id| !caller.pages.allow(page_id)) {
        return Err(Problem::not_found("There is no such Page."));
    }
    let checks = match &page_id {
        None => of_installation(&app).await,
        Some(page_id) => of_page(&app, page_id).await,
    };
    Ok(Json(Checks {
        time: app.clock.now(),
        page_id,
        checks,
    }))
}

fn ok(check: CheckedThing, detail: &str) -> Check {
    outcome(check, CheckState::Ok, detail, None)
}

fn outcome(check: CheckedThing, state: CheckState, detail: impl Into<String>, remedy: Option<&str>) -> Check {
    Check {
        check,
        state,
        detail: detail.into(),
        remedy: remedy.map(str::to_owned),
    }
}

async fn of_installation(app: &App) -> Vec<Check> {
    let mut checks = Vec::new();
    match app.store.sending().read(app.clock.now()).await {
        Ok(switch) => {
            checks.push(ok(CheckedThing::Database, "the database answers"));
            checks.push(of_switch(&switch));
        }
        Err(_) => {
            let detail = "the database does not answer";
            checks.push(outcome(
                CheckedThing::Database,
                CheckState::Wrong,
                detail,
                Some(SEE_LOG),
            ));
        }
    }
    checks.push(match app.queue.answers().await {
        true => ok(CheckedThing::Queue, "the queue of wake-ups answers"),
        false => {
            let detail = "the queue of wake-ups does not answer, so that broadcasts begin late";
            outcome(CheckedThing::Queue, CheckState::Wrong, detail, Some(SEE_LOG))
        }
    });
    checks
}

fn of_switch(switch: &SendingSwitch) -> Check {
    let position = match switch.state {
        SendingState::On => return ok(CheckedThing::Sending, "sending is switched on"),
        SendingState::Off => "off",
        SendingState::Halt => "to halt",
    };
    let reason = switch
        .reason
        .as_ref()
        .map_or_else(String::new, |reason| format!(": {reason}"));
    let detail = format!("sending is switched {position}{reason}");
    let remedy = Some("Switch it on when the cause is repaired.");
    outcome(CheckedThing::Sending, CheckState::Wrong, detail, remedy)
}

async fn of_page(app: &App, page_id: &PageId) -> Vec<Check> {
    let mut checks = Vec::new();
    let pages = [page_id.clone()];
    if let Ok(switches) = app.store.sending().read_all_now(&pages, app.clock.now()).await {
        checks.extend(switches.of(page_id).page.switch.as_ref().map(of_switch));
    }
    let access = match app.secrets.access(page_id).await {
        Ok(access) => access,
        Err(error) => {
            let state = match error.may_pass() {
                true => CheckState::Unknown,
                false => CheckState::Wrong,
            };
            checks.push(outcome(CheckedThing::Token, state, error.to_string(), None));
            return checks;
        }
    };
    let Ok(messenger) = MessengerClient::new(&app.config, page_id, access) else {
        return checks;
    };
    let mut calls = Calls::new(app, page_id);
    let listed = match calls.wait().await {
        Ok(Turn::Now) => messenger.people(None, 1).await.map(|_| ()),
        _ => Err(SendError::NoAnswer(NOT_NOW)),
    };
    let token_is_refused = listed
        .as_ref()
        .is_err_and(|error| concerns_token(&code_of(&error.to_string())));
    checks.extend(of_list(&listed));
    if token_is_refused {
        app.secrets.forget_token(page_id);
        return checks;
    }
    let missing = match calls.wait().await {
        Ok(Turn::Now) => messenger.missing_subscriptions().await,
        _ => Err(SendError::NoAnswer(NOT_NOW)),
    };
    checks.push(match missing {
        Ok(missing) if missing.is_empty() => ok(CheckedThing::Webhook, "Messenger sends the Page's events"),
        Ok(missing) => {
            let detail = format!("no app gets {}", missing.join(", "));
            outcome(CheckedThing::Webhook, CheckState::Wrong, detail, Some(SUBSCRIBE))
        }
        Err(error) => of_error(CheckedThing::Webhook, "tell its subscriptions", &error),
    });
    checks
}

/// Returns what a call for the list of conversations tells: of the token, and of the permissions.
fn of_list(listed: &Result<(), SendError>) -> Vec<Check> {
    let error = match listed {
        Ok(()) => {
            let permissions = "the app may read the Page's conversations";
            return vec![
                ok(CheckedThing::Token, TOKEN_TAKEN),
                ok(CheckedThing::Conversations, permissions),
            ];
        }
        Err(error) => error,
    };
    let is_refusal = matches!(
        error.verdict(),
        Verdict::Never | Verdict::Stop | Verdict::StopIfConfirmed
    );
    match concerns_token(&code_of(&error.to_string())) {
        true => vec![of_error(CheckedThing::Token, "take the access token", error)],
        false if is_refusal => vec![
            ok(CheckedThing::Token, TOKEN_TAKEN),
            of_error(CheckedThing::Conversations, "list the Page's conversations", error),
        ],
        false => vec![of_error(CheckedThing::Token, "answer", error)],
    }
}

fn of_error(check: CheckedThing, what: &str, error: &SendError) -> Check {
    match error.verdict() {
        Verdict::Later | Verdict::RateLimited(_) | Verdict::InDoubt => {
            outcome(check, CheckState::Unknown, error.to_string(), None)
        }
        Verdict::Never | Verdict::Stop | Verdict::StopIfConfirmed => {
            let code = code_of(&error.to_string());
            let detail = format!("Messenger does not {what}, with the code {code}");
            let remedy = match check {
                CheckedThing::Token => "Give the Page a new access token.",
                _ if concerns_permission(&code) => PERMISSIONS,
                _ => "See Meta's reference of error codes.",
            };
            outcome(check, CheckState::Wrong, detail, Some(remedy))
        }
    }
}
