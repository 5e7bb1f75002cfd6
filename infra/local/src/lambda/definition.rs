//! The definition of a function.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The name, executable and limits of a function.
#[derive(Debug, Clone)]
pub struct Definition {
    /// The function's name, the value of `AWS_LAMBDA_FUNCTION_NAME`.
    pub name: String,
    /// The executable of the function's processes.
    pub executable: PathBuf,
    /// The arguments of the executable.
    pub args: Vec<String>,
    /// The variables that are added to this process's environment, which the function's processes inherit.
    pub env: BTreeMap<String, String>,
    /// The time-out of one invocation.
    pub timeout: Duration,
    /// The maximal number of processes, and so of concurrent invocations.
    pub max_children: u32,
    /// The consequence of too many invocations in one chain of requests.
    pub recursive_loop: RecursiveLoop,
}

/// The consequence of a recursive loop, as `RecursiveLoop` of the template declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecursiveLoop {
    /// None: the function is meant to invoke itself.
    Allow,
    /// Invocations are refused from the 17th in a chain on.
    Terminate,
}
