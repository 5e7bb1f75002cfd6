//! The frame of every page, and the answers that have one.

use askama::Template;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use client::api::sending::SendingReport;
use sha2::{Digest as _, Sha256};
use shared::domain::sending::SendingState;

use crate::Console;
use crate::failure::Failure;
use crate::session::Visitor;
use crate::show::hex;

/// The sources that a page may load from: this server. Nothing is written inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// An answer with a page.
pub type Answer = Result<Response, Failure>;

/// The part of the console that a page belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The broadcasts.
    Broadcasts,
    /// A new broadcast.
    New,
    /// The contacts.
    Contacts,
    /// The Pages.
    Pages,
    /// The sandbox.
    Sandbox,
    /// None of them.
    None,
}

/// The frame of a page.
#[derive(Debug)]
pub struct Chrome {
    /// The part that the page belongs to.
    pub section: Section,
    /// True if there is a sandbox.
    pub has_sandbox: bool,
    /// True if the visitor can sign out.
    pub signed_in: bool,
    /// The switch for sending, if it is off for all Pages.
    pub stopped: Option<SendingReport>,
}

impl Chrome {
    /// Returns a frame that tells nothing.
    pub fn bare(section: Section) -> Self {
        Self {
            section,
            has_sandbox: false,
            signed_in: false,
            stopped: None,
        }
    }

    /// Returns the mark of the current part, for a link to a part.
    pub fn current(&self, section: Section) -> &'static str {
        if self.section == section { "page" } else { "false" }
    }
}

impl Console {
    /// Returns the frame of a page, with the switch for sending as it is now.
    pub async fn chrome(&self, visitor: &Visitor, section: Section) -> Chrome {
        // A caller who may not read the switch has a page without it.
        let sending = visitor.client.sending(None).await.ok();
        Chrome {
            section,
            has_sandbox: self.sandbox.is_some(),
            signed_in: visitor.signed_in,
            stopped: sending.filter(|sending| sending.all_pages != SendingState::On),
        }
    }
}

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
