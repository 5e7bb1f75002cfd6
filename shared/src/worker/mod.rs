//! The work on a job: a claim, a run over its backlog, and the delivery to each contact; or a run of an import.
//!
//! Imports go downwards: [`claim`], [`run`], [`drain`], [`resolve`] and `import`, then the parts of a run.

pub mod announce;
pub mod calls;
pub mod claim;
pub mod deliver;
pub mod drain;
mod hand_over;
mod import;
mod in_flight;
mod minutes;
pub mod pace;
mod prevented;
mod profiles;
mod read_ahead;
pub mod resolve;
pub mod run;
mod segment_ahead;
mod send_again;
mod sends;
mod spacing;
mod stop;
mod suspects;
