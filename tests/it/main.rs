//! What Oncecast promises, as one can see it from outside. One binary, one fixture, a file per capability.

mod accepting;
mod claiming;
mod coming_back;
mod lost_answers;
mod pacing;
mod processes;
mod reporting;
mod sending;
mod stack;
