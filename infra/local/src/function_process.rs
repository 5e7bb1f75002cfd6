//! `local function NAME`: this executable as one of the functions' processes.

use std::{io, process, thread};

use clap::ValueEnum;
use tokio::runtime;

/// A function that can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FunctionName {
    Send,
    ProcessJob,
    Scheduled,
}

/// Works for the Runtime API named in the environment until the parent is gone.
pub fn run(function: FunctionName) -> Result<(), lambda_runtime::Error> {
    thread::Builder::new()
        .name("parent".to_owned())
        .spawn(end_with_parent)?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match function {
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
