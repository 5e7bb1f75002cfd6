//! Invalid requests: each gets a clear and complete answer; nothing is stored or sent, and no function fails.

use std::cell::RefCell;
use std::panic::Location;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use shared::domain::ids::BroadcastId;

use crate::fixture::invariants::Item;
use crate::fixture::{PAGES, TEXT, TestStack, request};

/// The idempotency key of an accepted request.
const USED_KEY: &str = "used";

/// An invalid request, the status that it gets, and the fields that the answer names.
struct Case {
    request: Request<Body>,
    status: u16,
    fields: Vec<&'static str>,
    /// The line of this file that makes the case.
    line: u32,
}

fn post_as(content_type: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post("/v1/broadcasts").header("content-type", content_type);
    request.body(body.into()).unwrap()
}

fn post(body: impl Into<Body>) -> Request<Body> {
    post_as("application/json", body)
}

fn with_key(keys: &[&str]) -> Request<Body> {
    let mut request = post(request(&["ana".to_owned()]).to_string());
    for key in keys {
        let key = HeaderValue::from_bytes(key.as_bytes()).unwrap();
        request.headers_mut().append("idempotency-key", key);
    }
    request
}

fn import(content_type: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::put("/v1/contacts").header("content-type", content_type);
    request.body(body.into()).unwrap()
}

/// Returns a request without a body.
fn bare(method: &str, path: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    request.body(Body::empty()).unwrap()
}

#[track_caller]
fn case(request: Request<Body>, status: u16, fields: &[&'static str]) -> Case {
    Case {
        request,
        status,
        fields: fields.to_vec(),
        line: Location::caller().line(),
    }
}

/// Returns a request that is valid without these changes.
#[track_caller]
fn wrong(change: Value, fields: &[&'static str]) -> Case {
    let mut body = request(&["ana".to_owned()]);
    for (name, value) in change.as_object().unwrap() {
        body[name] = value.clone();
    }
    case(post(body.to_string()), 400, fields)
}

/// Returns a message that is one of Messenger's own templates, with this field.
fn with_payload(name: &str, value: Value) -> Value {
    let mut payload = json!({"template_type": "generic"});
    payload[name] = value;
    json!({"message": {"attachment": {"type": "template", "payload": payload}}})
}

/// Returns bodies that are not a request, or not a file of contacts.
fn wrong_bodies() -> Vec<Case> {
    let too_large = || vec![b' '; 4 * 1024 * 1024 + 1];
    let json = |body: &str| import("application/json", body.to_owned());
    let csv = |body: &[u8]| import("text/csv", body.to_vec());
    vec![
        case(post("{\"contact_ids\": ["), 400, &[""]),
        case(post("{}{}"), 400, &[""]),
        case(post("[".repeat(100_000)), 400, &[""]),
        case(post(""), 400, &[""]),
        case(post(vec![0xFF, 0xFE]), 400, &[""]),
        case(post("[]"), 400, &[""]),
        case(post("null"), 400, &[""]),
        case(post("{}"), 400, &["/contact_ids", "/message"]),
        case(post(too_large()), 413, &[]),
        case(post_as("text/plain", "{}"), 415, &[]),
        case(post_as("text/csv", "{}"), 415, &[]),
        case(post_as("application/xml", "{}"), 415, &[]),
        case(post_as("", "{}"), 415, &[]),
        case(bare("POST", "/v1/broadcasts"), 415, &[]),
        case(json("{\"contacts\": ["), 400, &[""]),
        case(json("{}"), 400, &["/contacts"]),
        case(json("{\"contacts\": []}"), 400, &["/contacts"]),
        case(csv(b""), 400, &["line 1"]),
        case(csv(b"contact_id\nben\n"), 400, &["line 1, column page_id"]),
        case(csv(b"contact_id,page_id\n"), 400, &["line 2"]),
        case(csv(b"contact_id,page_id\nben,p\neve\n"), 400, &["line 3"]),
        case(
            csv(b"contact_id,page_id\nben,p\n\"eve,p\n"),
            400,
            &["line 3, column contact_id"],
        ),
        case(
            csv(b"contact_id,page_id\nben,p\neve,p\nben,p\n"),
            400,
            &["line 4, column contact_id"],
        ),
        case(import("text/csv", too_large()), 413, &[]),
        case(import("application/json", too_large()), 413, &[]),
        case(import("text/plain", "contact_id,page_id\nben,p\n"), 415, &[]),
        case(bare("PUT", "/v1/contacts"), 415, &[]),
    ]
}

/// Returns requests for resources that do not exist, or with methods and parameters that they do not take. `known` exists.
fn wrong_paths(known: &BroadcastId) -> Vec<Case> {
    let unknown = BroadcastId::random();
    let get = |path: String| bare("GET", &path);
    let mut cases = vec![
        case(bare("GET", "/v2"), 404, &[]),
        case(bare("GET", "/v1/contacts/unknown"), 404, &[]),
        case(bare("GET", "/v1/contacts/%FF"), 404, &[]),
        case(bare("DELETE", "/v1/contacts/unknown"), 404, &[]),
        case(bare("POST", "/v1/contacts"), 405, &[]),
        case(bare("DELETE", "/v1/broadcasts"), 405, &[]),
        case(get(format!("/v1/broadcasts/{known}/resume")), 405, &[]),
        case(bare("DELETE", &format!("/v1/broadcasts/{known}")), 405, &[]),
    ];
    for id in [unknown.to_string().as_str(), "nonsense"] {
        cases.extend([
            case(get(format!("/v1/broadcasts/{id}")), 404, &[]),
            case(get(format!("/v1/broadcasts/{id}/deliveries")), 404, &[]),
            case(bare("POST", &format!("/v1/broadcasts/{id}/resume")), 404, &[]),
        ]);
    }
    let broadcasts = "/v1/broadcasts";
    let deliveries = format!("/v1/broadcasts/{known}/deliveries");
    cases.extend([
        case(get(format!("{broadcasts}?limit=0")), 400, &["limit"]),
        case(get(format!("{broadcasts}?limit=101")), 400, &["limit"]),
        case(get(format!("{broadcasts}?cursor=x")), 400, &["cursor"]),
        case(get(format!("{broadcasts}?status=sent")), 400, &["status"]),
        case(get(format!("{deliveries}?limit=0")), 400, &["limit"]),
        case(get(format!("{deliveries}?limit=1001")), 400, &["limit"]),
        case(get(format!("{deliveries}?limit=many")), 400, &["limit"]),
        case(get(format!("{deliveries}?cursor=x")), 400, &["cursor"]),
        case(get(format!("{deliveries}?status=lost")), 400, &["status"]),
        case(get(format!("{deliveries}?status=")), 400, &["status"]),
    ]);
    cases
}

fn wrong_broadcasts() -> Vec<Case> {
    let ids = |n: usize| json!({"contact_ids": vec!["a"; n]});
    let id = |id: &str| json!({"contact_ids": ["ana", id]});
    let text = |text: &str| json!({"message": {"text": text}});
    let at = |at: &str| json!({"scheduled_at": at});
    vec![
        case(with_key(&[""]), 400, &["Idempotency-Key"]),
        case(with_key(&[&"k".repeat(256)]), 400, &["Idempotency-Key"]),
        case(with_key(&["ключ"]), 400, &["Idempotency-Key"]),
        case(with_key(&["two words"]), 400, &["Idempotency-Key"]),
        case(with_key(&["one", "two"]), 400, &["Idempotency-Key"]),
        case(with_key(&[USED_KEY]), 422, &[]),
        case(post(request(&["unknown".to_owned()]).to_string()), 422, &[]),
        wrong(json!({"size": 1, "a/b": 2}), &["/a~1b", "/size"]),
        wrong(
            json!({"size": 1, "message": {"text": "{{ nickname }}"}}),
            &["/size", "/message/text"],
        ),
        wrong(ids(0), &["/contact_ids"]),
        wrong(ids(100_001), &["/contact_ids"]),
        wrong(json!({"contact_ids": "ana"}), &["/contact_ids"]),
        wrong(json!({"contact_ids": null}), &["/contact_ids"]),
        wrong(json!({"contact_ids": null, "audience": null}), &["/contact_ids"]),
        wrong(json!({"audience": {"page_id": "page-1"}}), &["/audience"]),
        wrong(
            json!({"contact_ids": null, "audience": {"page_id": "page 1"}}),
            &["/audience/page_id"],
        ),
        wrong(json!({"contact_ids": null, "audience": {}}), &["/audience"]),
        wrong(
            json!({"contact_ids": ["ana", 5, null, {}]}),
            &["/contact_ids/1", "/contact_ids/2", "/contact_ids/3"],
        ),
        wrong(id(""), &["/contact_ids/1"]),
        wrong(id(&"9".repeat(129)), &["/contact_ids/1"]),
        wrong(id("a\u{7}"), &["/contact_ids/1"]),
        wrong(id("a b"), &["/contact_ids/1"]),
        wrong(json!({"message": "hello"}), &["/message"]),
        wrong(json!({"message": {}}), &["/message"]),
        wrong(json!({"message": {"text": "a", "attachment": {}}}), &["/message"]),
        // Values that the database does not store.
        wrong(with_payload("", json!("x")), &["/message/attachment/payload/"]),
        wrong(
            with_payload("price", json!(1e126)),
            &["/message/attachment/payload/price"],
        ),
        wrong(
            with_payload("price", json!([-1e-131])),
            &["/message/attachment/payload/price/0"],
        ),
        wrong(
            json!({"message": {"attachment": {"type": "song", "payload": {}}}}),
            &["/message/attachment/type"],
        ),
        wrong(
            json!({"message": {"attachment": {"type": "image", "payload": {}}}}),
            &["/message/attachment/payload"],
        ),
        wrong(
            json!({"message": {"attachment": {"type": "image", "payload": {"url": "ftp://x"}}}}),
            &["/message/attachment/payload/url"],
        ),
        wrong(
            json!({"message": {"text": "a", "quick_replies": [{"content_type": "text", "title": "x".repeat(21), "payload": "p"}]}}),
            &["/message/quick_replies/0/title"],
        ),
        wrong(
            json!({"message": {"text": "a", "quick_replies": vec![json!({"content_type": "user_email"}); 14]}}),
            &["/message/quick_replies"],
        ),
        wrong(
            json!({"message": {"template": {"name": "t", "language": {"code": "en"}}}}),
            &["/messaging_type"],
        ),
        wrong(json!({"messaging_type": "UTILITY"}), &["/messaging_type"]),
        wrong(
            json!({"messaging_type": "UTILITY", "message": {"template": {"language": {}}}}),
            &["/message/template/name", "/message/template/language/code"],
        ),
        wrong(text(""), &["/message/text"]),
        wrong(text(" \n"), &["/message/text"]),
        wrong(text(&"x".repeat(2_000)), &["/message/text"]),
        wrong(text(&"🙂".repeat(1_000)), &["/message/text"]),
        wrong(text("{{ nickname }}"), &["/message/text"]),
        wrong(text("{{ first_name"), &["/message/text"]),
        wrong(text("{% include 'x' %}"), &["/message/text"]),
        wrong(
            text("{% for a in 'x' * 9999 %}{% for b in 'x' * 9999 %}{% endfor %}{% endfor %}"),
            &["/message/text"],
        ),
        wrong(text(&format!("{{# {} #}}x", "x".repeat(20_000))), &["/message/text"]),
        wrong(json!({"messaging_type": "SPAM"}), &["/messaging_type"]),
        wrong(json!({"messaging_type": 1}), &["/messaging_type"]),
        wrong(
            json!({"messaging_type": "SPAM", "tag": "ACCOUNT_UPDATE"}),
            &["/messaging_type", "/tag"],
        ),
        wrong(json!({"messaging_type": "MESSAGE_TAG"}), &["/tag"]),
        wrong(
            json!({"messaging_type": "MESSAGE_TAG", "tag": "ACCOUNT_UPDATE"}),
            &["/tag"],
        ),
        wrong(json!({"messaging_type": "MESSAGE_TAG", "tag": "NONSENSE"}), &["/tag"]),
        wrong(json!({"tag": "HUMAN_AGENT"}), &["/tag"]),
        wrong(json!({"notification_type": "LOUD"}), &["/notification_type"]),
        wrong(at("2020-01-01T09:00:00Z"), &["/scheduled_at"]),
        wrong(at("2099-01-01T09:00:00Z"), &["/scheduled_at"]),
        wrong(at("2030-01-01T09:00:00"), &["/scheduled_at"]),
        wrong(at("tomorrow"), &["/scheduled_at"]),
        wrong(json!({"scheduled_at": 5}), &["/scheduled_at"]),
    ]
}

#[tokio::test]
async fn invalid_request_is_rejected_with_status_and_field_and_stores_nothing() {
    let stack = TestStack::start().await;
    let ana = ["ana".to_owned()];
    stack.import(PAGES[0], &ana).await;
    let later = stack.app.clock.now() + Duration::from_secs(3_600);
    let mut body = request(&ana);
    body["scheduled_at"] = json!(later);
    let known = stack.post_with_key(USED_KEY, &body).await.broadcast_id();
    let stored = stack.stored_items().await;

    let cases = [wrong_bodies(), wrong_paths(&known), wrong_broadcasts()];
    for case in cases.into_iter().flatten() {
        let line = case.line;
        let answer = stack.send_raw(case.request).await;

        let problem: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(answer.status(), case.status, "line {line}: {problem}");
        let content_type = &answer.headers()["content-type"];
        assert_eq!(content_type, "application/problem+json", "line {line}");
        assert_eq!(problem["status"], case.status, "line {line}");
        let errors = problem["errors"].as_array().unwrap().iter();
        let fields: Vec<_> = errors.map(|error| &error["field"]).collect();
        assert_eq!(fields, case.fields, "line {line}: {problem}");
        assert_eq!(stack.stored_items().await, stored, "line {line}");
    }
    assert!(stack.receive().await.is_none());
    assert_eq!(stack.sandbox.received_count(), 0);
}

#[tokio::test]
async fn contact_ids_and_audience_are_mutually_exclusive() {
    let stack = TestStack::start().await;
    let both = json!({"contact_ids": ["ana"], "audience": {"page_id": "page-1"}});
    let neither = json!({});
    for (mut body, field, message) in [
        (both, "/audience", "must not be there with contact_ids"),
        (neither, "/contact_ids", "is required, or an audience in its place"),
    ] {
        body["message"] = json!({"text": TEXT});
        let answer = stack.post(&body).await;

        let fault = json!([{"field": field, "message": message}]);
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert_eq!(answer.body["errors"], fault);
    }
}

/// Generates JSON that is often almost valid: known names, values of all types.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        "(\\{\\{|\\}\\}|\\{%|%\\}| |first_name|tags|for|in|x|\\|){0,8}".prop_map(Value::from),
        Just(Value::from("page-1")),
        Just(Value::from("UPDATE")),
        Just(Value::from("2030-01-01T09:00:00Z")),
    ];
    let name = prop_oneof![
        select(vec![
            "contact_ids",
            "audience",
            "message",
            "text",
            "messaging_type",
            "tag",
            "notification_type",
            "scheduled_at",
            "contacts",
            "contact_id",
            "page_id",
            "first_name",
            "timezone",
            "source",
            "tags",
            "opted_out",
            "last_interaction_at",
            "attributes",
        ])
        .prop_map(str::to_owned),
        ".{0,5}",
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..8).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// Generates bytes that are often CSV with a few edits.
fn any_csv() -> impl Strategy<Value = Vec<u8>> {
    const VALID: &[u8] = b"contact_id,page_id,first_name,tags,opted_out,last_interaction_at,attributes.city\n\
        ana,page-1,\"Ana \"\"Sa\"\", jr.\",vip;new,true,2026-11-01T09:00:00+08:00,Porto\n\
        ben,page-2,\"Ben\n\",,,,\n";
    let byte = || prop_oneof![any::<u8>(), select(b",;\"\r\n =x\0\xEF\xBB\xBF".to_vec())];
    let edit = (any::<Index>(), 0_usize..10, prop::collection::vec(byte(), 0..6));
    let edited = prop::collection::vec(edit, 0..5).prop_map(|edits| {
        let mut file = VALID.to_vec();
        for (at, removed, written) in edits {
            let at = at.index(file.len() + 1);
            let end = file.len().min(at + removed);
            file.splice(at..end, written);
        }
        file
    });
    prop_oneof![prop::collection::vec(byte(), 0..200), edited]
}

/// Sends this many generated requests to a stack with one broadcast: none may cause a server error, and a refused request
/// must store nothing.
fn check_requests<S: Strategy>(requests: u32, inputs: S, request: impl Fn(&BroadcastId, S::Value) -> Request<Body>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let stack = runtime.block_on(TestStack::start());
    let id = runtime.block_on(async {
        let ids = stack.import_contacts(1).await;
        stack.broadcast(&ids).await
    });
    // A Page is listed before its first contact is written, which may then be refused as one of another Page.
    let is_page = |item: &Item| {
        item.get("pk")
            .and_then(|pk| pk.as_s().ok())
            .is_some_and(|pk| pk == "pages")
    };
    let stored_items = || {
        let mut items = runtime.block_on(stack.stored_items());
        items.retain(|item| !is_page(item));
        items
    };
    let stored = RefCell::new(stored_items());
    let mut runner = TestRunner::new(Config::with_cases(requests));
    let result = runner.run(&inputs, |input| {
        let request = request(&id, input);
        let answer = runtime.block_on(stack.send_raw(request));
        prop_assert!(!answer.status().is_server_error(), "{answer:?}");
        let now = stored_items();
        if !answer.status().is_success() {
            prop_assert_eq!(&now, &*stored.borrow());
        }
        stored.replace(now);
        Ok(())
    });
    drop(stack);
    result.unwrap();
}

#[test]
fn arbitrary_json_causes_no_server_error() {
    check_requests(400, (any_json(), any::<bool>()), |_, (body, contacts)| {
        if contacts {
            import("application/json", body.to_string())
        } else {
            post(body.to_string())
        }
    });
}

#[test]
fn arbitrary_csv_causes_no_server_error() {
    check_requests(400, any_csv(), |_, file| import("text/csv", file));
}

#[test]
fn arbitrary_path_or_query_causes_no_server_error() {
    let part = "[a-zA-Z0-9_=&?%~.+-]{0,12}";
    check_requests(300, (part, part, 0_u8..4), |id, (a, b, shape)| {
        let path = match shape {
            0 => format!("/v1/{a}/{b}"),
            1 => format!("/v1/broadcasts/{a}/{b}"),
            2 => format!("/v1/broadcasts/{id}/deliveries?status={a}&cursor={b}"),
            _ => format!("/v1/broadcasts/{id}/deliveries?cursor={a}&limit={b}"),
        };
        bare("GET", &path)
    });
}
