//! The commands of the executable, and their exit statuses: 0 done, 1 failed, 2 not understood.

use std::error::Error;
use std::process::{self, ExitCode};
use std::{io, thread};

use clap::{Parser, Subcommand, ValueEnum};
use tokio::runtime::{self, Runtime};

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
    Demo(demo::Options),
    /// Runs the API, the functions and all that they need, until Ctrl-C
    Up(up::Options),
    /// Runs one of the functions, as a child process of the other commands
    #[command(hide = true)]
    Function { name: FunctionName },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FunctionName {
    Send,
    ProcessJob,
    Scheduled,
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
        Command::Demo(options) => return Ok(Runtime::new()?.block_on(demo::run(&options))?),
        Command::Up(options) => Runtime::new()?.block_on(up::run(options))?,
        Command::Function { name } => run_function(name)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Works for the Runtime API named in the environment until the parent is gone.
fn run_function(name: FunctionName) -> Result<(), lambda_runtime::Error> {
    thread::Builder::new()
        .name("parent".to_owned())
        .spawn(end_with_parent)?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match name {
            FunctionName::Send => send::run().await,
            FunctionName::ProcessJob => process_job::run().await,
            FunctionName::Scheduled => scheduled::run().await,
        }
    })
}

/// The parent holds the other end of our stdin and never writes: its end, however it comes, is ours too.
fn end_with_parent() {
    // An error says the same as the end of the stream: nobody is there any more.
    let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
    process::exit(0);
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
