//! Audiences that are saved under a name, over HTTP.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use shared::app::App;
use shared::domain::audience::{Audience, AudienceName};
use shared::domain::ids::Pages;
use shared::store::audiences::SeenAudience;

use crate::api::audiences::SavedAudience;
use crate::api::lists::ListPart;
use crate::api::problems::{Invalid, Kind, NotFound, TooLarge, UnsupportedType};
use crate::audience::{check_broadcasts, may_see, read};
use crate::caller::Caller;
use crate::fields::Faults;
use crate::list::{self, DEFAULT_LIMIT, MAX_LIMIT};
use crate::problem::Problem;
use crate::query::{NoParameters, Query};
use crate::request::{JsonBody, PathId};

/// `PUT /v1/audiences/{name}`: saves an audience.
///
/// # Errors
/// If the name or the body has faults (400), the caller may not use all Pages of the audience that has the name (403), or
/// DynamoDB does not answer (503).
#[utoipa::path(
    put, path = "/v1/audiences/{name}", operation_id = "saveAudience", tag = "audiences",
    summary = "Save an audience",
    description = "Broadcasts take a copy when they are accepted, so that a later change does not reach them. A caller that is limited \
        to some Pages saves audiences that name Pages of its own.",
    params(("name" = AudienceName, Path, description = "The name.", example = "vips")),
    request_body = Audience,
    responses(
        (status = 200, description = "The audience is saved.", body = SavedAudience),
        (status = 400, response = Invalid),
        (status = 413, response = TooLarge),
        (status = 415, response = UnsupportedType),
    ),
    security(("jwt" = ["broadcasts:write"]), ("iam" = [])),
)]
pub async fn save(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(name): PathId,
    _: NoParameters,
    JsonBody(body): JsonBody,
) -> Result<Json<SavedAudience>, Problem> {
    let faults = Faults::default();
    let name = AudienceName::parse(&name)
        .map_err(|message| faults.add("name", message))
        .ok();
    let audience = read(&body, "", &caller.pages, &faults);
    if audience
        .as_ref()
        .is_some_and(|audience| !may_change(&caller.pages, audience))
    {
        faults.add("", "must have page_id or page_ids: you may not use all Pages");
    }
    let (name, audience) = faults.or(name.zip(audience))?;
    let now = app.clock.now();
    check_broadcasts(&app, &caller, &audience, "", now).await?;
    let new = SavedAudience {
        name,
        audience,
        changed_by: caller.name.clone(),
        changed_at: now,
    };
    loop {
        let seen = app.store.audiences().get(&new.name).await?;
        check_change(&caller.pages, seen.as_ref())?;
        if app.store.audiences().save_if_unchanged(&new, seen.as_ref()).await? {
            return Ok(Json(new));
        }
    }
}

/// `GET /v1/audiences/{name}`: shows a saved audience.
///
/// # Errors
/// If there is no such audience, or the caller may not use all of its Pages (404), or DynamoDB does not answer (503).
#[utoipa::path(
    get, path = "/v1/audiences/{name}", operation_id = "getAudience", tag = "audiences",
    summary = "Show a saved audience",
    description = "An audience of Pages that the caller may not use is unknown to it.",
    params(("name" = AudienceName, Path, description = "The name.", example = "vips")),
    responses(
        (status = 200, description = "The audience as it was saved last.", body = SavedAudience),
        (status = 404, response = NotFound),
    ),
    security(("jwt" = ["broadcasts:read"]), ("iam" = [])),
)]
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(name): PathId,
    _: NoParameters,
) -> Result<Json<SavedAudience>, Problem> {
    Ok(Json(visible(&app, &caller, &name).await?.saved))
}

/// `DELETE /v1/audiences/{name}`: deletes a saved audience. Broadcasts to it keep their copies.
///
/// # Errors
/// If there is no such audience (404), the caller may not use all of its Pages (403), or DynamoDB does not answer (503).
#[utoipa::path(
    delete, path = "/v1/audiences/{name}", operation_id = "deleteAudience", tag = "audiences",
    summary = "Delete a saved audience",
    description = "Broadcasts that were accepted for it keep their copies.",
    params(("name" = AudienceName, Path, description = "The name.", example = "vips")),
    responses(
        (status = 204, description = "The audience is deleted."),
        (status = 404, response = NotFound),
    ),
    security(("jwt" = ["broadcasts:write"]), ("iam" = [])),
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(name): PathId,
    _: NoParameters,
) -> Result<StatusCode, Problem> {
    loop {
        let seen = visible(&app, &caller, &name).await?;
        check_change(&caller.pages, Some(&seen))?;
        if app.store.audiences().delete_if_unchanged(&seen).await? {
            return Ok(StatusCode::NO_CONTENT);
        }
    }
}

/// `GET /v1/audiences`: lists saved audiences by name.
///
/// # Errors
/// If a parameter is wrong (400), or DynamoDB does not answer (503).
#[utoipa::path(
    get, path = "/v1/audiences", operation_id = "listAudiences", tag = "audiences",
    summary = "List saved audiences by name",
    description = "Audiences of Pages that the caller may not use are left out, so that a part may be empty and still have a `next_cursor`.",
    params(
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 100, example = 50, description = "The number of items; 50 if absent."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the part before.", example = "MTc2NDU0"),
    ),
    responses(
        (status = 200, description = "A part of the list.", body = ListPart<SavedAudience>),
        (status = 400, response = Invalid),
    ),
    security(("jwt" = ["broadcasts:read"]), ("iam" = [])),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    mut query: Query,
) -> Result<Json<ListPart<SavedAudience>>, Problem> {
    let list_id = query.list_id("audiences");
    let limit = query.take("limit", |value| list::limit(value, MAX_LIMIT));
    let after = query.take("cursor", |value| {
        list::from_cursor(value, &list_id, |name| AudienceName::parse(name).ok())
    });
    query.finish()?;
    let limit = i32::try_from(limit.unwrap_or(DEFAULT_LIMIT)).unwrap_or(i32::MAX);
    let (mut items, last) = app.store.audiences().list(after.as_ref(), limit).await?;
    items.retain(|saved| may_see(&caller.pages, &saved.audience));
    let next_cursor = last.map(|name| list::to_cursor(&list_id, name.as_str()));
    Ok(Json(ListPart { items, next_cursor }))
}

/// Reads the audience with the name of a path.
///
/// # Errors
/// If there is none that the caller may see (404), or DynamoDB does not answer (503).
pub async fn visible(app: &App, caller: &Caller, name: &str) -> Result<SeenAudience, Problem> {
    let unknown = || Problem::not_found("There is no such audience.");
    let name = AudienceName::parse(name).map_err(|_| unknown())?;
    let seen = app.store.audiences().get(&name).await?;
    let seen = seen.filter(|seen| may_see(&caller.pages, &seen.saved.audience));
    seen.ok_or_else(unknown)
}

/// Returns `true` if no Page of the audience is another caller's: one that names none is of all.
fn may_change(pages: &Pages, audience: &Audience) -> bool {
    *pages == Pages::All || (audience.named_pages().next().is_some() && may_see(pages, audience))
}

fn check_change(pages: &Pages, seen: Option<&SeenAudience>) -> Result<(), Problem> {
    match seen.is_none_or(|seen| may_change(pages, &seen.saved.audience)) {
        true => Ok(()),
        false => {
            let detail = "There is an audience of that name for Pages that you may not use.";
            Err(Problem::new(Kind::Forbidden, detail))
        }
    }
}
