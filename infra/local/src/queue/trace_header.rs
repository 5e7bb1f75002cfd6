//! The trace header of a message: the header `X-Amzn-Trace-Id` of the request that sends a message is returned as its system
//! attribute `AWSTraceHeader`, as in SQS. Rustack keeps no system attributes, so the header is stored among the message's
//! attributes, which a caller does not see.

use axum::body::Bytes;
use axum::http::HeaderMap;
use rustack_sqs_model::operations::SqsOperation;
use serde_json::{Map, Value, json};

const ATTRIBUTE: &str = "AWSTraceHeader";
const HEADER: &str = "x-amzn-trace-id";
/// The digest of a message's attributes, which would betray the stored one.
const DIGEST: &str = "MD5OfMessageAttributes";

/// Returns the request in the form in which rustack is to get it.
pub fn store(operation: SqsOperation, headers: &HeaderMap, body: Bytes) -> Bytes {
    let trace = headers.get(HEADER).and_then(|trace| trace.to_str().ok());
    match (operation, trace) {
        (SqsOperation::SendMessage, Some(trace)) => changed(body, |request| {
            request["MessageAttributes"][ATTRIBUTE] = json!({ "DataType": "String", "StringValue": trace });
        }),
        (SqsOperation::ReceiveMessage, _) => changed(body, |request| {
            let mut names = request["MessageAttributeNames"].as_array().cloned().unwrap_or_default();
            names.push(ATTRIBUTE.into());
            request["MessageAttributeNames"] = names.into();
        }),
        _ => body,
    }
}

/// Returns rustack's answer to a request in the form in which the caller is to get it.
pub fn show(operation: SqsOperation, answer: Bytes) -> Bytes {
    match operation {
        SqsOperation::SendMessage => changed(answer, |answer| {
            remove(answer, DIGEST);
        }),
        SqsOperation::ReceiveMessage => changed(answer, |answer| {
            let messages = answer["Messages"].as_array_mut();
            for message in messages.into_iter().flatten() {
                let attributes = message["MessageAttributes"].as_object_mut();
                let Some(trace) = attributes.and_then(|attributes| attributes.remove(ATTRIBUTE)) else {
                    continue;
                };
                message["Attributes"][ATTRIBUTE] = trace["StringValue"].clone();
                if message["MessageAttributes"].as_object().is_some_and(Map::is_empty) {
                    remove(message, "MessageAttributes");
                }
                remove(message, DIGEST);
            }
        }),
        _ => answer,
    }
}

fn remove(object: &mut Value, name: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(name);
    }
}

/// Returns a JSON object with a change; other bytes as they are.
fn changed(bytes: Bytes, change: impl FnOnce(&mut Value)) -> Bytes {
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(mut object) if object.is_object() => {
            change(&mut object);
            object.to_string().into()
        }
        _ => bytes,
    }
}
