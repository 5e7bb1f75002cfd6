//! A control: the changes of all its jobs and the entry of the history, all or nothing.

use jiff::Timestamp;

use super::Transactions;
use crate::domain::control::JobChange;
use crate::domain::history::HistoryEntry;
use crate::domain::ids::token;
use crate::domain::job::Job;
use crate::store::calls::{Transaction, is_refusal};
use crate::store::controls;
use crate::store::history::{self, History};
use crate::store::tables::Error;

/// The end of a control.
#[derive(Debug)]
pub enum Controlled {
    /// All of it is written; these jobs are to be woken now.
    Written(Vec<Job>),
    /// Nothing is written: a job has changed since it was read.
    Changed,
}

impl Transactions<'_> {
    /// Changes jobs of one broadcast that are as they were read, and adds the entry to its history. At least one job is to be
    /// changed.
    ///
    /// # Errors
    /// If DynamoDB does not answer: the control may be written, and a repetition then finds the jobs as it wants them.
    pub async fn control(
        &self,
        changes: &[(Job, JobChange)],
        history: &History,
        entry: &HistoryEntry,
        now: Timestamp,
    ) -> Result<Controlled, Error> {
        const OPERATION: &str = "control a broadcast";
        let Self(store) = self;
        let id = token();
        let mut parts = Vec::with_capacity(changes.len() + 2);
        for (job, change) in changes {
            parts.push(controls::change(store, job, change, now).into_part(OPERATION)?);
        }
        let jobs = changes.iter().map(|(job, _)| job);
        if let Some(job) = jobs.max_by_key(|job| job.retained_until) {
            let entry = (entry, id.as_str());
            let more = history::add(store, OPERATION, &job.broadcast_id, history, entry, job.retained_until)?;
            parts.extend(more);
        }
        if let Transaction::Refused(reasons) = store.transact(OPERATION, parts, &id).await?
            // The entry is there: this very control was written, and its answer was lost.
            && !reasons.get(changes.len()).is_some_and(is_refusal)
        {
            return Ok(Controlled::Changed);
        }
        let woken = changes
            .iter()
            .filter_map(|(job, change)| controls::woken(job, change, now));
        Ok(Controlled::Written(woken.collect()))
    }
}
