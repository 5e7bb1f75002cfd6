//! The Conversations API: the messages that a Page and a contact have exchanged, including those that Oncecast did not
//! send.
//!
//! As in Messenger, it shows neither `metadata` nor the app that sent a message, times in whole seconds only, and
//! details of the newest messages only.

pub mod calls;
pub mod message;
pub mod people;
pub mod routes;
