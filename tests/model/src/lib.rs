//! The delivery protocol as a state machine small enough to be searched completely.
//!
//! - [`protocol`]: everything that happens to one job after its broadcast was accepted; `protocol::audience` is how its contacts
//!   are found.
//! - [`recovery`]: the runs that finish the job from any of these states.
//! - [`evidence`]: the conclusions of a lookup where two broadcasts send the same text.
//! - [`accept`]: requests with the same idempotency key.
//! - [`pages`]: a contact that is deleted, and created again on another Page, while a broadcast to an audience goes on.
//!
//! `shared/README.md` lists what is left out. Each rule that the code follows for safety is a field of the model's `Rules`;
//! the tests remove the rules one at a time and see what breaks.

pub mod accept;
pub mod evidence;
pub mod pages;
pub mod protocol;
pub mod recovery;
