//! Callers: each has its own request keys, and a token may be limited to some Pages.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use local::clients;
use serde_json::{Value, json};

use crate::fixture::document::operations;
use crate::fixture::proxy::{self, ProxiedCall};
use crate::fixture::{ApiResponse, Endpoints, PAGES, Services, TestStack, request};

/// Returns API Gateway's description of a caller that signs with IAM.
pub fn signed_by(user_id: &str) -> Value {
    json!({"iam": {
        "accessKey": "ASIA", "accountId": "111122223333", "callerId": user_id, "cognitoIdentity": null,
        "principalOrgId": "aws:PrincipalOrgID", "userArn": "arn:aws:sts::111122223333:assumed-role/app/i-1",
        "userId": user_id,
    }})
}

/// Returns API Gateway's description of a caller with a JWT.
fn bearing(claims: Value) -> Value {
    json!({"jwt": {"claims": claims, "scopes": ["broadcasts:write"]}})
}

/// Returns the description of a caller whose token is limited to these Pages.
pub fn limited_to(pages: &str) -> Value {
    bearing(json!({"iss": "https://issuer", "sub": "partner", "pages": pages}))
}

pub const PAGES_CLAIM: (&str, &str) = ("PAGES_CLAIM", "pages");

#[tokio::test]
async fn each_caller_has_its_own_request_keys() {
    let claims = |issuer: &str, subject: &str| bearing(json!({"iss": issuer, "sub": subject}));
    let client = |id: &str| bearing(json!({"iss": "https://a", "client_id": id}));
    let (role, another_role) = (signed_by("AROAAPP:i-1"), signed_by("AROAOTHER:i-1"));
    // The last value: the second is the same caller as the first.
    let cases = [
        ("sessions of a role", &role, signed_by("AROAAPP:i-2"), true),
        ("a role and another", &role, another_role.clone(), false),
        ("a role and a user", &role, signed_by("AIDAUSER"), false),
        (
            "a federated user and another",
            &signed_by("1111:ana"),
            signed_by("1111:ben"),
            false,
        ),
        ("a role and an unauthenticated caller", &role, Value::Null, false),
        (
            "tokens of one subject",
            &claims("https://a", "s"),
            claims("https://a", "s"),
            true,
        ),
        (
            "of two subjects",
            &claims("https://a", "s"),
            claims("https://a", "t"),
            false,
        ),
        (
            "of two issuers",
            &claims("https://a", "s"),
            claims("https://b", "s"),
            false,
        ),
        (
            "of a subject and a client",
            &claims("https://a", "s"),
            client("s"),
            false,
        ),
        ("of one client", &client("c"), client("c"), true),
        (
            "a token and a signature",
            &claims("https://a", "AROAAPP"),
            role.clone(),
            false,
        ),
    ];
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    for (n, (case, first, second, same)) in cases.into_iter().enumerate() {
        for key in [Some(format!("key-{n}")), None] {
            let mut body = request(&ids);
            body["message"]["text"] = json!(format!("{case} {key:?}"));
            let post = async |caller: &Value, body: &Value| {
                let call = ("POST", "/v1/broadcasts");
                stack.call_as(caller, call, key.as_deref(), Some(body)).await
            };

            let answers = [post(first, &body).await, post(&second, &body).await];

            let [a, b] = answers.map(|answer| (answer.status, answer.broadcast_id()));
            assert_eq!(a.1 == b.1, same, "{case}, {key:?}");
            if !same && key.is_some() {
                body["message"]["text"] = json!("of another content");
                let status = post(&second, &body).await.status;
                assert_eq!(
                    status,
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "the key is not the first caller's: {case}"
                );
            }
        }
    }
}

#[tokio::test]
async fn unidentifiable_caller_is_forbidden() {
    let stack = TestStack::start_with(&[PAGES_CLAIM]).await;
    let ids = stack.import_contacts(1).await;
    for caller in [
        signed_by(""),
        json!({"iam": {}}),
        bearing(json!({"iss": "https://issuer", "pages": "[page-1]"})),
        bearing(json!({"iss": "https://issuer", "sub": "partner"})),
        limited_to(""),
        limited_to("[]"),
        limited_to("*"),
    ] {
        let import = json!({"contacts": [{"contact_id": ids[0], "page_id": PAGES[0]}]});
        for (call, body) in [
            (("POST", "/v1/broadcasts"), Some(request(&ids))),
            (("GET", "/v1/broadcasts"), None),
            (("PUT", "/v1/contacts"), Some(import)),
            (("GET", "/v1/contacts/c00000"), None),
        ] {
            let answer = stack.call_as(&caller, call, None, body.as_ref()).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{caller} {call:?}");
        }
    }
}

/// Covers every request that could read or change another Page.
#[tokio::test]
async fn page_limited_token_reaches_no_other_page() {
    let stack = TestStack::start_with(&[PAGES_CLAIM]).await;
    let (mine, theirs) = (PAGES[0], PAGES[1]);
    let limited = limited_to(&format!("[{mine} page-9]"));
    let owner = signed_by("AROAOWNER:1");
    let call = async |caller: &Value, call: (&str, &str), body: Value| {
        let body = Some(&body).filter(|body| !body.is_null());
        stack.call_as(caller, call, None, body).await
    };
    let contact = |id: &str, page: &str| json!({"contact_id": id, "page_id": page});
    let import = |contacts: Value| json!({"contacts": contacts});
    let both = import(json!([contact("ana", mine), contact("ben", theirs)]));
    let stored = call(&owner, ("PUT", "/v1/contacts"), both).await;
    assert_eq!(stored.status, StatusCode::OK);
    stack.let_reads_catch_up();
    let post = ("POST", "/v1/broadcasts");
    let to = |ids: &[&str]| {
        let ids: Vec<_> = ids.iter().map(|id| (*id).to_owned()).collect();
        request(&ids)
    };
    let ids_of = |answers: [ApiResponse; 3]| answers.map(|answer| answer.broadcast_id());
    let [of_mine, of_theirs, of_both] = ids_of([
        call(&owner, post, to(&["ana"])).await,
        call(&owner, post, to(&["ben"])).await,
        call(&owner, post, to(&["ana", "ben"])).await,
    ]);

    // Contacts of another Page are neither read, changed, moved to or from it, nor deleted.
    let put = ("PUT", "/v1/contacts");
    for (contacts, status) in [
        (json!([contact("carl", mine)]), StatusCode::OK),
        (json!([contact("cleo", "page-9")]), StatusCode::OK),
        (json!([contact("carl", "page-9")]), StatusCode::CONFLICT),
        (json!([contact("dora", theirs)]), StatusCode::BAD_REQUEST),
        (json!([contact("carl", theirs)]), StatusCode::BAD_REQUEST),
        (json!([contact("ben", mine)]), StatusCode::FORBIDDEN),
        (
            json!([contact("emil", mine), contact("ben", mine)]),
            StatusCode::FORBIDDEN,
        ),
    ] {
        let answer = call(&limited, put, import(contacts.clone())).await;
        assert_eq!(answer.status, status, "{contacts}: {answer:?}");
    }
    for (id, status, page) in [
        ("ana", StatusCode::OK, json!(mine)),
        ("carl", StatusCode::OK, json!(mine)),
        ("cleo", StatusCode::OK, json!("page-9")),
        ("ben", StatusCode::NOT_FOUND, json!(theirs)),
        ("dora", StatusCode::NOT_FOUND, Value::Null),
        ("emil", StatusCode::NOT_FOUND, Value::Null),
    ] {
        let path = format!("/v1/contacts/{id}");
        assert_eq!(call(&limited, ("GET", &path), Value::Null).await.status, status, "{id}");
        let seen = call(&owner, ("GET", &path), Value::Null).await;
        assert_eq!(seen.body["page_id"], page, "{id}");
    }
    for (id, status) in [("ben", StatusCode::NOT_FOUND), ("carl", StatusCode::NO_CONTENT)] {
        let path = format!("/v1/contacts/{id}");
        assert_eq!(
            call(&limited, ("DELETE", &path), Value::Null).await.status,
            status,
            "{id}"
        );
    }
    let ben = call(&owner, ("GET", "/v1/contacts/ben"), Value::Null).await;
    assert_eq!(ben.status, StatusCode::OK);
    for (page, status) in [(mine, StatusCode::OK), (theirs, StatusCode::NOT_FOUND)] {
        let path = format!("/v1/checks?page_id={page}");
        let checked = call(&limited, ("GET", &path), Value::Null).await;
        assert_eq!(checked.status, status, "the check of another Page");
    }

    // Contacts of another Page are unknown in a request, and broadcasts of another Page do not exist.
    let mine_alone = call(&limited, post, to(&["ana", "ben"])).await;
    assert_eq!(mine_alone.body["contacts"]["unknown_ids"], json!(["ben"]));
    assert_eq!(mine_alone.body["contacts"]["accepted"], 1);
    let none = call(&limited, post, to(&["ben"])).await;
    assert_eq!(none.status, StatusCode::UNPROCESSABLE_ENTITY);
    for (id, seen) in [(&of_mine, true), (&of_theirs, false), (&of_both, false)] {
        for (method, rest) in [("GET", ""), ("GET", "/deliveries"), ("POST", "/resume")] {
            let path = format!("/v1/broadcasts/{id}{rest}");
            let status = call(&limited, (method, &path), Value::Null).await.status;
            assert_eq!(status.is_success(), seen, "{method} {path}: {status}");
            assert!(seen || status == StatusCode::NOT_FOUND);
        }
    }
    stack.let_reads_catch_up();
    let (mut listed, mut parts, mut cursor) = (BTreeSet::new(), 0, String::new());
    loop {
        let path = format!("/v1/broadcasts?limit=1{cursor}");
        let part = call(&limited, ("GET", &path), Value::Null).await.body;
        let items = part["items"].as_array().unwrap().iter();
        listed.extend(items.map(|item| item["broadcast_id"].as_str().unwrap().to_owned()));
        parts += 1;
        match part["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let expected = [of_mine, mine_alone.broadcast_id()];
    assert_eq!(listed, expected.map(|id| id.to_string()).into());
    assert!(
        parts >= 4,
        "{parts} parts: a part without visible broadcasts must not end the list"
    );
}

#[tokio::test]
async fn contact_is_of_the_page_to_which_it_was_moved_a_moment_ago() {
    let stack = TestStack::start_with(&[PAGES_CLAIM]).await;
    let ids = ["ben".to_owned()];
    stack.import(PAGES[1], &ids).await;
    stack.let_reads_catch_up();
    stack.call("DELETE", "/v1/contacts/ben", None, None).await;
    stack.import(PAGES[0], &ids).await;

    let limited = limited_to(PAGES[0]);
    let import = json!({"contacts": [{"contact_id": "ben", "page_id": PAGES[0]}]});
    let imported = stack.call_as(&limited, ("PUT", "/v1/contacts"), None, Some(&import));
    assert_eq!(imported.await.status, StatusCode::OK);
    let broadcast = request(&ids);
    let accepted = stack.call_as(&limited, ("POST", "/v1/broadcasts"), None, Some(&broadcast));
    assert_eq!(accepted.await.status, StatusCode::ACCEPTED);
}

/// Another request may create the contact on its Page between the check and the write. A limited caller does not learn the Page.
#[tokio::test]
async fn contact_that_is_created_elsewhere_meanwhile_is_not_moved() {
    for (caller, status) in [
        (limited_to(PAGES[0]), StatusCode::FORBIDDEN),
        (signed_by("AROAOWNER:1"), StatusCode::CONFLICT),
    ] {
        let services = Services::start().await;
        let database = services.endpoints.dynamodb.clone();
        let hook = move |call: ProxiedCall| {
            let creating = clients::dynamodb(&database).put_item();
            let asked: Value = serde_json::from_str(&call.body()).unwrap();
            // The contact is written by a statement, which is refused, and then by an update.
            let statement = asked["Statements"][0]["Statement"].as_str();
            let of_statement = statement.and_then(|statement| statement.split('"').nth(1));
            let table = asked["TableName"].as_str().or(of_statement).map(str::to_owned);
            let text = |text: &str| AttributeValue::S(text.to_owned());
            let creating = creating
                .set_table_name(table)
                .item("contact_id", text("ben"))
                .item("page_id", text(PAGES[1]));
            // After every check of the contact's Page.
            let is_import =
                statement.is_some() || asked["Key"]["contact_id"]["S"] == "ben" && call.name().ends_with("UpdateItem");
            async move {
                if is_import {
                    creating.send().await.unwrap();
                }
                call.forward().await
            }
        };
        let endpoints = Endpoints {
            dynamodb: proxy::start(&services.endpoints.dynamodb, hook).await,
            ..services.endpoints.clone()
        };
        let stack = TestStack::start_on(services, &endpoints, &[PAGES_CLAIM]).await;

        let import = json!({"contacts": [{"contact_id": "ben", "page_id": PAGES[0]}]});
        let answer = stack
            .call_as(&caller, ("PUT", "/v1/contacts"), None, Some(&import))
            .await;

        assert_eq!(answer.status, status, "{answer:?}");
        let names_page = answer.body.to_string().contains(PAGES[1]);
        assert_eq!(names_page, status == StatusCode::CONFLICT, "{answer:?}");
        let ben = stack.call("GET", "/v1/contacts/ben", None, None).await;
        assert_eq!(ben.body["page_id"], PAGES[1]);
    }
}

#[tokio::test]
async fn token_reaches_every_page_without_pages_claim() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let path = format!("/v1/broadcasts/{id}");

    let answer = stack.call_as(&limited_to("[page-2]"), ("GET", &path), None, None).await;

    assert_eq!(answer.status, StatusCode::OK);
}

/// As the local gateway describes a token of `--api-token` without Pages.
#[tokio::test]
async fn token_without_an_optional_pages_claim_reaches_every_page() {
    let stack = TestStack::start_with(&[("PAGES_CLAIM", "pages?")]).await;
    let ids = stack.import_contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let path = format!("/v1/broadcasts/{id}");
    let without = bearing(json!({"iss": "oncecast-local", "sub": "office"}));

    for (caller, expected) in [
        (without, StatusCode::OK),
        (limited_to("[page-1]"), StatusCode::OK),
        (limited_to("[page-2]"), StatusCode::NOT_FOUND),
        (limited_to("[]"), StatusCode::FORBIDDEN),
    ] {
        let answer = stack.call_as(&caller, ("GET", &path), None, None).await;
        assert_eq!(answer.status, expected, "{caller}");
    }
}

/// The template declares the routes of the document: a route that is missing there does not reach the function.
#[tokio::test]
async fn every_route_is_in_the_document() {
    let stack = TestStack::start().await;
    let routes: BTreeSet<_> = operations().into_keys().collect();
    let paths: BTreeSet<_> = routes.iter().map(|route| route.split_once(' ').unwrap().1).collect();

    for path in paths {
        for method in [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH] {
            let request = Request::builder().method(&method).uri(path.replace(['{', '}'], ""));
            let answer = stack.send_raw(request.body(Body::empty()).unwrap()).await;
            let exists = answer.status() != StatusCode::METHOD_NOT_ALLOWED;
            let route = format!("{method} {path}");
            assert_eq!(exists, routes.contains(&*route), "{route}");
        }
    }
}

/// An erasure by a caller of some Pages leaves what it cannot see, and tells nothing of it.
#[tokio::test]
async fn limited_caller_erases_on_its_own_pages_only() {
    let stack = TestStack::start_with(&[PAGES_CLAIM]).await;
    let [mine, theirs] = [PAGES[0], PAGES[1]];
    stack.import(mine, &["ana".to_owned()]).await;
    stack.import(theirs, &["ben".to_owned()]).await;
    let id = stack.broadcast(&["ana".to_owned(), "ben".to_owned()]).await;
    stack.finish(&id).await;
    stack.advance(std::time::Duration::from_secs(700));
    let erase = async |caller: &Value, contact_id: &str| {
        let path = format!("/v1/contacts/{contact_id}?erase=true");
        let answer = stack.call_as(caller, ("DELETE", &path), None, None).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.body
    };
    let nothing = json!({"contact": false, "deliveries": 0, "unknown_ids": 0});

    for unseen in ["ben", "nobody"] {
        let answer = erase(&limited_to(mine), unseen).await;
        assert_eq!(answer, json!({"erased": nothing, "kept": [], "next_cursor": null}));
    }
    let answer = erase(&limited_to(mine), "ana").await;
    assert_eq!(
        answer["erased"],
        json!({"contact": true, "deliveries": 1, "unknown_ids": 0})
    );
    let rows = stack.deliveries(&id, "").await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["contact_id"], "ben");
    stack.skip_promise_check();
}
