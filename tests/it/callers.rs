//! Who may call: each caller has request keys of their own, and a token may be limited to some Pages.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use local::clients;
use serde_json::{Value, json};

use crate::proxy::{self, Call};
use crate::stack::{Answer, Endpoints, PAGES, Services, Stack, request};

/// As API Gateway tells of a call that is signed with IAM.
fn signed_by(user_id: &str) -> Value {
    json!({"iam": {
        "accessKey": "ASIA", "accountId": "111122223333", "callerId": user_id, "cognitoIdentity": null,
        "principalOrgId": "aws:PrincipalOrgID", "userArn": "arn:aws:sts::111122223333:assumed-role/app/i-1",
        "userId": user_id,
    }})
}

/// As API Gateway tells of a call with a token.
fn bearing(claims: Value) -> Value {
    json!({"jwt": {"claims": claims, "scopes": ["broadcasts:write"]}})
}

/// A token for these Pages.
fn limited_to(pages: &str) -> Value {
    bearing(json!({"iss": "https://issuer", "sub": "partner", "pages": pages}))
}

const PAGES_CLAIM: (&str, &str) = ("PAGES_CLAIM", "pages");

#[tokio::test]
async fn each_caller_has_request_keys_of_their_own() {
    let claims = |issuer: &str, subject: &str| bearing(json!({"iss": issuer, "sub": subject}));
    let client = |id: &str| bearing(json!({"iss": "https://a", "client_id": id}));
    let (role, another_role) = (signed_by("AROAAPP:i-1"), signed_by("AROAOTHER:i-1"));
    // Who is the same caller as the first of them, and who is another.
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
        ("a role and nobody in particular", &role, Value::Null, false),
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
    let stack = Stack::start().await;
    let ids = stack.contacts(1).await;
    for (n, (case, first, second, same)) in cases.into_iter().enumerate() {
        for key in [Some(format!("key-{n}")), None] {
            let mut body = request(&ids);
            body["message"]["text"] = json!(format!("{case} {key:?}"));
            let post = async |caller: &Value, body: &Value| {
                let call = ("POST", "/v1/broadcasts");
                stack
                    .call_by(caller, call, key.as_deref(), Some(body))
                    .await
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
                    "their own: {case}"
                );
            }
        }
    }
}

#[tokio::test]
async fn whoever_cannot_be_told_from_others_is_refused() {
    let stack = Stack::with(&[PAGES_CLAIM]).await;
    let ids = stack.contacts(1).await;
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
            let answer = stack.call_by(&caller, call, None, body.as_ref()).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{caller} {call:?}");
        }
    }
}

/// Everything that one may ask about another's Page.
#[tokio::test]
async fn a_token_that_is_limited_to_some_pages_reaches_no_other() {
    let stack = Stack::with(&[PAGES_CLAIM]).await;
    let (mine, theirs) = (PAGES[0], PAGES[1]);
    let me = limited_to(&format!("[{mine} page-9]"));
    let owner = signed_by("AROAOWNER:1");
    let call = async |caller: &Value, call: (&str, &str), body: Value| {
        let body = Some(&body).filter(|body| !body.is_null());
        stack.call_by(caller, call, None, body).await
    };
    let contact = |id: &str, page: &str| json!({"contact_id": id, "page_id": page});
    let import = |contacts: Value| json!({"contacts": contacts});
    let both = import(json!([contact("ana", mine), contact("ben", theirs)]));
    let stored = call(&owner, ("PUT", "/v1/contacts"), both).await;
    assert_eq!(stored.status, StatusCode::OK);
    let post = ("POST", "/v1/broadcasts");
    let to = |ids: &[&str]| {
        let ids: Vec<_> = ids.iter().map(|id| (*id).to_owned()).collect();
        request(&ids)
    };
    let ids_of = |answers: [Answer; 3]| answers.map(|answer| answer.broadcast_id());
    let [of_mine, of_theirs, of_both] = ids_of([
        call(&owner, post, to(&["ana"])).await,
        call(&owner, post, to(&["ben"])).await,
        call(&owner, post, to(&["ana", "ben"])).await,
    ]);

    // Contacts: neither read, nor changed, nor moved away or here, nor forgotten.
    let put = ("PUT", "/v1/contacts");
    for (contacts, status) in [
        (json!([contact("carl", mine)]), StatusCode::OK),
        (json!([contact("carl", "page-9")]), StatusCode::OK),
        (json!([contact("dora", theirs)]), StatusCode::BAD_REQUEST),
        (json!([contact("carl", theirs)]), StatusCode::BAD_REQUEST),
        (json!([contact("ben", mine)]), StatusCode::FORBIDDEN),
        (
            json!([contact("emil", mine), contact("ben", mine)]),
            StatusCode::FORBIDDEN,
        ),
    ] {
        let answer = call(&me, put, import(contacts.clone())).await;
        assert_eq!(answer.status, status, "{contacts}: {answer:?}");
    }
    for (id, by_me, page) in [
        ("ana", StatusCode::OK, json!(mine)),
        ("carl", StatusCode::OK, json!("page-9")),
        ("ben", StatusCode::NOT_FOUND, json!(theirs)),
        ("dora", StatusCode::NOT_FOUND, Value::Null),
        ("emil", StatusCode::NOT_FOUND, Value::Null),
    ] {
        let path = format!("/v1/contacts/{id}");
        assert_eq!(
            call(&me, ("GET", &path), Value::Null).await.status,
            by_me,
            "{id}"
        );
        let seen = call(&owner, ("GET", &path), Value::Null).await;
        assert_eq!(seen.body["page_id"], page, "{id}");
    }
    for (id, status) in [
        ("ben", StatusCode::NOT_FOUND),
        ("carl", StatusCode::NO_CONTENT),
    ] {
        let path = format!("/v1/contacts/{id}");
        assert_eq!(
            call(&me, ("DELETE", &path), Value::Null).await.status,
            status,
            "{id}"
        );
    }
    let ben = call(&owner, ("GET", "/v1/contacts/ben"), Value::Null).await;
    assert_eq!(ben.status, StatusCode::OK);

    // Broadcasts: theirs are nobody to me, and nothing that concerns them is there.
    let mine_alone = call(&me, post, to(&["ana", "ben"])).await;
    assert_eq!(mine_alone.body["contacts"]["unknown_ids"], json!(["ben"]));
    assert_eq!(mine_alone.body["contacts"]["accepted"], 1);
    let nobody = call(&me, post, to(&["ben"])).await;
    assert_eq!(nobody.status, StatusCode::UNPROCESSABLE_ENTITY);
    for (id, seen) in [(&of_mine, true), (&of_theirs, false), (&of_both, false)] {
        for (method, rest) in [("GET", ""), ("GET", "/deliveries"), ("POST", "/resume")] {
            let path = format!("/v1/broadcasts/{id}{rest}");
            let status = call(&me, (method, &path), Value::Null).await.status;
            assert_eq!(status.is_success(), seen, "{method} {path}: {status}");
            assert!(seen || status == StatusCode::NOT_FOUND);
        }
    }
    let (mut listed, mut parts, mut cursor) = (BTreeSet::new(), 0, String::new());
    loop {
        let path = format!("/v1/broadcasts?limit=1{cursor}");
        let part = call(&me, ("GET", &path), Value::Null).await.body;
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
        "{parts}: hidden ones are left out of parts, and hide none behind them"
    );
}

/// Whose a contact is may change between looking and writing.
#[tokio::test]
async fn a_contact_that_is_moved_away_meanwhile_is_not_taken_back() {
    for before in [Some(PAGES[0]), None] {
        let services = Services::start().await;
        let database = services.endpoints.dynamodb.clone();
        let hook = move |call: Call| {
            let moving = clients::dynamodb(&database).put_item();
            let asked: Value = serde_json::from_str(&call.body()).unwrap();
            let table = asked["RequestItems"].as_object();
            let table = table.and_then(|tables| tables.keys().next().cloned());
            let text = |text: &str| AttributeValue::S(text.to_owned());
            let moving = moving
                .set_table_name(table)
                .item("contact_id", text("ben"))
                .item("page_id", text(PAGES[1]));
            async move {
                let is_look = call.name().ends_with("BatchGetItem");
                let answer = call.carry_out().await;
                if is_look {
                    moving.send().await.unwrap();
                }
                answer
            }
        };
        let endpoints = Endpoints {
            dynamodb: proxy::between(&services.endpoints.dynamodb, hook).await,
            ..services.endpoints.clone()
        };
        let stack = Stack::over(services, &endpoints, &[PAGES_CLAIM]).await;
        if let Some(page) = before {
            stack.import(page, &["ben".to_owned()]).await;
        }

        let import = json!({"contacts": [{"contact_id": "ben", "page_id": PAGES[0]}]});
        let put = ("PUT", "/v1/contacts");
        let me = limited_to(PAGES[0]);
        let answer = stack.call_by(&me, put, None, Some(&import)).await;

        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{before:?}");
        let ben = stack.call("GET", "/v1/contacts/ben", None, None).await;
        assert_eq!(ben.body["page_id"], PAGES[1], "{before:?}");
    }
}

/// Without the variable a token reaches every Page, as a signature always does.
#[tokio::test]
async fn without_a_claim_to_limit_them_tokens_reach_every_page() {
    let stack = Stack::start().await;
    let ids = stack.contacts(1).await;
    let id = stack.broadcast(&ids).await;
    let path = format!("/v1/broadcasts/{id}");

    let answer = stack
        .call_by(&limited_to("[page-2]"), ("GET", &path), None, None)
        .await;

    assert_eq!(answer.status, StatusCode::OK);
}

/// The template declares each of them: what is not in this list does not reach the function.
#[tokio::test]
async fn the_list_of_routes_is_whole() {
    let stack = Stack::start().await;
    let routes: BTreeSet<_> = send::routes().into_iter().map(|(route, _)| route).collect();
    let paths: BTreeSet<_> = routes
        .iter()
        .map(|route| route.split_once(' ').unwrap().1)
        .collect();

    for path in paths {
        for method in [
            Method::GET,
            Method::PUT,
            Method::POST,
            Method::DELETE,
            Method::PATCH,
        ] {
            let request = Request::builder()
                .method(&method)
                .uri(path.replace(['{', '}'], ""));
            let answer = stack.raw(request.body(Body::empty()).unwrap()).await;
            let is_there = answer.status() != StatusCode::METHOD_NOT_ALLOWED;
            let route = format!("{method} {path}");
            assert_eq!(is_there, routes.contains(&*route), "{route}");
        }
    }
}
