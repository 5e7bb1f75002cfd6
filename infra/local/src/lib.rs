//! The whole of Oncecast on one machine, in one executable: `local demo`, `local up`.
//!
//! # Layout
//!
//! - [`stack`]: the system as one value, made of the parts below
//! - [`database`], [`queue`], [`resources`]: DynamoDB and SQS over HTTP, and what the functions need in them
//! - [`lambda`]: the functions as child processes that speak the Runtime API
//! - [`gateway`], [`event_source`], [`schedule`]: what invokes the functions
//! - [`sandbox`]: Messenger, with a ledger and with faults on request
//! - `command_line`, `up`, `demo`, `function_process`: the commands

pub mod clients;
mod command_line;
pub mod database;
mod demo;
mod duration;
pub mod event_source;
mod function_process;
pub mod gateway;
pub mod lambda;
pub mod page_tokens;
pub mod queue;
pub mod resources;
mod runtime_thread;
pub mod sandbox;
pub mod schedule;
mod server;
pub mod stack;
mod up;

pub use command_line::main;
