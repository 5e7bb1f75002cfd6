//! What Oncecast promises, as one can see it from outside. One binary, one fixture, a file per capability.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod accepting;
mod bad_input;
mod callers;
mod chance;
mod claiming;
mod coming_back;
mod command_line;
mod contacts;
mod every_step;
mod freezing;
mod inline;
mod keeping_data;
mod leaks;
mod long_run;
mod lost_answers;
mod metrics;
mod pacing;
mod parameters;
mod permissions;
mod pressure;
mod processes;
mod proxy;
mod reporting;
mod sending;
mod settling;
mod side_by_side;
mod size;
mod stack;
mod strikes;
mod template;
mod template_and_code;
mod up;
