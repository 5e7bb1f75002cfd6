//! The time that the console takes for its views with much data: 1,000 broadcasts, one of them with 100,000 deliveries.
//!
//! ```sh
//! cargo test --release -p tests --test it -- --ignored --nocapture console_speed
//! ```

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::fixture::console::Visitor;
use crate::fixture::up::UpProcess;

const CONTACTS: usize = 100_000;
const BROADCASTS: usize = 1_000;
/// The contacts of one import.
const PART: usize = 1_000;
/// The times that each view is opened.
const TIMES: usize = 21;
/// The time that a view should take at most.
const TARGET: Duration = Duration::from_millis(100);

#[tokio::test]
#[ignore = "takes some minutes"]
async fn console_speed() {
    let up = UpProcess::start(&[], &[("PAGE_RATE_PER_SECOND", "10000")]);
    let ids: Vec<_> = (0..CONTACTS).map(|n| (1_000_000 + n).to_string()).collect();
    for (n, part) in ids.chunks(PART).enumerate() {
        let contact = |id: &String| json!({"contact_id": id, "page_id": format!("page-{}", n % 4 + 1), "name": "Ana"});
        let contacts: Vec<_> = part.iter().map(contact).collect();
        up.call("PUT", "/v1/contacts", &json!({ "contacts": contacts })).await;
    }
    // Nobody has a first name, so that each contact has a row without a message.
    let text = json!({"text": "Hi {{ first_name }}"});
    let large = json!({"contact_ids": ids, "message": text, "name": "All"});
    let large = up.call("POST", "/v1/broadcasts", &large).await["broadcast_id"]
        .as_str()
        .unwrap()
        .to_owned();
    for (n, id) in ids.iter().enumerate().take(BROADCASTS).skip(1) {
        let small = json!({"contact_ids": [id], "message": text, "name": format!("Broadcast {n}")});
        up.call("POST", "/v1/broadcasts", &small).await;
    }
    let path = format!("/broadcasts/{large}");
    while up.call("GET", &format!("/v1{path}"), &json!(null)).await["status"] != "completed" {
        sleep(Duration::from_secs(1)).await;
    }

    let visitor = Visitor::open(up.url()).await;
    println!("{:<44}{:>10}{:>10}   of {TARGET:?}", "view", "median", "most");
    let mut views = vec![
        "/".to_owned(),
        "/?status=completed".to_owned(),
        path.clone(),
        format!("{path}?part=live"),
        format!("{path}/deliveries"),
        format!("{path}/deliveries?status=failed"),
        format!("{path}/deliveries/{}", ids[CONTACTS / 2]),
        format!("{path}/retry"),
    ];
    views.extend(["/new", "/contacts", "/contacts?q=ana", "/pages", "/sandbox", "/sending"].map(str::to_owned));
    views.push(format!("/contacts/{}", ids[7]));
    for view in views {
        let mut times = Vec::new();
        for _ in 0..TIMES {
            let begun = Instant::now();
            let page = visitor.page(&view).await;
            times.push(begun.elapsed());
            assert_eq!(page.status, 200, "{view}: {}", page.html);
        }
        times.sort();
        let view = view.replace(&large, "ID");
        println!("{view:<44}{:>10.1?}{:>10.1?}", times[TIMES / 2], times[TIMES - 1]);
    }
}
