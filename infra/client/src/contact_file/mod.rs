//! Files of contacts, of any size: CSV, or JSON with a contact in each line. A file is cut into parts, each a request, of which
//! several are stored at once.

mod parts;
mod refused;
mod source;
mod store;

pub use parts::{CutError, Part, Parts, Position};
pub use refused::{Refused, refused_csv};
pub use source::{NotContacts, Source};
pub use store::{Stopped, StoredPart};
