//! Content negotiation (RFC 9110, section 12.5.1): the `Accept` header chooses the form of an answer, before anything is done.

use axum::extract::Request;
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::api::problems::Kind;
use crate::problem::Problem;

/// The form of an answer. An error is a problem in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `application/json`.
    Json,
    /// `text/csv`.
    Csv,
    /// `application/x-ndjson`: a line of JSON for each item (<https://github.com/ndjson/ndjson-spec>).
    Ndjson,
    /// `text/markdown`.
    Markdown,
}

impl Form {
    fn media_type(self) -> (&'static str, &'static str) {
        match self {
            Self::Json => ("application", "json"),
            Self::Csv => ("text", "csv"),
            Self::Ndjson => ("application", "x-ndjson"),
            Self::Markdown => ("text", "markdown"),
        }
    }
}

/// Chooses the [`Form`] of the answer, an extension of the request; refuses a request that accepts none (406).
pub async fn negotiate(mut request: Request, next: Next) -> Response {
    let offered = offered(request.method(), request.uri().path());
    if offered.is_empty() {
        return next.run(request).await;
    }
    let headers = request.headers().get_all(header::ACCEPT);
    let accepted: Vec<_> = headers
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    let Some(form) = choose(&accepted.join(","), offered) else {
        let offered: Vec<_> = offered.iter().map(|form| form.media_type()).collect();
        let offered: Vec<_> = offered
            .iter()
            .map(|(kind, subtype)| format!("{kind}/{subtype}"))
            .collect();
        let detail = format!(
            "The answer has the type {}; the header Accept allows none.",
            offered.join(" or ")
        );
        return Problem::new(Kind::NotAcceptable, detail).into_response();
    };
    request.extensions_mut().insert(form);
    next.run(request).await
}

/// Returns the forms in which a path can answer, the preferred one first. Messenger's calls are answered whatever they accept.
fn offered(method: &Method, path: &str) -> &'static [Form] {
    let segments: Vec<_> = path.split('/').skip(1).collect();
    match segments[..] {
        ["v1", "webhooks", ..] => &[],
        ["v1", "contacts"] if method == Method::PUT => &[Form::Json, Form::Csv],
        ["v1", "contacts"] => &[Form::Json, Form::Csv, Form::Ndjson],
        ["v1", "broadcasts", _, "deliveries"] => &[Form::Json, Form::Csv],
        ["v1", "problems", _] => &[Form::Markdown],
        _ => &[Form::Json],
    }
}

/// Returns the form with the greatest weight; of several with the same, the one that is named most precisely.
fn choose(accept: &str, offered: &[Form]) -> Option<Form> {
    if accept.trim().is_empty() {
        return offered.first().copied();
    }
    let weighed = offered.iter().rev().map(|form| (weight(accept, *form), *form));
    let best = weighed.max_by_key(|(weight, _)| *weight);
    best.filter(|((quality, _), _)| *quality > 0).map(|(_, form)| form)
}

/// Returns the quality of a form, in thousandths, and the precision of the range that gives it.
fn weight(accept: &str, form: Form) -> (u16, u8) {
    let ranges = accept.split(',').filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let (of_kind, of_subtype) = form.media_type();
        let precision = match (kind, subtype) {
            ("*", "*") => 1,
            (kind, "*") if kind.eq_ignore_ascii_case(of_kind) => 2,
            (kind, subtype) if kind.eq_ignore_ascii_case(of_kind) && subtype.eq_ignore_ascii_case(of_subtype) => 3,
            _ => return None,
        };
        Some((precision, parts.find_map(quality).unwrap_or(1_000)))
    });
    let most_precise = ranges.max_by_key(|(precision, _)| *precision);
    most_precise.map_or((0, 0), |(precision, quality)| (quality, precision))
}

/// Returns the quality that a parameter `q` gives, in thousandths; 0 if it is no number from 0 to 1.
fn quality(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.split_once('=')?;
    let quality = value
        .trim()
        .parse::<f32>()
        .ok()
        .filter(|quality| (0.0..=1.0).contains(quality));
    // In bounds, so that nothing is cut off.
    name.trim()
        .eq_ignore_ascii_case("q")
        .then(|| (quality.unwrap_or_default() * 1_000.0) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_wanted_form_is_chosen() {
        for (accept, chosen) in [
            ("", Some(Form::Json)),
            ("*/*", Some(Form::Json)),
            ("application/*", Some(Form::Json)),
            ("text/*", Some(Form::Csv)),
            ("Text/CSV", Some(Form::Csv)),
            ("text/csv, */*", Some(Form::Csv)),
            ("text/csv;q=0.5, application/json", Some(Form::Json)),
            ("application/json; charset=utf-8", Some(Form::Json)),
            ("text/html, text/csv;q=0.9", Some(Form::Csv)),
            ("*/*, application/json;q=0", Some(Form::Csv)),
            ("text/html", None),
            ("nonsense", None),
            ("application/json;q=0", None),
            ("application/json;q=2", None),
            ("*/*;q=0", None),
        ] {
            assert_eq!(choose(accept, &[Form::Json, Form::Csv]), chosen, "{accept:?}");
        }
    }
}
