//! The event, in format 2.0, that API Gateway makes of a request.
//!
//! The format is documented at
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, header, request};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

const API_ID: &str = "local";

/// Returns the event of a request. Its `timeEpoch` is `received`, the time at which the request arrived, however long
/// it takes to process. The `authorizer` describes the caller, if it has been authenticated.
pub fn http_event(
    head: &request::Parts,
    body: &[u8],
    request_id: &str,
    received: Timestamp,
    authorizer: Option<Value>,
) -> Value {
    let path = head.uri.path();
    let query = head.uri.query().unwrap_or_default();
    let host = text(&head.headers, header::HOST);
    let (body, is_base64) = match std::str::from_utf8(body) {
        Ok("") => (None, false),
        Ok(text) => (Some(text.to_owned()), false),
        Err(_) => (Some(BASE64_STANDARD.encode(body)), true),
    };
    let mut event = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": joined_headers(&head.headers),
        "requestContext": {
            "accountId": "000000000000",
            "apiId": API_ID,
            "domainName": host,
            "domainPrefix": API_ID,
            "http": {
                "method": head.method.as_str(),
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": text(&head.headers, header::USER_AGENT),
            },
            "requestId": request_id,
            "routeKey": "$default",
            "stage": "$default",
            "time": received.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string(),
            "timeEpoch": received.as_millisecond(),
        },
        "isBase64Encoded": is_base64,
    });
    // API Gateway omits these fields rather than sending them empty.
    if let Some(authorizer) = authorizer {
        event["requestContext"]["authorizer"] = authorizer;
    }
    let cookies = cookies(&head.headers);
    if !cookies.is_empty() {
        event["cookies"] = json!(cookies);
    }
    if !query.is_empty() {
        event["queryStringParameters"] = json!(joined_parameters(query));
    }
    if let Some(body) = body {
        event["body"] = Value::String(body);
    }
    event
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> String {
    let value = headers.get(name).map(|value| value.as_bytes()).unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

/// Returns the headers by lower-case name, with repeated headers joined by a comma. Cookies are left out, because the
/// event has a field for them.
fn joined_headers(headers: &HeaderMap) -> BTreeMap<&str, String> {
    let mut joined = BTreeMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| *name != header::COOKIE) {
        join(&mut joined, name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
    }
    joined
}

fn joined_parameters(query: &str) -> BTreeMap<String, String> {
    let mut joined = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        join(&mut joined, name.into_owned(), &value);
    }
    joined
}

fn join<Name: Ord>(joined: &mut BTreeMap<Name, String>, name: Name, value: &str) {
    joined
        .entry(name)
        .and_modify(|values| {
            values.push(',');
            values.push_str(value);
        })
        .or_insert_with(|| value.to_owned());
}

fn cookies(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(';'))
        .map(|cookie| cookie.trim().to_owned())
        .filter(|cookie| !cookie.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use aws_lambda_events::apigw::ApiGatewayV2httpRequest;
    use axum::http::Request;

    use super::*;

    fn event(body: &[u8]) -> ApiGatewayV2httpRequest {
        let request = Request::post("/v1/broadcasts?status=sent&status=failed&q=a%20b")
            .header("Idempotency-Key", "k1")
            .header("X-Twice", "1")
            .header("X-Twice", "2")
            .header("Cookie", "a=1; b=2")
            .body(())
            .unwrap();
        let received = Timestamp::from_millisecond(1_700_000_000_123).unwrap();
        serde_json::from_value(http_event(&request.into_parts().0, body, "r1", received, None)).unwrap()
    }

    #[test]
    fn event_deserializes_as_an_api_gateway_event() {
        let event = event(b"{}");

        assert_eq!(event.raw_path.as_deref(), Some("/v1/broadcasts"));
        assert_eq!(event.headers["idempotency-key"], "k1");
        assert_eq!(event.headers["x-twice"], "1,2");
        assert!(!event.headers.contains_key("cookie"));
        assert_eq!(event.cookies.unwrap(), ["a=1", "b=2"]);
        assert_eq!(event.query_string_parameters.all("q"), Some(vec!["a b"]));
        assert_eq!(event.body.as_deref(), Some("{}"));
        assert_eq!(event.request_context.time_epoch, 1_700_000_000_123);
        assert_eq!(event.request_context.http.method.as_str(), "POST");
        let time = event.request_context.time.unwrap();
        assert_eq!(time, "14/Nov/2023:22:13:20 +0000");
    }

    #[test]
    fn body_that_is_not_text_is_base64_encoded() {
        let event = event(&[0xff, 0xfe]);

        assert!(event.is_base64_encoded);
        assert_eq!(event.body.as_deref(), Some("//4="));
    }
}
