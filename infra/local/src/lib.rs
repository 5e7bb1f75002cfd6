//! The whole of Oncecast on one machine: the three functions as child processes, and the AWS services and the Messenger
//! that they call.
//!
//! # Layout
//!
//! - [`stack`]: the system as one value, made of the parts below
//! - [`database`], [`queue`], [`resources`]: DynamoDB and SQS over HTTP, and the tables and queues in them
//! - [`data_dir`], `recovery`: the data that is kept from one start to the next, and the jobs that it resumes
//! - [`lambda`]: the functions as child processes that speak the Lambda Runtime API
//! - [`calls`]: an optional log of the AWS actions that each function calls
//! - [`server`]: the HTTP server that each of them is, on 127.0.0.1 only
//! - `gateway`, `event_source`, `schedule`: the parts that invoke the functions
//! - [`notify`]: the delivery of events to a URL
//! - [`sandbox`]: a stand-in for Messenger, with a ledger and injected faults; `messenger`: the choice between the
//!   sandbox and the real Messenger; `secrets`: the secrets that the sandbox shares with the functions

pub mod calls;
pub mod clients;
pub mod data_dir;
pub mod database;
mod event_source;
pub mod gateway;
pub mod lambda;
mod messenger;
pub mod notify;
pub mod queue;
mod recovery;
pub mod resources;
mod runtime_thread;
pub mod sandbox;
mod schedule;
mod secrets;
pub mod server;
pub mod stack;

pub use messenger::SANDBOX_PAGES;
