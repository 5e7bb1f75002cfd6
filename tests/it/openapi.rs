//! The OpenAPI document: as committed, as served, and complete.

use std::env;
use std::fs;
use std::path::Path;

use lambda_http::http::StatusCode;
use serde_json::Value;

use crate::fixture::TestStack;
use crate::fixture::document::{DOCUMENT, operations, resolved};

/// To write the file anew: `WRITE_OPENAPI=1 cargo test --workspace --test it -- committed_document`.
#[test]
fn committed_document_is_that_of_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../functions/send/openapi.json");
    let document = send::document().to_pretty_json().unwrap() + "\n";
    if env::var_os("WRITE_OPENAPI").is_some() {
        fs::write(&file, &document).unwrap();
    }
    let is_same = fs::read_to_string(&file).unwrap() == document;
    assert!(
        is_same,
        "functions/send/openapi.json is not that of the code; to write it anew: \
         WRITE_OPENAPI=1 cargo test --workspace --test it -- committed_document"
    );
}

#[tokio::test]
async fn document_is_served() {
    let stack = TestStack::start().await;
    let answer = stack.call("GET", "/v1/openapi.json", None, None).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body, *DOCUMENT);
    assert_eq!(answer.body["openapi"], "3.1.0");
}

fn entries(value: &'static Value) -> impl Iterator<Item = (&'static String, &'static Value)> {
    value.as_object().into_iter().flatten()
}

/// Returns true if a part of the document, or its schema, has an example.
fn has_example(part: &'static Value) -> bool {
    let schema = resolved(&part["schema"]);
    [part, schema].iter().any(|part| !part["example"].is_null() || !part["examples"].is_null())
        // A list has the example of its items.
        || resolved(&schema["properties"]["items"]["items"])["examples"].is_array()
}

#[test]
fn every_part_has_an_example() {
    for (route, operation) in operations() {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        for parameter in parameters {
            assert!(has_example(parameter), "{route}: {}", parameter["name"]);
        }
        let answers = entries(&operation["responses"]).map(|(status, answer)| (status.as_str(), answer));
        for (name, part) in answers.chain([("body", &operation["requestBody"])]) {
            for (kind, content) in entries(&resolved(part)["content"]) {
                assert!(has_example(content), "{route}: {name} {kind}");
            }
        }
    }
}

#[test]
fn every_link_leads_to_an_operation() {
    let operations = operations();
    let mut links = 0;
    for (route, operation) in &operations {
        for (status, answer) in entries(&operation["responses"]) {
            for (name, link) in entries(&resolved(answer)["links"]) {
                let place = format!("{route} {status} {name}");
                let following = operations
                    .values()
                    .find(|one| one["operationId"] == link["operationId"]);
                let following = following.unwrap_or_else(|| panic!("{place}"));
                let known = following["parameters"].as_array().unwrap();
                for (parameter, _) in entries(&link["parameters"]) {
                    assert!(
                        known.iter().any(|one| one["name"] == **parameter),
                        "{place}: {parameter}"
                    );
                }
                links += 1;
            }
        }
    }
    assert!(links > 0);
}

/// A reference to nothing would break the generators of clients.
#[test]
fn every_reference_is_resolved() {
    fn check(value: &'static Value) {
        match value {
            Value::Object(fields) => {
                if value["$ref"].is_string() {
                    resolved(value);
                }
                fields.values().for_each(check);
            }
            Value::Array(items) => items.iter().for_each(check),
            _ => {}
        }
    }
    check(&DOCUMENT);
}
