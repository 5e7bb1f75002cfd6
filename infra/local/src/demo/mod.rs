//! `local demo`: repeated ids, a repeated request and killed processes; then a count of what contacts really got.

mod api;
mod audience;
mod lies;
mod report;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
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

/// The same with faults.
const KILLS_WITH_FAULTS_AT_PERCENT: [usize; 4] = [15, 30, 50, 65];
/// One Page's access token is revoked when this share of the contacts has a message.
const REVOCATION_AT_PERCENT: usize = 20;
/// What is in doubt is settled by then.
const SETTLED_WITHIN: Duration = Duration::from_secs(90);

/// How to run the demo.
#[derive(Debug, Args)]
pub struct Options {
    /// Messenger drops connections, hangs, answers nonsense, refuses, meets its limit and revokes a token on the way
    #[arg(long)]
    faults: bool,
}

/// Short times, so that what a killed process left is taken up within seconds. The caller's own variables win.
const FUNCTION_VARIABLES: [(&str, &str); 5] = [
    ("JOB_LEASE_SECONDS", "5"),
    ("RUST_LOG", "error"),
    ("MESSENGER_TIMEOUT_SECONDS", "2"),
    ("RETRY_BASE_SECONDS", "2"),
    // A message that is younger than ten seconds is no evidence.
    ("DOUBT_CHECK_SECONDS", "12,20"),
];

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

/// Runs the demo. It succeeds if no contact got two messages, none is missing, nobody else got one, and the report says of
/// each contact what the sandbox knows.
pub async fn run(options: &Options) -> Result<ExitCode, Error> {
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

async fn broadcast(stack: &Stack, options: &Options) -> Result<Report, Error> {
    let sandbox = stack.sandbox().ok_or(Error::NoSandbox)?;
    sandbox.set_latency_ms(ANSWER_LATENCY_MS);
    stack.ready().await?;
    stack.subscribe_to_sandbox().await?;
    let api = Api::new(stack.api_url())?;
    let audience = Audience::new();
    if options.faults {
        lies::tell(sandbox, &audience);
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
    let first = api.post_broadcast(&audience.ids).await?;
    println!("Sending the same request again");
    let second = api.post_broadcast(&audience.ids).await?;
    if !second.replayed || second.broadcast_id != first.broadcast_id {
        return Err(Error::NotReplayed {
            first: first.broadcast_id,
            second: second.broadcast_id,
        });
    }

    let mut watch = Watch {
        stack,
        sandbox,
        api: &api,
        broadcast_id: &first.broadcast_id,
        progress: Progress::new(audience.contacts.len()),
        contacts: audience.contacts.len(),
        killed: Vec::new(),
    };
    watch.until_completed(options).await?;
    watch.until_settled().await?;
    let (killed, duration) = (watch.killed, started.elapsed());
    let broadcast = api.broadcast(&first.broadcast_id).await?;
    let deliveries = api.deliveries(&first.broadcast_id).await?;
    let received = sandbox.received();
    Ok(Report {
        tally: Tally::count(&audience.asked_for(), &received, &deliveries),
        received,
        broadcast,
        killed,
        duration,
    })
}

/// A broadcast under way.
struct Watch<'a> {
    stack: &'a Stack,
    sandbox: &'a Sandbox,
    api: &'a Api,
    broadcast_id: &'a str,
    progress: Progress,
    contacts: usize,
    /// The processes killed.
    killed: Vec<u32>,
}

impl Watch<'_> {
    /// Shows the progress, kills processes and revokes a token on the way, until the broadcast is completed or takes too
    /// long.
    async fn until_completed(&mut self, options: &Options) -> Result<(), Error> {
        let kills_at: &[usize] = match options.faults {
            true => &KILLS_WITH_FAULTS_AT_PERCENT,
            false => &KILLS_AT_PERCENT,
        };
        let mut to_revoke = options.faults;
        let give_up = Instant::now() + COMPLETED_WITHIN;
        while Instant::now() < give_up {
            let received = self.sandbox.received_count();
            self.progress.show(received);
            let next_kill = kills_at.get(self.killed.len());
            if next_kill.is_some_and(|percent| received * 100 >= self.contacts * percent)
                && let Some(pid) = self.stack.process_job().kill_one_busy().await
            {
                let killed = format!("Killed the process {pid} in mid-job (kill -9)");
                self.progress.say(&killed);
                self.killed.push(pid);
            }
            if to_revoke && received * 100 >= self.contacts * REVOCATION_AT_PERCENT {
                to_revoke = !self.sandbox.revoke_token(lies::REVOKED_PAGE);
                self.progress.say("Revoked the access token of one Page");
            }
            let broadcast = self.api.broadcast(self.broadcast_id).await?;
            let is_revoked = options.faults && !to_revoke;
            if is_revoked && (broadcast.has_halted_job() || broadcast.is_completed()) {
                self.sandbox.restore_token(lies::REVOKED_PAGE);
            }
            if broadcast.has_halted_job() {
                self.api.resume(self.broadcast_id).await?;
                self.progress
                    .say("Its job was halted; gave the token back, and resumed the job");
            }
            if broadcast.is_completed() {
                self.progress.show(self.sandbox.received_count());
                break;
            }
            time::sleep(WATCH_EVERY).await;
        }
        self.progress.finish();
        Ok(())
    }

    /// Waits until everybody who got the message is known to have got it, for so long as look-ups need.
    async fn until_settled(&self) -> Result<(), Error> {
        println!("Settling what is in doubt, by echoes and look-ups");
        let give_up = Instant::now() + SETTLED_WITHIN;
        while Instant::now() < give_up {
            let sent = self.api.broadcast(self.broadcast_id).await?.counters.sent;
            if sent == self.sandbox.received_count() as u64 {
                break;
            }
            time::sleep(WATCH_EVERY).await;
        }
        Ok(())
    }
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
