//! `oncecast demo`: a broadcast with repeated ids, a repeated request and killed processes, and then a count of the
//! messages that the contacts received.

mod api;
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
use local::stack::{Settings, Stack, StackError};

use self::api::{Api, ApiError};
use self::audience::Audience;
use self::report::{Report, Tally};
use self::watch::Watch;

/// The time that Messenger takes to answer, long enough for a kill to hit sends that have no answer yet.
const ANSWER_LATENCY_MS: u64 = 200;

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
    Api(#[from] ApiError),
    #[error(
        "the repeated request was not recognised: the first created broadcast {first}, the second broadcast {second}"
    )]
    NotReplayed { first: String, second: String },
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
    let api = Api::new(stack.api_url())?;
    let audience = Audience::new();
    if options.faults {
        faults::inject(sandbox, &audience);
    }

    println!(
        "Importing {} contacts of {} Pages",
        audience.contacts.len(),
        audience.pages()
    );
    api.put_contacts(&audience.contacts).await?;

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
    let deliveries = api.deliveries(&broadcast_id).await?;
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
async fn post_twice(api: &Api, contact_ids: &[String]) -> Result<String, DemoError> {
    let first = api.post_broadcast(contact_ids).await?;
    println!("Sending the same request again");
    let second = api.post_broadcast(contact_ids).await?;
    if second.replayed && second.broadcast_id == first.broadcast_id {
        return Ok(first.broadcast_id);
    }
    Err(DemoError::NotReplayed {
        first: first.broadcast_id,
        second: second.broadcast_id,
    })
}
