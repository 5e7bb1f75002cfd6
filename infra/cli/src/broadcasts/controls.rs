//! `oncecast pause`, `resume`, `cancel`, `retry` and `approve`: orders for a broadcast.

use std::time::Duration;

use clap::Args;
use client::api::broadcasts::{BroadcastReport, JobReport};
use client::api::controls::{ControlReport, RetryReport, RetryRequest};
use client::{Client, ControlOptions, Error};
use indicatif::HumanCount;
use shared::domain::ids::{BroadcastId, PageId};
use shared::domain::job::JobStatus;
use shared::domain::reasons::NotSent;
use tokio::time;

use super::find::{find, id_or_prefix};
use super::{screen, words};
use crate::api::Session;
use crate::failure::{Exit, Failure};
use crate::output::{Tone, may_ask};
use crate::text::{counted, plain};

/// The looks at a resumed job that was halted, to see that it is not halted again.
const LOOKS: usize = 10;
/// The time between two of them.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The options of `pause` and `resume`.
#[derive(Debug, Args)]
pub struct Options {
    /// Id of the broadcast, or its first 6 digits or more
    #[arg(value_parser = id_or_prefix)]
    id: String,
    /// Only for this Page
    #[arg(long, value_name = "PAGE", value_parser = PageId::parse)]
    page: Option<PageId>,
    /// Shows what would be affected, and changes nothing
    #[arg(long)]
    dry_run: bool,
}

/// The options of `cancel`.
#[derive(Debug, Args)]
pub struct CancelOptions {
    #[command(flatten)]
    all: Options,
    /// Cancels without asking
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
}

/// The options of `retry`.
#[derive(Debug, Args)]
pub struct RetryOptions {
    #[command(flatten)]
    all: Options,
    /// Contacts with this outcome: failed, skipped, or in-doubt, who may get the message twice; may be repeated
    #[arg(long, default_value = "failed", value_parser = words::not_sent)]
    status: Vec<NotSent>,
    /// Only contacts with this code of the reason, such as 551; may be repeated
    #[arg(long, value_name = "CODE")]
    reason: Vec<String>,
    /// Sends without asking
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
}

/// The options of `approve`.
#[derive(Debug, Args)]
pub struct ApproveOptions {
    /// Id of the broadcast, or its first 6 digits or more
    #[arg(value_parser = id_or_prefix)]
    id: String,
}

/// An order to some jobs of a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Nothing more is sent until it is resumed.
    Pause,
    /// Paused and halted jobs go on.
    Resume,
    /// Nothing more is sent, for good.
    Cancel,
}

impl Verb {
    fn would(self) -> &'static str {
        match self {
            Self::Pause => "pauses",
            Self::Resume => "resumes",
            Self::Cancel => "cancels for good",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Pause => "paused",
            Self::Resume => "resumed",
            Self::Cancel => "cancelled",
        }
    }

    async fn order(self, client: &Client, id: &BroadcastId, options: &ControlOptions) -> Result<ControlReport, Error> {
        match self {
            Self::Pause => client.pause(id, options).await,
            Self::Resume => client.resume(id, options).await,
            Self::Cancel => client.cancel(id, options).await,
        }
    }
}

/// Cancels a broadcast, after the user has typed the number of contacts that get no message.
///
/// # Errors
///
/// As [`run`].
pub async fn cancel(session: &Session, options: CancelOptions) -> Result<(), Failure> {
    let ask = !options.yes && !options.all.dry_run;
    if ask {
        may_ask()?;
    }
    carry_out(session, Verb::Cancel, options.all, ask).await
}

/// Pauses or resumes a broadcast.
///
/// # Errors
///
/// Fails if there is no such broadcast, no job can obey, or a call or the output fails; a resume also if a job is halted again at
/// once.
pub async fn run(session: &Session, verb: Verb, options: Options) -> Result<(), Failure> {
    carry_out(session, verb, options, false).await
}

async fn carry_out(session: &Session, verb: Verb, options: Options, ask: bool) -> Result<(), Failure> {
    let (output, client) = (&session.output, &session.client);
    let id = find(session, &options.id).await?;
    let control = |dry_run| ControlOptions {
        page_id: options.page.clone(),
        dry_run,
    };
    let planned = verb.order(client, &id, &control(true)).await?;
    if options.dry_run && output.is_json() {
        return output.object(&planned);
    }
    let plan = format!("{} {}", verb.would(), extent(&planned));
    if options.dry_run {
        return output.line(&plan);
    }
    output.note(&format!("  {plan}"));
    if ask && planned.affected.jobs > 0 {
        let number = planned.affected.contacts;
        output
            .confirm("Type the number of contacts to cancel them", number)
            .await?;
    }
    let report = verb
        .order(client, &id, &control(false))
        .await
        .map_err(|error| uncertain(error, &id))?;
    match output.is_json() {
        true => output.object(&report)?,
        false => output.line(&format!(
            "{} {id}: {}",
            output.paint(Tone::Good, verb.done()),
            extent(&report)
        ))?,
    }
    match verb {
        Verb::Resume => not_halted_again(session, &planned.report, &options).await,
        Verb::Pause | Verb::Cancel => Ok(()),
    }
}

fn extent(report: &ControlReport) -> String {
    let affected = &report.affected;
    let more = if affected.resolving {
        ", and those that its audience still has"
    } else {
        ""
    };
    format!(
        "{} with {} not sent to yet{more}",
        counted(affected.jobs, "Page"),
        counted(affected.contacts, "contact")
    )
}

/// Returns the failure of an order, which may have taken effect if it was not answered.
fn uncertain(error: Error, id: &BroadcastId) -> Failure {
    let is_refused = error.status().is_some_and(|status| status.is_client_error());
    let failure = Failure::from(error);
    match is_refused {
        true => failure,
        false => failure.and(format!(
            "the order may have taken effect: see oncecast status {id}, and repeat it if not"
        )),
    }
}

/// Looks at jobs that were halted, until they are worked on, or are halted again since nobody repaired the cause.
async fn not_halted_again(session: &Session, before: &BroadcastReport, options: &Options) -> Result<(), Failure> {
    let is_meant = |page_id: &PageId| options.page.as_ref().is_none_or(|meant| meant == page_id);
    let was_halted = |job: &&JobReport| job.status == JobStatus::Halted && is_meant(&job.page_id);
    let halted: Vec<_> = before.jobs.iter().filter(was_halted).collect();
    if halted.is_empty() {
        return Ok(());
    }
    for _ in 0..LOOKS {
        let begins = |job: &JobReport| {
            let before = halted.iter().find(|before| before.page_id == job.page_id);
            let is_open = matches!(job.status, JobStatus::Queued | JobStatus::Processing);
            before.is_some_and(|before| is_open && before.counters == job.counters)
        };
        time::sleep(LOOK_EVERY).await;
        let report = session.client.broadcast(&before.summary.broadcast_id).await?;
        let again = report
            .jobs
            .iter()
            .find(|job| was_halted(job) && halted.iter().any(|before| before.page_id == job.page_id));
        if let Some(job) = again {
            let (page_id, token) = (job.page_id.as_str(), client::words::token(&report, &job.page_id));
            let what = format!(
                "{page_id} is halted again: {}",
                plain(&client::words::halted(job, token))
            );
            return Err(Failure::new(Exit::InPart, what).and(screen::remedy(token)));
        }
        if !report.jobs.iter().any(begins) {
            break;
        }
    }
    Ok(())
}

/// Sends again to contacts that are not known to have got the message, after the user has typed their number.
///
/// # Errors
///
/// Fails if there is no such broadcast, a job of it is not completed, or a call or the output fails.
pub async fn retry(session: &Session, options: RetryOptions) -> Result<(), Failure> {
    let (output, client) = (&session.output, &session.client);
    let Options { id, page, dry_run } = options.all;
    let ask = !options.yes && !dry_run;
    if ask {
        may_ask()?;
    }
    let id = find(session, &id).await?;
    let request = RetryRequest {
        statuses: options.status,
        reasons: options.reason,
        page_id: page,
    };
    let planned = client.retry(&id, &request, true).await?;
    if dry_run && output.is_json() {
        return output.object(&planned);
    }
    let plan = format!("sends again to {}", again(&planned));
    if dry_run {
        return output.line(&plan);
    }
    output.note(&format!("  {plan}"));
    if planned.reopened == 0 {
        return Ok(());
    }
    if ask {
        output
            .confirm("Type the number of contacts to send to them again", planned.reopened)
            .await?;
    }
    let report = client
        .retry(&id, &request, false)
        .await
        .map_err(|error| uncertain(error, &id))?;
    match output.is_json() {
        true => output.object(&report),
        false => output.line(&format!(
            "{} {id}: {}",
            output.paint(Tone::Good, "retried"),
            again(&report)
        )),
    }
}

fn again(report: &RetryReport) -> String {
    let twice = match report.may_get_it_twice {
        0 => String::new(),
        contacts => format!(", {} of which may get the message twice", HumanCount(contacts)),
    };
    let pages = report.jobs.iter().filter(|job| job.reopened > 0).count() as u64;
    format!(
        "{} on {}{twice}",
        counted(report.reopened, "contact"),
        counted(pages, "Page")
    )
}

/// Approves a broadcast that another caller made.
///
/// # Errors
///
/// Fails if there is no such broadcast, the caller may not approve it, or a call or the output fails.
pub async fn approve(session: &Session, options: ApproveOptions) -> Result<(), Failure> {
    let output = &session.output;
    let id = find(session, &options.id).await?;
    let report = session
        .client
        .approve(&id)
        .await
        .map_err(|error| uncertain(error, &id))?;
    match output.is_json() {
        true => output.object(&report),
        false => {
            let status = client::words::status(report.summary.status);
            output.line(&format!("{} {id}: {status}", output.paint(Tone::Good, "approved")))
        }
    }
}
