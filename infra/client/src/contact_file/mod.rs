//! Files of contacts, of any size: CSV, or JSON with a contact in each line. A file that is imported is cut into parts, each a request,
//! of which several are stored at once; an export is put together from parts.

mod export;
mod parts;
mod refused;
mod source;
mod store;

pub use export::CsvExport;
pub use parts::{CutError, Part, Parts, Position};
pub use refused::{Refused, refused_csv};
pub use source::{NotContacts, Source};
pub use store::{Stopped, StoredPart};
