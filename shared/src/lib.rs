#![doc = include_str!("../README.md")]

pub mod app;
pub mod domain;
pub mod messenger;
pub mod reconcile;
pub mod runtime;
pub mod store;
pub mod worker;
