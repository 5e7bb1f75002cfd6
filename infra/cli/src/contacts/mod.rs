//! `oncecast contacts`: imports, exports, shows and deletes contacts.

mod export;
mod import;
mod journal;
mod one;
mod refused;

use clap::Subcommand;

use crate::api::Session;
use crate::failure::Failure;

/// A command about contacts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Stores the contacts of a file, of any size; an interrupted import goes on when it is repeated
    Import(import::Options),
    /// Writes contacts as a file that can be imported
    Export(export::Options),
    /// Shows a contact
    Show(one::ShowOptions),
    /// Deletes a contact, or all that is stored of it
    Delete(one::DeleteOptions),
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Fails as the command says.
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Import(options) => import::run(session, options).await,
            Self::Export(options) => export::run(session, options).await,
            Self::Show(options) => one::show(session, &options).await,
            Self::Delete(options) => one::delete(session, &options).await,
        }
    }
}
