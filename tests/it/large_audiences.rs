//! A million contacts of one Page: the time in which workers resolve their audience, and the memory of the workers.
//!
//! ```sh
//! cargo test -p tests --test it -- --ignored --nocapture million_contacts
//! ```
//!
//! With `CONTACTS=100000` before it there are fewer.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use futures_util::stream::{self, StreamExt};
use local::clients;
use local::stack::Stack;
use serde_json::json;
use shared::domain::ids::{ContactId, PageId};
use shared::store::keys::page_shard;
use tokio::time::{Instant, sleep};

use crate::fixture::process_stack;

/// Contacts in one write of the test.
const BATCH: usize = 25;

/// Writes contacts of the first Page, of which nine in ten have the tag, as imports leave them.
async fn write_contacts(stack: &Stack, contacts: usize) {
    let dynamodb = clients::dynamodb(stack.database_endpoint());
    let (text, page_id) = (AttributeValue::S, &PageId::parse("page-1").unwrap());
    let contact = |n: usize| {
        let tag = if n.is_multiple_of(10) { "new" } else { "vip" };
        let id = ContactId::parse(&format!("{}", 24_000_000_000_000_000 + n)).unwrap();
        let item = HashMap::from([
            ("contact_id".to_owned(), text(id.to_string())),
            ("page_id".to_owned(), text("page-1".to_owned())),
            ("page_shard".to_owned(), text(page_shard(page_id, &id))),
            ("tags".to_owned(), AttributeValue::L(vec![text(tag.to_owned())])),
        ]);
        let put = PutRequest::builder().set_item(Some(item)).build().unwrap();
        WriteRequest::builder().put_request(put).build()
    };
    let batches = (0..contacts.div_ceil(BATCH)).map(|batch| {
        let of_batch = batch * BATCH..contacts.min((batch + 1) * BATCH);
        let write = dynamodb.batch_write_item();
        let write = write.request_items(&stack.names().contacts, of_batch.map(contact).collect());
        async move { write.send().await.map(drop).unwrap() }
    });
    stream::iter(batches).buffer_unordered(8).collect::<()>().await;
}

/// Returns the most memory that the busy worker has used so far, in KB.
fn memory_of_worker(stack: &Stack) -> Option<u64> {
    let running = stack.process_job().processes_running();
    let busy = running.into_iter().find(|process| process.busy)?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", busy.pid)).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a quarter of an hour: a named longer run, which prints the time and the memory"]
async fn million_contacts_are_resolved_in_constant_memory() {
    let contacts = std::env::var("CONTACTS").map_or(1_000_000, |contacts| contacts.parse().unwrap());
    let (stack, api) =
        process_stack::start_with(Duration::from_secs(120), &[("JOB_LEASE_SECONDS", "90")], |settings| {
            settings.lagging_reads = false;
        })
        .await;
    stack.ready().await.unwrap();
    write_contacts(&stack, contacts).await;

    let begun = Instant::now();
    let audience = json!({"page_id": "page-1", "tags_any": ["vip"]});
    let id = &api.broadcast_to(&audience).await;
    let (mut first, mut most) = (None, 0);
    let report = loop {
        let report = api.report(id).await;
        if report["audience"]["resolved"] == true {
            break report;
        }
        if let Some(memory) = memory_of_worker(&stack) {
            if report["contacts"]["accepted"] != 0 {
                first.get_or_insert(memory);
            }
            most = most.max(memory);
        }
        assert!(begun.elapsed().as_secs() < 1_800, "never resolved: {report:#}");
        sleep(Duration::from_millis(200)).await;
    };
    let took = begun.elapsed();
    stack.stop().await;

    println!(
        "{contacts} contacts looked at in {took:.1?}; memory of a worker: {first:?} KB after its first write, {most} KB at most"
    );
    assert_eq!(report["contacts"]["requested"], contacts);
    assert_eq!(report["contacts"]["accepted"], contacts - contacts.div_ceil(10));
    let first = first.unwrap_or(most);
    assert!(most < first + 32_000, "the memory grows: {first} KB, then {most} KB");
}
