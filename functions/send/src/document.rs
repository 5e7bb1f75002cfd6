//! The OpenAPI document of the API, which is made from the handlers and the structs of [`api`](crate::api).

use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use shared::domain::event::BroadcastEvent;
use utoipa::OpenApi;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::link::LinkBuilder;
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, Paths, PathsBuilder,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ArrayBuilder, Object, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{self, Components, Ref, RefOr, Required, Schema};

use crate::api::broadcasts::BroadcastOrder;
use crate::api::contacts::RefusedContacts;
use crate::api::problems::{GatewayMessage, ProblemDetails, REQUEST_ID, problem_answers, request_id};
use crate::query::NoParameters;

/// The document as it is committed; a test compares it with the code.
const COMMITTED: &str = include_str!("../openapi.json");

/// The head of the document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Oncecast",
        description = "Sends one message to many Facebook Messenger contacts, each contact once.\n\nBodies and answers are JSON \
            unless stated otherwise; times are RFC 3339 with an offset. Unknown fields are faults. A field that is `null` counts as \
            absent, unless stated otherwise. An error is an RFC 9457 problem, which lists all faults of a request.",
    ),
    components(schemas(BroadcastEvent, BroadcastOrder, RefusedContacts, GatewayMessage, ProblemDetails)),
    tags(
        (name = "contacts", description = "The people whom messages are for."),
        (name = "audiences", description = "Contacts chosen by what is known of them."),
        (name = "broadcasts", description = "Messages to many contacts, and the outcome for each."),
        (name = "sending", description = "The switch for sending."),
        (name = "webhooks", description = "Messenger's own calls."),
        (name = "events", description = "What other programs are told about broadcasts."),
        (name = "service", description = "The API itself."),
    )
)]
pub struct Head;

/// `GET /v1/openapi.json`: shows the document.
#[utoipa::path(
    get, path = "/v1/openapi.json", operation_id = "getDocument", tag = "service",
    summary = "Show this document",
    description = "It is made from the code of this version.",
    responses((
        status = 200, description = "The OpenAPI document of this version.", body = Object,
        example = json!({"openapi": "3.1.0", "info": {"title": "Oncecast", "version": "0.1.0"}, "paths": {}}),
    )),
    security(("jwt" = []), ("iam" = [])),
)]
pub async fn show(_: NoParameters) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], COMMITTED).into_response()
}

/// The answers of which each operation of a caller may have any: API Gateway refuses the caller, or something fails.
const COMMON_ANSWERS: [(&str, &str); 7] = [
    ("400", "Invalid"),
    ("401", "Unauthorized"),
    ("403", "Forbidden"),
    ("406", "NotAcceptable"),
    ("429", "TooMany"),
    ("500", "Failed"),
    ("503", "Unavailable"),
];

/// An operation that may follow another, with a parameter from its request or answer.
struct Link {
    after: &'static str,
    statuses: &'static [&'static str],
    name: &'static str,
    operation: &'static str,
    parameter: (&'static str, &'static str),
}

const LINKS: [Link; 20] = [
    link("createBroadcast", &["200", "202"], "Show", "getBroadcast", OF_BROADCAST),
    link(
        "createBroadcast",
        &["200", "202"],
        "Deliveries",
        "listDeliveries",
        OF_BROADCAST,
    ),
    link("createBroadcast", &["202"], "Resume", "resumeBroadcast", OF_BROADCAST),
    link("getBroadcast", &["200"], "Deliveries", "listDeliveries", OF_BROADCAST),
    link("getBroadcast", &["200"], "Resume", "resumeBroadcast", OF_BROADCAST),
    link("createBroadcast", &["202"], "Pause", "pauseBroadcast", OF_BROADCAST),
    link("createBroadcast", &["202"], "Cancel", "cancelBroadcast", OF_BROADCAST),
    link("getBroadcast", &["200"], "Pause", "pauseBroadcast", OF_BROADCAST),
    link("getBroadcast", &["200"], "Cancel", "cancelBroadcast", OF_BROADCAST),
    link("pauseBroadcast", &["202"], "Show", "getBroadcast", OF_BROADCAST),
    link("pauseBroadcast", &["202"], "Resume", "resumeBroadcast", OF_BROADCAST),
    link("resumeBroadcast", &["202"], "Show", "getBroadcast", OF_BROADCAST),
    link("cancelBroadcast", &["202"], "Show", "getBroadcast", OF_BROADCAST),
    link("getBroadcast", &["200"], "Retry", "retryBroadcast", OF_BROADCAST),
    link("retryBroadcast", &["202"], "Show", "getBroadcast", OF_BROADCAST),
    link("importContacts", &["200"], "Show", "getContact", OF_IMPORT),
    link(
        "importContacts",
        &["200"],
        "Deliveries",
        "listContactDeliveries",
        OF_IMPORT,
    ),
    link("importContacts", &["200"], "Delete", "deleteContact", OF_IMPORT),
    link(
        "getContact",
        &["200"],
        "Deliveries",
        "listContactDeliveries",
        OF_CONTACT,
    ),
    link("getContact", &["200"], "Delete", "deleteContact", OF_CONTACT),
];
const OF_BROADCAST: (&str, &str) = ("id", "$response.body#/broadcast_id");
const OF_IMPORT: (&str, &str) = ("contact_id", "$request.body#/contacts/0/contact_id");
const OF_CONTACT: (&str, &str) = ("contact_id", "$response.body#/contact_id");

const fn link(
    after: &'static str,
    statuses: &'static [&'static str],
    name: &'static str,
    operation: &'static str,
    parameter: (&'static str, &'static str),
) -> Link {
    Link {
        after,
        statuses,
        name,
        operation,
        parameter,
    }
}

/// Completes the document that the router has collected: the answers that all operations share, links and security schemes.
pub fn complete(document: &mut openapi::OpenApi) {
    let components = document.components.get_or_insert_with(Components::new);
    let answers = problem_answers().into_iter();
    components
        .responses
        .extend(answers.map(|(name, answer)| (name.to_owned(), answer)));
    let schemes = security_schemes().map(|(name, scheme)| (name.to_owned(), scheme.into()));
    components.security_schemes.extend(schemes);
    components.schemas.iter_mut().for_each(refer_to_items);
    document.webhooks = Some(webhooks());
    let paths = document.paths.paths.values_mut();
    let operations = paths.flat_map(|path| {
        [
            &mut path.get,
            &mut path.put,
            &mut path.post,
            &mut path.patch,
            &mut path.delete,
        ]
    });
    for operation in operations.flatten() {
        let answers = &mut operation.responses.responses;
        if operation.security.as_ref().is_some_and(|security| security.len() > 1) {
            for (status, name) in COMMON_ANSWERS {
                let common = RefOr::Ref(Ref::from_response_name(name));
                answers.entry(status.to_owned()).or_insert(common);
            }
        }
        for answer in answers.values_mut() {
            if let RefOr::T(answer) = answer {
                answer.headers.insert(REQUEST_ID.to_owned(), request_id().into());
            }
        }
        let id = operation.operation_id.as_deref().unwrap_or_default();
        for follower in LINKS.iter().filter(|link| link.after == id) {
            let (parameter, source) = follower.parameter;
            let link = LinkBuilder::new()
                .operation_id(follower.operation)
                .parameter(parameter, source)
                .build();
            for status in follower.statuses {
                if let Some(RefOr::T(answer)) = answers.get_mut(*status) {
                    answer.links.insert(follower.name.to_owned(), link.clone().into());
                }
            }
        }
    }
}

/// Has a list refer to the schema of its items. The derived schema of a generic type repeats it.
fn refer_to_items((name, schema): (&String, &mut RefOr<Schema>)) {
    let (Some((_, item)), RefOr::T(Schema::Object(list))) = (name.split_once("ListPart_"), schema) else {
        return;
    };
    let items = ArrayBuilder::new().items(Ref::from_schema_name(item)).build();
    list.properties.insert("items".to_owned(), items.into());
}

/// Describes the calls by which a receiver of `up --notify-url` is told of events. On AWS the body is the detail of an event of
/// EventBridge.
fn webhooks() -> Paths {
    let header = |name: &str, description: &str, example: &str| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::True)
            .description(Some(description))
            .schema(Some(Object::with_type(Type::String)))
            .example(Some(json!(example)))
    };
    let example = json!({
        "id": "5f0c1d9e0b7a4c6f8d2e3a4b5c6d7e8f",
        "type": "broadcast.completed",
        "timestamp": "2026-12-01T09:04:11.38Z",
        "data": {"broadcast_id": "019ac2f07d3e7c51a0e0b5c4d3e2f1a0", "page_id": ""},
    });
    let body = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("BroadcastEvent")))
        .example(Some(example));
    let body = RequestBodyBuilder::new()
        .content("application/json", body.build())
        .required(Some(Required::True));
    let answer = |description: &str| ResponseBuilder::new().description(description).build();
    let told = OperationBuilder::new()
        .operation_id(Some("broadcastEvent"))
        .tag("events")
        .summary(Some("Something has happened to a broadcast"))
        .description(Some(
            "A broadcast has ended, a job was halted, or a delivery was left in doubt. Sent at least once, under one `webhook-id`, in no \
             certain order, and signed as Standard Webhooks prescribes. The report of the broadcast has the numbers.",
        ))
        .parameter(header("webhook-id", "The id of the event.", "5f0c1d9e0b7a4c6f8d2e3a4b5c6d7e8f"))
        .parameter(header("webhook-timestamp", "The time of this attempt, in seconds.", "1796115851"))
        .parameter(header(
            "webhook-signature",
            "`v1,` and the HMAC-SHA256 of id, timestamp and body, joined by full stops, in base64.",
            "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
        ))
        .request_body(Some(body.build()))
        .response("2XX", answer("The event is taken, and comes no more. Any other answer within 15 seconds, and none, has it come again."))
        .response("410", answer("The receiver wants no more events, until the next start."));
    let item = PathItem::new(HttpMethod::Post, told.build());
    PathsBuilder::new().path("broadcastEvent", item).build()
}

fn security_schemes() -> [(&'static str, SecurityScheme); 2] {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some(
            "A token of the identity provider that the deployment trusts, or of the file of tokens on one machine, with the \
             scope of the operation.",
        ));
    let signature = ApiKeyValue::with_description(
        "Authorization",
        "An AWS signature (Signature Version 4, service `execute-api`) of a principal that may invoke the API; it goes with the \
         headers `X-Amz-Date` and, for temporary credentials, `X-Amz-Security-Token`.",
    );
    [
        ("jwt", SecurityScheme::Http(bearer.build())),
        ("iam", SecurityScheme::ApiKey(ApiKey::Header(signature))),
    ]
}
