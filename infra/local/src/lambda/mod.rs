//! Lambda on this machine: each function runs as child processes that speak the Lambda Runtime API.

mod child;
mod definition;
mod error;
mod function;
mod runtime_api;
mod trace;

pub use self::definition::{Definition, RecursiveLoop};
pub use self::error::InvokeError;
pub use self::function::{Function, RunningProcess, Slot};

#[cfg(test)]
pub mod tests;
