//! The callers that `up` admits: no web page of another site, on any of its ports; with `--api-token` only callers with a token
//! that has the route's scope, each with its own Pages.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};
use shared::domain::access::Access;
use tempfile::{NamedTempFile, TempDir};

use crate::fixture::template::TEMPLATE;
use crate::fixture::up::{EXECUTABLE, UpProcess};

const NAME: &str = "send.example.com";
const SHOP: &str = "shop-0123456789abcdef0123456789abcdef";
const OFFICE: &str = "office-0123456789abcdef0123456789abcdef";
const READER: &str = "reader-0123456789abcdef0123456789abcdef";

/// Sends a request as raw text and returns the status and the whole answer.
fn raw(port: u16, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{request} → {answer}")), answer)
}

fn port_of(address: &str) -> u16 {
    address.rsplit(':').next().unwrap().parse().unwrap()
}

/// Returns every TCP port on which a process listens.
fn listening_ports(pid: u32) -> BTreeSet<u16> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let sockets = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    let sockets: BTreeSet<_> = sockets
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    // The columns: number, local address, remote address, state (0A: listening), …, the socket's number.
    let listening = rows.filter(|row| row.len() > 9 && row[3] == "0A" && sockets.contains(row[9]));
    let ports = listening.map(|row| u16::from_str_radix(row[1].rsplit(':').next().unwrap(), 16).unwrap());
    ports.collect()
}

#[test]
fn web_page_of_another_site_is_refused_on_every_port() {
    let log = NamedTempFile::new().unwrap();
    let arguments = ["--allow-host", NAME, "--log-calls", log.path().to_str().unwrap()];
    let up = UpProcess::start(&arguments, &[]);
    let api = port_of(up.url());
    let named = ["DynamoDB", "SQS", "summary"].map(|line| up.address(line).replace("/sandbox/summary", ""));
    let ports = listening_ports(up.pid());
    for address in &named {
        assert!(ports.contains(&port_of(address)), "{address}: {ports:?}");
    }
    // The API, the three named ones, the proxies of the two services, and the Runtime API of a function at least.
    assert!(ports.contains(&api) && ports.len() >= 7, "{ports:?}");

    let call = |line: &str, headers: &str| {
        format!(
            "{line}\r\n{headers}connection: close\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
        )
    };
    for port in ports {
        for (line, headers) in [
            ("PUT /v1/contacts HTTP/1.1", "host: evil.example\r\n".to_owned()),
            ("PUT /v1/contacts HTTP/1.1", format!("host: evil.example:{port}\r\n")),
            ("PUT /v1/contacts HTTP/1.1", String::new()),
            ("PUT /v1/contacts HTTP/1.0", String::new()),
            (
                "PUT /v1/contacts HTTP/1.1",
                format!("host: 127.0.0.1:{port}\r\norigin: https://evil.example\r\n"),
            ),
            ("POST / HTTP/1.1", "host: localhost\r\norigin: null\r\n".to_owned()),
            (
                "OPTIONS / HTTP/1.1",
                "host: localhost\r\norigin: https://evil.example\r\n".to_owned(),
            ),
        ] {
            let (status, answer) = raw(port, &call(line, &headers));
            assert_eq!(status, 403, "port {port}, {line} {headers}: {answer}");
            let open = answer.to_lowercase().contains("access-control-allow-origin");
            assert!(!open, "port {port}, {line} {headers}: {answer}");
        }
        let (status, answer) = raw(port, &call("POST /none HTTP/1.1", "host: localhost\r\n"));
        assert_ne!(status, 403, "port {port}: {answer}");
        assert!(
            !answer.to_lowercase().contains("access-control-allow-origin"),
            "{answer}"
        );
        let (status, _) = raw(port, &call("GET /v1/health HTTP/1.1", &format!("host: {NAME}\r\n")));
        assert_eq!(
            status == 200,
            port == api,
            "port {port}: {NAME} is a name of the API alone"
        );
    }
}

fn file_of_tokens(tokens: &Value, mode: u32) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_permissions(Permissions::from_mode(mode)).unwrap();
    fs::write(file.path(), tokens.to_string()).unwrap();
    file
}

fn tokens() -> Value {
    let all = ["broadcasts:read", "broadcasts:write", "contacts:write"];
    json!([
        {"name": "shop", "token": SHOP, "scopes": all, "pages": ["page-1"]},
        {"name": "office", "token": OFFICE, "scopes": all},
        {"name": "reader", "token": READER, "scopes": ["broadcasts:read"]},
    ])
}

/// Calls the API with a raw request and returns status and body.
fn call(up: &UpProcess, (method, path): (&str, &str), headers: &[&str], body: &Value) -> (u16, Value) {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    let (status, answer) = raw(
        port_of(up.url()),
        &format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n{headers}\r\n{body}"
        ),
    );
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

#[test]
fn caller_needs_a_token_with_the_scope_of_the_route() {
    let file = file_of_tokens(&tokens(), 0o600);
    let up = UpProcess::start(&["--api-token", file.path().to_str().unwrap()], &[]);
    let status = |route: (&str, &str), headers: &[&str]| call(&up, route, headers, &Value::Null).0;
    let bearer = |token: &str| format!("authorization: Bearer {token}");
    let (office, reader) = (bearer(OFFICE), bearer(READER));
    let list = ("GET", "/v1/broadcasts");

    for headers in [
        &[][..],
        &["authorization: Bearer"],
        &[&bearer("")],
        &[&bearer(&OFFICE[..OFFICE.len() - 1])],
        &[&bearer(&format!("{OFFICE}0"))],
        &[&format!("authorization: Basic {OFFICE}")],
        &[&format!("x-authorization: Bearer {OFFICE}")],
        &[&reader, &office],
    ] {
        for route in [
            list,
            ("PUT", "/v1/contacts"),
            ("GET", "/v1/none"),
            ("GET", "//v1/health"),
            ("GET", "/v1/health/"),
        ] {
            assert_eq!(status(route, headers), 401, "{route:?} {headers:?}");
        }
    }
    assert_eq!(status(list, &[&office]), 200);
    assert_eq!(status(list, &[&reader]), 200);
    for route in [
        ("POST", "/v1/broadcasts"),
        ("POST", "/v1/broadcasts/1/resume"),
        ("PUT", "/v1/contacts"),
        ("GET", "/v1/contacts/ana"),
        ("DELETE", "/v1/contacts/ana"),
        ("PATCH", "/v1/none"),
    ] {
        assert_eq!(status(route, &[&reader]), 403, "{route:?}");
    }
    assert_eq!(status(("GET", "/v1/health"), &[]), 200);
    // The function answers the webhook, and refuses it by its own checks.
    let (refused, problem) = call(&up, ("GET", "/v1/webhooks/messenger"), &[], &Value::Null);
    assert!(refused == 403 || refused == 400, "{refused} {problem}");
    assert!(!problem.to_string().contains("Authorization"), "{problem}");
    let (_, log) = up.terminate();
    for token in [SHOP, OFFICE, READER] {
        assert!(!log.contains(token));
    }
}

#[test]
fn token_is_a_caller_of_its_own_and_reaches_only_its_pages() {
    let file = file_of_tokens(&tokens(), 0o600);
    let up = UpProcess::start(&["--api-token", file.path().to_str().unwrap()], &[]);
    let by = |token: &str, route: (&str, &str), body: Value| {
        let authorization = format!("authorization: Bearer {token}");
        call(&up, route, &[&authorization, "idempotency-key: opening-hours"], &body)
    };
    let contact = |id: &str, page: &str| json!({"contacts": [{"contact_id": id, "page_id": page}]});
    let put = ("PUT", "/v1/contacts");
    let to = |ids: &[&str]| json!({"contact_ids": ids, "message": {"text": "Hi"}});
    let post = ("POST", "/v1/broadcasts");

    assert_eq!(by(OFFICE, put, contact("ana", "page-1")).0, 200);
    assert_eq!(by(OFFICE, put, contact("ben", "page-2")).0, 200);
    assert_eq!(by(SHOP, put, contact("ana", "page-1")).0, 200);
    assert_eq!(by(SHOP, put, contact("carl", "page-2")).0, 400);
    assert_eq!(by(SHOP, put, contact("ben", "page-1")).0, 403);
    assert_eq!(by(SHOP, ("GET", "/v1/contacts/ben"), Value::Null).0, 404);
    assert_eq!(by(OFFICE, ("GET", "/v1/contacts/ben"), Value::Null).0, 200);

    // One key of two callers is two requests.
    let (_, both) = by(OFFICE, post, to(&["ana", "ben"]));
    let (_, mine) = by(SHOP, post, to(&["ana", "ben"]));
    assert_eq!(both["contacts"]["accepted"], 2, "{both}");
    assert_eq!(mine["contacts"]["unknown_ids"], json!(["ben"]), "{mine}");
    assert_ne!(both["broadcast_id"], mine["broadcast_id"]);
    let path = format!("/v1/broadcasts/{}", both["broadcast_id"].as_str().unwrap());
    assert_eq!(by(SHOP, ("GET", &path), Value::Null).0, 404);
    assert_eq!(by(READER, ("GET", &path), Value::Null).0, 200);
}

#[test]
fn file_of_tokens_that_is_not_private_stops_the_start() {
    let directory = TempDir::new().unwrap();
    let short = json!([{"name": "shop", "token": "too-short-to-be-safe", "scopes": ["broadcasts:read"]}]);
    for (file, expected) in [
        (file_of_tokens(&tokens(), 0o644), "chmod 600"),
        (file_of_tokens(&short, 0o600), "at least 32"),
    ] {
        let mut up = Command::new(EXECUTABLE);
        up.args(["up", "--port", "0", "--api-token", file.path().to_str().unwrap()]);
        let ended = up.current_dir(&directory).output().unwrap();

        let error = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{error}");
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("too-short") && !error.contains(SHOP), "{error}");
    }
}

/// The page shows the document that the API serves, and asks no other server for anything.
#[test]
fn docs_are_shown_without_another_server() {
    let file = file_of_tokens(&tokens(), 0o600);
    let up = UpProcess::start(&["--api-token", file.path().to_str().unwrap()], &[]);
    let get = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let (status, answer) = raw(port_of(up.url()), &request);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    };

    for path in ["/docs", "/docs/page.css", "/docs/page.js"] {
        let answer = get(path);
        let (head, content) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains("content-security-policy: default-src 'none'; script-src 'self'"),
            "{head}"
        );
        for other in ["http:", "https:", "\"//"] {
            assert!(!content.contains(other), "{path}: {other}");
        }
    }
    let page = get("/docs");
    assert!(
        page.contains("\"/docs/page.css\"") && page.contains("\"/docs/page.js\""),
        "{page}"
    );
    assert!(get("/v1/openapi.json").contains("\"openapi\": \"3.1.0\""));
}

/// Returns the scope of `!Sub "${ScopePrefix}…"`, without the prefix.
fn scope_of(substituted: &serde_yaml_ng::Value) -> Option<&str> {
    match substituted {
        serde_yaml_ng::Value::Tagged(text) => text.value.as_str()?.strip_prefix("${ScopePrefix}"),
        _ => None,
    }
}

/// The health check and the documents are open, so that a monitor or a reader needs no token.
#[test]
fn local_gateway_requires_the_scopes_of_the_template() {
    for id in TEMPLATE.of_type("AWS::ApiGatewayV2::Route") {
        let route = TEMPLATE.properties(id);
        let key = route["RouteKey"].as_str().unwrap();
        let (method, path) = key.split_once(' ').unwrap();
        let scope = match &route["AuthorizationScopes"] {
            serde_yaml_ng::Value::Tagged(choice) => scope_of(&choice.value[1][0]),
            _ => None,
        };

        let access = Access::of(method, path);

        match access {
            Access::Scope(required) => assert_eq!(Some(required), scope, "{key}"),
            Access::Open => {
                let is_open = ["/v1/health", "/v1/openapi.json", "/v1/problems/{name}"].contains(&path);
                assert!(is_open || route["AuthorizationType"] == "NONE", "{key}");
            }
        }
    }
}
