//! The members of an audience as a stream: each once, in the order of their ids, from any position on, whatever changes meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::types::AttributeValue;
use axum::http::StatusCode;
use serde_json::{Value, json};
use shared::domain::audience::{Audience, Excluded, ExcludedCounts};
use shared::domain::ids::{BroadcastId, ContactId, PageId};
use shared::store::audience_index::IndexedContacts;
use shared::store::members::{MemberBatch, Members};

use crate::fixture::{PAGES, TestStack, request};

const HOUR: i64 = 3_600_000;

fn page(id: &str) -> PageId {
    PageId::parse(id).unwrap()
}

fn contact(id: &str) -> ContactId {
    ContactId::parse(id).unwrap()
}

fn audience(filters: Value) -> Audience {
    serde_json::from_value(filters).unwrap()
}

/// Returns the batches of the members of the first Page after this contact.
async fn batches(stack: &TestStack, filters: Value, after: Option<&str>) -> Vec<MemberBatch> {
    let (audience, now) = (audience(filters), stack.app.clock.now());
    let after = after.map(contact);
    let mut members = Members::new(&stack.app.store, &page(PAGES[0]), &audience, now, after);
    let mut batches = Vec::new();
    while let Some(batch) = members.next_batch().await.unwrap() {
        batches.push(batch);
    }
    batches
}

/// Returns the members of the first Page after this contact.
async fn members(stack: &TestStack, filters: Value, after: Option<&str>) -> Vec<String> {
    let batches = batches(stack, filters, after).await.into_iter();
    let members = batches.flat_map(|batch| batch.members);
    members.map(|id| id.to_string()).collect()
}

/// Imports contacts of the first Page, and lets the index show them.
async fn import(stack: &TestStack, contacts: &[Value]) {
    for contacts in contacts.chunks(1_000) {
        let contacts = contacts.iter().map(|contact| {
            let mut contact = contact.clone();
            contact["page_id"] = json!(PAGES[0]);
            contact
        });
        let body = json!({ "contacts": contacts.collect::<Vec<_>>() });
        let answer = stack.call("PUT", "/v1/contacts", None, Some(&body)).await;
        assert!(answer.status.is_success(), "{answer:?}");
    }
    stack.let_reads_catch_up();
}

fn everybody() -> Value {
    json!({"everybody": true})
}

#[tokio::test]
async fn stream_has_each_contact_of_the_page_once_in_the_order_of_ids() {
    let stack = TestStack::start().await;
    // Ids of several lengths and scripts: their order is that of their bytes.
    let mut ids: Vec<_> = (0..300).map(|n| format!("{}", n * 37)).collect();
    ids.extend(["Zoé", "amélie", "ana", "ana2", "李", "ñ"].map(str::to_owned));
    stack.import(PAGES[0], &ids).await;
    stack.import(PAGES[1], &["of-page-2".to_owned()]).await;
    stack.let_reads_catch_up();

    let found = members(&stack, everybody(), None).await;

    ids.sort_unstable();
    assert_eq!(found, ids);
    let config = &stack.app.config;
    let scan = stack
        .database()
        .scan()
        .table_name(&config.contacts_table)
        .index_name("audience");
    let items = scan.send().await.unwrap().items.unwrap_or_default();
    let shards: BTreeSet<_> = items
        .iter()
        .map(|item| item["page_shard"].as_s().unwrap().clone())
        .collect();
    assert_eq!(shards.iter().filter(|shard| shard.starts_with(PAGES[0])).count(), 16);
}

#[tokio::test]
async fn stream_goes_on_from_each_position_with_exactly_the_rest() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(40).await;
    stack.let_reads_catch_up();
    let sent = stack.post(&request(&ids[10..30])).await.broadcast_id();
    stack.drain_queue().await;

    for (filters, expected) in [
        (everybody(), ids.clone()),
        (json!({"sent_in": [sent]}), ids[10..30].to_vec()),
        (json!({"not_sent_in": [sent]}), [&ids[..10], &ids[30..]].concat()),
    ] {
        assert_eq!(members(&stack, filters.clone(), None).await, expected, "{filters}");
        for position in &ids {
            let rest: Vec<_> = expected.iter().filter(|id| *id > position).cloned().collect();
            let found = members(&stack, filters.clone(), Some(position)).await;
            assert_eq!(found, rest, "{filters} after {position}");
        }
        // No contact has to have the id of a position: it may be deleted meanwhile.
        let rest: Vec<_> = expected.iter().filter(|id| id.as_str() > "c00015x").cloned().collect();
        assert_eq!(members(&stack, filters, Some("c00015x")).await, rest);
    }
}

#[tokio::test]
async fn each_filter_leaves_out_whom_it_should_and_is_counted() {
    let stack = TestStack::start().await;
    let now = stack.app.clock.now().as_millisecond();
    let hours_ago = |hours: i64| {
        let at = jiff::Timestamp::from_millisecond(now - hours * HOUR).unwrap();
        at.to_string()
    };
    import(
        &stack,
        &[
            json!({"contact_id": "a", "tags": ["vip", "new"], "last_interaction_at": hours_ago(1), "attributes": {"city": "Porto"}}),
            json!({"contact_id": "b", "tags": ["vip"], "last_interaction_at": hours_ago(50), "attributes": {"city": "Faro", "visits": 3}}),
            json!({"contact_id": "c", "tags": ["vip"], "opted_out": true, "last_interaction_at": hours_ago(1)}),
            json!({"contact_id": "d", "tags": ["old"]}),
            json!({"contact_id": "e"}),
        ],
    )
    .await;
    let counted = |counts: &[(Excluded, u64)]| counts.iter().copied().collect::<ExcludedCounts>();

    for (filters, expected, excluded) in [
        (
            everybody(),
            vec!["a", "b", "d", "e"],
            counted(&[(Excluded::OptedOut, 1)]),
        ),
        (
            json!({"tags_any": ["vip", "old"], "tags_none": ["new"]}),
            vec!["b", "d"],
            counted(&[(Excluded::OptedOut, 1), (Excluded::TagsAny, 1), (Excluded::TagsNone, 1)]),
        ),
        (
            json!({"tags_all": ["vip", "new"]}),
            vec!["a"],
            counted(&[(Excluded::TagsAll, 4)]),
        ),
        (
            json!({"active_within_hours": 24}),
            vec!["a"],
            counted(&[(Excluded::OptedOut, 1), (Excluded::ActiveWithinHours, 3)]),
        ),
        (
            json!({"inactive_for_hours": 24}),
            vec!["b"],
            counted(&[(Excluded::InactiveForHours, 4)]),
        ),
        (
            json!({"tags_any": ["vip"], "attributes": {"city": ["Porto", "Faro"], "visits": [3.0]}}),
            vec!["b"],
            counted(&[
                (Excluded::OptedOut, 1),
                (Excluded::TagsAny, 2),
                (Excluded::Attributes, 1),
            ]),
        ),
    ] {
        let found = batches(&stack, filters.clone(), None).await;
        let [batch] = &found[..] else {
            panic!("{filters}: {found:?}");
        };
        let members: Vec<_> = batch.members.iter().map(ContactId::as_str).collect();
        assert_eq!(members, expected, "{filters}");
        assert_eq!(batch.excluded, excluded, "{filters}");
        assert_eq!((batch.considered, batch.up_to.as_str()), (5, "e"), "{filters}");
    }
}

/// A delivery that may have arrived is not among those who have not got the broadcast, nor among those who have.
#[tokio::test]
async fn contact_in_doubt_has_neither_got_a_broadcast_nor_missed_it() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(4).await;
    let sent = stack.broadcast_with_doubts(&ids[..3], &[], &[1]).await;
    stack.let_reads_catch_up();
    let other: BroadcastId = BroadcastId::random();

    let of = |filters: Value| members(&stack, filters, None);
    assert_eq!(of(json!({"sent_in": [sent]})).await, ["c00000", "c00002"]);
    assert_eq!(of(json!({"sent_in": [other, sent]})).await, ["c00000", "c00002"]);
    assert_eq!(of(json!({"not_sent_in": [sent]})).await, ["c00003"]);
    assert_eq!(of(json!({"not_sent_in": [other]})).await, ids);
}

/// The stream is in the middle when contacts are deleted, created and changed before its position and behind it, and when one is
/// moved to another partition of the index.
#[tokio::test]
async fn contacts_that_change_meanwhile_are_in_or_out_and_never_twice() {
    let stack = TestStack::start().await;
    let ids = stack.import_contacts(200).await;
    stack.let_reads_catch_up();
    let page_id = page(PAGES[0]);
    for at_once in [1, 3, 500] {
        let mut stream = IndexedContacts::new(&stack.app.store, &page_id, None, at_once);
        let mut found = Vec::new();
        while found.len() < 100 {
            found.push(stream.next().await.unwrap().unwrap().contact_id.to_string());
        }
        assert_eq!(stream.position().unwrap().as_str(), found[99]);
        let round = format!("-{at_once}");
        import(
            &stack,
            &[
                json!({"contact_id": format!("c00050{round}")}),
                json!({"contact_id": format!("c00150{round}")}),
            ],
        )
        .await;
        import(
            &stack,
            &ids.iter()
                .map(|id| json!({"contact_id": id, "tags": [round]}))
                .collect::<Vec<_>>(),
        )
        .await;
        for id in &ids[140..160] {
            move_to_partition(&stack, id, 7).await;
        }
        stack.let_reads_catch_up();

        while let Some(contact) = stream.next().await.unwrap() {
            found.push(contact.contact_id.to_string());
        }

        let once: BTreeSet<_> = found.iter().cloned().collect();
        assert_eq!(once.len(), found.len(), "a contact came twice");
        assert!(found.is_sorted());
        let mut unmoved = ids[..140].iter().chain(&ids[160..]);
        assert!(unmoved.all(|id| once.contains(id)), "a contact was missed");
        assert!(!once.contains(&format!("c00050{round}")));
    }
}

/// Moves a contact to another partition of its Page, as a version with another digest would.
async fn move_to_partition(stack: &TestStack, contact_id: &str, partition: u64) {
    let text = |text: String| AttributeValue::S(text);
    let update = stack
        .database()
        .update_item()
        .table_name(&stack.app.config.contacts_table);
    update
        .key("contact_id", text(contact_id.to_owned()))
        .update_expression("SET page_shard = :shard")
        .expression_attribute_values(":shard", text(format!("{}#{partition}", PAGES[0])))
        .send()
        .await
        .unwrap();
}

/// A batch is a segment, and a worker stores the position at least after each: also where hardly anybody matches.
#[tokio::test]
async fn batch_has_a_thousand_members_or_ten_thousand_contacts() {
    let stack = TestStack::start().await;
    let ids: Vec<_> = (0..12_500).map(|n| format!("c{n:05}")).collect();
    let rare = |n: usize| (n % 5_000 == 4_999).then(|| "rare".to_owned());
    stack
        .write_contacts_by_hand(PAGES[0], ids.iter().enumerate().map(|(n, id)| (id.clone(), rare(n))))
        .await;
    stack.let_reads_catch_up();

    let all = batches(&stack, everybody(), None).await;
    let sizes: Vec<_> = all.iter().map(|batch| batch.members.len()).collect();
    assert_eq!(sizes, [vec![1_000; 12], vec![500]].concat());
    let found: Vec<_> = all
        .into_iter()
        .flat_map(|batch| batch.members)
        .map(|id| id.to_string())
        .collect();
    assert_eq!(found, ids);

    let few = batches(&stack, json!({"tags_any": ["rare"]}), None).await;
    let sizes: Vec<_> = few
        .iter()
        .map(|batch| (batch.considered, batch.members.len()))
        .collect();
    assert_eq!(sizes, [(10_000, 2), (2_500, 0)]);
    let positions: BTreeMap<_, _> = few
        .iter()
        .map(|batch| (batch.up_to.as_str(), batch.considered))
        .collect();
    assert_eq!(positions, [("c09999", 10_000), ("c12499", 2_500)].into());
}

#[tokio::test]
async fn pages_that_got_a_contact_are_known() {
    let stack = TestStack::start().await;
    assert_eq!(stack.app.store.pages().all().await.unwrap(), []);
    stack.import(PAGES[1], &["b".to_owned()]).await;
    stack.import(PAGES[0], &["a".to_owned()]).await;
    stack.import(PAGES[0], &["a2".to_owned()]).await;
    assert_eq!(
        stack.app.store.pages().all().await.unwrap(),
        [page(PAGES[0]), page(PAGES[1])]
    );
}

/// An update adds the index, which has only contacts that name their partition.
#[tokio::test]
async fn contacts_of_an_earlier_version_join_audiences() {
    let stack = TestStack::start().await;
    let mut ids: Vec<_> = (0..1_100).map(|n| format!("c{n:04}")).collect();
    for id in &ids {
        stack.write_contact_by_hand(id, PAGES[0]).await;
    }
    stack.write_contact_by_hand("alone", PAGES[1]).await;
    stack.write_contact_by_hand("of-no-page", "not a page").await;
    stack.import(PAGES[0], &["new".to_owned()]).await;
    stack.let_reads_catch_up();
    assert_eq!(members(&stack, everybody(), None).await, ["new"]);

    stack.tick().await;
    stack.let_reads_catch_up();

    ids.push("new".to_owned());
    assert_eq!(members(&stack, everybody(), None).await, ids);
    let pages = stack.app.store.pages().all().await.unwrap();
    assert_eq!(pages, [page(PAGES[0]), page(PAGES[1])]);
}

/// The schedule reads the table as of a moment ago.
#[tokio::test]
async fn older_contact_that_was_just_deleted_stays_deleted() {
    let stack = TestStack::start().await;
    stack.write_contact_by_hand("ana", PAGES[0]).await;
    stack.let_reads_catch_up();
    let path = "/v1/contacts/ana";
    let deleted = stack.call("DELETE", path, None, None).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);

    stack.tick().await;

    let found = stack.call("GET", path, None, None).await;
    assert_eq!(found.status, StatusCode::NOT_FOUND);
}
