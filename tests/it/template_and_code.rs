//! `infra/template.yaml` agrees with the code and with the local stack.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_dynamodb::types::{KeySchemaElement, TableDescription};
use aws_sdk_sqs::types::QueueAttributeName;
use local::clients;
use local::database::{Database, Reads};
use local::queue::Queue;
use local::resources::{Names, create_queues, create_tables};
use local::stack::{SCHEDULED_TIMEOUT, SEND_TIMEOUT, Settings};
use send::accept::INLINE_TIME;
use serde_json::json;
use serde_yaml_ng::Value;
use shared::runtime::config::Config;
use shared::worker::run::WIND_UP;

use crate::fixture::document::operations;
use crate::fixture::template::{TEMPLATE, tagged};

fn seconds(value: &Value) -> Duration {
    Duration::from_secs(value.as_u64().unwrap())
}

fn timeout_of(function: &str) -> Duration {
    let id = TEMPLATE.functions()[function];
    seconds(&TEMPLATE.properties(id)["Timeout"])
}

/// Returns a property of a parameter as a text.
fn text_of(name: &str, what: &str) -> String {
    match &TEMPLATE.parameter(name)[what] {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => panic!("{name}: {other:?}"),
    }
}

/// Returns the default value of a variable; `None` for a value that the deployment creates.
fn default_value(value: &Value) -> Option<String> {
    let value = match value {
        Value::String(text) => return Some(text.clone()),
        Value::Tagged(choice) if choice.tag == "!If" => &choice.value[1],
        other => other,
    };
    let (kind, name) = tagged(value);
    let is_chosen = kind == "!Ref" && !TEMPLATE.parameter(name).is_null();
    is_chosen.then(|| text_of(name, "Default"))
}

/// Returns the configuration from these variables and the ones that every deployment creates, and the names of all variables
/// that it reads.
fn config(given: &BTreeMap<String, String>) -> (Config, BTreeSet<String>) {
    let asked = RefCell::new(BTreeSet::new());
    let config = Config::from_variables(|name| {
        asked.borrow_mut().insert(name.to_owned());
        match name {
            "PAGE_TOKENS" => Some("ssm:/oncecast/page-tokens/".to_owned()),
            name if name.ends_with("_TABLE") || name == "JOBS_QUEUE_URL" => Some(name.to_owned()),
            name => given.get(name).cloned(),
        }
    });
    (config.unwrap(), asked.into_inner())
}

#[test]
fn template_and_config_name_the_same_variables() {
    let functions = TEMPLATE.functions();
    let given = functions.keys().flat_map(|function| TEMPLATE.variables(function));
    let mut given: BTreeSet<_> = given.map(|(name, _)| name.to_owned()).collect();
    // The log reads `RUST_LOG`, not the configuration.
    assert!(given.remove("RUST_LOG"));

    let (_, asked) = config(&BTreeMap::new());

    assert_eq!(given, asked);
}

#[test]
fn template_and_config_have_the_same_defaults() {
    for function in TEMPLATE.functions().keys() {
        let variables = TEMPLATE.variables(function).into_iter();
        let given: BTreeMap<_, _> = variables
            .filter(|(name, _)| !["RUST_LOG", "APP_SECRET", "METRICS_NAMESPACE"].contains(name))
            .filter_map(|(name, value)| Some((name.to_owned(), default_value(value)?)))
            .collect();
        assert!(given.len() >= 8, "{given:?}");

        let (deployed, _) = config(&given);
        let (without, _) = config(&BTreeMap::new());

        assert_eq!(format!("{deployed:#?}"), format!("{without:#?}"), "{function}");
    }
}

/// The time-outs are those of the table in `infra/README.md`.
#[test]
fn timeouts_agree_with_each_other_and_with_the_local_stack() {
    let (config, _) = config(&BTreeMap::new());
    let local = Settings::default();
    let process_job = timeout_of("process-job");
    let visibility = seconds(&TEMPLATE.properties("JobsQueue")["VisibilityTimeout"]);
    let integration = &TEMPLATE.properties("SendIntegration")["TimeoutInMillis"];
    let gateway = Duration::from_millis(integration.as_u64().unwrap());

    assert_eq!(process_job, local.process_timeout);
    assert_eq!(process_job, process_job::TIMEOUT);
    assert_eq!(timeout_of("scheduled"), scheduled::TIMEOUT);
    assert_eq!(visibility, process_job + Duration::from_secs(30));
    assert_eq!(local.visibility_margin, Duration::from_secs(30));
    assert_eq!(timeout_of("scheduled"), SCHEDULED_TIMEOUT);
    assert_eq!(timeout_of("send"), SEND_TIMEOUT);
    // The function times out before the gateway does, so that the time-out is in its log.
    assert!(timeout_of("send") < gateway);
    // Inline sends end, and are recorded, in time.
    let messenger = text_of("MessengerTimeoutSeconds", "MaxValue").parse().unwrap();
    assert!(INLINE_TIME + Duration::from_secs(5) < timeout_of("send"));
    // The lease of a dead worker is over when its wake-up becomes visible again.
    assert!(config.job_lease < visibility);
    // With any Messenger time-out, most of a run is left for sending.
    assert!(Duration::from_secs(messenger) + WIND_UP < process_job / 2);
    // A lookup is two requests. `scheduled` begins lookups in at least half of its time, and the last one must end in the rest.
    assert!(Duration::from_secs(2 * messenger) + scheduled::WIND_UP <= timeout_of("scheduled") / 2);
}

#[tokio::test]
async fn queues_equal_those_of_the_local_stack() {
    let queue = Queue::start().unwrap();
    let sqs = clients::sqs(queue.endpoint());
    let local = Settings::default();
    let visibility = local.process_timeout + local.visibility_margin;
    let urls = create_queues(&sqs, &Names::default(), visibility).await.unwrap();
    let attributes = async |url: &str| {
        let all = QueueAttributeName::All;
        let call = sqs.get_queue_attributes().queue_url(url).attribute_names(all);
        call.send().await.unwrap().attributes.unwrap()
    };
    let (ours, dead) = (attributes(&urls.jobs).await, attributes(&urls.dead_letters).await);

    let jobs = TEMPLATE.properties("JobsQueue");
    let text = |name: &QueueAttributeName| ours[name].as_str();
    let visibility = jobs["VisibilityTimeout"].as_u64().unwrap().to_string();
    assert_eq!(text(&QueueAttributeName::VisibilityTimeout), visibility);
    let redrive: serde_json::Value = serde_json::from_str(text(&QueueAttributeName::RedrivePolicy)).unwrap();
    let receives = jobs["RedrivePolicy"]["maxReceiveCount"].as_u64().unwrap();
    assert_eq!((&redrive["maxReceiveCount"], receives), (&json!(receives), 5));
    for name in [
        QueueAttributeName::DeduplicationScope,
        QueueAttributeName::FifoThroughputLimit,
    ] {
        assert_eq!(jobs[name.as_str()], text(&name), "{name}");
    }
    let theirs = &TEMPLATE.properties("DeadLettersQueue")["RedriveAllowPolicy"];
    let allowed: serde_json::Value = serde_json::from_str(&dead[&QueueAttributeName::RedriveAllowPolicy]).unwrap();
    assert_eq!(
        theirs["redrivePermission"],
        allowed["redrivePermission"].as_str().unwrap()
    );
    let (_, source) = tagged(&theirs["sourceQueueArns"][0]);
    let allowed = allowed["sourceQueueArns"][0].as_str().unwrap();
    let source = source.replace("${AWS::StackName}", "oncecast");
    let name_in = |arn: &str| arn.rsplit_once(':').unwrap().1.to_owned();
    assert_eq!(name_in(&source), name_in(allowed));
    for (theirs, ours) in [(jobs, &ours), (TEMPLATE.properties("DeadLettersQueue"), &dead)] {
        assert_eq!(theirs["FifoQueue"], true);
        assert_eq!(ours[&QueueAttributeName::FifoQueue], "true");
        assert_ne!(theirs["ContentBasedDeduplication"], true);
        assert_eq!(ours[&QueueAttributeName::ContentBasedDeduplication], "false");
    }
}

/// Compares keys, indexes with what they contain, and the attribute by which items expire.
#[tokio::test]
async fn tables_equal_those_of_the_local_stack() {
    let database = Database::start(Reads::Current).unwrap();
    let dynamodb = clients::dynamodb(database.endpoint());
    create_tables(&dynamodb, &Names::default()).await.unwrap();
    let key = |key: &[KeySchemaElement]| {
        let parts = key.iter();
        let parts = parts.map(|part| (part.attribute_name.clone(), part.key_type.to_string()));
        parts.collect::<Vec<_>>()
    };
    let keys_of_table = |table: &TableDescription| {
        let indexes = table.global_secondary_indexes().iter();
        let indexes = indexes.map(|index| {
            let projection = index.projection().unwrap();
            let kind = projection.projection_type().unwrap().to_string();
            let included = projection.non_key_attributes().to_vec();
            (index.index_name.clone(), (key(index.key_schema()), kind, included))
        });
        let own = (None, (key(table.key_schema()), String::new(), Vec::new()));
        indexes.chain([own]).collect::<BTreeMap<_, _>>()
    };
    let key = |key: &Value| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let parts = key.as_sequence().unwrap().iter();
        let parts = parts.map(|part| (text(&part["AttributeName"]), text(&part["KeyType"])));
        parts.collect::<Vec<_>>()
    };
    let tables = TEMPLATE.of_type("AWS::DynamoDB::Table");
    assert_eq!(tables.len(), 3);
    for id in tables {
        let theirs = TEMPLATE.properties(id);
        let (_, name) = tagged(&theirs["TableName"]);
        let name = name.replace("${AWS::StackName}", "oncecast");
        let ours = dynamodb.describe_table().table_name(&name).send().await;
        let ours = ours.unwrap().table.unwrap();
        let expiry = dynamodb.describe_time_to_live().table_name(&name).send().await;
        let expiry = expiry.unwrap().time_to_live_description.unwrap();

        let indexes = theirs["GlobalSecondaryIndexes"].as_sequence().unwrap().iter();
        let indexes = indexes.map(|index| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let kind = text(&index["Projection"]["ProjectionType"]);
            let included = index["Projection"]["NonKeyAttributes"].as_sequence();
            let included = included.into_iter().flatten().map(text).collect();
            (
                Some(text(&index["IndexName"])),
                (key(&index["KeySchema"]), kind, included),
            )
        });
        let own = (None, (key(&theirs["KeySchema"]), String::new(), Vec::new()));
        assert_eq!(indexes.chain([own]).collect::<BTreeMap<_, _>>(), keys_of_table(&ours));
        let definitions = theirs["AttributeDefinitions"].as_sequence().unwrap().iter();
        let definitions = definitions.map(|one| {
            let part = |name: &str| one[name].as_str().unwrap().to_owned();
            (part("AttributeName"), part("AttributeType"))
        });
        let of_ours = ours.attribute_definitions().iter();
        let of_ours = of_ours.map(|one| (one.attribute_name.clone(), one.attribute_type.to_string()));
        assert_eq!(definitions.collect::<BTreeSet<_>>(), of_ours.collect());
        let by = &theirs["TimeToLiveSpecification"]["AttributeName"];
        assert_eq!(by.as_str(), expiry.attribute_name());
    }
}

#[test]
fn exactly_the_handled_routes_are_declared() {
    let declared = TEMPLATE.of_type("AWS::ApiGatewayV2::Route").into_iter();
    let declared = declared.map(|id| TEMPLATE.properties(id)["RouteKey"].as_str().unwrap());
    let operations = operations();
    let documented = operations.keys().map(String::as_str);

    assert_eq!(declared.collect::<BTreeSet<_>>(), documented.collect());
}

#[test]
fn document_asks_for_the_scopes_of_the_template() {
    let operations = operations();
    for id in TEMPLATE.of_type("AWS::ApiGatewayV2::Route") {
        let route = TEMPLATE.properties(id);
        let key = route["RouteKey"].as_str().unwrap();
        let scope = match &route["AuthorizationScopes"] {
            Value::Tagged(choice) => tagged(&choice.value[1][0]).1.strip_prefix("${ScopePrefix}"),
            _ => None,
        };
        let expected = match route["AuthorizationType"].as_str() {
            Some("NONE") => json!([{}]),
            _ => json!([{"jwt": scope.into_iter().collect::<Vec<_>>()}, {"iam": []}]),
        };
        assert_eq!(operations[key]["security"], expected, "{key}");
    }
}

/// Only Messenger calls without an IAM signature or a token.
#[test]
fn only_webhooks_are_unauthenticated() {
    for id in TEMPLATE.of_type("AWS::ApiGatewayV2::Route") {
        let route = TEMPLATE.properties(id);
        let is_webhook = route["RouteKey"].as_str().unwrap().ends_with("/v1/webhooks/messenger");
        let is_open = route["AuthorizationType"] == "NONE";
        assert_eq!(is_open, is_webhook, "{id}");
    }
}
