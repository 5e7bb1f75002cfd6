//! The requests and answers of the HTTP API, by resource. The handlers, the OpenAPI document and the clients use them.
//!
//! A request that is read from a caller is not deserialized into these structs at once: [`Fields`](crate::fields::Fields) reads it,
//! which tells all faults of a request together.

pub mod audiences;
pub mod broadcasts;
pub mod changes;
pub mod checks;
pub mod contacts;
pub mod controls;
pub mod conversations;
pub mod deliveries;
pub mod history;
pub mod lists;
pub mod messages;
pub mod pages;
pub mod previews;
pub mod problems;
pub mod progress;
pub mod reasons;
pub mod sending;
pub mod tags;
pub mod test_sends;
