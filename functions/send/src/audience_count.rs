//! The number of contacts of an audience, over HTTP: counted in parts, each as long as an answer may take.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde_json::json;
use shared::app::App;
use shared::domain::audience::{Audience, AudienceName, ExcludedCounts};
use shared::domain::ids::{ContactId, PageId};
use shared::store::members::Members;
use tokio::time::Instant;

use crate::api::audiences::{AudienceChoice, AudienceCount, ExcludedCount, PageCount};
use crate::api::problems::{Invalid, NotFound, TooLarge, UnsupportedType};
use crate::audience::{chosen, read_choice};
use crate::audiences::visible;
use crate::caller::Caller;
use crate::fields::Faults;
use crate::list::{self, PagePosition};
use crate::problem::Problem;
use crate::query::Query;
use crate::request::{JsonBody, PathId};

/// The time for which one request counts; API Gateway waits 29 s.
const COUNTING_TIME: Duration = Duration::from_secs(15);
/// The maximum of the parameter `limit` of a count.
const MAX_CONSIDERED: usize = 10_000_000;

/// `GET /v1/audiences/{name}/count`: counts the contacts of a saved audience.
///
/// # Errors
/// If there is no such audience (404), a parameter is wrong, or a broadcast of the audience is gone (400), or DynamoDB does not
/// answer (503).
#[utoipa::path(
    get, path = "/v1/audiences/{name}/count", operation_id = "countAudience", tag = "audiences",
    summary = "Count the contacts of a saved audience",
    description = "As of a moment ago. Every contact of the audience's Pages is looked at, for up to 15 seconds: with `next_cursor` \
        the next request counts on, and the numbers of all parts add up.",
    params(
        ("name" = AudienceName, Path, description = "The name.", example = "vips"),
        (
            "limit" = Option<u64>, Query, minimum = 1, maximum = 10_000_000, example = 1_000_000,
            description = "The number of contacts that one request looks at, about; as many as there is time for, if absent.",
        ),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the part before.", example = "MTc2NDU0"),
    ),
    responses(
        (status = 200, description = "The counts, or a part of them.", body = AudienceCount),
        (status = 400, response = Invalid),
        (status = 404, response = NotFound),
    ),
    security(("jwt" = ["broadcasts:read"]), ("iam" = [])),
)]
pub async fn count(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(name): PathId,
    query: Query,
) -> Result<Json<AudienceCount>, Problem> {
    let audience = visible(&app, &caller, &name).await?.saved.audience;
    count_part(&app, &caller, &AudienceChoice::Filters(audience), query)
        .await
        .map(Json)
}

/// `POST /v1/audiences/count`: counts the contacts of an audience that need not be saved.
///
/// # Errors
/// If the body or a parameter has faults (400), or DynamoDB does not answer (503).
#[utoipa::path(
    post, path = "/v1/audiences/count", operation_id = "countContacts", tag = "audiences",
    summary = "Count the contacts of an audience",
    description = "As the count of a saved audience, for one that need not be saved. Nothing is stored.",
    params(
        (
            "limit" = Option<u64>, Query, minimum = 1, maximum = 10_000_000, example = 1_000_000,
            description = "The number of contacts that one request looks at, about; as many as there is time for, if absent.",
        ),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the part before.", example = "MTc2NDU0"),
    ),
    request_body = AudienceChoice,
    responses(
        (status = 200, description = "The counts, or a part of them.", body = AudienceCount),
        (status = 400, response = Invalid),
        (status = 413, response = TooLarge),
        (status = 415, response = UnsupportedType),
    ),
    security(("jwt" = ["broadcasts:read"]), ("iam" = [])),
)]
pub async fn count_unsaved(
    State(app): State<Arc<App>>,
    caller: Caller,
    query: Query,
    JsonBody(body): JsonBody,
) -> Result<Json<AudienceCount>, Problem> {
    let faults = Faults::default();
    let choice = read_choice(&body, "", &caller.pages, &faults);
    let choice = faults.or(choice)?;
    count_part(&app, &caller, &choice, query).await.map(Json)
}

/// Counts from the position of the request's cursor on, until the time or the limit of one request is reached.
async fn count_part(
    app: &App,
    caller: &Caller,
    choice: &AudienceChoice,
    mut query: Query,
) -> Result<AudienceCount, Problem> {
    let (now, ends) = (app.clock.now(), Instant::now() + COUNTING_TIME);
    let list_id = format!("count\0{}", json!(choice));
    let limit = query.take("limit", |value| list::limit(value, MAX_CONSIDERED));
    let after = query.take("cursor", |value| {
        list::from_cursor(value, &list_id, PagePosition::parse)
    });
    query.finish()?;
    let audience = chosen(app, caller, choice, "", now).await?;
    let pages = app.store.pages().of(&audience, &caller.pages).await?;
    let mut counting = Counting {
        now,
        ends,
        limit: limit.map_or(u64::MAX, |limit| limit as u64),
        count: AudienceCount::default(),
        excluded: ExcludedCounts::new(),
    };
    let mut position = None;
    for page_id in pages {
        let Some(after) = PagePosition::on(after.as_ref(), &page_id) else {
            continue;
        };
        position = counting.page(app, &audience, page_id, after).await?;
        if position.is_some() {
            break;
        }
    }
    Ok(AudienceCount {
        excluded: ExcludedCount::list(&counting.excluded),
        next_cursor: position.map(|position| list::to_cursor(&list_id, position)),
        ..counting.count
    })
}

/// A count that goes on.
struct Counting {
    now: Timestamp,
    ends: Instant,
    limit: u64,
    count: AudienceCount,
    excluded: ExcludedCounts,
}

impl Counting {
    /// Counts on one Page. Returns the position at which there was no more time, or nothing more was wanted.
    async fn page(
        &mut self,
        app: &App,
        audience: &Audience,
        page_id: PageId,
        mut after: Option<ContactId>,
    ) -> Result<Option<PagePosition>, Problem> {
        let mut members = Members::new(&app.store, &page_id, audience, self.now, after.clone());
        let mut matching = 0;
        let is_at_end = loop {
            if self.count.considered >= self.limit || Instant::now() >= self.ends {
                break false;
            }
            let Some(batch) = members.next_batch().await? else {
                break true;
            };
            matching += batch.members.len() as u64;
            self.count.considered += batch.considered;
            for (filter, contacts) in batch.excluded {
                *self.excluded.entry(filter).or_default() += contacts;
            }
            after = Some(batch.up_to);
        };
        self.count.matching += matching;
        self.count.by_page.push(PageCount {
            page_id: page_id.clone(),
            matching,
        });
        Ok((!is_at_end).then_some(PagePosition { page_id, after }))
    }
}
