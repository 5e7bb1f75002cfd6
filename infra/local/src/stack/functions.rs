//! The three functions of the system, and their environment.

use std::collections::BTreeMap;
use std::time::Duration;

use super::services::Services;
use super::settings::Settings;
use super::template::allows_recursive_loop;
use crate::gateway;
use crate::lambda::{Definition, Function, RecursiveLoop};
use crate::messenger::MessengerEndpoint;
use crate::secrets::SharedSecrets;

/// The time-out of the `send` function, on AWS too.
pub const SEND_TIMEOUT: Duration = gateway::ANSWER_TIMEOUT;
/// The time-out of the `scheduled` function, on AWS too.
pub const SCHEDULED_TIMEOUT: Duration = Duration::from_secs(60);

/// The three functions.
#[derive(Debug)]
pub struct Functions {
    pub send: Function,
    pub process_job: Function,
    pub scheduled: Function,
}

impl Functions {
    /// Returns the functions. They have no processes yet.
    pub fn new(settings: &Settings, env: &BTreeMap<String, String>) -> Functions {
        let function = |name: &str, timeout| {
            Function::new(Definition {
                name: name.to_owned(),
                executable: settings.executable.clone(),
                args: vec!["function".to_owned(), name.to_owned()],
                env: env.clone(),
                timeout,
                max_children: settings.max_children,
                recursive_loop: settings.recursive_loop.unwrap_or(match allows_recursive_loop(name) {
                    true => RecursiveLoop::Allow,
                    false => RecursiveLoop::Terminate,
                }),
            })
        };
        Functions {
            send: function("send", SEND_TIMEOUT),
            process_job: function("process-job", settings.process_timeout),
            scheduled: function("scheduled", SCHEDULED_TIMEOUT),
        }
    }

    /// Lets running invocations finish within `grace`, and then ends all processes.
    pub async fn stop(&self, grace: Duration) {
        tokio::join!(
            self.send.stop(grace),
            self.process_job.stop(grace),
            self.scheduled.stop(grace)
        );
    }
}

/// Returns the variables that are added to the functions' environment. Those of the settings take precedence over all
/// but the generated secrets and the claims of the callers' tokens.
pub fn environment(
    settings: &Settings,
    services: &Services,
    messenger: &MessengerEndpoint,
    secrets: Option<&SharedSecrets>,
) -> BTreeMap<String, String> {
    let [dynamodb, sqs] = services.endpoints_for_functions();
    let variables = [
        ("AWS_ENDPOINT_URL_DYNAMODB", dynamodb),
        ("AWS_ENDPOINT_URL_SQS", sqs),
        ("BROADCASTS_TABLE", &services.names.broadcasts),
        ("DELIVERIES_TABLE", &services.names.deliveries),
        ("CONTACTS_TABLE", &services.names.contacts),
        ("JOBS_QUEUE_URL", &services.queue_urls.jobs),
        ("GRAPH_API_URL", &messenger.url),
        ("PAGE_TOKENS", &messenger.page_tokens),
    ];
    let mut env = BTreeMap::from(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
    env.extend(settings.env.clone());
    if settings.api_tokens.is_some() {
        env.insert("PAGES_CLAIM".to_owned(), gateway::OPTIONAL_PAGES_CLAIM.to_owned());
    }
    if let Some(jwt) = &settings.jwt {
        let claims = [("PAGES_CLAIM", &jwt.pages_claim), ("ROLES_CLAIM", &jwt.roles_claim)];
        let given = claims
            .into_iter()
            .filter_map(|(name, claim)| Some((name.to_owned(), claim.clone()?)));
        env.extend(given);
    }
    env.extend(secrets.into_iter().flat_map(SharedSecrets::variables));
    env
}

/// Returns a variable of a function's environment: the added one, or else the inherited one.
pub fn variable(added: &BTreeMap<String, String>, name: &str) -> Option<String> {
    added.get(name).cloned().or_else(|| std::env::var(name).ok())
}
