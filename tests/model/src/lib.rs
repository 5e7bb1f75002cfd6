//! The delivery protocol as a state machine small enough to be searched whole.
//!
//! [`protocol`] is what happens to one job after it was accepted, [`recovery`] closes any state of it by a worker that comes
//! to its end, [`evidence`] is what a look-up may conclude where two broadcasts have one text, and [`accept`] is what happens
//! to requests with one key. What is left out is listed in `shared/README.md`.
//!
//! Each rule that the code follows for safety's sake is a field of the model's `Rules`; the tests take them out one by one and
//! see what breaks.

pub mod accept;
pub mod evidence;
pub mod protocol;
pub mod recovery;
