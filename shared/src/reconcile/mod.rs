//! The work of `scheduled` and of echo webhooks: wakes jobs that are due, and settles deliveries in doubt.

mod lookup;
pub mod settle;
pub mod wake;
