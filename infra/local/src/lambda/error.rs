//! The error of an invocation.

use std::io;

/// Failure of an invocation to return an answer.
#[derive(Debug, thiserror::Error)]
pub enum InvokeError {
    #[error("the function was killed at its time-out")]
    TimedOut,
    #[error("the function's process ended before it answered")]
    Crashed,
    #[error("the function failed: {0}")]
    Failed(String),
    #[error("no process could be started for the function")]
    Start(#[source] io::Error),
    #[error("its payload of {0} bytes is too large")]
    TooLarge(usize),
    #[error(
        "it would be the function's 17th invocation in one chain of requests: declare RecursiveLoop: Allow if that is meant"
    )]
    RecursiveLoop,
    #[error("the function is being stopped")]
    Stopped,
}
