//! The commands that send, follow, stop and export broadcasts.

mod controls;
mod find;
mod list;
mod preview;
mod recipients;
mod report;
mod screen;
mod send;
mod sending;
mod status;
pub(crate) mod words;

use clap::Subcommand;

use crate::api::Session;
use crate::failure::Failure;
use controls::Verb;

/// A command about broadcasts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sends one message to many contacts, after a look at what it would do
    Send(Box<send::Options>),
    /// Lists broadcasts, newest first
    List(list::Options),
    /// Shows the state of a broadcast, or follows it until it has ended
    Status(status::Options),
    /// Writes the outcome for each contact as CSV
    Report(report::Options),
    /// Has nothing more sent until the broadcast is resumed
    Pause(controls::Options),
    /// Lets the paused and halted Pages of a broadcast go on
    Resume(controls::Options),
    /// Has nothing more sent, for good
    Cancel(controls::CancelOptions),
    /// Sends again to contacts that are not known to have got the message
    Retry(controls::RetryOptions),
    /// Approves a broadcast that another caller made
    Approve(controls::ApproveOptions),
    /// Stops all broadcasts at once: switches sending off
    StopAll(sending::StopAllOptions),
    /// Shows the switch for sending, or sets it
    Sending(sending::Options),
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Fails if the API cannot be reached or refuses the request, or the output cannot be written.
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Send(options) => send::run(session, *options).await,
            Self::List(options) => list::run(session, options).await,
            Self::Status(options) => status::run(session, options).await,
            Self::Report(options) => report::run(session, options).await,
            Self::Pause(options) => controls::run(session, Verb::Pause, options).await,
            Self::Resume(options) => controls::run(session, Verb::Resume, options).await,
            Self::Cancel(options) => controls::cancel(session, options).await,
            Self::Retry(options) => controls::retry(session, options).await,
            Self::Approve(options) => controls::approve(session, options).await,
            Self::StopAll(options) => sending::stop_all(session, options).await,
            Self::Sending(options) => sending::run(session, options).await,
        }
    }
}
