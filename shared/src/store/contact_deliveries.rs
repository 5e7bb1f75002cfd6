//! Deliveries to one contact over several jobs, and of several contacts and jobs.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::calls::{BATCH_GET, Read};
use super::deliveries::Deliveries;
use super::keys;
use super::tables::Error;
use crate::domain::delivery::{Delivery, Metadata, PastDelivery};
use crate::domain::ids::{ContactId, JobId};

/// A row with its whole key.
#[derive(Deserialize)]
struct Row {
    job: String,
    #[serde(flatten)]
    delivery: Delivery,
}

/// The part of a row that tells whether its message has arrived.
#[derive(Deserialize)]
struct PastRow {
    job: String,
    #[serde(flatten)]
    delivery: PastDelivery,
}

impl Deliveries<'_> {
    /// Reads the deliveries of these jobs to one contact, as of now.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn of_contact(&self, contact_id: &ContactId, jobs: &[JobId]) -> Result<Vec<Delivery>, Error> {
        let keys: Vec<_> = jobs.iter().map(|job| keys::delivery(job, contact_id)).collect();
        self.get_all("read the deliveries of a contact", &keys).await
    }

    /// Reads the deliveries of these jobs to one contact as of a moment ago, at half the cost.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn of_contact_lately(
        &self,
        contact_id: &ContactId,
        jobs: &[JobId],
    ) -> Result<HashMap<JobId, Delivery>, Error> {
        const OPERATION: &str = "list the deliveries of a contact";
        let Self(store) = self;
        let mut rows = HashMap::with_capacity(jobs.len());
        for jobs in jobs.chunks(BATCH_GET) {
            let keys = jobs.iter().map(|job| keys::delivery(job, contact_id)).collect();
            let batch = store.batch_get(OPERATION, &store.deliveries, keys, None, Read::Eventual);
            let found: Vec<Row> = batch.await?;
            rows.extend(
                found
                    .into_iter()
                    .filter_map(|row| Some((JobId::parse(&row.job)?, row.delivery))),
            );
        }
        Ok(rows)
    }

    /// Returns those of these deliveries whose message is known to have arrived, as of a moment ago, at half the cost and a
    /// hundred in a request. None of them changes any more. Others may have arrived meanwhile.
    ///
    /// # Errors
    /// If DynamoDB does not answer.
    pub async fn arrived_among(&self, messages: &[&Metadata]) -> Result<HashSet<(JobId, ContactId)>, Error> {
        const FIELDS: &str = "job, contact_id, #status, arrived_as";
        const OPERATION: &str = "find deliveries that have arrived";
        let Self(store) = self;
        // DynamoDB refuses a key that is named twice.
        let named: HashSet<_> = messages
            .iter()
            .map(|message| (&message.job, &message.contact_id))
            .collect();
        let keys: Vec<_> = named
            .into_iter()
            .map(|(job, contact_id)| keys::delivery(job, contact_id))
            .collect();
        let mut arrived = HashSet::new();
        for keys in keys.chunks(BATCH_GET) {
            let batch = store.batch_get(
                OPERATION,
                &store.deliveries,
                keys.to_vec(),
                Some(FIELDS),
                Read::Eventual,
            );
            let found: Vec<PastRow> = batch.await?;
            let found = found.into_iter().filter(|row| row.delivery.has_arrived());
            arrived.extend(found.filter_map(|row| Some((JobId::parse(&row.job)?, row.delivery.contact_id))));
        }
        Ok(arrived)
    }
}
