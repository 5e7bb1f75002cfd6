//! The commands that send, follow, stop and export broadcasts.

mod find;
mod list;
mod words;

use clap::Subcommand;

use crate::api::Session;
use crate::failure::Failure;

/// A command about broadcasts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists broadcasts, newest first
    List(list::Options),
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Fails if the API cannot be reached or refuses the request, or the output cannot be written.
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List(options) => list::run(session, options).await,
        }
    }
}
