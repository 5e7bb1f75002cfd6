//! Whatever is sent wrongly gets a clear and complete answer; nothing is stored, nothing is sent, nothing dies.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::stack::{Stack, TEXT};

/// A request, the status that it gets, and the fields that the answer names.
struct Case {
    request: Request<Body>,
    status: u16,
    fields: Vec<&'static str>,
}

fn post(body: impl Into<Body>) -> Request<Body> {
    let request = Request::post("/v1/broadcasts").header("content-type", "application/json");
    request.body(body.into()).unwrap()
}

fn with_key(keys: &[&str]) -> Request<Body> {
    let body = json!({"contact_ids": ["ana"], "message": {"text": TEXT}});
    let mut request = Request::post("/v1/broadcasts").header("content-type", "application/json");
    for key in keys {
        request = request.header("idempotency-key", key.as_bytes());
    }
    request.body(body.to_string().into()).unwrap()
}

fn typed(content_type: &str) -> Request<Body> {
    let request = Request::post("/v1/broadcasts").header("content-type", content_type);
    request.body("{}".into()).unwrap()
}

fn case(request: Request<Body>, status: u16, fields: &[&'static str]) -> Case {
    let fields = fields.to_vec();
    Case {
        request,
        status,
        fields,
    }
}

/// A good request, but for these fields.
fn wrong(change: Value, fields: &[&'static str]) -> Case {
    let mut body = json!({"contact_ids": ["ana"], "message": {"text": TEXT}});
    for (name, value) in change.as_object().unwrap() {
        body[name] = value.clone();
    }
    case(post(body.to_string()), 400, fields)
}

fn cases() -> Vec<Case> {
    let ids = |n: usize| json!({"contact_ids": vec!["a"; n]});
    let id = |id: &str| json!({"contact_ids": ["ana", id]});
    let text = |text: &str| json!({"message": {"text": text}});
    let at = |at: &str| json!({"scheduled_at": at});
    vec![
        case(post("{\"contact_ids\": ["), 400, &[""]),
        case(post(""), 400, &[""]),
        case(post(vec![0xFF, 0xFE]), 400, &[""]),
        case(post("[]"), 400, &[""]),
        case(post("null"), 400, &[""]),
        case(post("{}"), 400, &["/contact_ids", "/message"]),
        case(post(vec![b' '; 4 * 1024 * 1024 + 1]), 413, &[]),
        case(typed("text/plain"), 415, &[]),
        case(typed("application/xml"), 415, &[]),
        case(with_key(&[""]), 400, &["Idempotency-Key"]),
        case(with_key(&[&"k".repeat(256)]), 400, &["Idempotency-Key"]),
        case(with_key(&["ключ"]), 400, &["Idempotency-Key"]),
        case(with_key(&["two words"]), 400, &["Idempotency-Key"]),
        case(with_key(&["one", "two"]), 400, &["Idempotency-Key"]),
        wrong(json!({"size": 1, "a/b": 2}), &["/a~1b", "/size"]),
        wrong(ids(0), &["/contact_ids"]),
        wrong(ids(100_001), &["/contact_ids"]),
        wrong(json!({"contact_ids": "ana"}), &["/contact_ids"]),
        wrong(json!({"contact_ids": null}), &["/contact_ids"]),
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
        wrong(
            json!({"message": {"text": "a", "attachment": {}}}),
            &["/message"],
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
        wrong(
            text(&format!("{{# {} #}}x", "x".repeat(20_000))),
            &["/message/text"],
        ),
        wrong(json!({"messaging_type": "SPAM"}), &["/messaging_type"]),
        wrong(json!({"messaging_type": 1}), &["/messaging_type"]),
        wrong(json!({"messaging_type": "MESSAGE_TAG"}), &["/tag"]),
        wrong(
            json!({"messaging_type": "MESSAGE_TAG", "tag": "ACCOUNT_UPDATE"}),
            &["/tag"],
        ),
        wrong(
            json!({"messaging_type": "MESSAGE_TAG", "tag": "NONSENSE"}),
            &["/tag"],
        ),
        wrong(json!({"tag": "HUMAN_AGENT"}), &["/tag"]),
        wrong(
            json!({"notification_type": "LOUD"}),
            &["/notification_type"],
        ),
        wrong(at("2020-01-01T09:00:00Z"), &["/scheduled_at"]),
        wrong(at("2099-01-01T09:00:00Z"), &["/scheduled_at"]),
        wrong(at("2030-01-01T09:00:00"), &["/scheduled_at"]),
        wrong(at("tomorrow"), &["/scheduled_at"]),
        wrong(json!({"scheduled_at": 5}), &["/scheduled_at"]),
    ]
}

#[tokio::test]
async fn each_fault_has_its_status_and_its_field_and_leaves_nothing_behind() {
    let stack = Stack::start().await;
    let ana = json!({"contacts": [{"contact_id": "ana", "page_id": "page-1"}]});
    stack.call("PUT", "/v1/contacts", None, Some(&ana)).await;
    for (number, case) in cases().into_iter().enumerate() {
        let answer = stack.raw(case.request).await;

        let problem: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(
            answer.status().as_u16(),
            case.status,
            "case {number}: {problem}"
        );
        assert_eq!(
            answer.headers()["content-type"],
            "application/problem+json",
            "case {number}"
        );
        assert_eq!(problem["status"], case.status, "case {number}");
        let errors = problem["errors"].as_array().unwrap();
        let fields: Vec<_> = errors
            .iter()
            .map(|error| error["field"].as_str().unwrap())
            .collect();
        assert_eq!(fields, case.fields, "case {number}: {problem}");
    }
    assert!(stack.receive().await.is_none());
    assert_eq!(stack.sandbox.received_count(), 0);
}

/// JSON that is often nearly right: names that are known, values of all kinds.
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
        prop::sample::select(vec![
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
            prop::collection::btree_map(name.clone(), inner, 0..8)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

#[test]
fn no_body_makes_the_function_fail() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let stack = runtime.block_on(Stack::start());
    let mut runner = TestRunner::new(Config::with_cases(400));
    let result = runner.run(&(any_json(), any::<bool>()), |(body, contacts)| {
        let (method, path) = if contacts {
            ("PUT", "/v1/contacts")
        } else {
            ("POST", "/v1/broadcasts")
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json");
        let answer = runtime.block_on(stack.raw(request.body(body.to_string().into()).unwrap()));
        prop_assert!(
            answer.status() < StatusCode::INTERNAL_SERVER_ERROR,
            "{}: {body}",
            answer.status()
        );
        Ok(())
    });
    drop(stack);
    result.unwrap();
}

#[test]
fn no_path_or_query_makes_the_function_fail() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let stack = runtime.block_on(Stack::start());
    let id = runtime.block_on(async {
        let ids = stack.contacts(1).await;
        stack.broadcast(&ids).await
    });
    let part = "[a-zA-Z0-9_=&?%~.+-]{0,12}";
    let mut runner = TestRunner::new(Config::with_cases(300));
    let result = runner.run(&(part, part, 0_u8..4), |(a, b, shape)| {
        let path = match shape {
            0 => format!("/v1/{a}/{b}"),
            1 => format!("/v1/broadcasts/{a}/{b}"),
            2 => format!("/v1/broadcasts/{id}/deliveries?status={a}&cursor={b}"),
            _ => format!("/v1/broadcasts/{id}/deliveries?cursor={a}&limit={b}"),
        };
        let Ok(request) = Request::get(&path).body(Body::empty()) else {
            return Ok(());
        };
        let answer = runtime.block_on(stack.raw(request));
        prop_assert!(
            answer.status() < StatusCode::INTERNAL_SERVER_ERROR,
            "{}: {path}",
            answer.status()
        );
        Ok(())
    });
    drop(stack);
    result.unwrap();
}
