//! Deliveries to one contact, over several jobs.

use std::collections::HashMap;

use serde::Deserialize;

use super::calls::{BATCH_GET, Read};
use super::deliveries::Deliveries;
use super::keys;
use super::tables::Error;
use crate::domain::delivery::Delivery;
use crate::domain::ids::{ContactId, JobId};

/// A row with its whole key.
#[derive(Deserialize)]
struct Row {
    job: String,
    #[serde(flatten)]
    delivery: Delivery,
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
}
