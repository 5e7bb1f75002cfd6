//! `oncecast function NAME`: one of the three Lambda functions, as a child process of `up` or `demo`.

use std::{io, process, thread};

use clap::ValueEnum;
use tokio::runtime;

/// The name of a function, as the stack passes it to the child process.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FunctionName {
    Send,
    ProcessJob,
    Scheduled,
}

/// Serves the Lambda Runtime API that the environment names, until the parent process has ended.
///
/// # Errors
///
/// Fails if the runtime cannot be set up, or if the function's configuration is not valid.
pub fn run(name: FunctionName) -> Result<(), lambda_runtime::Error> {
    thread::Builder::new()
        .name("parent".to_owned())
        .spawn(exit_with_parent)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match name {
            FunctionName::Send => send::run().await,
            FunctionName::ProcessJob => process_job::run().await,
            FunctionName::Scheduled => scheduled::run().await,
        }
    })
}

/// Exits the process when its stdin is closed. The parent holds the other end and never writes, so stdin is closed by
/// the parent's end, even by a kill.
fn exit_with_parent() {
    // A read error means the same as the end of the stream: the parent is gone.
    let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
    process::exit(0);
}
