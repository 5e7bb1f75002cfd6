//! Stores the parts of a file of contacts, several at once.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::{self, Stream, StreamExt};
use send::api::problems::Fault;
use tokio::sync::Semaphore;
use tokio::task;

use super::parts::{CutError, Part, Parts, Position};
use super::refused::Refused;
use crate::Client;
use crate::call::Error;

/// The parts that are stored at the same time.
const AT_ONCE: usize = 4;
/// The time from which an answer is slow: API Gateway gives up after 30 s.
const SLOW: Duration = Duration::from_secs(10);

/// A part that is stored.
#[derive(Debug)]
pub struct StoredPart {
    /// The place in the file where the part ends.
    pub end: Position,
    /// The bytes of the file that were read by then.
    pub read: u64,
    /// The contacts that were stored.
    pub contacts: u64,
    /// The contacts that were refused.
    pub refused_contacts: u64,
    /// The faults of those, of which one may have several.
    pub refused: Vec<Refused>,
}

/// The reason why an import does not go on.
#[derive(Debug)]
pub enum Stopped {
    /// The file cannot be read on.
    Cut(CutError),
    /// The API failed, or refused all of a part.
    Api {
        /// The failure.
        error: Box<Error>,
        /// The place in the file where the part begins.
        begin: Position,
        /// The faults of a part that was refused.
        faults: Vec<Refused>,
    },
}

impl Client {
    /// Stores the contacts of a file that are right, in the order of its parts. After a failure comes nothing more; parts below it
    /// may be stored by then.
    pub fn store_contacts(&self, parts: Parts) -> impl Stream<Item = Result<StoredPart, Stopped>> + Send + '_ {
        let parts = stream::unfold(Some(parts), async |parts| {
            let mut parts = parts?;
            let (part, parts) = task::spawn_blocking(move || (parts.next_part(), parts)).await.ok()?;
            match part.transpose()? {
                Ok(part) => Some((Ok(part), Some(parts))),
                Err(error) => Some((Err(error), None)),
            }
        });
        let pace = Arc::new(Pace::default());
        let stored = parts.map(move |part| {
            let pace = Arc::clone(&pace);
            async move {
                match part {
                    Ok(part) => pace.of(store(self, part)).await,
                    Err(error) => Err(Stopped::Cut(error)),
                }
            }
        });
        stored.buffered(AT_ONCE)
    }
}

/// The number of parts that are stored at the same time. It falls by one with each slow answer: a database that is full of work would
/// let all of them time out.
struct Pace {
    turns: Semaphore,
    left: AtomicUsize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            turns: Semaphore::new(AT_ONCE),
            left: AtomicUsize::new(AT_ONCE),
        }
    }
}

impl Pace {
    async fn of<T>(&self, part: impl Future<Output = T>) -> T {
        // It is never closed.
        let turn = self.turns.acquire().await.ok();
        let begun = Instant::now();
        let stored = part.await;
        let is_slow = begun.elapsed() >= SLOW && self.left.load(Ordering::Relaxed) > 1;
        if let Some(turn) = turn.filter(|_| is_slow) {
            self.left.fetch_sub(1, Ordering::Relaxed);
            turn.forget();
        }
        stored
    }
}

/// Stores the contacts of a part that are right.
async fn store(client: &Client, mut part: Part) -> Result<StoredPart, Stopped> {
    let body = mem::take(&mut part.body);
    let imported = match (part.contacts, part.is_csv()) {
        (0, _) => Ok(None),
        (_, true) => client.import_right_csv(body).await.map(Some),
        (_, false) => client.import_right_json(body).await.map(Some),
    };
    let located = |faults: &[Fault]| faults.iter().map(|fault| part.located(fault)).collect::<Vec<_>>();
    let imported = match imported {
        Ok(imported) => imported,
        Err(error) => {
            let faults = match &error {
                Error::Refused { problem, .. } => located(&problem.errors),
                _ => Vec::new(),
            };
            return Err(Stopped::Api {
                error: Box::new(error),
                begin: part.begin,
                faults,
            });
        }
    };
    let contacts = imported.as_ref().map_or(0, |imported| imported.upserted);
    let faults = imported.and_then(|imported| imported.refused).unwrap_or_default();
    let mut refused = located(&faults);
    let refused_contacts = part.contacts.saturating_sub(contacts) + part.refused.len() as u64;
    refused.append(&mut part.refused);
    refused.sort_by_key(|refused| refused.line);
    Ok(StoredPart {
        end: part.end,
        read: part.read,
        contacts,
        refused_contacts,
        refused,
    })
}
