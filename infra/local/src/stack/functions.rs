//! The three functions, as they are set up on AWS.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::gateway;
use crate::lambda::{Definition, Function};

use super::Settings;

/// How many processes a function may have, and so how many Pages are worked on at once.
const MAX_CHILDREN: u32 = 10;
/// The `scheduled` function has this long, on AWS too.
const SCHEDULED_TIMEOUT: Duration = Duration::from_secs(60);

/// The functions of a stack.
#[derive(Debug)]
pub struct Functions {
    pub send: Function,
    pub process_job: Function,
    pub scheduled: Function,
}

impl Functions {
    /// `variables` tell the functions where everything is; the settings may add to them.
    pub fn new(settings: &Settings, variables: &BTreeMap<&str, &str>) -> Functions {
        let mut env: BTreeMap<String, String> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        env.extend(settings.env.clone());
        let function = |name: &str, timeout| {
            Function::new(Definition {
                name: name.to_owned(),
                executable: settings.executable.clone(),
                args: vec!["function".to_owned(), name.to_owned()],
                env: env.clone(),
                timeout,
                max_children: MAX_CHILDREN,
            })
        };
        Functions {
            send: function("send", gateway::ANSWER_TIMEOUT),
            process_job: function("process-job", settings.process_timeout),
            scheduled: function("scheduled", SCHEDULED_TIMEOUT),
        }
    }

    /// Stops all three at once.
    pub async fn stop(&self, grace: Duration) {
        tokio::join!(
            self.send.stop(grace),
            self.process_job.stop(grace),
            self.scheduled.stop(grace)
        );
    }
}
