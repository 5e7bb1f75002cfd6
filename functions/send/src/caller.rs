//! The caller of the API, as API Gateway authenticated it, and the Pages that it may use. Scopes are checked by API Gateway.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use lambda_http::request::RequestContext;
use serde_json::json;
use shared::app::App;
use shared::domain::access::Access;
use shared::domain::ids::{PageId, Pages};

use crate::api::broadcasts::JobReport;
use crate::api::problems::Kind;
use crate::problem::Problem;

/// The caller of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Stable identity of the caller; `None` when unauthenticated. All unauthenticated requests are one caller.
    pub name: Option<String>,
    /// The Pages that the caller may use.
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
            (Some(jwt), _) => {
                let access = Access::of(parts.method.as_str(), parts.uri.path());
                check_role(app.config.roles_claim.as_deref(), &jwt.claims, access)?;
                Self::by_token(&jwt.claims, app.config.pages_claim.as_deref())
            }
            (None, Some(iam)) => Self::by_signature(iam.user_id.as_deref()),
            (None, None) => Ok(Self::unauthenticated()),
        }
    }
}

impl Caller {
    /// Returns the caller of a request that API Gateway did not authenticate.
    pub fn unauthenticated() -> Self {
        Self {
            name: None,
            pages: Pages::All,
        }
    }

    fn by_token(claims: &HashMap<String, String>, pages_claim: Option<&str>) -> Result<Self, Problem> {
        let named = |name: &'static str| Some((name, claims.get(name)?));
        let Some((kind, id)) = named("sub").or_else(|| named("client_id")) else {
            return Err(forbidden(
                "The token identifies no caller: it must have the claim sub or client_id.",
            ));
        };
        let pages = pages_claim.map_or(Pages::All, |claim| allowed_pages(claim, claims));
        if pages.are_none() {
            return Err(forbidden(
                "The token allows no Page: it must name those that you may use.",
            ));
        }
        // JSON escapes its parts, so no value of a claim can imitate another caller.
        let name = json!(["jwt", claims.get("iss"), kind, id]).to_string();
        Ok(Self {
            name: Some(name),
            pages,
        })
    }

    fn by_signature(user_id: Option<&str>) -> Result<Self, Problem> {
        let Some(id) = user_id.filter(|id| !id.is_empty()) else {
            return Err(forbidden("The signature identifies no caller: it has no user id."));
        };
        // `ROLE:SESSION`: all sessions of a role are one caller. The next attempt at a request may be made by another
        // instance of the caller's program, and must be recognised.
        let role = id.split_once(':').map(|(role, _)| role);
        let id = role.filter(|role| role.starts_with("AROA")).unwrap_or(id);
        Ok(Self {
            name: Some(json!(["iam", id]).to_string()),
            pages: Pages::All,
        })
    }

    /// Returns true if the caller may see a broadcast with these jobs: only if it may use the Page of every job.
    pub fn may_see(&self, jobs: &[JobReport]) -> bool {
        let mut pages = jobs.iter().map(|job| &job.page_id);
        pages.all(|page_id| self.pages.allow(page_id))
    }
}

/// Checks that a token has the scope of the route among its roles or groups. API Gateway looks for scopes in `scope` and `scp`
/// only, and some issuers give applications neither.
fn check_role(claim: Option<&str>, claims: &HashMap<String, String>, access: Access) -> Result<(), Problem> {
    let (Some(claim), Access::Scope(scope)) = (claim, access) else {
        return Ok(());
    };
    let roles = claims.get(claim).map_or("", String::as_str);
    match listed(roles).any(|role| role == scope) {
        true => Ok(()),
        false => Err(forbidden(&format!("The token must have {scope} in its claim {claim}."))),
    }
}

/// Returns the Pages of the claim with this name. Without the claim they are none, or all if the name is given with a `?`.
fn allowed_pages(claim: &str, claims: &HashMap<String, String>) -> Pages {
    let (name, is_optional) = match claim.strip_suffix('?') {
        Some(name) => (name, true),
        None => (claim, false),
    };
    match claims.get(name) {
        None if is_optional => Pages::All,
        value => Pages::Only(pages(value.map_or("", String::as_str))),
    }
}

/// Parses the Pages of a claim. Parts that are no Page ids are ignored.
fn pages(claim: &str) -> BTreeSet<PageId> {
    listed(claim).filter_map(|id| PageId::parse(id).ok()).collect()
}

/// Returns the parts of a claim that is a list. API Gateway writes a list as `[a b]`; an identity provider may write a text with
/// spaces or commas.
fn listed(claim: &str) -> impl Iterator<Item = &str> {
    claim.split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']'))
}

fn forbidden(detail: &str) -> Problem {
    Problem::new(Kind::Forbidden, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_claim_is_a_list_of_api_gateway_or_a_text() {
        let all = [PageId::parse("1").unwrap(), PageId::parse("22").unwrap()];
        for claim in ["[1 22]", "1 22", "1,22", " 1, 22 ", "[1, 22]"] {
            assert_eq!(pages(claim), all.clone().into(), "{claim:?}");
        }
        for claim in ["", "[]", "*", "1.0E14", "a/b"] {
            assert!(pages(claim).is_empty(), "{claim:?}");
        }
    }
}
