//! The answers of the Graph API: an answer is judged by what it says, in whatever types, and only then by its status.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Response, StatusCode};

use crate::domain::ids::{ContactId, PageId};
use crate::messenger::codes::{PAGE_LIMIT, PAGES_USE_CASE_LIMIT, RATE_LIMIT};
use crate::messenger::errors::{Refusal, SendError};
use crate::messenger::json::{self, Object};

/// The maximum size of an answer in bytes; the longest of Messenger's has a tenth of it. More is not read.
const MAX_BYTES: usize = 1_000_000;
/// The longest pause that an answer may ask for, in minutes.
const DAY: f64 = 1_440.0;
/// An answer that says nothing that is known.
const NOT_READABLE: SendError = SendError::NoAnswer("answer not readable");

/// Reads the answer to a call for this Page; returns its body, which is a JSON object.
pub(super) async fn read(answer: Response, page_id: &PageId) -> Result<String, SendError> {
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = body(answer).await;
    judge(status, body, |code| regain_after(&headers, page_id, code))
}

/// Returns the message id in the answer to a send to this contact; `None` if there is none, or if the answer is about another
/// contact: it would be the answer to another request of the connection.
pub(super) fn message_id(body: &str, contact_id: &ContactId) -> Option<String> {
    let answer = Object::parse(body)?;
    let recipient_id = answer.text("recipient_id");
    let is_ours = answer.get("recipient_id").is_none() || recipient_id.as_deref() == Some(contact_id.as_str());
    answer.text("message_id").filter(|id| !id.is_empty() && is_ours)
}

/// Returns the error of a call whose request may have left.
pub(super) fn lost(error: &reqwest::Error) -> SendError {
    SendError::NoAnswer(match error.is_timeout() {
        true => "no answer in time",
        false => "connection lost",
    })
}

async fn body(mut answer: Response) -> Result<String, SendError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| lost(&error))? {
        if body.len() + chunk.len() > MAX_BYTES {
            return Err(NOT_READABLE);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(json::document(&body).into_owned())
}

/// Judges an answer. A readable error counts by its code whatever the status, and a status alone refuses nothing, except for
/// 429: the request may have been carried out before a proxy, or a server behind it, failed.
fn judge(
    status: StatusCode,
    body: Result<String, SendError>,
    regain_after: impl Fn(i64) -> Option<Duration>,
) -> Result<String, SendError> {
    if status.is_redirection() {
        return Err(SendError::NoAnswer("answered with a redirect"));
    }
    let said = body.as_deref().ok().and_then(Object::parse);
    let is_object = said.is_some();
    let (has_message_id, error) = said.map_or((false, None), |said| {
        let error = said.get("error").map(|error| refusal(error.get()));
        (said.get("message_id").is_some(), error)
    });
    let refused = |refusal: Refusal| {
        SendError::Refused(Refusal {
            regain_after: regain_after(refusal.code),
            ..refusal
        })
    };
    match error {
        Some(_) if has_message_id => Err(SendError::NoAnswer("answered with a message id and an error")),
        Some(Some(refusal)) => Err(refused(refusal)),
        // The status means the same as this code.
        _ if status == StatusCode::TOO_MANY_REQUESTS => Err(refused(Refusal {
            code: RATE_LIMIT,
            ..Refusal::default()
        })),
        _ if status.is_server_error() => Err(SendError::NoAnswer("answered with a server error")),
        Some(None) => Err(SendError::NoAnswer("answered with an unreadable error")),
        None if status.is_success() && (is_object || body.is_err()) => body,
        None => Err(NOT_READABLE),
    }
}

/// Returns what an error says; `None` if it has no code, or a subcode that cannot be read and may change the code's meaning.
fn refusal(error: &str) -> Option<Refusal> {
    let error = Object::parse(error)?;
    let subcode = error.integer("error_subcode");
    if subcode.is_none() && error.get("error_subcode").is_some() {
        return None;
    }
    let message = error.get("message").map(|message| message.get().to_ascii_lowercase());
    let message = message.unwrap_or_default();
    let refuses_call =
        error.text("type").as_deref() == Some("GraphMethodException") || message.contains("appsecret_proof");
    Some(Refusal {
        code: error.integer("code")?,
        subcode,
        no_matching_user: message.contains("no matching user"),
        refuses_call,
        regain_after: None,
    })
}

/// Returns the longest time to regain access after an error with this code, from the usage headers of this Page, a day at
/// most; `None` if no limit of Messenger is reached. The limit of the Page's other calls (`pages`) counts only for the codes
/// of that limit.
///
/// `X-Business-Use-Case-Usage: {"<Page id>": [{"type": "messenger", "estimated_time_to_regain_access": <minutes>, …}]}`, see
/// <https://developers.facebook.com/docs/graph-api/overview/rate-limiting>. It also lists other ids, and limits of
/// advertising and of Instagram, which do not concern a send.
fn regain_after(headers: &HeaderMap, page_id: &PageId, code: i64) -> Option<Duration> {
    let counts =
        |kind: &str| kind == "messenger" || kind == "pages" && [PAGES_USE_CASE_LIMIT, PAGE_LIMIT].contains(&code);
    let mut longest = 0.0_f64;
    for value in headers.get_all("x-business-use-case-usage") {
        // A proxy may join several headers with commas.
        let objects = format!("[{}]", json::document(value.as_bytes()));
        let objects = json::list(&objects).unwrap_or_default().into_iter();
        let of_page = objects.filter_map(|usage| Object::parse(usage.get())?.list(page_id.as_str()));
        for limit in of_page.flatten().filter_map(|limit| Object::parse(limit.get())) {
            let minutes = limit.number("estimated_time_to_regain_access");
            if limit.text("type").is_some_and(|kind| counts(&kind)) {
                longest = longest.max(minutes.unwrap_or_default());
            }
        }
    }
    (longest > 0.0).then(|| Duration::from_secs_f64((longest.min(DAY) * 60.0).ceil()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &str) -> Result<String, SendError> {
        let body = json::document(body.as_bytes()).into_owned();
        judge(StatusCode::from_u16(status).unwrap(), Ok(body), |_| None)
    }

    fn code(status: u16, body: &str) -> Option<(i64, Option<i64>)> {
        match judged(status, body) {
            Err(SendError::Refused(refusal)) => Some((refusal.code, refusal.subcode)),
            _ => None,
        }
    }

    #[test]
    fn readable_error_counts_by_its_code_whatever_the_status() {
        for status in [200, 400, 403, 429, 500, 503] {
            for error in [
                r#"{"error": {"code": 551, "error_subcode": 1545041, "message": "\ud83d"}}"#,
                r#"{"error": {"code": "551", "error_subcode": "1545041"}, "other": "\ud83d"}"#,
                "\u{FEFF} {\"error\": {\"code\": 551.0, \"error_subcode\": 1545041, \"is_transient\": 1e999}}",
            ] {
                assert_eq!(code(status, error), Some((551, Some(1_545_041))), "{status} {error}");
            }
        }
    }

    #[test]
    fn status_without_a_readable_error_refuses_nothing_but_429() {
        let error = |reason| Err(SendError::NoAnswer(reason));
        for body in [
            "",
            "<html>",
            r#"{"error": "busy"}"#,
            r#"{"error": {"message": "no code"}}"#,
            "[]",
        ] {
            assert_eq!(code(429, body), Some((RATE_LIMIT, None)), "{body}");
            assert_eq!(judged(502, body), error("answered with a server error"), "{body}");
            assert!(matches!(judged(200, body), Err(SendError::NoAnswer(_))), "{body}");
            assert!(matches!(judged(400, body), Err(SendError::NoAnswer(_))), "{body}");
            assert_eq!(judged(307, body), error("answered with a redirect"), "{body}");
        }
        let without_end = || Err(SendError::NoAnswer("connection lost"));
        assert_eq!(judge(StatusCode::OK, without_end(), |_| None), without_end());
        let limited = judge(StatusCode::TOO_MANY_REQUESTS, without_end(), |_| None);
        assert!(matches!(limited, Err(SendError::Refused(_))), "{limited:?}");
        // The subcode may change what the code means.
        let subcode = r#"{"error": {"code": 10, "error_subcode": {}}}"#;
        assert_eq!(judged(400, subcode), error("answered with an unreadable error"));
        let both = r#"{"message_id": "m_1", "error": {"code": 551}}"#;
        assert_eq!(judged(200, both), error("answered with a message id and an error"));
        assert!(judged(200, r#"{"message_id": "m_1", "error": null}"#).is_ok());
    }

    #[test]
    fn message_without_such_a_contact_is_recognized() {
        let refused = judged(
            400,
            r#"{"error": {"code": 100, "message": "(#100) No matching user found \ud83d"}}"#,
        );
        assert!(
            matches!(&refused, Err(SendError::Refused(refusal)) if refusal.no_matching_user),
            "{refused:?}"
        );
    }

    #[test]
    fn message_id_is_read_in_whatever_type_and_of_this_contact_only() {
        let ana = ContactId::parse("7000000000000001").unwrap();
        let id = |body: &str| message_id(body, &ana);
        for body in [
            r#"{"recipient_id": "7000000000000001", "message_id": "17"}"#,
            r#"{"recipient_id": 7000000000000001, "message_id": 17, "more": "\ud83d"}"#,
            r#"{"recipient_id": null, "message_id": "17"}"#,
            r#"{"message_id": "17"}"#,
        ] {
            assert_eq!(id(body).as_deref(), Some("17"), "{body}");
        }
        for body in [
            r#"{"message_id": ""}"#,
            r#"{"message_id": {"id": "17"}}"#,
            r#"{"message_id": "\ud83d"}"#,
            r#"{"recipient_id": "7000000000000001"}"#,
            r#"{"recipient_id": "7000000000000002", "message_id": "17"}"#,
            r#"{"recipient_id": {}, "message_id": "17"}"#,
            "{}",
        ] {
            assert_eq!(id(body), None, "{body}");
        }
    }

    #[test]
    fn time_to_regain_access_is_this_pages_and_messengers() {
        let page = PageId::parse("1").unwrap();
        let seconds = |values: &[&str], code| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("X-Business-Use-Case-Usage", value.parse().unwrap());
            }
            regain_after(&headers, &page, code).map(|wait| wait.as_secs())
        };
        let one = |kind: &str, minutes: &str| {
            format!(r#"{{"1": [{{"type": "{kind}", "estimated_time_to_regain_access": {minutes}}}]}}"#)
        };
        let another = r#"{"2": [{"type": "messenger", "estimated_time_to_regain_access": 900}]}"#;
        assert_eq!(seconds(&[], 80_006), None);
        for (minutes, expected) in [
            ("19", Some(1_140)),
            (r#""19""#, Some(1_140)),
            ("0.25", Some(15)),
            ("100000", Some(86_400)),
            ("0", None),
            ("-5", None),
            ("{}", None),
            ("null", None),
            (r#""soon""#, None),
        ] {
            assert_eq!(seconds(&[&one("messenger", minutes)], 80_006), expected, "{minutes}");
        }
        let limited = one("messenger", "19");
        for values in [
            &[another, &*limited][..],
            &[&*limited, "nonsense", "{}", ""],
            &[&format!("{another}, {limited}")],
            &[
                &*limited,
                &one("ads_insights", "300"),
                &one("instagram", "300"),
                &one("messenger", "3"),
            ],
        ] {
            assert_eq!(seconds(values, 80_006), Some(1_140), "{values:?}");
        }
        assert_eq!(seconds(&[another], 80_006), None);
        let pages = one("pages", "30");
        assert_eq!(seconds(&[&pages], 80_006), None);
        for code in [80_001, 32] {
            assert_eq!(seconds(&[&pages, &limited], code), Some(1_800), "{code}");
        }
    }
}
