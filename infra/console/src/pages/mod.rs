//! The Pages.
//!
//! - `list`: the list
//! - `one`: one Page, its switch for sending, and the import of its contacts

pub mod list;
pub mod one;

use client::api::pages::PageReport;
use client::api::progress::TokenState;
use shared::domain::ids::PageId;
use shared::domain::sending::{SendingState, SendingSwitch};

use crate::fields::in_path;

/// Returns the path of a Page.
fn path(page_id: &PageId) -> String {
    format!("/pages/{}", in_path(page_id.as_str()))
}

/// Returns what keeps a Page from sending, with the class of its colour.
fn state(page: &PageReport) -> (&'static str, &'static str) {
    let switch = page.switch.as_ref().map_or(SendingState::On, |switch| switch.state);
    match (page.token, switch) {
        (TokenState::Missing, _) => ("failed", "no access token"),
        (TokenState::Refused, _) => ("failed", "token refused"),
        (_, SendingState::Off) => ("paused", "switched off"),
        (_, SendingState::Halt) => ("halted", "halts broadcasts"),
        (TokenState::Unknown, _) => ("waiting", "token not readable now"),
        (TokenState::Ok, _) if page.paused_until.is_some() => ("waiting", "limited by Messenger"),
        (TokenState::Ok, _) => ("completed", "ready"),
    }
}

/// Returns the reason of a switch that is off.
fn reason(switch: &SendingSwitch) -> Option<&str> {
    switch.reason.as_deref().filter(|_| switch.state != SendingState::On)
}
