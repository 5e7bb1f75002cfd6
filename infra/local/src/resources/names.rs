//! The names of the tables and queues.

/// The names of the tables and queues. Queue names end in `.fifo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The table of broadcasts, jobs, segments, request keys and Page leases.
    pub broadcasts: String,
    /// The table of deliveries, with a row for each contact of a job.
    pub deliveries: String,
    /// The table of contacts.
    pub contacts: String,
    /// The queue of wake-ups.
    pub jobs_queue: String,
    /// The queue of wake-ups that failed too often.
    pub dead_letters: String,
}

impl Names {
    /// Returns names that begin with the same prefix, so that several stacks can share one account.
    pub fn with_prefix(prefix: &str) -> Names {
        Names {
            broadcasts: format!("{prefix}-broadcasts"),
            deliveries: format!("{prefix}-deliveries"),
            contacts: format!("{prefix}-contacts"),
            jobs_queue: format!("{prefix}-jobs.fifo"),
            dead_letters: format!("{prefix}-jobs-dead.fifo"),
        }
    }
}

impl Default for Names {
    fn default() -> Names {
        Names::with_prefix("oncecast")
    }
}
