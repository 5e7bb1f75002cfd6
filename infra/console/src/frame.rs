//! The frame of every page.

use client::api::sending::SendingReport;

/// The part of the console that a page belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The broadcasts.
    Broadcasts,
    /// A new broadcast.
    New,
    /// The contacts.
    Contacts,
    /// The Pages.
    Pages,
    /// The sandbox.
    Sandbox,
    /// None of them.
    None,
}

/// The frame of a page.
#[derive(Debug)]
pub struct Chrome {
    /// The part that the page belongs to.
    pub section: Section,
    /// True if there is a sandbox.
    pub has_sandbox: bool,
    /// True if the visitor can sign out.
    pub signed_in: bool,
    /// The switch for sending, if it is off for all Pages.
    pub stopped: Option<SendingReport>,
}

impl Chrome {
    /// Returns a frame that tells nothing.
    pub fn bare(section: Section) -> Self {
        Self {
            section,
            has_sandbox: false,
            signed_in: false,
            stopped: None,
        }
    }

    /// Returns the mark of the current part, for a link to a part.
    pub fn current(&self, section: Section) -> &'static str {
        if self.section == section { "page" } else { "false" }
    }
}
