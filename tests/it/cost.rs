//! The cost of a delivered contact, in units of DynamoDB and in requests: no more than it was. `cargo bench -p tests -- cost`
//! measures it for more contacts, and at the pace that users have.

use std::collections::HashMap;
use std::path::Path;
use std::{env, fs};

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, TransactWriteItem, Update};
use axum::http::StatusCode;
use local::clients;
use local::database::{Database, Reads};
use local::resources::{Names, create_tables};
use serde_json::{Value, json};
use shared::domain::delivery::Metadata;
use shared::worker::run::WIND_UP;

use crate::counter::{Counter, Counts};
use crate::dollars::{self, Figures};
use crate::fixture::template::TEMPLATE;
use crate::fixture::{Endpoints, PAGES, Services, TestStack};

const CONTACTS: usize = 400;

/// Starts a stack that reaches its database and Messenger through counters.
async fn counted_stack() -> (TestStack, [Counter; 2]) {
    let services = Services::start().await;
    let counters = [Counter::start().await.unwrap(), Counter::start().await.unwrap()];
    let [database, messenger] = &counters;
    database.forward_to(&services.endpoints.dynamodb);
    messenger.forward_to(&services.endpoints.graph);
    let endpoints = Endpoints {
        dynamodb: database.url().to_owned(),
        graph: messenger.url().to_owned(),
        ..services.endpoints.clone()
    };
    (TestStack::start_on(services, &endpoints, &[]).await, counters)
}

fn echo((metadata, message_id): &(Metadata, String)) -> Value {
    json!({
        "sender": {"id": PAGES[0]}, "recipient": {"id": metadata.contact_id}, "timestamp": 0,
        "message": {"is_echo": true, "mid": message_id, "metadata": metadata.to_string()},
    })
}

/// Fails if a contact costs more write units, read units or requests of a table. Whoever makes it cheaper sets these down.
fn check(what: &str, counts: &Counts, table: &str, most: [f64; 3]) {
    let all = counts.sum(|origin| origin.table.ends_with(table));
    let each = [all.write_units, all.read_units, all.requests].map(|all| all / CONTACTS as f64);
    for ((name, each), most) in ["write units", "read units", "requests"]
        .into_iter()
        .zip(each)
        .zip(most)
    {
        assert!(
            each <= most,
            "{what}: {each} {name} of {table} a contact, more than {most}"
        );
    }
}

#[tokio::test]
async fn contact_and_its_echo_cost_no_more_than_they_did() {
    let (stack, [database, messenger]) = counted_stack().await;
    let ids = stack.import_contacts(CONTACTS).await;
    check("import", &database.take(), "contacts", [2.0, 0.5, 0.05]);
    stack.let_reads_catch_up();

    let id = stack.broadcast(&ids).await;
    stack.drain_queue().await;

    let counts = database.take();
    check("delivery", &counts, "deliveries", [2.0, 0.0, 2.0]);
    check("delivery", &counts, "contacts", [0.0, 1.0, 0.05]);
    // The job, and the slots of its Page: the longer it takes, the more.
    check("delivery", &counts, "broadcasts", [0.4, 0.4, 0.4]);
    assert_eq!(messenger.take().total().requests, CONTACTS as f64);
    assert_eq!(stack.report(&id).await["counters"]["sent"], CONTACTS);

    stack.let_reads_catch_up();
    database.take();
    let events: Vec<_> = stack.echoes(&id).iter().map(echo).collect();
    for events in events.chunks(100) {
        // One comes twice.
        let events = [&events[..1], events].concat();
        assert_eq!(stack.webhook(PAGES[0], &events).await, StatusCode::OK);
    }
    check("echo", &database.take(), "deliveries", [0.0, 0.5, 0.01]);
}

/// The command that makes the table of prices anew, from the figures that `WRITE_COST=1 cargo bench -p tests -- cost` has measured.
const COMMAND: &str = "WRITE_COST=1 cargo test --workspace --test it -- prices_of_the_readme";

#[test]
fn prices_of_the_readme_are_those_of_the_committed_figures() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let figures = fs::read_to_string(tests.join("benches/cost.json")).unwrap();
    let figures: Figures = serde_json::from_str(&figures).unwrap();
    let readme = tests.join("../infra/README.md");
    let text = fs::read_to_string(&readme).unwrap();
    let begin = format!("<!-- Made by `{COMMAND}`. -->\n");
    let (before, rest) = text.split_once(&begin).unwrap();
    let (_, after) = rest.split_once("<!-- The end of it. -->").unwrap();
    let made = format!(
        "{before}{begin}{}<!-- The end of it. -->{after}",
        dollars::markdown(&figures)
    );
    if env::var_os("WRITE_COST").is_some() {
        fs::write(&readme, &made).unwrap();
    }
    let is_same = fs::read_to_string(&readme).unwrap() == made;
    assert!(
        is_same,
        "infra/README.md does not have the prices of the figures; to make them anew: {COMMAND}"
    );
}

#[test]
fn prices_are_computed_for_the_functions_of_the_template() {
    let of = |function: &str, property: &str| {
        let properties = TEMPLATE.properties(TEMPLATE.functions()[function]);
        properties[property].as_f64().unwrap()
    };
    let default = |parameter: &str| TEMPLATE.parameter(parameter)["Default"].as_f64().unwrap();
    assert_eq!(of("process-job", "MemorySize"), dollars::PROCESS_JOB_MB);
    assert_eq!(of("send", "MemorySize"), dollars::SEND_MB);
    assert_eq!(default("PageRatePerSecond"), dollars::RATE);
    let last_send = WIND_UP.as_secs_f64() + default("MessengerTimeoutSeconds");
    assert_eq!(of("process-job", "Timeout") - last_send, dollars::RUN_SECONDS);
}

/// The prices stand on this: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html>.
#[tokio::test]
async fn local_database_and_counter_charge_as_dynamodb_does() {
    let database = Database::start(Reads::Current).unwrap();
    let names = Names::default();
    create_tables(&clients::dynamodb(database.endpoint()), &names)
        .await
        .unwrap();
    let counter = Counter::start().await.unwrap();
    counter.forward_to(database.endpoint());
    let dynamodb = clients::dynamodb(counter.url());
    let (table, text) = (&names.broadcasts, |text: &str| AttributeValue::S(text.to_owned()));
    let charged = || {
        let count = counter.take().total();
        [count.write_units, count.read_units]
    };
    let key = |item: &str| HashMap::from([("pk".to_owned(), text(item)), ("sk".to_owned(), text("all"))]);
    let put = |item: &str, bytes| {
        let item = key(item)
            .into_iter()
            .chain([("text".to_owned(), text(&"a".repeat(bytes)))]);
        dynamodb.put_item().table_name(table).set_item(Some(item.collect()))
    };
    let set = |attribute: &str, value: AttributeValue| {
        let update = dynamodb.update_item().table_name(table).set_key(Some(key("a")));
        let update = update.update_expression(format!("SET {attribute} = :value"));
        update.expression_attribute_values(":value", value)
    };
    let number = |number: u32| AttributeValue::N(number.to_string());

    put("a", 1_500).send().await.unwrap();
    assert_eq!(charged(), [2.0, 0.0], "a KB each, rounded up");
    put("a", 10).send().await.unwrap();
    assert_eq!(charged(), [2.0, 0.0], "the larger of before and after");
    put("b", 5_000).send().await.unwrap();
    charged();
    set("wake_at", number(1)).send().await.unwrap();
    assert_eq!(charged(), [1.0, 0.0], "not in the index");
    set("wake_shard", text("0")).send().await.unwrap();
    assert_eq!(charged(), [2.0, 0.0], "now in the index");
    set("wake_at", number(2)).send().await.unwrap();
    assert_eq!(charged(), [3.0, 0.0], "moved in the index");
    set("colour", number(2)).send().await.unwrap();
    assert_eq!(charged(), [1.0, 0.0], "nothing that the index holds");

    let refused = set("colour", number(3)).condition_expression("attribute_not_exists(pk)");
    refused.send().await.unwrap_err();
    assert_eq!(charged(), [1.0, 0.0], "refused");
    let transact = async |condition: &str| {
        let update = Update::builder().table_name(table).set_key(Some(key("a")));
        let update = update
            .update_expression("SET colour = :value")
            .condition_expression(condition);
        let update = update.expression_attribute_values(":value", number(4)).build().unwrap();
        let part = TransactWriteItem::builder().update(update).build();
        dynamodb
            .transact_write_items()
            .transact_items(part)
            .send()
            .await
            .is_ok()
    };
    assert!(transact("attribute_exists(pk)").await);
    assert_eq!(charged(), [2.0, 0.0], "in a transaction");
    assert!(!transact("attribute_not_exists(pk)").await);
    assert_eq!(charged(), [2.0, 0.0], "in a refused transaction");

    for (is_consistent, units) in [(true, 2.0), (false, 1.0)] {
        let get = dynamodb.get_item().table_name(table).set_key(Some(key("b")));
        get.consistent_read(is_consistent).send().await.unwrap();
        assert_eq!(charged(), [0.0, units], "4 KB each");
        let keys = KeysAndAttributes::builder().keys(key("a")).keys(key("b"));
        let keys = keys.consistent_read(is_consistent).build().unwrap();
        let get = dynamodb.batch_get_item().request_items(table, keys);
        get.send().await.unwrap();
        assert_eq!(charged(), [0.0, units * 1.5], "each item by itself");
    }
}
