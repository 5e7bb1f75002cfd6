//! Acceptance: the time from a request to its answer beside the same reads and writes in a bare loop, and the memory that it takes.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, Put, PutRequest, TransactWriteItem, WriteRequest};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use local::clients;
use local::lambda::Function;
use local::resources::Names;
use local::sandbox::{Answer, Fault};
use local::stack::Settings;
use serde_json::json;
use shared::domain::ids::JobId;
use shared::domain::sending::SendingState;
use tempfile::TempDir;
use tokio::time::sleep;
use uuid::Uuid;

use crate::Measured;
use crate::process::{executables, usage};
use crate::report::{Section, Target, median, number};
use crate::stack::{Bench, PAGE, UNPACED, contact};

/// The ids of a request, and the requests of that size.
const SIZES: [(usize, usize); 4] = [(1, 20), (100, 20), (10_000, 7), (100_000, 3)];
/// The broadcasts of one contact that are sent within their requests.
const INLINE: usize = 30;
/// The contacts of the broadcast that leaves some in doubt, and the distance of two of these.
const DOUBTED: (usize, usize) = (2_000, 200);
/// The age at which a send in doubt is looked up.
const LOOKUP_AFTER: Duration = Duration::from_secs(1);
/// The firings of `scheduled` whose memory is measured.
const FIRINGS: usize = 3;

type Item = HashMap<String, AttributeValue>;

pub async fn measure() -> Measured {
    let mut section = Section::new("accept", "from request to answer, beside the bare reads and writes");
    let directory = TempDir::new_in(executables())?;
    accept(&mut section, directory.path()).await?;
    let data = directory.path().join("inline");
    let age = LOOKUP_AFTER.as_secs().to_string();
    let bench = Bench::start(UNPACED, Some(data), &[("DOUBT_CHECK_SECONDS", &age)]).await?;
    bench.store(PAGE, 0, DOUBTED.0).await?;
    inline(&mut section, &bench).await?;
    section.compare(
        "peak memory, scheduled",
        scheduled(&bench).await?,
        "MiB",
        Target::AtMost(16.0),
    );
    bench.stack.stop().await;
    Ok(section)
}

/// Measures requests of all sizes in turns, with sending switched off: nothing else runs meanwhile.
async fn accept(section: &mut Section, directory: &Path) -> Result<(), Box<dyn Error>> {
    let bench = Bench::start_with(Settings {
        data: Some(directory.join("accept")),
        sending: Some(SendingState::Off),
        env: [("INLINE_LIMIT".to_owned(), "0".to_owned())].into(),
        ..Settings::default()
    });
    let bench = bench.await?;
    let [.., (most, _)] = SIZES;
    let contacts: Vec<_> = (0..most).map(contact).collect();
    bench.store(PAGE, 0, most).await?;
    let broadcast = bench.accept(&contacts[..1]).await?;
    let bare = Bare::new(&bench, &broadcast).await?;
    for (size, rounds) in SIZES {
        let contacts = &contacts[..size];
        let (mut accepted, mut reads, mut writes) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let begun = Instant::now();
            bare.read(contacts).await?;
            reads.push(ms(begun));
            let begun = Instant::now();
            bare.write(contacts).await?;
            writes.push(ms(begun));
            let begun = Instant::now();
            bench.accept(contacts).await?;
            accepted.push(ms(begun));
        }
        let [accepted, reads, writes] = [accepted, reads, writes].map(median);
        let ids = match size {
            1 => "1 id".to_owned(),
            _ => format!("{} ids", number(size as f64)),
        };
        section.add(format!("{ids}: accepted"), accepted, "ms");
        section.add(format!("{ids}: bare reads"), reads, "ms");
        section.add(format!("{ids}: bare writes"), writes, "ms");
        section.add(
            format!("{ids}: accepted to bare reads and writes"),
            accepted / (reads + writes),
            "×",
        );
        if size == most {
            let peak = peak_mib(bench.stack.send())?;
            section.compare(format!("{ids}: peak memory, send"), peak, "MiB", Target::AtMost(64.0));
        }
    }
    bench.stack.stop().await;
    Ok(())
}

/// Measures broadcasts that are sent within their requests, one after the other.
async fn inline(section: &mut Section, bench: &Bench) -> Result<(), Box<dyn Error>> {
    let mut times = Vec::new();
    for n in 0..=INLINE {
        let begun = Instant::now();
        let broadcast = bench.accept(&[contact(n)]).await?;
        let took = ms(begun);
        if bench.report(&broadcast).await?["status"] != "completed" {
            return Err("a broadcast of one contact was not sent within its request".into());
        }
        // The first finds no open connection.
        if n > 0 {
            times.push(took);
        }
    }
    section.add("1 id: accepted and sent within the request", median(times), "ms");
    Ok(())
}

/// Returns the peak memory of `scheduled` when it has looked up some deliveries in doubt, in MiB.
async fn scheduled(bench: &Bench) -> Result<f64, Box<dyn Error>> {
    let (count, every) = DOUBTED;
    let contacts: Vec<_> = (0..count).map(contact).collect();
    let sandbox = bench.stack.sandbox().ok_or("no sandbox")?;
    let doubted = contacts.iter().step_by(every);
    sandbox.add_fault(Fault::answering(Answer::Reset).but_arriving().to_contacts(doubted));
    let broadcast = bench.accept(&contacts).await?;
    while bench.report(&broadcast).await?["status"] != "completed" {
        sleep(Duration::from_millis(100)).await;
    }
    sleep(LOOKUP_AFTER).await;
    for _ in 0..FIRINGS {
        bench.stack.scheduled().invoke("{}").await?;
    }
    let report = bench.report(&broadcast).await?;
    match report["counters"]["sent"] == count {
        true => peak_mib(bench.stack.scheduled()),
        false => Err(format!("deliveries are still in doubt: {report}").into()),
    }
}

/// Returns the peak memory of the largest process of a function, in MiB.
fn peak_mib(function: &Function) -> Result<f64, Box<dyn Error>> {
    let processes = function.processes_running();
    let peaks: Result<Vec<_>, _> = processes.iter().map(|process| usage(process.pid)).collect();
    Ok(peaks?.iter().map(|usage| usage.peak_mib).fold(0.0, f64::max))
}

fn ms(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

/// The reads and writes of an acceptance, in calls of the same sizes and as many at once.
struct Bare {
    dynamodb: aws_sdk_dynamodb::Client,
    sqs: aws_sdk_sqs::Client,
    queue_url: String,
    names: Names,
    /// The message that wakes the job.
    wake_up: String,
    /// The broadcast and its job, as they are stored.
    items: Vec<Item>,
}

impl Bare {
    async fn new(bench: &Bench, broadcast: &str) -> Result<Self, Box<dyn Error>> {
        let dynamodb = clients::dynamodb(bench.stack.database_endpoint());
        let names = bench.stack.names().clone();
        let found = dynamodb
            .query()
            .table_name(&names.broadcasts)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", text(format!("broadcast#{broadcast}")))
            .send()
            .await?;
        Ok(Self {
            dynamodb,
            sqs: clients::sqs(bench.stack.queue_endpoint()),
            queue_url: bench.stack.queue_urls().jobs.clone(),
            names,
            wake_up: json!(JobId::parse(&format!("{broadcast}/{PAGE}"))).to_string(),
            items: found.items.unwrap_or_default(),
        })
    }

    /// Reads a request key and the contacts.
    async fn read(&self, contacts: &[String]) -> Result<(), Box<dyn Error>> {
        let key = self.dynamodb.get_item().table_name(&self.names.broadcasts);
        let key = key.key("pk", text(format!("request#{}", Uuid::new_v4())));
        key.key("sk", text("request")).consistent_read(true).send().await?;
        let reads = contacts.chunks(100).map(|contacts| async move {
            let keys = contacts
                .iter()
                .map(|id| Item::from([("contact_id".to_owned(), text(id))]));
            let keys = KeysAndAttributes::builder()
                .set_keys(Some(keys.collect()))
                .projection_expression("contact_id, page_id, opted_out");
            let call = self.dynamodb.batch_get_item();
            let found = call.request_items(&self.names.contacts, keys.build()?).send().await?;
            match found.responses.unwrap_or_default()[&self.names.contacts].len() == contacts.len() {
                true => Ok(()),
                false => Err("contacts were left out".into()),
            }
        });
        let read: Result<Vec<()>, Box<dyn Error>> = stream::iter(reads).buffer_unordered(8).try_collect().await;
        read.map(drop)
    }

    /// Writes the segments of the contacts, the request key, the broadcast and its job, and sends a wake-up.
    async fn write(&self, contacts: &[String]) -> Result<(), Box<dyn Error>> {
        let id = &Uuid::new_v4().to_string();
        let segments: Vec<_> = contacts.chunks(1_000).enumerate().collect();
        let writes = segments.chunks(25).map(|segments| async move {
            let puts = segments.iter().map(|(n, contacts)| {
                let put = PutRequest::builder().set_item(Some(segment(id, *n, contacts)));
                Ok(WriteRequest::builder().put_request(put.build()?).build())
            });
            let puts: Result<Vec<_>, Box<dyn Error>> = puts.collect();
            let call = self.dynamodb.batch_write_item();
            call.request_items(&self.names.broadcasts, puts?).send().await?;
            Ok(())
        });
        let written: Result<Vec<()>, Box<dyn Error>> = stream::iter(writes).buffer_unordered(2).try_collect().await;
        written?;
        let key = Item::from([
            ("sk".to_owned(), text("request")),
            ("broadcast_id".to_owned(), text(id)),
            ("fingerprint".to_owned(), text("0".repeat(64))),
        ]);
        let puts = [&key].into_iter().chain(&self.items).map(|item| {
            let mut item = item.clone();
            let kind = item["sk"].as_s().cloned().unwrap_or_default();
            let partition = if kind == "request" { "request" } else { "broadcast" };
            item.insert("pk".to_owned(), text(format!("{partition}#{id}")));
            let put = Put::builder().table_name(&self.names.broadcasts).set_item(Some(item));
            let put = put.condition_expression("attribute_not_exists(pk)").build()?;
            Ok(TransactWriteItem::builder().put(put).build())
        });
        let puts: Result<Vec<_>, Box<dyn Error>> = puts.collect();
        let commit = self.dynamodb.transact_write_items().set_transact_items(Some(puts?));
        commit.send().await?;
        let wake_up = self.sqs.send_message().queue_url(&self.queue_url);
        let wake_up = wake_up.message_group_id(PAGE).message_deduplication_id(id);
        wake_up.message_body(&self.wake_up).send().await?;
        Ok(())
    }
}

/// Returns a segment as acceptance stores it.
fn segment(snapshot: &str, number: usize, contacts: &[String]) -> Item {
    let contacts = contacts.iter().map(text).collect();
    Item::from([
        ("pk".to_owned(), text(format!("segments#{snapshot}"))),
        ("sk".to_owned(), text(format!("{number:06}"))),
        ("contacts".to_owned(), AttributeValue::L(contacts)),
        ("schema".to_owned(), AttributeValue::N("1".to_owned())),
        ("expires_at".to_owned(), AttributeValue::N("4102444800".to_owned())),
    ])
}

fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}
