//! `oncecast demo`: a broadcast with repeated ids, a repeated request and killed processes, and then a count of the
//! messages that the contacts received.

mod audience;
mod faults;
mod progress;
mod report;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use client::api::broadcasts::NewBroadcast;
use client::api::contacts::ContactImport;
use client::api::deliveries::DeliveryReport;
use client::{Client, DeliveryQuery};
use local::stack::{Settings, Stack, StackError};
use shared::domain::ids::{BroadcastId, ContactId};
use shared::domain::message::Message;

use self::audience::Audience;
use self::report::{Report, Tally};
use self::watch::Watch;

/// The time that Messenger takes to answer, long enough for a kill to hit sends that have no answer yet.
const ANSWER_LATENCY_MS: u64 = 200;

/// The API's limit for the contacts of one request.
const CONTACTS_PER_REQUEST: usize = 1_000;
const TEXT: &str = "Hi {{ first_name | default('there') }}, we open at nine.";

/// The functions' variables: short times, so that the work of a killed process is resumed within seconds. Variables
/// that the caller has set take precedence.
const FUNCTION_VARIABLES: [(&str, &str); 5] = [
    ("JOB_LEASE_SECONDS", "5"),
    ("RUST_LOG", "error"),
    ("MESSENGER_TIMEOUT_SECONDS", "2"),
    ("RETRY_BASE_SECONDS", "2"),
    // A lookup takes a message as evidence only when the message is at least ten seconds old.
    ("DOUBT_CHECK_SECONDS", "12,20"),
];

/// The options of `demo`.
#[derive(Debug, Args)]
pub struct Options {
    /// Messenger also drops connections, hangs, sends unreadable answers, refuses, limits the rate and revokes a token
    #[arg(long)]
    faults: bool,
}

/// Failure of the demo before it has a result.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(transparent)]
    Stack(#[from] StackError),
    #[error("the demo runs in the sandbox only")]
    NoSandbox,
    #[error(transparent)]
    Api(#[from] client::Error),
    #[error(
        "the repeated request was not recognised: the first created broadcast {first}, the second broadcast {second}"
    )]
    NotReplayed { first: BroadcastId, second: BroadcastId },
    #[error("interrupted")]
    Interrupted,
    #[error("signals cannot be received")]
    Signals(#[from] io::Error),
}

/// Runs the demo and prints its report. The exit status is a success if no contact received two messages, none is
/// missing, no other contact received one, and Oncecast's report agrees with the sandbox on each contact.
///
/// # Errors
///
/// Fails if the system does not start, if a call of the API fails, or on Ctrl-C.
pub async fn run(options: &Options) -> Result<ExitCode, DemoError> {
    let stack = Stack::start(Settings {
        schedule_every: Duration::from_secs(2),
        process_timeout: Duration::from_secs(8),
        visibility_margin: Duration::from_secs(2),
        env: function_variables(),
        ..Settings::default()
    })
    .await?;
    let report = tokio::select! {
        report = broadcast(&stack, options) => report,
        interrupted = tokio::signal::ctrl_c() => {
            Err(interrupted.map_or_else(DemoError::Signals, |()| DemoError::Interrupted))
        }
    };
    stack.stop().await;
    let report = report?;
    println!("\n{report}");
    Ok(if report.is_success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn function_variables() -> BTreeMap<String, String> {
    FUNCTION_VARIABLES
        .into_iter()
        .filter(|(name, _)| std::env::var_os(name).is_none())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

async fn broadcast(stack: &Stack, options: &Options) -> Result<Report, DemoError> {
    let sandbox = stack.sandbox().ok_or(DemoError::NoSandbox)?;
    sandbox.set_latency_ms(ANSWER_LATENCY_MS);
    stack.ready().await?;
    stack.subscribe_to_sandbox().await?;
    // The API is on this machine, not behind a proxy.
    let http = reqwest::Client::builder()
        .no_proxy()
        .build()
        .map_err(client::Error::Request)?;
    let api = Client::new(http, &stack.api_url())?;
    let audience = Audience::new();
    if options.faults {
        faults::inject(sandbox, &audience);
    }

    println!(
        "Importing {} contacts of {} Pages",
        audience.contacts.len(),
        audience.pages()
    );
    for contacts in audience.contacts.chunks(CONTACTS_PER_REQUEST) {
        let contacts = contacts.to_vec();
        api.import_contacts(&ContactImport { contacts }).await?;
    }

    println!(
        "Sending to {} ids, {} of them repeats",
        audience.ids.len(),
        audience.repeats()
    );
    let started = Instant::now();
    let broadcast_id = post_twice(&api, &audience.ids).await?;
    let mut watch = Watch::new(stack, &api, sandbox, &broadcast_id, audience.contacts.len());
    watch.until_completed(options.faults).await?;
    watch.until_settled().await?;
    let (killed, duration) = (watch.killed, started.elapsed());

    let broadcast = api.broadcast(&broadcast_id).await?;
    let deliveries = all_deliveries(&api, &broadcast_id).await?;
    let received = sandbox.received();
    Ok(Report {
        tally: Tally::count(&audience.requested(), &received, &deliveries),
        received,
        broadcast,
        killed,
        duration,
    })
}

/// Posts the same request twice and returns the id of the one broadcast that it makes.
async fn post_twice(api: &Client, contact_ids: &[ContactId]) -> Result<BroadcastId, DemoError> {
    let message = Message {
        text: Some(TEXT.to_owned()),
        attachment: None,
        template: None,
        quick_replies: Vec::new(),
    };
    let new = NewBroadcast::new(contact_ids.to_vec(), message);
    let first = api.create_broadcast(&new, None).await?;
    println!("Sending the same request again");
    let second = api.create_broadcast(&new, None).await?;
    let (first, replayed, second) = (
        first.report.summary.broadcast_id,
        second.replayed,
        second.report.summary.broadcast_id,
    );
    if replayed && second == first {
        return Ok(first);
    }
    Err(DemoError::NotReplayed { first, second })
}

/// Returns the deliveries of a broadcast, one for each contact.
async fn all_deliveries(api: &Client, broadcast_id: &BroadcastId) -> Result<Vec<DeliveryReport>, client::Error> {
    let mut deliveries = Vec::new();
    let mut query = DeliveryQuery {
        limit: Some(1_000),
        ..DeliveryQuery::default()
    };
    loop {
        let part = api.deliveries(broadcast_id, &query).await?;
        deliveries.extend(part.items);
        if part.next_cursor.is_none() {
            return Ok(deliveries);
        }
        query.cursor = part.next_cursor;
    }
}
