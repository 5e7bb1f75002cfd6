//! `local demo`: repeated ids, a repeated request and killed processes; then a count of what contacts really got.

mod api;
mod audience;
mod report;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time;

use self::api::Api;
use self::audience::Audience;
use self::report::{Report, Tally};
use crate::sandbox::Sandbox;
use crate::stack::{self, Settings, Stack};

/// A broadcast that takes longer is reported as it stands.
const COMPLETED_WITHIN: Duration = Duration::from_secs(120);
const WATCH_EVERY: Duration = Duration::from_millis(100);
/// How often the progress is told where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);
const BAR: &str = "{bar:40} {pos}/{len} messages, {elapsed}";
/// Messenger takes about this long to answer, so that a kill meets messages whose answer is still on its way.
const ANSWER_LATENCY_MS: u64 = 200;
/// Processes are killed when this share of the contacts, in percent, has a message.
const KILLS_AT_PERCENT: [usize; 2] = [20, 60];

/// Short times, so that what a killed process left is taken up within seconds. The caller's own variables win.
const FUNCTION_VARIABLES: [(&str, &str); 2] = [("JOB_LEASE_SECONDS", "5"), ("RUST_LOG", "error")];

/// Why the demo has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Stack(#[from] stack::Error),
    #[error("the demo runs in the sandbox only")]
    NoSandbox,
    #[error("the API could not be reached")]
    Http(#[from] reqwest::Error),
    #[error("{request} was answered with {status}: {body}")]
    Refused {
        request: String,
        status: u16,
        body: String,
    },
    #[error(
        "the repeated request was not recognised: it made the broadcast {second}, the first {first}"
    )]
    NotReplayed { first: String, second: String },
    #[error("interrupted")]
    Interrupted,
    #[error("signals cannot be received")]
    Signals(#[from] io::Error),
}

/// Runs the demo. It succeeds if no contact got two messages, none is missing, and nobody else got one.
pub async fn run() -> Result<ExitCode, Error> {
    let stack = Stack::start(Settings {
        schedule_every: Duration::from_secs(2),
        process_timeout: Duration::from_secs(8),
        visibility_margin: Duration::from_secs(2),
        env: function_variables(),
        ..Settings::default()
    })
    .await?;
    let report = tokio::select! {
        report = broadcast(&stack) => report,
        interrupted = tokio::signal::ctrl_c() => Err(interrupted.map_or_else(Error::Signals, |()| Error::Interrupted)),
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

async fn broadcast(stack: &Stack) -> Result<Report, Error> {
    let sandbox = stack.sandbox().ok_or(Error::NoSandbox)?;
    sandbox.set_latency_ms(ANSWER_LATENCY_MS);
    stack.ready().await?;
    let api = Api::new(stack.api_url())?;
    let audience = Audience::new();

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
    let first = api.post_broadcast(&audience.ids).await?;
    println!("Sending the same request again");
    let second = api.post_broadcast(&audience.ids).await?;
    if !second.replayed || second.broadcast_id != first.broadcast_id {
        return Err(Error::NotReplayed {
            first: first.broadcast_id,
            second: second.broadcast_id,
        });
    }

    let killed = watch(
        stack,
        sandbox,
        &api,
        &first.broadcast_id,
        audience.contacts.len(),
    )
    .await?;
    let duration = started.elapsed();
    let broadcast = api.broadcast(&first.broadcast_id).await?;
    let in_doubt = api.contacts_in_doubt(&first.broadcast_id).await?;
    let received = sandbox.received();
    Ok(Report {
        tally: Tally::count(&audience.asked_for(), &received, &in_doubt),
        received,
        broadcast,
        killed,
        duration,
    })
}

/// Shows the progress and kills processes on the way, until the broadcast is completed or takes too long.
async fn watch(
    stack: &Stack,
    sandbox: &Sandbox,
    api: &Api,
    broadcast_id: &str,
    contacts: usize,
) -> Result<Vec<u32>, Error> {
    let mut progress = Progress::new(contacts);
    let mut killed = Vec::new();
    let give_up = Instant::now() + COMPLETED_WITHIN;
    while Instant::now() < give_up {
        let received = sandbox.received_count();
        progress.show(received);
        let next_kill = KILLS_AT_PERCENT.get(killed.len());
        if next_kill.is_some_and(|percent| received * 100 >= contacts * percent)
            && let Some(pid) = stack.process_job().kill_one_busy().await
        {
            progress.say(&format!("Killed the process {pid} in mid-job (kill -9)"));
            killed.push(pid);
        }
        if api.broadcast(broadcast_id).await?.is_completed() {
            progress.show(sandbox.received_count());
            break;
        }
        time::sleep(WATCH_EVERY).await;
    }
    progress.finish();
    Ok(killed)
}

/// How far the demo is: a bar on a terminal, a line every few seconds elsewhere.
enum Progress {
    Bar(ProgressBar),
    Lines {
        contacts: usize,
        last: Option<Instant>,
    },
}

impl Progress {
    fn new(contacts: usize) -> Progress {
        if !io::stderr().is_terminal() {
            return Progress::Lines {
                contacts,
                last: None,
            };
        }
        let style =
            ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
        Progress::Bar(ProgressBar::new(contacts as u64).with_style(style))
    }

    /// Shows how many messages have arrived.
    fn show(&mut self, received: usize) {
        match self {
            Progress::Bar(bar) => bar.set_position(received as u64),
            Progress::Lines { contacts, last } => {
                if last.is_none_or(|last| last.elapsed() >= LINE_EVERY) || received == *contacts {
                    println!("{received} of {contacts} messages");
                    *last = Some(Instant::now());
                }
            }
        }
    }

    /// Says something without disturbing the bar.
    fn say(&self, text: &str) {
        match self {
            Progress::Bar(bar) => bar.println(text),
            Progress::Lines { .. } => println!("{text}"),
        }
    }

    fn finish(&self) {
        if let Progress::Bar(bar) = self {
            bar.abandon();
        }
    }
}
