//! Reads that lag, as they may on AWS: an eventually consistent read, and every query of an index, shows the state of a
//! moment ago. A copy of the database, which makes each write some time later, answers them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use dynoxide::{Database, DynoxideError};
use jiff::Timestamp;
use shared::runtime::clock::Clock;

use super::operations::{Kind, answer};

/// The time after which lagging reads show a write. On AWS they mostly do within milliseconds, but nothing is promised.
pub const LAG: Duration = Duration::from_secs(2);

/// A copy of the database as it was [`LAG`] ago.
pub struct Replica {
    time: Time,
    // Locked before `pending`, where both are.
    database: Mutex<Database>,
    /// The writes that it has not made yet, from the first.
    pending: Mutex<VecDeque<Write>>,
}

/// The time by which a replica lags. It goes by a clock, and stands still while that goes back.
struct Time {
    clock: Clock,
    /// The clock's last reading, and the time that has passed.
    last: Mutex<(Timestamp, Duration)>,
}

impl Time {
    fn new(clock: Clock) -> Time {
        let last = Mutex::new((clock.now(), Duration::ZERO));
        Time { clock, last }
    }

    /// Returns the time that has passed.
    fn passed(&self) -> Duration {
        let (mut last, now) = (locked(&self.last), self.clock.now());
        let since = now.duration_since(last.0);
        *last = (now, last.1 + Duration::try_from(since).unwrap_or_default());
        last.1
    }
}

struct Write {
    at: Duration,
    operation: String,
    body: Bytes,
}

impl Replica {
    /// Returns a replica of a database as it is now, which lags by this clock.
    pub fn new(database: &Database, clock: Clock) -> Result<Replica, DynoxideError> {
        Ok(Replica {
            time: Time::new(clock),
            database: Mutex::new(copy(database)?),
            pending: Mutex::default(),
        })
    }

    /// Answers a read that lags, once the writes before are made. That takes its time, and must not hold up the database.
    pub fn read(&self, operation: &str, body: &[u8]) -> Result<String, DynoxideError> {
        let database = locked(&self.database);
        self.write_until(&database, self.time.passed())?;
        answer(&database, operation, body)
    }

    /// Runs any other operation on the database, and remembers it if it is a write.
    pub fn pass_on(&self, primary: &Database, operation: &str, body: Bytes) -> Result<String, DynoxideError> {
        match Kind::of(operation) {
            Kind::Read => answer(primary, operation, &body),
            Kind::Items => {
                // Locked until the write is remembered, so that the order is that of the database.
                let mut pending = locked(&self.pending);
                let answered = answer(primary, operation, &body)?;
                let (at, operation) = (self.time.passed(), operation.to_owned());
                pending.push_back(Write { at, operation, body });
                Ok(answered)
            }
            // A table that is active is so for all reads.
            Kind::Tables => {
                let database = locked(&self.database);
                let answered = answer(primary, operation, &body)?;
                self.write_until(&database, Duration::MAX)?;
                answer(&database, operation, &body)?;
                Ok(answered)
            }
        }
    }

    /// Removes the items past their TTL from the database and from the replica, and returns their number in the database.
    pub fn sweep_ttl(&self, primary: &Database) -> Result<usize, DynoxideError> {
        let database = locked(&self.database);
        let expired = primary.sweep_ttl()?;
        self.write_until(&database, Duration::MAX)?;
        database.sweep_ttl()?;
        Ok(expired)
    }

    /// Makes the writes that are old enough at this time. Each succeeds as it did in the database, since the writes before
    /// it are the same.
    fn write_until(&self, database: &Database, now: Duration) -> Result<(), DynoxideError> {
        let next = || locked(&self.pending).pop_front_if(|write| write.at + LAG <= now);
        while let Some(write) = next() {
            answer(database, &write.operation, &write.body)?;
        }
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns a copy of a database, in memory.
fn copy(database: &Database) -> Result<Database, DynoxideError> {
    let copy = Database::memory()?;
    if database.table_count()? > 0 {
        let failed = |error: std::io::Error| DynoxideError::InternalServerError(error.to_string());
        let directory = tempfile::tempdir().map_err(failed)?;
        let file = directory.path().join("copy.sqlite3");
        let file = file.to_str().unwrap_or("copy.sqlite3");
        database.vacuum_into(file)?;
        copy.restore_from(file)?;
    }
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::AttributeValue;
    use jiff::SignedDuration;
    use tempfile::TempDir;

    use super::*;
    use crate::clients;
    use crate::database::{Database as Endpoint, Reads};
    use crate::resources::{Names, create_tables};

    const CONTACT: &str = "ana";

    fn text(text: &str) -> AttributeValue {
        AttributeValue::S(text.to_owned())
    }

    async fn write(dynamodb: &aws_sdk_dynamodb::Client, names: &Names) {
        let put = dynamodb.put_item().table_name(&names.contacts);
        let put = put
            .item("contact_id", text(CONTACT))
            .item("page_shard", text("page-1#0"));
        put.send().await.unwrap();
    }

    /// Returns which reads show the contact: a consistent one, one that may lag, and a query of an index.
    async fn shown(dynamodb: &aws_sdk_dynamodb::Client, names: &Names) -> [bool; 3] {
        let get = dynamodb.get_item().table_name(&names.contacts);
        let get = get.key("contact_id", text(CONTACT));
        let query = dynamodb.query().table_name(&names.contacts).index_name("audience");
        let query = query
            .key_condition_expression("page_shard = :shard")
            .expression_attribute_values(":shard", text("page-1#0"));
        [
            get.clone().consistent_read(true).send().await.unwrap().item.is_some(),
            get.send().await.unwrap().item.is_some(),
            query.send().await.unwrap().count == 1,
        ]
    }

    #[tokio::test]
    async fn inconsistent_reads_and_indexes_lag() {
        let (clock, names) = (Clock::default(), Names::default());
        let database = Endpoint::start(Reads::Lagging(clock.clone())).unwrap();
        let dynamodb = clients::dynamodb(database.endpoint());
        create_tables(&dynamodb, &names).await.unwrap();
        write(&dynamodb, &names).await;

        clock.advance(SignedDuration::from_hours(-1));
        assert_eq!(shown(&dynamodb, &names).await, [true, false, false]);
        clock.advance(SignedDuration::try_from(LAG).unwrap());
        assert_eq!(shown(&dynamodb, &names).await, [true, true, true]);
    }

    #[tokio::test]
    async fn replica_begins_with_the_data_of_the_file() {
        let (directory, names) = (TempDir::new().unwrap(), Names::default());
        let file = directory.path().join("database");
        {
            let database = Endpoint::open(&file, Reads::Current).unwrap();
            let dynamodb = clients::dynamodb(database.endpoint());
            create_tables(&dynamodb, &names).await.unwrap();
            write(&dynamodb, &names).await;
            assert_eq!(shown(&dynamodb, &names).await, [true, true, true]);
        }

        let database = Endpoint::open(&file, Reads::Lagging(Clock::default())).unwrap();

        let dynamodb = clients::dynamodb(database.endpoint());
        assert_eq!(shown(&dynamodb, &names).await, [true, true, true]);
    }
}
