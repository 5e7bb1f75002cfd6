//! The pages below `/docs`, which show the OpenAPI document of the API in a browser, without any other server.

use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};

/// The files by path: the media type and the content.
const FILES: [(&str, &str, &str); 3] = [
    ("/docs", "text/html; charset=utf-8", include_str!("docs/index.html")),
    (
        "/docs/page.css",
        "text/css; charset=utf-8",
        include_str!("docs/page.css"),
    ),
    (
        "/docs/page.js",
        "text/javascript; charset=utf-8",
        include_str!("docs/page.js"),
    ),
];

/// The sources that the pages may load from: this server. Nothing is written inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                                       base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Returns the page of a path, if there is one. The pages are open, and contain no data.
pub fn page(method: &Method, path: &str) -> Option<Response> {
    if ![Method::GET, Method::HEAD].contains(method) {
        return None;
    }
    let (_, kind, content) = FILES.into_iter().find(|(known, ..)| *known == path)?;
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    Some((headers, content).into_response())
}
