//! A million contacts of one Page: the time, the memory and the read units that it takes to find the members of an audience.
//!
//! The contacts are written directly, which takes some minutes; the reads take less:
//!
//! ```sh
//! cargo test --workspace --test it -- --ignored --nocapture million_contacts
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_dynamodb::config::interceptors::{
    BeforeSerializationInterceptorContextMut, FinalizerInterceptorContextRef,
};
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_sdk_dynamodb::operation::batch_get_item::{BatchGetItemInput, BatchGetItemOutput};
use aws_sdk_dynamodb::operation::query::{QueryInput, QueryOutput};
use aws_sdk_dynamodb::types::{AttributeValue, ConsumedCapacity, PutRequest, ReturnConsumedCapacity, WriteRequest};
use futures_util::stream::{self, StreamExt};
use local::clients;
use local::database::{Database, Reads};
use local::resources::{Names, create_tables};
use serde_json::json;
use shared::domain::audience::{Audience, ExcludedCounts};
use shared::domain::ids::{BroadcastId, ContactId, PageId};
use shared::store::Store;
use shared::store::keys::page_shard;
use shared::store::members::Members;
use tokio::time::Instant;

use crate::fixture::{PAGES, TestStack};

const CONTACTS: u64 = 1_000_000;
/// The contacts that got a broadcast: every fourth.
const SENT: u64 = CONTACTS / 4;
/// The most that the memory of the process may grow while a million contacts are read, in megabytes.
const GROWTH: u64 = 64;
const HOUR: i64 = 3_600_000;

type Item = HashMap<String, AttributeValue>;

/// Adds up the read units of all queries and batches, in thousandths.
#[derive(Clone, Debug, Default)]
struct ReadUnits(Arc<AtomicU64>);

impl ReadUnits {
    fn add(&self, consumed: impl IntoIterator<Item = ConsumedCapacity>) {
        let units = consumed.into_iter().filter_map(|one| one.capacity_units);
        let units: f64 = units.sum();
        self.0.fetch_add((units * 1_000.0).round() as u64, Ordering::Relaxed);
    }

    fn take(&self) -> f64 {
        self.0.swap(0, Ordering::Relaxed) as f64 / 1_000.0
    }
}

impl Intercept for ReadUnits {
    fn name(&self) -> &'static str {
        "ReadUnits"
    }

    fn modify_before_serialization(
        &self,
        context: &mut BeforeSerializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let total = || Some(ReturnConsumedCapacity::Total);
        let input = context.input_mut();
        if let Some(query) = input.downcast_mut::<QueryInput>() {
            query.return_consumed_capacity = total();
        } else if let Some(batch) = input.downcast_mut::<BatchGetItemInput>() {
            batch.return_consumed_capacity = total();
        }
        Ok(())
    }

    fn read_after_execution(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Some(Ok(output)) = context.output_or_error() else {
            return Ok(());
        };
        if let Some(query) = output.downcast_ref::<QueryOutput>() {
            self.add(query.consumed_capacity.clone());
        } else if let Some(batch) = output.downcast_ref::<BatchGetItemOutput>() {
            self.add(batch.consumed_capacity.clone().unwrap_or_default());
        }
        Ok(())
    }
}

/// Returns the resident memory of this process in megabytes.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1_024
}

fn id_of(n: u64) -> String {
    format!("{:017}", 24_000_000_000_000_000 + n * 7_919)
}

fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

fn number(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// A contact as an import stores it. Every third is `vip`, every tenth has opted out, each hour of a hundred has some.
fn contact(n: u64, now: i64) -> Item {
    let (id, page_id) = (id_of(n), PageId::parse(PAGES[0]).unwrap());
    let shard = page_shard(&page_id, &ContactId::parse(&id).unwrap());
    let tags = if n.is_multiple_of(3) {
        vec![text("vip"), text("newsletter")]
    } else {
        vec![text("newsletter")]
    };
    let hours = i64::try_from(n % 100).unwrap();
    [
        ("contact_id", text(id)),
        ("page_id", text(PAGES[0])),
        ("page_shard", text(shard)),
        ("first_name", text("Maria")),
        ("last_name", text("Fernandes")),
        ("tags", AttributeValue::L(tags)),
        ("opted_out", AttributeValue::Bool(n.is_multiple_of(10))),
        ("last_interaction_at", number(now - hours * HOUR)),
        (
            "attributes.city",
            text(if n.is_multiple_of(2) { "Porto" } else { "Faro" }),
        ),
        ("schema", number(1)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The row of a contact that got a broadcast.
fn delivery(n: u64, broadcast_id: &BroadcastId, now: i64) -> Item {
    [
        ("job", text(format!("{broadcast_id}/{}", PAGES[0]))),
        ("contact_id", text(id_of(n))),
        ("status", text("sent")),
        (
            "message_id",
            text("m_UVbLZIhrtUu6YUVh1jYKvTyAzKWgVcWqQzx6VHO7Rj8VLmtJRDuYVRyhmtmTYWpCQ0kxrTMQ"),
        ),
        ("token", text("0f8fad5bd9cb469fa16570867728950e")),
        ("text_digest", text("7c9e6679742540de944be07fc1f90ae7")),
        ("epoch", number(1)),
        ("attempts", number(1)),
        ("reserved_at", number(now)),
        ("updated_at", number(now)),
        // Later than the test: the database deletes expired rows every minute.
        ("expires_at", number(now / 1_000 + 86_400)),
        ("schema", number(1)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

async fn write(dynamodb: &aws_sdk_dynamodb::Client, table: &str, items: impl Iterator<Item = Item>) {
    const IN_ONE_CALL: usize = 25;
    let mut items = items.peekable();
    let calls = std::iter::from_fn(|| {
        items.peek()?;
        let puts = items.by_ref().take(IN_ONE_CALL).map(|item| {
            let put = PutRequest::builder().set_item(Some(item)).build().unwrap();
            WriteRequest::builder().put_request(put).build()
        });
        Some(puts.collect::<Vec<_>>())
    });
    let calls = calls.map(|puts| async {
        let written = dynamodb.batch_write_item().request_items(table, puts).send().await;
        assert!(written.unwrap().unprocessed_items.unwrap_or_default().is_empty());
    });
    stream::iter(calls).buffer_unordered(4).collect::<()>().await;
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn members_of_a_million_contacts_are_found_in_constant_memory() {
    let stack = TestStack::start().await;
    // In memory: it holds some gigabytes, and does not grow while it is read.
    let database = Database::start(Reads::Current).unwrap();
    let (names, units) = (Names::default(), ReadUnits::default());
    let config = clients::dynamodb_config("test", database.endpoint());
    let dynamodb = aws_sdk_dynamodb::Client::from_conf(config.interceptor(units.clone()).build());
    create_tables(&dynamodb, &names).await.unwrap();
    let store = Store::new(dynamodb.clone(), &stack.app.config, stack.app.metrics.clone());
    let (page_id, now) = (PageId::parse(PAGES[0]).unwrap(), stack.app.clock.now());
    let (begun, at, sent) = (Instant::now(), now.as_millisecond(), BroadcastId::random());
    write(&dynamodb, &names.contacts, (0..CONTACTS).map(|n| contact(n, at))).await;
    let rows = (0..CONTACTS).step_by(4).map(|n| delivery(n, &sent, at));
    write(&dynamodb, &names.deliveries, rows).await;
    println!(
        "{CONTACTS} contacts and {SENT} deliveries written in {:.0?}",
        begun.elapsed()
    );

    for (filters, expected) in [
        (
            json!({"everybody": true}),
            (0..CONTACTS).filter(|n| n % 10 != 0).count(),
        ),
        (
            json!({"tags_any": ["vip"], "active_within_hours": 24, "not_sent_in": [sent]}),
            (0..CONTACTS)
                .filter(|n| n % 10 != 0 && n.is_multiple_of(3) && n % 100 < 24 && n % 4 != 0)
                .count(),
        ),
        (
            json!({"attributes": {"city": ["Porto"]}}),
            (0..CONTACTS).filter(|n| n % 10 != 0 && n.is_multiple_of(2)).count(),
        ),
    ] {
        let audience: Audience = serde_json::from_value(filters.clone()).unwrap();
        let mut members = Members::new(&store, &page_id, &audience, now, None);
        let (mut found, mut considered, mut excluded) = (0, 0, ExcludedCounts::new());
        let (begun, mut by_memory) = (Instant::now(), BTreeMap::new());
        units.take();
        while let Some(batch) = members.next_batch().await.unwrap() {
            found += batch.members.len();
            considered += batch.considered;
            for (filter, contacts) in batch.excluded {
                *excluded.entry(filter).or_default() += contacts;
            }
            by_memory.insert(considered * 10 / CONTACTS, memory());
        }
        let per_contact = units.take() / considered as f64;
        println!(
            "{filters}\n  {found} of {considered} in {:.1?}, {per_contact:.3} read units a contact",
            begun.elapsed()
        );
        println!("  left out: {excluded:?}\n  memory after each tenth, in MB: {by_memory:?}");
        assert_eq!((found, considered), (expected, CONTACTS));
        assert!(per_contact <= 0.6, "{per_contact} read units a contact");
        let (first, most) = (by_memory[&1], by_memory.values().max().unwrap());
        assert!(*most <= first + GROWTH, "{by_memory:?}");
    }
}
