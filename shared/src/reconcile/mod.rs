//! The work of `scheduled` and of echo webhooks: wakes jobs that are due, settles deliveries in doubt, and
//! gives contacts of an earlier version their place in the index of audiences.

mod lookup;
pub mod older_contacts;
pub mod settle;
pub mod wake;
