//! The command line `oncecast`, which runs all of Oncecast on one machine by means of the crate [`local`].
//!
//! Exit statuses: 0 for success, 1 for a failure, 2 for arguments that are not valid.
//!
//! - `up`: `oncecast up`, which runs the system until Ctrl-C
//! - `demo`: `oncecast demo`, which sends to the sandbox and counts the messages that arrived
//! - `function`: `oncecast function NAME`, which the other two start as child processes
//!
//! All of it is in a library, so that another executable, such as the one of the tests, can be the same command line.

mod demo;
mod function;
mod up;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

#[derive(Debug, Parser)]
#[command(name = "oncecast", about = "Runs all of Oncecast on this machine")]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sends to 1,000 contacts of the sandbox, with repeated ids and killed processes, and counts the messages that
    /// arrive
    Demo(demo::Options),
    /// Runs the API, the functions and the services that they need, until Ctrl-C
    Up(Box<up::Options>),
    /// Runs one of the functions, as a child process of the other commands
    #[command(hide = true)]
    Function { name: function::FunctionName },
}

/// Runs the command of this process's arguments. An error is printed to stderr in one line.
pub fn main() -> ExitCode {
    run(CommandLine::parse().command).unwrap_or_else(|error| {
        eprintln!("error: {}", with_causes(&*error));
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    match command {
        Command::Demo(options) => return Ok(Runtime::new()?.block_on(demo::run(&options))?),
        Command::Up(options) => Runtime::new()?.block_on(up::run(*options))?,
        Command::Function { name } => function::run(name)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the error and its causes as one line.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}
