//! The contacts of the next sends, read in one call and as of a moment ago: a read of each by itself, as of now, would be a quarter of
//! all requests, and cost twice as much.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use jiff::Timestamp;

use crate::app::App;
use crate::domain::contact::Contact;
use crate::domain::ids::ContactId;
use crate::store;

/// The longest time between the read of a contact and its reservation. With what a read lags behind, an opt-out of about three
/// seconds ago may not be seen.
const VALID_FOR: Duration = Duration::from_secs(2);

/// The most contacts that are read at once, as many as DynamoDB takes in one call.
const MOST: usize = 100;

/// A contact as it was read, if there is one.
#[derive(Debug)]
pub struct ReadContact {
    /// The contact.
    pub contact: Option<Arc<Contact>>,
    /// The time before the read.
    pub at: Timestamp,
    /// The instant before the read.
    pub since: Instant,
    /// The contact was read as of then, and not as of a moment before.
    pub is_current: bool,
}

impl ReadContact {
    /// Reads a contact as of now.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn as_of_now(app: &App, contact_id: &ContactId) -> Result<Self, store::Error> {
        let (at, since) = (app.clock.now(), Instant::now());
        let contact = app.store.contacts().get(contact_id).await?;
        Ok(Self {
            contact: contact.map(Arc::new),
            at,
            since,
            is_current: true,
        })
    }
}

/// The contacts of a batch that exist: the answer to one read, for which several sends may wait.
type Found<'a> = Shared<BoxFuture<'a, Result<Arc<HashMap<ContactId, Arc<Contact>>>, Arc<store::Error>>>>;

/// The contacts of the last read that were not taken yet. The read may be under way.
struct Batch<'a> {
    at: Timestamp,
    since: Instant,
    not_taken: HashSet<ContactId>,
    found: Found<'a>,
}

/// The contacts of the next sends.
pub struct ReadAhead<'a> {
    app: &'a App,
    valid_for: Duration,
    batch: Option<Batch<'a>>,
}

impl<'a> ReadAhead<'a> {
    /// Returns no contacts.
    pub fn new(app: &'a App) -> Self {
        Self {
            app,
            // A reservation counts as being as old as the read, and is not used when it is older than the time-out.
            valid_for: VALID_FOR.min(app.config.messenger_timeout / 5),
            batch: None,
        }
    }

    /// Returns `true` if the last batch has a contact that was not taken yet, and was not read too long ago.
    pub fn has(&self, contact_id: &ContactId) -> bool {
        let batch = self.batch.as_ref();
        batch.is_some_and(|batch| batch.not_taken.contains(contact_id) && batch.since.elapsed() <= self.valid_for)
    }

    /// Begins to read these contacts, or as many of them as are read at once, in place of the last batch.
    pub fn begin<'c>(&mut self, contact_ids: impl Iterator<Item = &'c ContactId>) {
        let ids = contact_ids.take(MOST).cloned().collect();
        self.batch = Some(Batch::of(self.app, ids));
    }

    /// Takes a contact of the last batch. It is read by itself, as of now, if it is not there or was read too long ago.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub fn take(
        &mut self,
        contact_id: &ContactId,
    ) -> impl Future<Output = Result<ReadContact, store::Error>> + Send + use<'a> {
        let (app, valid_for, contact_id) = (self.app, self.valid_for, contact_id.clone());
        let read = self.batch.as_mut().and_then(|batch| {
            let is_there = batch.not_taken.remove(&contact_id);
            is_there.then(|| (batch.at, batch.since, batch.found.clone()))
        });
        async move {
            if let Some((at, since, found)) = read {
                let found = found.await.map_err(|error| store::Error::Unsettled {
                    operation: "read contacts ahead",
                    source: Box::new(error),
                })?;
                if since.elapsed() <= valid_for {
                    return Ok(ReadContact {
                        contact: found.get(&contact_id).cloned(),
                        at,
                        since,
                        is_current: false,
                    });
                }
            }
            ReadContact::as_of_now(app, &contact_id).await
        }
    }
}

impl<'a> Batch<'a> {
    fn of(app: &'a App, ids: Vec<ContactId>) -> Self {
        let not_taken = ids.iter().cloned().collect();
        let read = async move {
            let found = app.store.contacts().get_all_lately(&ids).await.map_err(Arc::new)?;
            let shared = found.into_iter().map(|(id, contact)| (id, Arc::new(contact)));
            Ok(Arc::new(shared.collect()))
        };
        Self {
            at: app.clock.now(),
            since: Instant::now(),
            not_taken,
            found: read.boxed().shared(),
        }
    }
}
