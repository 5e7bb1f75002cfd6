//! The promise of Oncecast, tested from outside: one binary, one fixture, a file per capability.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod accepting;
mod bad_input;
mod callers;
mod claiming;
mod clocks;
mod command_line;
mod contacts;
mod data_directory;
mod degraded_services;
mod exhaustive_faults;
mod fixture;
mod frozen_processes;
mod full_disk;
mod inline;
mod large_requests;
mod late_echoes;
mod layout;
mod local_doors;
mod long_run;
mod lookups;
mod lost_answers;
mod metrics;
mod mixed_versions;
mod odd_lookups;
mod pacing;
mod parameters;
mod permissions;
mod processes;
mod random_faults;
mod raw_http;
mod real_inputs;
mod recovery;
mod refusals;
mod reporting;
mod resending;
mod secret_leaks;
mod sending;
mod sending_switch;
mod settling;
mod stale_workers;
mod template_and_code;
mod webhook_events;
mod webhooks;
