//! Problems: errors as a caller sees them, by RFC 9457.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{ToResponse, ToSchema};

/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// An error, by RFC 9457.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem, examples(json!({
    "type": "about:blank", "title": "Bad Request", "status": 400, "detail": "The request has 1 fault; nothing was stored.",
    "errors": [{"field": "/contact_ids/3", "message": "must be a string"}]
})))]
pub struct ProblemDetails {
    /// The kind of problem.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference")]
    pub kind: String,
    /// The kind of problem in words.
    pub title: String,
    /// The status code.
    pub status: u16,
    /// The explanation of this problem.
    pub detail: String,
    /// The faults of the request, up to 100.
    pub errors: Vec<Fault>,
}

/// A fault of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// The location: a JSON pointer into the body, a line and column of CSV, or the name of a parameter or header.
    pub field: String,
    /// A predicate whose subject is the field, such as "is required".
    pub message: String,
}

/// An answer of API Gateway itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({"message": "Unauthorized"})))]
pub struct GatewayMessage {
    /// The error.
    pub message: String,
}

/// Makes the answers that report a problem, one for each status, for the document.
macro_rules! problem_answers {
    ($($(#[doc = $description:literal])* $name:ident $status:ident, $example:literal, [$($field:literal $message:literal)?];)*) => {
        $(
            $(#[doc = $description])*
            pub struct $name;

            impl<'r> ToResponse<'r> for $name {
                fn response() -> (&'r str, RefOr<Response>) {
                    let errors = json!([$({"field": $field, "message": $message})?]);
                    let description = concat!($($description),*).trim();
                    (stringify!($name), answer(StatusCode::$status, description, $example, errors).into())
                }
            }
        )*

        /// Returns all answers that report a problem, by name.
        pub fn problem_answers() -> Vec<(&'static str, RefOr<Response>)> {
            vec![$($name::response()),*]
        }
    };
}

problem_answers! {
    /// The request has faults, which are listed; nothing was stored.
    Invalid BAD_REQUEST, "The request has 1 fault; nothing was stored.", ["/contact_ids/3" "must be a string"];
    /// The request has no token or signature, or a wrong one.
    Unauthorized UNAUTHORIZED, "The header Authorization must have a token.", [];
    /// The caller may not do this.
    Forbidden FORBIDDEN, "The token does not have the scope broadcasts:write.", [];
    /// There is no such thing, or the caller may not see it.
    NotFound NOT_FOUND, "There is no such broadcast.", [];
    /// The request does not fit the present state.
    Conflict CONFLICT, "The broadcast is completed; nothing is left to resume.", [];
    /// The body is too large.
    TooLarge PAYLOAD_TOO_LARGE, "The body must have at most 4194304 bytes.", [];
    /// The body has a media type that this request does not take.
    UnsupportedType UNSUPPORTED_MEDIA_TYPE, "The body must be application/json.", [];
    /// No contact is accepted, or the Idempotency-Key was used for another request. Nothing was stored.
    Unprocessable UNPROCESSABLE_ENTITY, "No contact accepted: 1 unknown, 0 opted out.", [];
    /// There are too many requests.
    TooMany TOO_MANY_REQUESTS, "There are too many requests.", [];
    /// The request failed. It may have taken effect.
    Failed INTERNAL_SERVER_ERROR, "The list could not be written as CSV.", [];
    /// The request could not be completed, and may have taken effect. Repeat it; with the same Idempotency-Key it takes effect at
    /// most once.
    Unavailable SERVICE_UNAVAILABLE, "The request could not be completed. Repeat it.", [];
}

/// Returns an answer with a problem. API Gateway answers some requests itself, in a form of its own.
fn answer(status: StatusCode, description: &str, detail: &str, errors: serde_json::Value) -> Response {
    let example = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
        "errors": errors,
    });
    let content = |schema: &str, example| {
        let schema = Ref::from_schema_name(schema);
        Content::builder().schema(Some(schema)).example(Some(example)).build()
    };
    let problem = content("Problem", example);
    let answer = ResponseBuilder::new()
        .description(description)
        .content(PROBLEM_JSON, problem);
    match status {
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::INTERNAL_SERVER_ERROR
        | StatusCode::SERVICE_UNAVAILABLE => {
            let example = json!({"message": status.canonical_reason()});
            answer
                .content("application/json", content("GatewayMessage", example))
                .build()
        }
        _ => answer.build(),
    }
}
