//! The conventions of the API: request ids, headers of answers, content negotiation, names of broadcasts, and types of problems.

use std::collections::BTreeSet;
use std::slice;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::fixture::proxy::{self, Reply};
use crate::fixture::up::UpProcess;
use crate::fixture::{Endpoints, PAGES, Services, TestStack, request};

/// Sends a request without a body, with these headers.
async fn send(stack: &TestStack, method: &str, path: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    stack.send_raw(request.body(Body::empty()).unwrap()).await
}

/// Sends a request with a body of JSON, with these headers.
async fn post(stack: &TestStack, path: &str, headers: &[(&str, &str)], body: &Value) -> Response<Bytes> {
    let mut request = Request::post(path).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    stack
        .send_raw(request.body(Body::from(body.to_string())).unwrap())
        .await
}

fn header<'a>(answer: &'a Response<Bytes>, name: &str) -> &'a str {
    let value = answer.headers().get(name);
    value
        .unwrap_or_else(|| panic!("no {name}: {answer:?}"))
        .to_str()
        .unwrap()
}

fn body(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap()
}

#[tokio::test]
async fn every_answer_names_its_request() {
    let stack = TestStack::start().await;
    let mut ids = BTreeSet::new();
    let mut expected = 0;
    for (method, path, accept, status) in [
        ("GET", "/v1/health", "*/*", 200),
        ("GET", "/v1/broadcasts?page=1", "*/*", 400),
        ("GET", "/none", "*/*", 404),
        ("DELETE", "/v1/broadcasts", "*/*", 405),
        ("GET", "/v1/broadcasts", "text/html", 406),
        ("POST", "/v1/broadcasts", "*/*", 415),
        ("POST", "/v1/webhooks/messenger", "*/*", 403),
    ] {
        let answer = send(&stack, method, path, &[("accept", accept)]).await;
        assert_eq!(answer.status(), status, "{method} {path}");
        ids.insert(header(&answer, "x-request-id").to_owned());
        expected += 1;
    }
    assert_eq!(ids.len(), expected, "{ids:?}");

    let mut context = lambda_runtime::Context::default();
    context.request_id = "8f5a-of-lambda".to_owned();
    let request = Request::get("/v1/health").extension(context);
    let answer = stack.send_raw(request.body(Body::empty()).unwrap()).await;
    assert_eq!(header(&answer, "x-request-id"), "8f5a-of-lambda");
}

/// The id in the answer is the one under which the log tells of the request.
#[tokio::test(flavor = "multi_thread")]
async fn request_id_of_an_answer_is_found_in_the_log() {
    let up = UpProcess::start(&[], &[("INLINE_LIMIT", "0")]);
    let contact = json!({"contact_id": "ana", "page_id": PAGES[0]});
    up.call("PUT", "/v1/contacts", &json!({"contacts": [contact]})).await;
    let new = json!({"contact_ids": ["ana"], "message": {"text": "Hi"}});
    let answer = up.send("POST", "/v1/broadcasts", None, &new).await;
    assert_eq!(answer.status(), 202);
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    let unknown = up.send("GET", "/v1/broadcasts/none", None, &Value::Null).await;
    assert_ne!(unknown.headers()["x-request-id"].to_str().unwrap(), id);

    let (_, log) = up.terminate();
    let accepted = log.lines().find(|line| line.contains("job accepted"));
    assert!(accepted.is_some_and(|line| line.contains(&id)), "{id}: {log}");
}

#[tokio::test]
async fn accepted_broadcast_is_found_at_its_location() {
    let stack = TestStack::start_with(&[("INLINE_LIMIT", "1")]).await;
    let ids = stack.import_contacts(2).await;
    let inline = post(&stack, "/v1/broadcasts", &[], &request(&ids[..1])).await;
    let queued = post(&stack, "/v1/broadcasts", &[], &request(&ids)).await;
    let repeated = post(&stack, "/v1/broadcasts", &[], &request(&ids)).await;
    let path = format!("{}/resume", header(&queued, "location"));
    let resumed = send(&stack, "POST", &path, &[]).await;

    for (answer, status) in [(&inline, 200), (&queued, 202), (&repeated, 202), (&resumed, 202)] {
        assert_eq!(answer.status(), status);
        let found = send(&stack, "GET", header(answer, "location"), &[]).await;
        assert_eq!(body(&found)["broadcast_id"], body(answer)["broadcast_id"]);
    }
}

#[tokio::test]
async fn unavailable_service_is_answered_with_a_time_to_retry_after() {
    let is_down = Arc::new(Mutex::new(false));
    let hook = {
        let is_down = Arc::clone(&is_down);
        move |_: &str| match *is_down.lock().unwrap() {
            true => Reply::IsLost,
            false => Reply::Arrives,
        }
    };
    let stack = TestStack::start_with_lossy_database(hook, &[]).await;
    *is_down.lock().unwrap() = true;
    let answer = send(&stack, "GET", "/v1/health", &[]).await;
    *is_down.lock().unwrap() = false;

    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let seconds: u16 = header(&answer, "retry-after").parse().unwrap();
    assert!((1..=10).contains(&seconds));
    let healthy = send(&stack, "GET", "/v1/health", &[]).await;
    assert!(!healthy.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn request_that_accepts_no_form_of_the_answer_does_nothing() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let before = stack.stored_items().await.len();
    for accept in [
        "text/html",
        "application/xml;q=0.9, text/csv",
        "application/json;q=0",
        "nonsense",
    ] {
        let answer = post(&stack, "/v1/broadcasts", &[("accept", accept)], &request(&ids)).await;
        assert_eq!(answer.status(), StatusCode::NOT_ACCEPTABLE, "{accept}");
        assert_eq!(header(&answer, "content-type"), "application/problem+json");
        assert!(body(&answer)["detail"].as_str().unwrap().contains("application/json"));
    }
    assert_eq!(stack.stored_items().await.len(), before);

    for accept in [
        "*/*",
        "application/*",
        "text/html, */*;q=0.1",
        "Application/JSON; charset=utf-8",
        "",
    ] {
        let answer = send(&stack, "GET", "/v1/broadcasts", &[("accept", accept)]).await;
        assert_eq!(answer.status(), StatusCode::OK, "{accept:?}");
    }
    // Messenger does not negotiate.
    let answer = send(&stack, "POST", "/v1/webhooks/messenger", &[("accept", "text/html")]).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
}

/// A parameter that a route ignored would leave its caller in error about what was done.
#[tokio::test]
async fn parameter_that_a_route_does_not_have_is_refused_and_nothing_is_stored() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    stack.finish(&id).await;
    let before = stack.stored_items().await;
    let contact = &ids[0];
    for (method, path) in [
        ("GET", "/v1/health".to_owned()),
        ("GET", "/v1/sending".to_owned()),
        ("PUT", "/v1/sending".to_owned()),
        ("PUT", "/v1/contacts".to_owned()),
        ("GET", format!("/v1/contacts/{contact}")),
        ("DELETE", format!("/v1/contacts/{contact}")),
        ("GET", format!("/v1/contacts/{contact}/deliveries")),
        ("POST", "/v1/broadcasts".to_owned()),
        ("GET", "/v1/broadcasts".to_owned()),
        ("GET", format!("/v1/broadcasts/{id}")),
        ("POST", format!("/v1/broadcasts/{id}/resume")),
        ("GET", format!("/v1/broadcasts/{id}/deliveries")),
        ("GET", format!("/v1/broadcasts/{id}/deliveries/{contact}")),
        ("GET", "/v1/problems/not-found".to_owned()),
    ] {
        let answer = stack
            .call(method, &format!("{path}?unknown=true&x=1&x=2"), None, Some(&json!({})))
            .await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{method} {path}: {answer:?}");
        let named: BTreeSet<_> = answer.body["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|fault| fault["field"].as_str().unwrap())
            .collect();
        assert_eq!(named, ["unknown", "x"].into(), "{method} {path}");
    }
    assert_eq!(stack.stored_items().await.len(), before.len());
}

#[tokio::test]
async fn name_and_metadata_are_shown_and_never_reach_messenger() {
    let services = Services::start().await;
    let sent = Arc::new(Mutex::new(String::new()));
    let hook = {
        let sent = Arc::clone(&sent);
        move |body: &str| {
            sent.lock().unwrap().push_str(body);
            Reply::Arrives
        }
    };
    let endpoints = Endpoints {
        graph: proxy::start_lossy(&services.endpoints.graph, hook).await,
        ..services.endpoints.clone()
    };
    let stack = TestStack::start_on(services, &endpoints, &[]).await;
    let ids = stack.import_contacts(1).await;
    let metadata = json!({"campaign": "spring-77", "ключ": "значение", "empty": ""});
    let mut new = request(&ids);
    new["name"] = json!("  Opening hours, örtlich 🙂 ");
    new["metadata"] = metadata.clone();

    let accepted = stack.post(&new).await;
    let id = accepted.broadcast_id();
    let report = stack.finish(&id).await;
    stack.let_reads_catch_up();
    let list = stack.call("GET", "/v1/broadcasts", None, None).await.body;

    for shown in [&accepted.body, &report, &list["items"][0]] {
        assert_eq!(shown["name"], "Opening hours, örtlich 🙂");
        assert_eq!(shown["metadata"], metadata);
    }
    let sent = sent.lock().unwrap().clone();
    assert!(sent.contains("we open at nine"), "{sent}");
    for own in ["Opening", "campaign", "spring-77", "ключ"] {
        assert!(!sent.contains(own), "{own} was sent: {sent}");
    }
    let without = stack.post_with_key("another", &request(&ids)).await;
    assert_eq!(
        (&without.body["name"], &without.body["metadata"]),
        (&Value::Null, &json!({}))
    );
    stack.finish(&without.broadcast_id()).await;
}

#[tokio::test]
async fn request_under_one_key_with_another_name_is_refused() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let mut new = request(&ids);
    new["name"] = json!("First");
    let first = stack.post_with_key("k", &new).await;
    assert!(stack.post_with_key("k", &new).await.replayed);
    for (field, value) in [("name", json!("Second")), ("metadata", json!({"a": "b"}))] {
        let mut other = new.clone();
        other[field] = value;
        let answer = stack.post_with_key("k", &other).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(answer.body["type"], "/v1/problems/idempotency-key-reused");
    }
    stack.finish(&first.broadcast_id()).await;
}

#[tokio::test]
async fn wrong_name_or_metadata_is_refused_with_its_pointer() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let before = stack.stored_items().await.len();
    let pairs = |n: usize| {
        (0..n)
            .map(|n| (format!("k{n}"), json!("v")))
            .collect::<serde_json::Map<_, _>>()
    };
    for (more, fields) in [
        (json!({"name": "x".repeat(201)}), &["/name"][..]),
        (json!({"name": ""}), &["/name"]),
        (json!({"name": "\u{200b} "}), &["/name"]),
        (json!({"name": "a\u{0}b"}), &["/name"]),
        (json!({"name": 5}), &["/name"]),
        (json!({"metadata": []}), &["/metadata"]),
        (json!({"metadata": pairs(21)}), &["/metadata"]),
        (
            json!({"metadata": {"a": 1, "b": null, "c": {}}}),
            &["/metadata/a", "/metadata/b", "/metadata/c"],
        ),
        (json!({"metadata": {"a": "x".repeat(501)}}), &["/metadata/a"]),
        (json!({"metadata": {"a": "\u{0}"}}), &["/metadata/a"]),
        (json!({"metadata": {"": "x"}}), &["/metadata/"]),
        (
            json!({"metadata": {"a/b".repeat(14): "x"}}),
            &[&format!("/metadata/{}", "a~1b".repeat(14))],
        ),
        (
            json!({"metadata": {"a": 1}, "name": 1, "size": 1}),
            &["/metadata/a", "/name", "/size"],
        ),
    ] {
        let mut new = request(&ids);
        new.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = stack.post(&new).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{more}");
        let mut named: Vec<_> = answer.body["errors"].as_array().unwrap().iter().collect();
        named.sort_by_key(|fault| fault["field"].to_string());
        let named: Vec<_> = named.iter().map(|fault| fault["field"].as_str().unwrap()).collect();
        assert_eq!(named, fields, "{more}");
    }
    assert_eq!(stack.stored_items().await.len(), before);

    let mut largest = request(&ids);
    largest["name"] = json!("я".repeat(200));
    let entries = (0..20).map(|n| (format!("{n:040}"), json!("я".repeat(500))));
    largest["metadata"] = Value::Object(entries.collect());
    let id = stack.post(&largest).await.broadcast_id();
    assert_eq!(stack.finish(&id).await["metadata"], largest["metadata"]);
}

/// Every type of problem that a request can meet leads to its description.
#[tokio::test]
async fn type_of_a_problem_resolves_to_its_description() {
    let stack = TestStack::start().await;
    let mut types = BTreeSet::new();
    for (method, path, accept) in [
        ("GET", "/v1/broadcasts?x=1", "*/*"),
        ("GET", "/v1/broadcasts/none", "*/*"),
        ("PATCH", "/v1/broadcasts", "*/*"),
        ("GET", "/v1/broadcasts", "text/html"),
        ("PUT", "/v1/contacts", "*/*"),
        ("POST", "/v1/webhooks/messenger", "*/*"),
    ] {
        let problem = send(&stack, method, path, &[("accept", accept)]).await;
        let kind = body(&problem)["type"].as_str().unwrap().to_owned();
        let found = send(&stack, "GET", &kind, &[]).await;
        assert_eq!(found.status(), StatusCode::OK, "{kind}");
        assert_eq!(header(&found, "content-type"), "text/markdown; charset=utf-8");
        let text = str::from_utf8(found.body()).unwrap();
        assert!(
            text.starts_with(&format!("# {}\n", kind.rsplit('/').next().unwrap())),
            "{text}"
        );
        assert!(text.contains(&problem.status().as_u16().to_string()), "{text}");
        types.insert(kind);
    }
    assert_eq!(types.len(), 6, "{types:?}");
    assert_eq!(send(&stack, "GET", "/v1/problems/none", &[]).await.status(), 404);
}

/// Starts a stack that records the body of each call to the database.
async fn recording_stack() -> (TestStack, Arc<Mutex<Vec<Value>>>) {
    let calls = Arc::<Mutex<Vec<Value>>>::default();
    let hook = {
        let calls = Arc::clone(&calls);
        move |body: &str| {
            calls.lock().unwrap().push(serde_json::from_str(body).unwrap());
            Reply::Arrives
        }
    };
    (TestStack::start_with_lossy_database(hook, &[]).await, calls)
}

/// A read that is not consistent costs half a unit for 4 KB.
#[tokio::test]
async fn unchanged_report_costs_half_a_read_unit() {
    let (stack, calls) = recording_stack().await;
    let mut ids = stack.import_contacts(3).await;
    for page in &PAGES[1..] {
        let of_page = vec![format!("of-{page}")];
        stack.import(page, &of_page).await;
        ids.extend(of_page);
    }
    let mut new = request(&ids);
    new["metadata"] = json!({"large": "x".repeat(500)});
    let id = stack.post(&new).await.broadcast_id();
    stack.finish(&id).await;
    let path = format!("/v1/broadcasts/{id}");
    stack.let_reads_catch_up();
    let report = send(&stack, "GET", &path, &[]).await;
    let tag = header(&report, "etag").to_owned();
    calls.lock().unwrap().clear();

    let strong = tag.trim_start_matches("W/");
    for known in [&*tag, strong, "*", &format!("\"other\", {tag}")] {
        let answer = send(&stack, "GET", &path, &[("if-none-match", known)]).await;
        assert_eq!(answer.status(), StatusCode::NOT_MODIFIED, "{known}");
        assert_eq!(header(&answer, "etag"), tag);
        assert!(answer.body().is_empty());
        let made = std::mem::take(&mut *calls.lock().unwrap());
        assert_eq!(made.len(), 1, "{made:?}");
        assert!(
            made[0]["KeyConditionExpression"]
                .as_str()
                .unwrap()
                .contains("begins_with"),
            "{made:?}"
        );
        assert_eq!(made[0]["ConsistentRead"], false);
    }
    let items = stack.stored_items().await;
    let of_jobs = items
        .iter()
        .filter(|item| item.get("sk").is_some_and(|sk| sk.as_s().unwrap().starts_with("job#")));
    let bytes: Vec<_> = of_jobs.map(size).collect();
    assert_eq!(bytes.len(), 3);
    assert!(bytes.iter().sum::<usize>() <= 4_096, "{bytes:?}");
    assert!(
        bytes.iter().all(|bytes| 5 * bytes <= 4_096),
        "five Pages cost half a unit: {bytes:?}"
    );
}

/// Returns about the size of an item by DynamoDB's rules: names and values, and three bytes for each map or list.
fn size(item: &std::collections::HashMap<String, aws_sdk_dynamodb::types::AttributeValue>) -> usize {
    use aws_sdk_dynamodb::types::AttributeValue;
    item.iter()
        .map(|(name, value)| {
            name.len()
                + match value {
                    AttributeValue::S(text) => text.len(),
                    AttributeValue::N(number) => number.len() / 2 + 2,
                    AttributeValue::M(map) => 3 + size(map),
                    AttributeValue::L(list) => 3 + 8 * list.len(),
                    _ => 1,
                }
        })
        .sum()
}

#[tokio::test]
async fn changed_report_is_answered_whole_with_another_tag() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(2).await;
    let id = stack.broadcast(&ids).await;
    let path = format!("/v1/broadcasts/{id}");
    let first = send(&stack, "GET", &path, &[]).await;
    let tag = header(&first, "etag").to_owned();
    stack.finish(&id).await;
    stack.let_reads_catch_up();

    let second = send(&stack, "GET", &path, &[("if-none-match", &tag)]).await;

    assert_eq!(second.status(), StatusCode::OK);
    assert_eq!(body(&second)["status"], "completed");
    assert_ne!(header(&second, "etag"), tag);
    // A look that is a moment behind does not bring the old report back.
    let other = stack.broadcast(&ids[..1]).await;
    let path = format!("/v1/broadcasts/{other}");
    stack.finish(&other).await;
    let now = send(&stack, "GET", &path, &[]).await;
    let known = header(&now, "etag").to_owned();
    let again = send(&stack, "GET", &path, &[("if-none-match", &known)]).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn list_of_entity_tags_that_is_none_is_refused() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(slice::from_ref(&ids[0])).await;
    let path = format!("/v1/broadcasts/{id}");
    for nonsense in ["0a1b", "W/0a1b", "\"0a1b", "\"a\" \"b\"", "*, \"a\"", ""] {
        let answer = send(&stack, "GET", &path, &[("if-none-match", nonsense)]).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{nonsense:?}");
        assert_eq!(body(&answer)["errors"][0]["field"], "If-None-Match");
    }
    let unknown = send(&stack, "GET", "/v1/broadcasts/none", &[("if-none-match", "*")]).await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    stack.finish(&id).await;
}

/// A report that a caller may not see is not confirmed to it, either.
#[tokio::test]
async fn tag_tells_a_limited_caller_nothing_of_other_pages() {
    let stack = TestStack::start_with(&[("PAGES_CLAIM", "pages")]).await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    stack.finish(&id).await;
    stack.let_reads_catch_up();
    let path = format!("/v1/broadcasts/{id}");
    for (page, status) in [(PAGES[0], StatusCode::NOT_MODIFIED), (PAGES[1], StatusCode::NOT_FOUND)] {
        let context = json!({
            "authorizer": {"jwt": {"claims": {"iss": "i", "sub": "s", "pages": page}, "scopes": []}},
            "http": {"method": "GET", "path": path},
            "timeEpoch": 0,
        });
        let context = serde_json::from_value(context).unwrap();
        let request = Request::get(&path)
            .header("if-none-match", "*")
            .extension(lambda_http::request::RequestContext::ApiGatewayV2(context));
        let answer = stack.send_raw(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status(), status, "{page}");
    }
}
