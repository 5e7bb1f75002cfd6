//! The command line `oncecast`: it runs all of Oncecast on one machine by means of the crate [`local`], and talks to the API of any
//! Oncecast by means of the crate [`client`].
//!
//! - `up`: `oncecast up`, which runs the system until Ctrl-C
//! - `demo`: `oncecast demo`, which sends to the sandbox and counts the messages that arrived
//! - `function`: `oncecast function NAME`, which the other two start as child processes
//! - `broadcasts`: the commands that send, follow, stop and export broadcasts
//! - `listen`: `oncecast listen`, which shows the events that `up --notify-url` posts
//! - `console`: `oncecast console`, the pages for operators over any API
//! - `contacts`: the commands that import, export, show and delete contacts
//! - `pages`, `doctor`: the Pages, and what is wrong
//! - `completions`: completions for shells, and man pages
//! - `api`, `failure`, `output`, `text`: the API that a command talks to, its end, and what it prints
//!
//! All of it is in a library, so that another executable, such as the one of the tests, can be the same command line.

mod api;
mod broadcasts;
mod completions;
mod console;
mod contacts;
mod demo;
mod doctor;
mod failure;
mod function;
mod listen;
mod output;
mod pages;
mod text;
mod up;

use std::error::Error;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};
use tokio::signal;

use api::Session;
use failure::{Exit, Failure, with_causes};

#[derive(Debug, Parser)]
#[command(
    name = "oncecast",
    version,
    about = "Sends one message to many Messenger contacts: to each contact once",
    after_help = failure::STATUSES,
    max_term_width = 100
)]
struct CommandLine {
    #[command(flatten)]
    api: api::Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Broadcasts(broadcasts::Command),
    /// Imports, exports, shows and deletes contacts
    #[command(subcommand)]
    Contacts(contacts::Command),
    /// Lists the Pages with the state of their tokens, or imports the contacts of one
    Pages(pages::Options),
    /// Checks the API, its services, and the token, permissions and webhook of each Page
    Doctor(doctor::Options),
    /// Serves web pages for operators on this machine, over any API, until Ctrl-C
    Console(console::ConsoleOptions),
    /// Runs the API, the functions and the services that they need, until Ctrl-C
    Up(Box<up::Options>),
    /// Sends to 1,000 contacts of the sandbox, with repeated ids and killed processes, and counts the messages that
    /// arrive
    Demo(demo::Options),
    /// Shows the events that `up --notify-url` posts, to try them out
    Listen(listen::ListenOptions),
    /// Writes completions for a shell to stdout
    Completions(completions::CompletionsOptions),
    /// Writes the man page, or the pages of all commands
    Man(completions::ManOptions),
    /// Runs one of the functions, as a child process of the other commands
    #[command(hide = true)]
    Function { name: function::FunctionName },
}

/// Runs the command of this process's arguments. An error is printed to stderr.
pub fn main() -> ExitCode {
    let CommandLine { api, command } = CommandLine::parse();
    match run(&api, command) {
        Ok(status) => status,
        Err(failure) => failure.report(),
    }
}

fn run(api: &api::Options, command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Broadcasts(command) => with_api(api, async |session| command.run(session).await)?,
        Command::Listen(options) => with_api(api, async |session| listen::run(session, &options).await)?,
        Command::Contacts(command) => with_api(api, async |session| command.run(session).await)?,
        Command::Pages(options) => with_api(api, async |session| pages::run(session, options).await)?,
        Command::Doctor(options) => with_api(api, async |session| doctor::run(session, options).await)?,
        Command::Console(options) => with_api(api, async |session| console::run(session, &options).await)?,
        Command::Up(options) => Runtime::new()?
            .block_on(up::run(*options))
            .map_err(|error| failed(&error))?,
        Command::Demo(options) => {
            return Runtime::new()?
                .block_on(demo::run(&options))
                .map_err(|error| failed(&error));
        }
        Command::Completions(options) => completions::completions(&options, CommandLine::command())?,
        Command::Man(options) => completions::man(&options, CommandLine::command())?,
        Command::Function { name } => function::run(name).map_err(|error| failed(&*error))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a command that talks to the API, until it has ended or Ctrl-C.
fn with_api(options: &api::Options, command: impl AsyncFnOnce(&Session) -> Result<(), Failure>) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let session = Session::new(options).await?;
        tokio::select! {
            biased;
            _ = signal::ctrl_c() => Err(session.interrupted()),
            result = command(&session) => result,
        }
    });
    // A thread may still wait for a line of the terminal.
    runtime.shutdown_background();
    result
}

fn failed(error: &(dyn Error + 'static)) -> Failure {
    Failure::new(Exit::Failed, with_causes(error))
}
