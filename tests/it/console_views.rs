//! Every view of the console in Chromium: accessible by axe-core's rules in light and dark colours, and no wider than its window.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fixture::browser::{Browser, Colours};
use crate::fixture::up::UpProcess;

/// The pictures of the README.
const PICTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/console/pictures");
/// The most bytes of a picture.
const MOST_BYTES: usize = 150_000;
const NAMES: [&str; 6] = [
    "Ana",
    "<script>alert(1)</script>",
    "محمد الأمين",
    "王小明",
    "Δήμητρα",
    "Chloé",
];

/// A stack with broadcasts in several states.
struct Filled {
    up: UpProcess,
    /// The path of a completed broadcast, of which some deliveries failed.
    broadcast: String,
}

impl Filled {
    async fn start() -> Self {
        let up = UpProcess::start(&[], &[("PAGE_RATE_PER_SECOND", "1000")]);
        let contact = |n: usize| {
            json!({
                "contact_id": (6001 + n).to_string(), "page_id": format!("page-{}", n % 4 + 1),
                "first_name": NAMES[n % NAMES.len()], "last_name": "Sá", "tags": ["loyal", "porto"],
                "attributes": {"city": "a very long name without any space".replace(' ', "")},
            })
        };
        let contacts: Vec<_> = (0..240).map(contact).collect();
        up.call("PUT", "/v1/contacts", &json!({ "contacts": contacts })).await;
        let faults = format!("{}/faults", up.address("/sandbox/summary").trim_end_matches("/summary"));
        let fault = |first: usize, answer: Value, accept: bool| {
            let contacts: Vec<_> = (first..first + 9).map(|n| (6001 + n).to_string()).collect();
            json!({"contacts": contacts, "answer": answer, "accept": accept})
        };
        let faults_of = json!({"faults": [
            fault(20, json!({"error": {"code": 551, "message": "not now"}}), false),
            fault(60, json!({"error": {"code": 100, "subcode": 2_018_001, "message": "No matching user found"}}), false),
            fault(100, json!("reset"), false),
        ]});
        let set = reqwest::Client::new()
            .put(&faults)
            .json(&faults_of)
            .send()
            .await
            .unwrap();
        assert!(set.status().is_success());
        let ids: Vec<_> = (0..240).map(|n| (6001 + n).to_string()).collect();
        let text = "Hi {{ first_name | default('there') }}, 20 % off until Sunday.";
        let broadcast = async |name: &str, change: Value| {
            let mut body = json!({"contact_ids": ids, "name": name, "message": {"text": text}});
            body.as_object_mut()
                .unwrap()
                .extend(change.as_object().unwrap().clone());
            let accepted = up.call("POST", "/v1/broadcasts", &body).await;
            format!("/broadcasts/{}", accepted["broadcast_id"].as_str().unwrap())
        };
        let completed = broadcast("Black Friday, loyal customers", json!({})).await;
        while up.call("GET", &format!("/v1{completed}"), &Value::Null).await["status"] != "completed" {
            sleep(Duration::from_millis(50)).await;
        }
        reqwest::Client::new().delete(&faults).send().await.unwrap();
        let tomorrow = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(20);
        broadcast(
            "Opening hours in December",
            json!({"scheduled_at": tomorrow, "requires_approval": true}),
        )
        .await;
        broadcast("Survey <b>spring</b> buyers", json!({ "scheduled_at": tomorrow })).await;
        let cancelled = broadcast("Wrong price, recalled", json!({ "scheduled_at": tomorrow })).await;
        up.call("POST", &format!("/v1{cancelled}/cancel"), &Value::Null).await;
        while !up
            .call("GET", "/v1/broadcasts", &Value::Null)
            .await
            .to_string()
            .contains("recalled")
        {
            sleep(Duration::from_millis(50)).await;
        }
        Self {
            up,
            broadcast: completed,
        }
    }
}

/// Checks a view in both colours, and in a narrow, a usual and a wide window.
async fn check(browser: &Browser, url: &str) {
    browser.open(url).await;
    for (width, colours) in [(360, Colours::Dark), (1_600, Colours::Light)] {
        browser.view(width, colours).await;
        browser.is_accessible().await;
        browser.fits().await;
    }
    browser.view(800, Colours::Light).await;
    browser.fits().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_view_without_data_is_accessible_and_fits() {
    let up = UpProcess::start(&[], &[]);
    let browser = Browser::start().await;
    for path in [
        "/",
        "/new",
        "/contacts",
        "/import",
        "/pages",
        "/sandbox",
        "/sandbox/faults",
        "/sending",
    ] {
        check(&browser, &format!("{}{path}", up.url())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_view_with_data_is_accessible_and_fits() {
    let filled = Filled::start().await;
    let mut browser = Browser::start().await;
    // A page that is not there is a view, too.
    browser.expect_error("404");
    let broadcast = &filled.broadcast;
    for path in [
        "/",
        "/?status=paused",
        broadcast,
        &format!("{broadcast}/deliveries"),
        &format!("{broadcast}/deliveries/6022"),
        &format!("{broadcast}/deliveries/6101"),
        &format!("{broadcast}/retry"),
        "/new",
        "/contacts",
        "/contacts/6002",
        "/contacts/6002/delete",
        "/pages",
        "/pages/page-1",
        "/sandbox",
        "/sandbox/inbox?page_id=page-2&contact_id=6002",
        "/sandbox/faults",
        "/sandbox/forget",
        "/sending",
        "/broadcasts/none",
    ] {
        check(&browser, &format!("{}{path}", filled.up.url())).await;
    }
}

/// Makes the pictures of the README anew: a broadcast on its way, and what has arrived of it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes pictures into the repository"]
async fn pictures_of_the_console() {
    let up = UpProcess::start(&[], &[("PAGE_RATE_PER_SECOND", "20")]);
    let names = ["Ana", "Ben", "Chloé", "محمد", "Δήμητρα", "王小明", "Olena"];
    let ids: Vec<_> = (6001..18_001).map(|id: usize| id.to_string()).collect();
    for (part, ids) in ids.chunks(1_000).enumerate() {
        let contact = |(n, id)| {
            let page = format!("page-{}", (part + n) % 4 + 1);
            json!({"contact_id": id, "page_id": page, "first_name": names[n % names.len()]})
        };
        let contacts: Vec<_> = ids.iter().enumerate().map(contact).collect();
        up.call("PUT", "/v1/contacts", &json!({ "contacts": contacts })).await;
    }
    let faults = up.address("/sandbox/summary").replace("/summary", "/faults");
    let every =
        |n: usize, answer: Value| json!({"contacts": ids.iter().step_by(n).collect::<Vec<_>>(), "answer": answer});
    let blocked = json!({"error": {"code": 551, "message": "not now"}});
    let unknown = json!({"error": {"code": 100, "subcode": 2_018_001, "message": "No matching user found"}});
    let faults_of = json!({"faults": [every(47, blocked), every(153, unknown)]});
    reqwest::Client::new()
        .put(faults)
        .json(&faults_of)
        .send()
        .await
        .unwrap();
    let message = json!({"text": "Hi {{ first_name | default('there') }}, 20 % off until Sunday."});
    let twice = [ids.as_slice(), &ids[..1_204]].concat();
    let body = json!({"contact_ids": twice, "name": "Black Friday, loyal customers", "message": message});
    let accepted = up.call("POST", "/v1/broadcasts", &body).await;
    let broadcast = format!("/broadcasts/{}", accepted["broadcast_id"].as_str().unwrap());
    let sent = async || {
        let report = up.call("GET", &format!("/v1{broadcast}"), &Value::Null).await;
        report["counters"]["sent"].as_u64().unwrap()
    };
    while sent().await < 8_000 {
        sleep(Duration::from_secs(1)).await;
    }
    let browser = Browser::start().await;
    fs::create_dir_all(PICTURES).unwrap();
    for (name, path, colours) in [
        ("broadcast.png", broadcast.as_str(), Colours::Light),
        ("sandbox.png", "/sandbox", Colours::Dark),
    ] {
        browser.view(1_200, colours).await;
        browser.open(&format!("{}{path}", up.url())).await;
        browser.sees("Black Friday").await;
        let picture = browser.picture().await;
        assert!(picture.len() < MOST_BYTES, "{name} has {} bytes", picture.len());
        fs::write(Path::new(PICTURES).join(name), picture).unwrap();
    }
}
