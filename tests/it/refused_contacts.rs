//! Imports of which some contacts are wrong: all or nothing, or those that are right, with a summary of the others.

use std::collections::BTreeSet;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::callers::{PAGES_CLAIM, limited_to};
use crate::fixture::{PAGES, TestStack};

const SKIP: &str = "/v1/contacts?refused=skip";

/// Imports a body; the answer has the type that is asked for.
async fn import(stack: &TestStack, path: &str, kind: &str, body: impl Into<Body>, accept: &str) -> Response<Bytes> {
    let request = Request::put(path).header("content-type", kind).header("accept", accept);
    stack.send_raw(request.body(body.into()).unwrap()).await
}

fn json_of(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap()
}

fn text_of(answer: &Response<Bytes>) -> &str {
    assert_eq!(
        answer.headers()["content-type"],
        "text/csv; charset=utf-8",
        "{answer:?}"
    );
    std::str::from_utf8(answer.body()).unwrap()
}

/// Returns which of these contacts are stored.
async fn stored<'a>(stack: &TestStack, ids: &[&'a str]) -> Vec<&'a str> {
    let mut stored = Vec::new();
    for id in ids {
        let answer = stack.call("GET", &format!("/v1/contacts/{id}"), None, None).await;
        if answer.status.is_success() {
            stored.push(*id);
        }
    }
    stored
}

const FILE: &str = "contact_id,page_id,opted_out,first_name\n\
    ana,page-1,false,Ana\n\
    b n,page-1,yes,Ben\n\
    \n\
    eve,page-1,false,\"E\nve\"\n\
    joe,page-1,false\n\
    ana,page-1,true,Again\n\
    kim,,false,Kim\n";

const SUMMARY: &str = "line,column,message\r\n\
    3,contact_id,";

#[tokio::test]
async fn right_contacts_are_stored_and_the_others_come_back_with_line_column_and_reason() {
    let stack = TestStack::start().await;

    let answer = import(&stack, SKIP, "text/csv", FILE, "application/json").await;

    assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
    assert_eq!(answer.headers()["x-upserted"], "2");
    assert!(
        answer.headers()["x-csv-read-as"]
            .to_str()
            .unwrap()
            .contains("6 contacts")
    );
    let body = json_of(&answer);
    assert_eq!(body["upserted"], 2);
    let refused: Vec<_> = body["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| {
            (
                fault["line"].as_u64().unwrap(),
                fault["column"].as_str(),
                fault["field"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        refused,
        [
            (3, Some("contact_id"), "line 3, column contact_id"),
            (3, Some("opted_out"), "line 3, column opted_out"),
            (7, None, "line 7"),
            (8, Some("contact_id"), "line 8, column contact_id"),
            (9, Some("page_id"), "line 9, column page_id"),
        ]
    );
    assert_eq!(stored(&stack, &["ana", "eve", "joe", "kim"]).await, ["ana", "eve"]);
    let ana = stack.call("GET", "/v1/contacts/ana", None, None).await.body;
    assert_eq!((&ana["first_name"], &ana["opted_out"]), (&json!("Ana"), &json!(false)));
}

#[tokio::test]
async fn summary_of_refused_contacts_comes_as_csv() {
    let stack = TestStack::start().await;

    let skipped = import(&stack, SKIP, "text/csv", FILE, "text/csv").await;
    let good = import(&stack, SKIP, "text/csv", "contact_id,page_id\nzoe,page-1\n", "text/csv").await;

    assert_eq!(
        (skipped.status(), skipped.headers()["x-upserted"].to_str().unwrap()),
        (StatusCode::OK, "2")
    );
    let summary = text_of(&skipped);
    assert!(summary.starts_with(SUMMARY), "{summary}");
    let mut reader = csv::Reader::from_reader(summary.as_bytes());
    let rows: Vec<(u64, String, String)> = reader.deserialize().map(Result::unwrap).collect();
    let places: Vec<_> = rows.iter().map(|(line, column, _)| (*line, column.as_str())).collect();
    assert_eq!(
        places,
        [
            (3, "contact_id"),
            (3, "opted_out"),
            (7, ""),
            (8, "contact_id"),
            (9, "page_id")
        ]
    );
    assert_eq!(rows[1].2, "must be true or false");
    assert_eq!(rows[3].2, "is in the request already, at line 2");
    assert_eq!(text_of(&good), "line,column,message\r\n");
    assert_eq!(good.headers()["x-upserted"], "1");
}

#[tokio::test]
async fn refused_contacts_of_json_have_pointers() {
    let stack = TestStack::start().await;
    let body = json!({"contacts": [
        {"contact_id": "ana", "page_id": "p", "tags": "vip"},
        {"contact_id": "ben", "page_id": "p"},
        {"contact_id": "eve", "page_id": "p", "attributes": {"a b": 1}, "nick": "E"},
        5,
    ]});
    let body = body.to_string();

    let skipped = import(&stack, SKIP, "application/json", body.clone(), "application/json").await;
    let as_csv = import(&stack, SKIP, "application/json", body.clone(), "text/csv").await;
    let refused = import(&stack, "/v1/contacts", "application/json", body, "text/csv").await;

    let expected = [
        "/contacts/0/tags",
        "/contacts/2/nick",
        "/contacts/2/attributes/a b",
        "/contacts/3",
    ];
    let answer = json_of(&skipped);
    let faults = answer["refused"].as_array().unwrap();
    let fields: Vec<_> = faults.iter().map(|fault| fault["field"].as_str().unwrap()).collect();
    assert_eq!((fields, &answer["upserted"]), (expected.to_vec(), &json!(1)));
    assert!(
        faults
            .iter()
            .all(|fault| fault["line"].is_null() && fault["column"].is_null())
    );
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    for answer in [&as_csv, &refused] {
        let mut reader = csv::Reader::from_reader(text_of(answer).as_bytes());
        assert_eq!(reader.headers().unwrap(), vec!["field", "message"]);
        let fields: Vec<_> = reader.records().map(|row| row.unwrap()[0].to_owned()).collect();
        assert_eq!(fields, expected);
    }
    assert_eq!(stored(&stack, &["ana", "ben", "eve"]).await, ["ben"]);
}

#[tokio::test]
async fn nothing_is_stored_unless_the_request_asks_for_the_rest() {
    let stack = TestStack::start().await;

    let as_json = import(&stack, "/v1/contacts", "text/csv", FILE, "application/json").await;
    let as_csv = import(&stack, "/v1/contacts", "text/csv", FILE, "text/csv").await;

    assert_eq!(
        (as_json.status(), as_csv.status()),
        (StatusCode::BAD_REQUEST, StatusCode::BAD_REQUEST)
    );
    assert_eq!(json_of(&as_json)["errors"][0]["line"], 3);
    assert_eq!(
        json_of(&as_json)["detail"],
        "The request has 5 faults; nothing was stored."
    );
    assert!(text_of(&as_csv).starts_with(SUMMARY), "{as_csv:?}");
    assert_eq!(text_of(&as_csv).lines().count(), 6);
    assert_eq!(stored(&stack, &["ana", "eve", "joe", "kim"]).await, [] as [&str; 0]);
    for path in [
        "/v1/contacts?refused=all",
        "/v1/contacts?refused=",
        "/v1/contacts?skip=true",
    ] {
        let answer = import(&stack, path, "text/csv", FILE, "*/*").await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{path}");
    }
    let good = import(&stack, "/v1/contacts", "text/csv", "contact_id,page_id\nana,p\n", "*/*").await;
    assert_eq!(json_of(&good), json!({"upserted": 1}));
}

/// A header or quotation marks that are wrong put every row in question.
#[tokio::test]
async fn file_that_is_wrong_as_a_whole_is_refused_whole() {
    let stack = TestStack::start().await;
    let rows: String = (0..1_001).map(|n| format!("c{n},p\n")).collect();
    for (file, place) in [
        (String::new(), "line 1"),
        ("contact_id,page_id\n\n".to_owned(), "line 2"),
        ("contact_id,page_id,nick\nana,p,A\n".to_owned(), "line 1, column nick"),
        (format!("contact_id,page_id\n{rows}"), "line 1002"),
        // The mark is closed two rows below, so that one row would be hidden in a name.
        (
            "contact_id,page_id,first_name\nana,p,Ana\nben,p,\"Ben\neve,p,Eve\njoe,p,\"Joe\"\n".to_owned(),
            "line 3, column first_name",
        ),
        (
            "contact_id,page_id,first_name\nana,p,Ana\nben,p,\"Ben\neve,p,Eve\n".to_owned(),
            "line 3, column first_name",
        ),
    ] {
        let answer = import(&stack, SKIP, "text/csv", file.clone(), "application/json").await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{file}");
        assert_eq!(json_of(&answer)["errors"][0]["field"], place, "{file}");
    }
    for body in [
        json!({"contacts": []}),
        json!({"contacts": [{"contact_id": "ana", "page_id": "p"}], "more": 1}),
    ] {
        let answer = import(&stack, SKIP, "application/json", body.to_string(), "text/csv").await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{body}");
        assert!(text_of(&answer).starts_with("field,message\r\n/"), "{answer:?}");
    }
    assert_eq!(
        stored(&stack, &["ana", "ben", "eve", "joe", "c0"]).await,
        [] as [&str; 0]
    );
}

/// A contact stays on its Page; one that is stored on another is refused like any other fault.
#[tokio::test]
async fn contact_of_another_page_is_refused_and_the_rest_is_stored() {
    let stack = TestStack::start().await;
    stack.import(PAGES[1], &["ben".to_owned()]).await;
    stack.let_reads_catch_up();
    let file = format!(
        "contact_id,page_id,first_name\nana,{0},Ana\nben,{0},Ben\neve,{0},\n",
        PAGES[0]
    );

    let whole = import(&stack, "/v1/contacts", "text/csv", file.clone(), "*/*").await;
    let before = stored(&stack, &["ana", "eve"]).await;
    let skipped = import(&stack, SKIP, "text/csv", file, "*/*").await;

    assert_eq!((whole.status(), before), (StatusCode::CONFLICT, vec![]));
    let message = format!("must be {}, on which the contact is stored", PAGES[1]);
    let fault = json!({"field": "line 3, column page_id", "line": 3, "column": "page_id", "message": message});
    assert_eq!(json_of(&whole)["errors"], json!([fault]));
    assert_eq!(json_of(&skipped), json!({"upserted": 2, "refused": [fault]}));
    assert_eq!(stored(&stack, &["ana", "eve"]).await, ["ana", "eve"]);
    let ben = stack.call("GET", "/v1/contacts/ben", None, None).await.body;
    assert_eq!(
        (&ben["page_id"], &ben["first_name"]),
        (&json!(PAGES[1]), &json!("Nr ben"))
    );
}

/// Every refused contact is in the summary, with the first ten of its faults.
#[tokio::test]
async fn summary_has_each_refused_contact() {
    let stack = TestStack::start().await;
    let names: Vec<_> = (0..20).map(|n| format!("attributes.a{n}")).collect();
    let cells = vec!["#N/A"; 20].join(",");
    let rows: String = (0..1_000).map(|n| format!("c{n},p,{cells}\n")).collect();
    let file = format!("contact_id,page_id,{}\n{rows}", names.join(","));

    let answer = import(&stack, SKIP, "text/csv", file, "application/json").await;

    assert_eq!(answer.headers()["x-upserted"], "0");
    assert!(answer.body().len() < 4_000_000, "{} bytes", answer.body().len());
    let body = json_of(&answer);
    let refused = body["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 10_000);
    let lines: BTreeSet<_> = refused.iter().map(|fault| fault["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, (2..=1_001).collect());
}

#[tokio::test]
async fn contacts_of_other_callers_are_refused_and_the_rest_is_stored() {
    let stack = TestStack::start_with(&[PAGES_CLAIM]).await;
    stack.import(PAGES[1], &["theirs".to_owned()]).await;
    let body = json!({"contacts": [
        {"contact_id": "mine", "page_id": PAGES[0]},
        {"contact_id": "theirs", "page_id": PAGES[0], "first_name": "X"},
        {"contact_id": "new", "page_id": PAGES[1]},
    ]});

    let limited = limited_to(PAGES[0]);
    let answer = stack.call_as(&limited, ("PUT", SKIP), None, Some(&body)).await;

    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.body["upserted"], 1);
    let refused = answer.body["refused"].as_array().unwrap().iter();
    let fields: BTreeSet<_> = refused.map(|fault| fault["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["/contacts/1/contact_id", "/contacts/2/page_id"].into());
    assert!(!answer.body.to_string().contains(PAGES[1]), "{answer:?}");
    assert_eq!(stored(&stack, &["mine", "theirs", "new"]).await, ["mine", "theirs"]);
    let theirs = stack.call("GET", "/v1/contacts/theirs", None, None).await.body;
    assert_eq!(
        (&theirs["page_id"], &theirs["first_name"]),
        (&json!(PAGES[1]), &json!("Nr theirs"))
    );
}
