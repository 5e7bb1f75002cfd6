//! The HTTP answer that API Gateway makes of a function's answer.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status_code: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    multi_value_headers: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    cookies: Vec<String>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

/// `None` if the function's answer is not one to a request.
pub fn http_response(answer: &[u8]) -> Option<Response> {
    let answer: Answer = serde_json::from_slice(answer).ok()?;
    let body = answer.body.unwrap_or_default();
    let body = if answer.is_base64_encoded {
        BASE64_STANDARD.decode(body).ok()?
    } else {
        body.into_bytes()
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(answer.status_code).ok()?;

    let single = answer
        .headers
        .into_iter()
        // The Rust runtime fills both maps with the same headers.
        .filter(|(name, _)| !answer.multi_value_headers.contains_key(name));
    let multiple = answer
        .multi_value_headers
        .iter()
        .flat_map(|(name, values)| {
            values
                .iter()
                .map(move |value| (name.clone(), value.clone()))
        });
    let cookies = answer
        .cookies
        .into_iter()
        .map(|cookie| (header::SET_COOKIE.to_string(), cookie));
    for (name, value) in single.chain(multiple).chain(cookies) {
        let name: HeaderName = name.parse().ok()?;
        // The server sets the length itself, of the body as it is sent.
        if name != header::CONTENT_LENGTH {
            response
                .headers_mut()
                .append(name, HeaderValue::from_str(&value).ok()?);
        }
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn an_answer_becomes_a_response() {
        let answer = br#"{
            "statusCode": 202,
            "headers": {"content-type": "application/json", "idempotent-replayed": "true"},
            "multiValueHeaders": {"content-type": ["application/json"]},
            "cookies": ["a=1", "b=2"],
            "body": "e30=",
            "isBase64Encoded": true
        }"#;

        let response = http_response(answer).unwrap();

        assert_eq!(response.status(), 202);
        assert_eq!(response.headers()["idempotent-replayed"], "true");
        assert_eq!(response.headers().get_all("content-type").iter().count(), 1);
        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
        assert_eq!(to_bytes(response.into_body(), 100).await.unwrap(), "{}");
    }

    #[test]
    fn what_is_no_http_answer_is_refused() {
        for answer in ["", "null", "{}", r#"{"statusCode": 99999}"#] {
            assert!(http_response(answer.as_bytes()).is_none(), "{answer}");
        }
    }
}
