//! The commands of the executable, and their exit statuses: 0 done, 1 failed, 2 not understood.

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::function_process::{self, FunctionName};
use crate::{demo, up};

#[derive(Debug, Parser)]
#[command(name = "local", about = "All of Oncecast on this machine")]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sends to 1,000 contacts of the sandbox, with repeated ids and killed processes, and counts what arrived
    Demo,
    /// Runs the API, the functions and all that they need, until Ctrl-C
    Up(up::Options),
    /// Runs one of the functions, as a child process of the other commands
    #[command(hide = true)]
    Function { name: FunctionName },
}

/// Runs what the command line asks for. What goes wrong is one line on stderr.
pub fn main() -> ExitCode {
    run(CommandLine::parse().command).unwrap_or_else(|error| {
        eprintln!("error: {}", in_one_line(&*error));
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    match command {
        Command::Demo => Ok(Runtime::new()?.block_on(demo::run())?),
        Command::Up(options) => {
            Runtime::new()?.block_on(up::run(options))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Function { name } => {
            function_process::run(name)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The error and its causes.
fn in_one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}
