//! Who calls, as API Gateway has found out, and which Pages they may use. Scopes are API Gateway's to check.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use lambda_http::request::RequestContext;
use serde_json::json;
use shared::app::App;
use shared::ids::{PageId, Pages};
use shared::job::Report;

use crate::problem::Problem;

/// Whoever calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// What they are told from others by. None where nobody is asked who they are: there all are one caller.
    pub name: Option<String>,
    /// The Pages that they may use.
    pub pages: Pages,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let authorizer = match parts.extensions.get::<RequestContext>() {
            Some(RequestContext::ApiGatewayV2(context)) => context.authorizer.as_ref(),
            _ => None,
        };
        let jwt = authorizer.and_then(|authorizer| authorizer.jwt.as_ref());
        let iam = authorizer.and_then(|authorizer| authorizer.iam.as_ref());
        match (jwt, iam) {
            (Some(jwt), _) => Self::by_token(&jwt.claims, app.config.pages_claim.as_deref()),
            (None, Some(iam)) => Self::by_signature(iam.user_id.as_deref()),
            (None, None) => Ok(Self::anybody()),
        }
    }
}

impl Caller {
    /// Somebody who is not asked who they are.
    pub fn anybody() -> Self {
        Self {
            name: None,
            pages: Pages::All,
        }
    }

    fn by_token(
        claims: &HashMap<String, String>,
        pages_claim: Option<&str>,
    ) -> Result<Self, Problem> {
        let named = |name: &'static str| Some((name, claims.get(name)?));
        let Some((kind, id)) = named("sub").or_else(|| named("client_id")) else {
            return Err(forbidden("The token does not say whose it is."));
        };
        let pages = match pages_claim {
            None => Pages::All,
            Some(claim) => Pages::Only(pages(claims.get(claim).map_or("", String::as_str))),
        };
        if pages.are_none() {
            return Err(forbidden("The token names no Page that it is for."));
        }
        // As JSON, which no part of it can leave.
        let name = json!(["jwt", claims.get("iss"), kind, id]).to_string();
        Ok(Self {
            name: Some(name),
            pages,
        })
    }

    fn by_signature(user_id: Option<&str>) -> Result<Self, Problem> {
        let Some(id) = user_id.filter(|id| !id.is_empty()) else {
            return Err(forbidden("The signature does not say whose it is."));
        };
        // `ROLE:SESSION`: all sessions of a role are one caller, for the next attempt at a request may be made by another
        // instance of its program, and must be recognised.
        let role = id.split_once(':').map(|(role, _)| role);
        let id = role.filter(|role| role.starts_with("AROA")).unwrap_or(id);
        Ok(Self {
            name: Some(json!(["iam", id]).to_string()),
            pages: Pages::All,
        })
    }

    /// Whether they may know of a broadcast: only if all of it is theirs.
    pub fn may_see(&self, report: &Report) -> bool {
        let mut pages = report.jobs.iter().map(|job| &job.page_id);
        pages.all(|page_id| self.pages.allow(page_id))
    }
}

/// The Pages of a claim. API Gateway makes `[a b]` of a list; an identity provider may make a text with spaces or commas.
fn pages(claim: &str) -> std::collections::BTreeSet<PageId> {
    let apart = |c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']');
    let ids = claim.split(apart);
    ids.filter_map(|id| PageId::parse(id).ok()).collect()
}

fn forbidden(detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_names_pages_as_api_gateway_writes_lists_or_as_a_text() {
        let all = [PageId::parse("1").unwrap(), PageId::parse("22").unwrap()];
        for claim in ["[1 22]", "1 22", "1,22", " 1, 22 ", "[1, 22]"] {
            assert_eq!(pages(claim), all.clone().into(), "{claim:?}");
        }
        for claim in ["", "[]", "*", "1.0E14", "a/b"] {
            assert!(pages(claim).is_empty(), "{claim:?}");
        }
    }
}
