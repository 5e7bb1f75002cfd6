//! The whole of Oncecast on one machine, in one executable: `local demo`, `local up`.
//!
//! # Layout
//!
//! - [`stack`]: the system as one value, made of the parts below
//! - [`database`], [`queue`], [`resources`]: DynamoDB and SQS over HTTP, and what the functions need in them
//! - [`data_dir`], `recovery`: what is kept from one start to the next, and how it goes on
//! - [`lambda`]: the functions as child processes that speak the Runtime API
//! - [`calls`]: who called what of AWS, if somebody asks
//! - `gateway`, `event_source`, `schedule`: what invokes the functions
//! - [`sandbox`]: Messenger, with a ledger and with faults on request; `messenger`: it, or the real one; `secrets`: what the
//!   sandbox and the functions both know
//! - `command_line`, `up`, `demo`: the commands

pub mod calls;
pub mod clients;
mod command_line;
pub mod data_dir;
pub mod database;
mod demo;
mod event_source;
mod gateway;
pub mod lambda;
mod messenger;
pub mod queue;
mod recovery;
pub mod resources;
mod runtime_thread;
pub mod sandbox;
mod schedule;
mod secrets;
mod server;
pub mod stack;
mod up;

pub use command_line::main;
