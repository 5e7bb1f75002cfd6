//! The answers with a page.

use askama::Template;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use sha2::{Digest as _, Sha256};

use crate::failure::Failure;
use crate::show::hex;

/// The sources that a page may load from: this server. Nothing is written inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// An answer with a page.
pub type Answer = Result<Response, Failure>;

/// Answers with a template.
pub fn html(template: &impl Template) -> Answer {
    Ok(Html(rendered(template)?).into_response())
}

/// Answers with a template that shows a form again, which was refused.
pub fn refused(template: &impl Template) -> Answer {
    Ok((StatusCode::UNPROCESSABLE_ENTITY, Html(rendered(template)?)).into_response())
}

/// Answers with a part of a page, or with 304 if the browser has it already.
pub fn fresh(request: &HeaderMap, template: &impl Template) -> Answer {
    let html = rendered(template)?;
    let tag = format!("\"{:.32}\"", hex(&Sha256::digest(&html)));
    Ok(match has(request, &tag) {
        true => not_modified(&tag),
        false => tagged(Html(html), &tag),
    })
}

/// Returns true if the browser has the answer with this tag.
pub fn has(request: &HeaderMap, tag: &str) -> bool {
    request.get(header::IF_NONE_MATCH).is_some_and(|known| known == tag)
}

/// Answers that the browser has the answer already.
pub fn not_modified(tag: &str) -> Response {
    tagged(StatusCode::NOT_MODIFIED, tag)
}

/// Adds a tag to an answer.
pub fn tagged(answer: impl IntoResponse, tag: &str) -> Response {
    let mut answer = answer.into_response();
    if let Ok(tag) = HeaderValue::from_str(tag) {
        answer.headers_mut().insert(header::ETAG, tag);
    }
    answer
}

/// Renders a template.
pub fn rendered(template: &impl Template) -> Result<String, Failure> {
    template.render().map_err(|error| {
        tracing::error!(error = %error, "a page could not be written");
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "The page could not be written")
    })
}

/// Adds the rules of every answer: what a page may load, and that it is not kept for others.
pub async fn with_rules(mut answer: Response<Body>) -> Response<Body> {
    let headers = answer.headers_mut();
    let rules = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Without a referrer a browser sends `Origin: null` with a form, which is refused.
        (header::REFERRER_POLICY, "same-origin"),
    ];
    for (name, value) in rules {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("private, no-cache"));
    answer
}
