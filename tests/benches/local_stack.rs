//! The local stack as a small installation: messages and imported contacts a second on disk, the start with much stored, and the
//! memory and the descriptors of `up` below many small broadcasts.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use local::clients;
use local::stack::{Settings, Stack};
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use crate::report::{Section, Target, median};
use crate::stack::{Bench, PAGE, UNPACED, contact};
use crate::{Measured, process, up};

/// The contacts that are imported, as new ones and then as known ones.
const IMPORTED: usize = 20_000;
/// The contacts of a broadcast.
const CONTACTS: usize = 5_000;
/// The runs on disk and in memory, in turns.
const ROUNDS: usize = 3;
/// Items written at once by `BatchWriteItem`, and such requests in flight.
const BATCH: usize = 25;
const BATCHES_AT_ONCE: usize = 8;
/// Starts, of which the median counts.
const STARTS: usize = 3;
/// An item as DynamoDB has it.
type Item = HashMap<String, AttributeValue>;

/// The amount of stored things with which the stack starts.
struct Stored {
    deliveries: usize,
    jobs: usize,
}

pub async fn measure() -> Measured {
    let mut section = Section::new("local_stack", "the local stack as a small installation");
    let directory = TempDir::new_in(process::executables())?;
    import(&mut section, directory.path()).await?;
    messages(&mut section, directory.path()).await?;
    let stored = Stored {
        deliveries: 100_000,
        jobs: 1_000,
    };
    start(&mut section, directory.path(), &stored).await?;
    up::measure(&mut section, directory.path(), Duration::from_secs(180)).await?;
    Ok(section)
}

/// The same with an hour of broadcasts, and ten times as much stored.
pub async fn measure_hour() -> Measured {
    let mut section = Section::new(
        "hour",
        "an hour of small broadcasts, and a start with a million deliveries",
    );
    let directory = TempDir::new_in(process::executables())?;
    let stored = Stored {
        deliveries: 1_000_000,
        jobs: 10_000,
    };
    start(&mut section, directory.path(), &stored).await?;
    up::measure(&mut section, directory.path(), Duration::from_secs(3_600)).await?;
    Ok(section)
}

/// Imports contacts, new and known, beside writing the same items without asking anything.
async fn import(section: &mut Section, directory: &Path) -> Result<(), Box<dyn Error>> {
    let bench = Bench::start(UNPACED, Some(directory.join("import")), &[]).await?;
    let dynamodb = clients::dynamodb(bench.stack.database_endpoint());
    bench.import(PAGE, 0, 1_000).await?;
    let template = dynamodb.get_item().table_name(&bench.stack.names().contacts);
    let template = template.key("contact_id", AttributeValue::S(contact(0)));
    let template = template.send().await?.item.ok_or("the contact is not stored")?;
    let (mut new, mut known, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let first = round * 1_000_000;
        for seconds in [&mut new, &mut known] {
            let begun = Instant::now();
            bench.import(PAGE, first, IMPORTED).await?;
            seconds.push(begun.elapsed().as_secs_f64());
        }
        let items = (first..first + IMPORTED).map(|n| with(&template, "contact_id", format!("9{n:016}")));
        let begun = Instant::now();
        put_all(&dynamodb, &bench.stack.names().contacts, items).await?;
        bare.push(begun.elapsed().as_secs_f64());
    }
    bench.stack.stop().await;
    let [new, known, bare] = [new, known, bare].map(|seconds| IMPORTED as f64 / median(seconds));
    section.add("new contacts imported a second, on disk", new, "1/s");
    section.add("known contacts imported a second, on disk", known, "1/s");
    section.add("items a second by BatchWriteItem", bare, "1/s");
    section.compare("import to BatchWriteItem", new / bare, "×", Target::AtLeast(0.8));
    Ok(())
}

/// Sends a broadcast with the data on disk and in memory, in turns.
async fn messages(section: &mut Section, directory: &Path) -> Result<(), Box<dyn Error>> {
    let on_disk = Bench::start(UNPACED, Some(directory.join("messages")), &[]).await?;
    let in_memory = Bench::start(UNPACED, None, &[]).await?;
    let contacts: Vec<_> = (0..CONTACTS).map(contact).collect();
    let mut seconds = [Vec::new(), Vec::new()];
    for bench in [&on_disk, &in_memory] {
        bench.import(PAGE, 0, CONTACTS).await?;
    }
    for _ in 0..ROUNDS {
        for (bench, seconds) in [&on_disk, &in_memory].into_iter().zip(&mut seconds) {
            let id = bench.accept(&contacts).await?;
            seconds.push(bench.complete(&id, CONTACTS).await?.as_secs_f64());
        }
    }
    on_disk.stack.stop().await;
    in_memory.stack.stop().await;
    let [on_disk, in_memory] = seconds.map(|seconds| CONTACTS as f64 / median(seconds));
    section.add("messages a second, on disk", on_disk, "1/s");
    section.add("messages a second, in memory", in_memory, "1/s");
    section.compare("on disk to in memory", on_disk / in_memory, "×", Target::AtLeast(0.7));
    Ok(())
}

/// Starts a stack on a directory that has deliveries and jobs, beside one on a new directory.
async fn start(section: &mut Section, directory: &Path, stored: &Stored) -> Result<(), Box<dyn Error>> {
    let (empty, full) = (directory.join("empty"), directory.join("full"));
    started(&empty).await?;
    fill(&full, stored).await?;
    let (mut empties, mut fulls) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        empties.push(started(&empty).await?);
        fulls.push(started(&full).await?);
    }
    let Stored { deliveries, jobs } = stored;
    let (empty, full) = (median(empties), median(fulls));
    section.add("start, empty", empty, "s");
    let name = format!("start, {deliveries} deliveries and {jobs} unfinished jobs");
    section.compare(name, full, "s", Target::AtMost(10.0));
    section.add("a thousand unfinished jobs", (full - empty) * 1e3 / *jobs as f64, "s");
    Ok(())
}

/// Starts and stops a stack; returns the seconds from the start to the API's first answer.
async fn started(data: &Path) -> Result<f64, Box<dyn Error>> {
    let begun = Instant::now();
    let stack = Stack::start(Settings {
        data: Some(data.to_owned()),
        env: BTreeMap::from([("RUST_LOG".to_owned(), "warn".to_owned())]),
        ..Settings::default()
    });
    let stack = stack.await?;
    stack.ready().await?;
    let took = begun.elapsed();
    stack.stop().await;
    Ok(took.as_secs_f64())
}

/// Fills a directory: one broadcast is sent and one is scheduled, and their items are copied under other ids.
async fn fill(data: &Path, stored: &Stored) -> Result<(), Box<dyn Error>> {
    let bench = Bench::start(UNPACED, Some(data.to_owned()), &[]).await?;
    bench.import(PAGE, 0, 1).await?;
    let sent = bench.accept(&[contact(0)]).await?;
    bench.complete(&sent, 1).await?;
    let due = jiff::Timestamp::now() + Duration::from_secs(86_400);
    let scheduled = json!({"contact_ids": [contact(0)], "scheduled_at": due.to_string()});
    let id = bench.broadcast(scheduled).await?;

    let (names, dynamodb) = (bench.stack.names(), clients::dynamodb(bench.stack.database_endpoint()));
    let job = format!("{sent}/{PAGE}");
    let delivery = query(&dynamodb, &names.deliveries, "job", &job).await?.pop();
    let delivery = delivery.ok_or("the delivery is not stored")?;
    let deliveries = (1..=stored.deliveries).map(|n| with(&delivery, "contact_id", contact(n)));
    put_all(&dynamodb, &names.deliveries, deliveries).await?;
    let items = query(&dynamodb, &names.broadcasts, "pk", &format!("broadcast#{id}")).await?;
    let (items, id) = (&items, &id);
    let copies = (1..stored.jobs).flat_map(|_| {
        let other = Uuid::now_v7().simple().to_string();
        let copy = |item: &Item| {
            let attributes = item.iter();
            attributes
                .map(|(name, value)| (name.clone(), renamed(value, id, &other)))
                .collect()
        };
        items.iter().map(copy).collect::<Vec<Item>>()
    });
    put_all(&dynamodb, &names.broadcasts, copies).await?;
    bench.stack.stop().await;
    Ok(())
}

/// Writes items by `BatchWriteItem`.
async fn put_all(dynamodb: &Client, table: &str, items: impl Iterator<Item = Item>) -> Result<(), Box<dyn Error>> {
    let put = |item| PutRequest::builder().set_item(Some(item)).build();
    let mut items = items.peekable();
    let batches = std::iter::from_fn(|| {
        items.peek()?;
        let puts = items.by_ref().take(BATCH).map(put);
        Some(puts.collect::<Result<Vec<_>, _>>())
    });
    let writes = batches.map(|puts| async move {
        let puts = puts?
            .into_iter()
            .map(|put| WriteRequest::builder().put_request(put).build());
        let write = dynamodb.batch_write_item().request_items(table, puts.collect());
        write.send().await.map(drop).map_err(Box::<dyn Error>::from)
    });
    stream::iter(writes)
        .buffer_unordered(BATCHES_AT_ONCE)
        .try_collect()
        .await
}

/// Returns the items of a partition.
async fn query(dynamodb: &Client, table: &str, key: &str, value: &str) -> Result<Vec<Item>, Box<dyn Error>> {
    let query = dynamodb
        .query()
        .table_name(table)
        .key_condition_expression("#key = :value");
    let query = query.expression_attribute_names("#key", key);
    let query = query.expression_attribute_values(":value", AttributeValue::S(value.to_owned()));
    Ok(query.send().await?.items.unwrap_or_default())
}

/// Returns a copy of an item with another value of this attribute.
fn with(item: &Item, name: &str, value: String) -> Item {
    let mut copy = item.clone();
    copy.insert(name.to_owned(), AttributeValue::S(value));
    copy
}

/// Returns a value with another broadcast's id in its texts.
fn renamed(value: &AttributeValue, id: &str, other: &str) -> AttributeValue {
    match value {
        AttributeValue::S(text) => AttributeValue::S(text.replace(id, other)),
        value => value.clone(),
    }
}
