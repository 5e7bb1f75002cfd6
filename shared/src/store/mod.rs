//! The three tables. One function per transition: the expression it writes, its condition, and the meaning of a refusal.
//!
//! A call tells its file: `store.jobs().claim(…)` is in `jobs.rs`. [`transactions`] writes several items at once, and is the
//! only file that imports several of the others. [`keys`] lists the items and their keys.

pub mod audience_index;
pub mod audiences;
pub mod broadcasts;
mod calls;
mod contact_deliveries;
mod contact_list;
pub mod contact_tags;
pub mod contacts;
mod controls;
pub mod deliveries;
pub mod delivery_filter;
pub mod doubts;
pub mod events;
pub mod found_contacts;
pub mod hand_over;
pub mod history;
pub mod imported_contacts;
pub mod imports;
pub mod jobs;
pub mod keys;
pub mod members;
mod older_contacts;
pub mod page_leases;
pub mod pages;
pub mod progress;
mod reopening;
pub mod requests;
pub mod segments;
pub mod sending;
pub mod skips;
mod statement;
mod tables;
pub mod transactions;

pub use self::tables::{Error, Store};

impl Store {
    /// Contacts.
    pub fn contacts(&self) -> contacts::Contacts<'_> {
        contacts::Contacts(self)
    }

    /// Saved audiences.
    pub fn audiences(&self) -> audiences::Audiences<'_> {
        audiences::Audiences(self)
    }

    /// Broadcasts.
    pub fn broadcasts(&self) -> broadcasts::Broadcasts<'_> {
        broadcasts::Broadcasts(self)
    }

    /// Jobs.
    pub fn jobs(&self) -> jobs::Jobs<'_> {
        jobs::Jobs(self)
    }

    /// The progress of jobs.
    pub fn progress(&self) -> progress::Progress<'_> {
        progress::Progress(self)
    }

    /// Imports of a Page's contacts.
    pub fn imports(&self) -> imports::Imports<'_> {
        imports::Imports(self)
    }

    /// Segments.
    pub fn segments(&self) -> segments::Segments<'_> {
        segments::Segments(self)
    }

    /// Deliveries.
    pub fn deliveries(&self) -> deliveries::Deliveries<'_> {
        deliveries::Deliveries(self)
    }

    /// Deliveries in doubt.
    pub fn doubts(&self) -> doubts::Doubts<'_> {
        doubts::Doubts(self)
    }

    /// Events.
    pub fn events(&self) -> events::Events<'_> {
        events::Events(self)
    }

    /// Leases of Pages.
    pub fn page_leases(&self) -> page_leases::PageLeases<'_> {
        page_leases::PageLeases(self)
    }

    /// The Pages that have contacts.
    pub fn pages(&self) -> pages::KnownPages<'_> {
        pages::KnownPages(self)
    }

    /// Request keys.
    pub fn requests(&self) -> requests::Requests<'_> {
        requests::Requests(self)
    }

    /// The switch for sending.
    pub fn sending(&self) -> sending::Sending<'_> {
        sending::Sending(self)
    }

    /// Transitions of several items at once.
    pub fn transactions(&self) -> transactions::Transactions<'_> {
        transactions::Transactions(self)
    }
}
