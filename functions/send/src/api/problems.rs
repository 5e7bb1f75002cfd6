//! Problems: errors as a caller sees them, by RFC 9457.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::openapi::schema::Type;
use utoipa::openapi::{Content, Header, Object, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{ToResponse, ToSchema};

/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The type of a problem. `problems.md` describes each under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request has faults.
    InvalidRequest,
    /// The caller may not do this.
    Forbidden,
    /// There is no such thing, or the caller may not see it.
    NotFound,
    /// The path does not support the method.
    MethodNotAllowed,
    /// The caller accepts no form in which the answer can be given.
    NotAcceptable,
    /// The broadcast has come to its end, or is about to.
    NothingToResume,
    /// The broadcast is due or has begun, so that it cannot be changed.
    AlreadyBegun,
    /// The broadcast does not wait for approval.
    NothingToApprove,
    /// The broadcast sends nothing that a pause could stop.
    NothingToPause,
    /// The broadcast has sent everything.
    NothingToCancel,
    /// A job is not completed, so that it cannot be retried.
    NotCompleted,
    /// A contact is stored on another Page than the request names.
    ContactOnAnotherPage,
    /// A contact would be larger than the table stores.
    ContactTooLarge,
    /// The Page has no access token, or Messenger refuses to list its conversations.
    PageNotReadable,
    /// The body is too large.
    BodyTooLarge,
    /// The body has another media type.
    UnsupportedMediaType,
    /// The `Idempotency-Key` was used for another request.
    IdempotencyKeyReused,
    /// Nothing would be sent to any contact of the request.
    NoContactAccepted,
    /// The function has a fault.
    Internal,
    /// The request was not completed, and may be repeated.
    Unavailable,
}

impl Kind {
    /// All types.
    pub const ALL: [Self; 20] = [
        Self::InvalidRequest,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::NothingToResume,
        Self::AlreadyBegun,
        Self::NothingToApprove,
        Self::NothingToPause,
        Self::NothingToCancel,
        Self::NotCompleted,
        Self::ContactOnAnotherPage,
        Self::ContactTooLarge,
        Self::PageNotReadable,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::IdempotencyKeyReused,
        Self::NoContactAccepted,
        Self::Internal,
        Self::Unavailable,
    ];

    /// Returns the last part of the URI that names the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid-request",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::NotAcceptable => "not-acceptable",
            Self::NothingToResume => "nothing-to-resume",
            Self::AlreadyBegun => "already-begun",
            Self::NothingToApprove => "nothing-to-approve",
            Self::NothingToPause => "nothing-to-pause",
            Self::NothingToCancel => "nothing-to-cancel",
            Self::NotCompleted => "not-completed",
            Self::ContactOnAnotherPage => "contact-on-another-page",
            Self::ContactTooLarge => "contact-too-large",
            Self::PageNotReadable => "page-not-readable",
            Self::BodyTooLarge => "body-too-large",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::IdempotencyKeyReused => "idempotency-key-reused",
            Self::NoContactAccepted => "no-contact-accepted",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
        }
    }

    /// Returns the URI of the type, which answers with its description.
    pub fn uri(self) -> String {
        format!("/v1/problems/{}", self.name())
    }

    /// Returns the status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::NothingToResume
            | Self::AlreadyBegun
            | Self::NothingToApprove
            | Self::NothingToPause
            | Self::NothingToCancel
            | Self::NotCompleted
            | Self::ContactOnAnotherPage
            | Self::ContactTooLarge
            | Self::PageNotReadable => StatusCode::CONFLICT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::IdempotencyKeyReused | Self::NoContactAccepted => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// An error, by RFC 9457.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem, examples(json!({
    "type": "/v1/problems/invalid-request", "title": "Bad Request", "status": 400, "detail": "The request has 1 fault; nothing was stored.",
    "errors": [{"field": "/contact_ids/3", "message": "must be a string"}]
})))]
pub struct ProblemDetails {
    /// The type of problem: a URI that answers with its description, or `about:blank` if the status alone tells it.
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
    /// The line of a CSV file on which the fault is, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub line: Option<u64>,
    /// The column of a CSV file in which the fault is, unless it concerns the whole line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub column: Option<String>,
    /// A predicate whose subject is the field, such as "is required".
    pub message: String,
}

impl Fault {
    /// Returns a fault of a field of the body, a parameter or a header.
    pub fn of(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            line: None,
            column: None,
            message: message.into(),
        }
    }

    /// Returns a fault of a cell of a CSV file, or of a whole line of it.
    pub fn of_cell(line: usize, column: Option<&str>, message: impl Into<String>) -> Self {
        let field = match column {
            Some(column) => format!("line {line}, column {column}"),
            None => format!("line {line}"),
        };
        Self {
            line: Some(line as u64),
            column: column.map(str::to_owned),
            ..Self::of(field, message)
        }
    }
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
    ($($(#[doc = $description:literal])* $name:ident $status:ident $kind:expr, $example:literal, [$($field:literal $message:literal)?];)*) => {
        $(
            $(#[doc = $description])*
            pub struct $name;

            impl<'r> ToResponse<'r> for $name {
                fn response() -> (&'r str, RefOr<Response>) {
                    let errors = json!([$({"field": $field, "message": $message})?]);
                    let description = concat!($($description),*).trim();
                    (stringify!($name), answer(StatusCode::$status, $kind, description, $example, errors).into())
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
    Invalid BAD_REQUEST Some(Kind::InvalidRequest), "The request has 1 fault; nothing was stored.", ["/contact_ids/3" "must be a string"];
    /// The request has no token or signature, or a wrong one.
    Unauthorized UNAUTHORIZED None, "The header Authorization must have a token.", [];
    /// The caller may not do this.
    Forbidden FORBIDDEN Some(Kind::Forbidden), "The token does not have the scope broadcasts:write.", [];
    /// There is no such thing, or the caller may not see it.
    NotFound NOT_FOUND Some(Kind::NotFound), "There is no such broadcast.", [];
    /// The request accepts no form in which the answer can be given; nothing was done.
    NotAcceptable NOT_ACCEPTABLE Some(Kind::NotAcceptable), "The answer has the type application/json; the header Accept allows none.", [];
    /// The request does not fit the present state.
    Conflict CONFLICT Some(Kind::NothingToResume), "Nothing is left to resume: the job of Page page-1 is completed.", [];
    /// The body is too large.
    TooLarge PAYLOAD_TOO_LARGE Some(Kind::BodyTooLarge), "The body must have at most 4194304 bytes.", [];
    /// The body has a media type that this request does not take.
    UnsupportedType UNSUPPORTED_MEDIA_TYPE Some(Kind::UnsupportedMediaType), "The body must be application/json.", [];
    /// No contact is accepted, or the Idempotency-Key was used for another request. Nothing was stored.
    Unprocessable UNPROCESSABLE_ENTITY Some(Kind::NoContactAccepted), "No contact accepted: 1 unknown, 0 opted out.", [];
    /// There are too many requests.
    TooMany TOO_MANY_REQUESTS None, "There are too many requests.", [];
    /// The request failed. It may have taken effect.
    Failed INTERNAL_SERVER_ERROR Some(Kind::Internal), "The list could not be written as CSV.", [];
    /// The request could not be completed, and may have taken effect. Repeat it; with the same Idempotency-Key it takes effect at
    /// most once.
    Unavailable SERVICE_UNAVAILABLE Some(Kind::Unavailable), "The request could not be completed. Repeat it.", [];
}

/// The header that names the request in every answer.
pub const REQUEST_ID: &str = "X-Request-Id";

/// Returns the description of that header.
pub fn request_id() -> Header {
    let id = Header::builder().description(Some("The id of the request, by which its log lines are found."));
    id.schema(Some(Object::with_type(Type::String))).build()
}

/// Returns an answer with a problem. API Gateway answers some requests itself, in a form of its own.
fn answer(
    status: StatusCode,
    kind: Option<Kind>,
    description: &str,
    detail: &str,
    errors: serde_json::Value,
) -> Response {
    let example = json!({
        "type": kind.map_or_else(|| "about:blank".to_owned(), Kind::uri),
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
    let mut answer = ResponseBuilder::new()
        .description(description)
        .header(REQUEST_ID, request_id())
        .content(PROBLEM_JSON, problem);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let seconds = Header::builder()
            .description(Some("The time after which the request is to be repeated, in seconds."))
            .schema(Some(Object::with_type(Type::Integer)));
        answer = answer.header("Retry-After", seconds.build());
    }
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
