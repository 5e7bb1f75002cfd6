//! The tables and queues that the functions need, created through the AWS SDK: the local counterpart of the AWS
//! template.

mod error;
mod names;
mod queues;
mod tables;

pub use self::error::ResourcesError;
pub use self::names::Names;
pub use self::queues::{QueueUrls, create_queues, queue_arn};
pub use self::tables::{create_missing_indexes, create_tables};
