//! A new broadcast: one form, which is checked by a dry run before it is sent.
//!
//! - `faults`: what is wrong with the fields of the form
//! - `recipients`: the fields that tell who gets it
//! - `form`: the whole form as a request of the API
//! - `view`: the page with the form
//! - `preview`: the message as contacts would get it, while it is written
//! - `send`: the check, the send, and the other buttons of the form

mod faults;
mod form;
pub mod preview;
mod recipients;
pub mod send;
pub mod view;
