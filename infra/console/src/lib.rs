//! Web pages for the operators of Oncecast.
