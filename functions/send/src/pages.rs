//! The Pages over HTTP: the access token, the pace, the switch and the webhook of each.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use futures_util::future::{join, join_all};
use shared::app::App;
use shared::domain::ids::PageId;
use shared::store::pages::KnownPage;
use tokio::time::timeout;

use crate::api::lists::ListPart;
use crate::api::pages::PageReport;
use crate::api::problems::Invalid;
use crate::api::progress::TokenState;
use crate::caller::Caller;
use crate::list::{self, DEFAULT_LIMIT, MAX_LIMIT};
use crate::problem::Problem;
use crate::query::Query;

/// The time for reading the token of a Page.
const TOKEN_TIME: Duration = Duration::from_secs(2);

/// `GET /v1/pages`: lists the Pages that have contacts, or had some, by id: a query, and a batch with an item and a token for each.
///
/// # Errors
/// If a parameter is wrong (400), or DynamoDB does not answer (503).
#[utoipa::path(
    get, path = "/v1/pages", operation_id = "listPages", tag = "contacts",
    summary = "List the Pages",
    description = "Those that have contacts, or had some, with the state of their access tokens, their rates and pauses, and the times \
        at which their webhooks were heard. Messenger is not asked. Pages that the caller may not use are left out.",
    params(
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 100, example = 50, description = "The number of items; 50 if absent."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the part before.", example = "MTc2NDU0"),
    ),
    responses(
        (status = 200, description = "A part of the list.", body = ListPart<PageReport>),
        (status = 400, response = Invalid),
    ),
    security(("jwt" = ["broadcasts:read"]), ("iam" = [])),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    mut query: Query,
) -> Result<Json<ListPart<PageReport>>, Problem> {
    let list_id = query.list_id("pages");
    let limit = query.take("limit", |value| list::limit(value, MAX_LIMIT));
    let after = query.take("cursor", |value| {
        list::from_cursor(value, &list_id, |id| PageId::parse(id).ok())
    });
    query.finish()?;
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    let mut pages = app.store.pages().listed().await?;
    let is_asked_for = |page_id: &PageId| after.as_ref().is_none_or(|after| page_id > after);
    pages.retain(|KnownPage { page_id, .. }| caller.pages.allow(page_id) && is_asked_for(page_id));
    let has_more = pages.len() > limit;
    pages.truncate(limit);
    let last = pages.last().filter(|_| has_more);
    let next_cursor = last.map(|last| list::to_cursor(&list_id, &last.page_id));
    let (ids, now) = (
        pages.iter().map(|page| page.page_id.clone()).collect::<Vec<_>>(),
        app.clock.now(),
    );
    let tokens = join_all(ids.iter().map(|page_id| token_state(&app, page_id)));
    let sending = app.store.sending();
    let (tokens, switches) = join(tokens, sending.read_all_now(&ids, now)).await;
    let switches = switches?;
    let report = |(page, token): (KnownPage, TokenState)| {
        let KnownPage {
            page_id,
            webhook_heard_at,
        } = page;
        let state = switches.of(&page_id).page;
        PageReport {
            page_id,
            token,
            rate: state.rate(app.config.page_rate),
            paused_until: state.paused_until(now),
            backoffs: state.backoffs,
            switch: state.switch,
            webhook_heard_at,
        }
    };
    Ok(Json(ListPart {
        items: pages.into_iter().zip(tokens).map(report).collect(),
        next_cursor,
    }))
}

/// Returns the state of a Page's token, as far as it is known without a call to Messenger.
pub async fn token_state(app: &App, page_id: &PageId) -> TokenState {
    match timeout(TOKEN_TIME, app.secrets.access(page_id)).await {
        Ok(Ok(_)) => TokenState::Ok,
        Ok(Err(error)) if error.may_pass() => TokenState::Unknown,
        Ok(Err(_)) => TokenState::Missing,
        Err(_) => TokenState::Unknown,
    }
}
