//! The environment of a process: configuration, secrets, clock, queue, logs, spans and metrics.
//!
//! Imports [`domain`](crate::domain) only.

pub mod clock;
pub mod config;
pub mod metrics;
pub mod parameters;
pub mod queue;
pub mod secrets;
pub mod spans;
pub mod telemetry;
pub mod tls;
