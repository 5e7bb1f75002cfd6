//! The types of the protocol, and the rules that need neither network nor clock, so that unit tests can check them.
//!
//! Imports no other module of the crate.

pub mod access;
pub mod audience;
pub mod backlog;
pub mod breakers;
pub mod command;
pub mod consent;
pub mod contact;
pub mod control;
pub mod delivery;
pub mod digest;
pub mod event;
pub mod folding;
pub mod history;
pub mod ids;
pub mod import;
pub mod job;
pub mod markup;
pub mod message;
pub mod reasons;
pub mod retry;
pub mod schedule;
pub mod sending;
pub mod tags;
pub mod template;
pub mod visible;
pub mod window;
