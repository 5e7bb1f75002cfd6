//! The way of the command line to an API: signatures of AWS, proxies, and what is no API.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use axum::http::header::DATE;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Redirect, Response};
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::fixture::cli::{Ended, oncecast, run};
use crate::fixture::other_api;

const REGION: &str = "eu-west-1";
/// The example of AWS's documentation.
const KEY_ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const SESSION: &str = "session/token+1==";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Encodes everything but what RFC 3986 calls unreserved.
fn encoded(text: &str, keep: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte if keep.as_bytes().contains(&byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// Returns the text of which every `%XX` is a byte.
fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let hex = String::from_utf8(vec![*high, *low]).unwrap();
                bytes.push(u8::from_str_radix(&hex, 16).unwrap());
                rest = after;
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Returns the signature of a request as AWS computes it:
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>.
fn signature(head: &Parts, body: &[u8], signed: &str, date: &str, scope: &str) -> String {
    let is_strict = |query: &str| {
        query
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-._~%&=".contains(c))
    };
    assert!(head.uri.query().is_none_or(is_strict), "{}", head.uri);
    let mut query: Vec<_> = head
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .collect();
    query.sort_unstable();
    let pairs = query.iter().map(|pair| {
        let (name, value) = pair.split_once('=').unwrap();
        format!("{}={}", encoded(&decoded(name), ""), encoded(&decoded(value), ""))
    });
    let headers: String = signed
        .split(';')
        .map(|name| format!("{name}:{}\n", head.headers[name].to_str().unwrap().trim()))
        .collect();
    let canonical = [
        head.method.as_str(),
        // Every service but S3 encodes the path once more.
        &encoded(head.uri.path(), "/"),
        &pairs.collect::<Vec<_>>().join("&"),
        &headers,
        signed,
        &hex(digest(&SHA256, body).as_ref()),
    ]
    .join("\n");
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
        hex(digest(&SHA256, canonical.as_bytes()).as_ref())
    );
    let start = format!("AWS4{SECRET}").into_bytes();
    let key = scope.split('/').fold(start, |key, part| {
        sign(&Key::new(HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec()
    });
    hex(sign(&Key::new(HMAC_SHA256, &key), to_sign.as_bytes()).as_ref())
}

/// Checks the signature of a request; returns its time.
fn check(head: &Parts, body: &[u8]) -> String {
    let authorization = head.headers["authorization"].to_str().unwrap();
    let parts: BTreeMap<_, _> = authorization
        .strip_prefix("AWS4-HMAC-SHA256 ")
        .unwrap()
        .split(", ")
        .map(|part| part.split_once('=').unwrap())
        .collect();
    let (key, scope) = parts["Credential"].split_once('/').unwrap();
    let date = head.headers["x-amz-date"].to_str().unwrap();
    assert_eq!(key, KEY_ID);
    assert_eq!(scope, format!("{}/{REGION}/execute-api/aws4_request", &date[..8]));
    assert_eq!(head.headers["x-amz-security-token"], SESSION);
    let signed = parts["SignedHeaders"];
    assert_eq!(signed, "host;x-amz-date;x-amz-security-token");
    assert_eq!(
        parts["Signature"],
        signature(head, body, signed, date, scope),
        "{:?}",
        head.uri
    );
    date.to_owned()
}

/// An answer of a server.
type Answer = fn() -> Response;

/// Returns a command that signs.
fn signing(api: &str, arguments: &[&str]) -> Command {
    let mut command = oncecast(api, &[arguments, &["--region", REGION]].concat());
    command
        .env("AWS_ACCESS_KEY_ID", KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET);
    command.env("AWS_SESSION_TOKEN", SESSION);
    command
}

fn end(mut command: Command) -> Ended {
    command.output().unwrap().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_signed_for_api_gateway_and_repeated_ones_anew() {
    let seen = Arc::<Mutex<Vec<(String, String)>>>::default();
    let requests = Arc::clone(&seen);
    let api = other_api::start(move |head, body| {
        let date = check(head, body);
        let mut seen = requests.lock().unwrap();
        seen.push((format!("{} {}", head.method, head.uri), date));
        Some(match seen.len() {
            1 => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "2")]).into_response(),
            2 => other_api::json(200, &json!({"upserted": 1, "refused": []})),
            3 => other_api::json(200, &json!({"items": [], "next_cursor": null})),
            _ => StatusCode::NO_CONTENT.into_response(),
        })
    })
    .await;
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("one.csv");
    std::fs::write(&path, "contact_id,page_id\nAna,page-1\n").unwrap();
    let base = format!("{api}/stage/");

    let imported = end(signing(&base, &["contacts", "import", path.to_str().unwrap()]));
    assert_eq!(imported.status, 0, "{}", imported.stderr);
    assert!(
        imported.stderr.contains("the API is busy (503); trying again in 2 s"),
        "{}",
        imported.stderr
    );
    let exported = end(signing(
        &base,
        &["contacts", "export", "--json", "--q", "José +1&a=b/~*", "--tag", "a;b"],
    ));
    assert_eq!(exported.status, 0, "{}", exported.stderr);
    let deleted = end(signing(&base, &["contacts", "delete", "--yes", "6001/a?b#c é"]));
    assert_eq!(deleted.status, 2, "a space cannot be in an id: {}", deleted.stderr);
    let deleted = end(signing(&base, &["contacts", "delete", "--yes", "6001/a?b#c+é%41"]));
    assert_eq!(deleted.status, 0, "{}", deleted.stderr);

    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 4);
    assert_eq!(seen[0].0, "PUT /stage/v1/contacts?refused=skip");
    assert!(
        seen[0].1 < seen[1].1,
        "the repeated request has the signature of the first"
    );
    assert_eq!(seen[3].0, "DELETE /stage/v1/contacts/6001%2Fa%3Fb%23c+%C3%A9%2541");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_clock_and_expired_credentials_are_told_in_a_line() {
    for (ahead_of_us, message, words) in [
        (1_205, "Forbidden", "the clock of this machine is 20 min"),
        (-1_205, "Forbidden", "ahead"),
        (
            0,
            "Signature expired: 20261126T130000Z is now earlier than",
            "the clock of this machine is 0 s",
        ),
        (
            0,
            "The security token included in the request is expired",
            "the AWS credentials have expired",
        ),
        (0, "Forbidden", "403"),
    ] {
        let api = other_api::start(move |_, _| {
            let date = Timestamp::now() + SignedDuration::from_secs(ahead_of_us);
            let date = rfc2822::DateTimePrinter::new()
                .timestamp_to_rfc9110_string(&date)
                .unwrap();
            let mut answer = other_api::json(403, &json!({"message": message}));
            answer.headers_mut().insert(DATE, HeaderValue::try_from(date).unwrap());
            Some(answer)
        })
        .await;
        let ended = end(signing(&api, &["doctor"]));
        assert_eq!(ended.status, 4, "{}", ended.stderr);
        assert!(
            ended.stderr.lines().next().unwrap().contains(words),
            "{words}: {}",
            ended.stderr
        );
        assert_eq!(ended.stderr.lines().count(), 2, "{}", ended.stderr);
    }
}

#[test]
fn missing_credentials_are_told_before_anything_is_asked() {
    // Such a URL is signed for by itself.
    let mut command = oncecast("https://abc123.execute-api.eu-west-1.amazonaws.com", &["doctor"]);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOME", "/nonexistent");
    let ended = end(command);
    assert_eq!(ended.status, 4, "{}", ended.stderr);
    assert!(
        ended.stderr.starts_with("error: there are no AWS credentials"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("aws sso login"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_is_no_api_is_told_in_a_line() {
    let answers: [(Answer, i32, &str); 5] = [
        (
            || Html("<h1>Welcome</h1>").into_response(),
            1,
            "by something else than the API: a page of HTML",
        ),
        (
            || (StatusCode::NOT_FOUND, Html("<h1>No</h1>")).into_response(),
            5,
            "a page of HTML",
        ),
        (
            || other_api::json(404, &json!({"message": "Not Found"})),
            5,
            "there is no such path",
        ),
        (
            || Redirect::permanent("https://send.example.com/").into_response(),
            1,
            "a redirect to https://send.example.com/",
        ),
        (|| "{\"a\": 1}".into_response(), 1, "cannot be read"),
    ];
    for (answer, status, words) in answers {
        let api = other_api::start(move |_, _| Some(answer())).await;
        let ended = run(&api, &["doctor"]);
        assert_eq!((ended.status, ended.stdout.as_str()), (status, ""), "{}", ended.stderr);
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
        assert!(ended.stderr.contains("--api and ONCECAST_API"), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 2, "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn api_is_reached_through_the_proxy_of_the_environment() {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let requests = Arc::clone(&asked);
    let proxy = other_api::start(move |head, _| {
        requests.lock().unwrap().push(head.uri.to_string());
        Some(other_api::json(200, &json!({"items": [], "next_cursor": null})))
    })
    .await;
    let mut command = oncecast("http://oncecast.example.com", &["pages"]);
    let ended = end({
        command.env("HTTP_PROXY", &proxy).env_remove("NO_PROXY");
        command
    });
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    assert_eq!(
        *asked.lock().unwrap(),
        ["http://oncecast.example.com/v1/pages?limit=100"]
    );
}
