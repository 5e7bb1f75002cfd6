//! Configuration: environment variables, read once at start. The fields of [`Config`] are the list of all variables.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::domain::consent::Words;

const DAY: Duration = Duration::from_secs(86_400);

/// The configuration of the functions. Each field names its variable, its default, and the values that are allowed; a variable
/// without a default is required or, where the field is an `Option`, may be absent. An empty variable counts as absent.
#[derive(Clone, Debug)]
pub struct Config {
    /// `BROADCASTS_TABLE`: the name of the table of broadcasts, jobs, segments, request keys and Page leases.
    pub broadcasts_table: String,
    /// `DELIVERIES_TABLE`: the name of the table of deliveries.
    pub deliveries_table: String,
    /// `CONTACTS_TABLE`: the name of the table of contacts.
    pub contacts_table: String,
    /// `JOBS_QUEUE_URL`: the URL of the queue of wake-ups.
    pub jobs_queue_url: String,
    /// `GRAPH_API_URL` (default `https://graph.facebook.com/v25.0`): the base URL of all calls to Messenger, version included.
    /// Kept without a slash at its end.
    pub graph_api_url: String,
    /// `PAGE_TOKENS` (`file:PATH` or `ssm:PREFIX`): the Page access tokens, either in a file with a JSON object of Page ids and
    /// tokens, or in one parameter per Page whose name is the prefix followed by the Page id.
    pub page_tokens: Source,
    /// `APP_SECRET` (`file:PATH` or `ssm:NAME`): the app's secret. With it every call carries `appsecret_proof`, and webhooks
    /// are verified; without it they are refused.
    pub app_secret: Option<Source>,
    /// `WEBHOOK_VERIFY_TOKEN` (`file:PATH` or `ssm:NAME`): the token that Meta must present to subscribe this endpoint to
    /// webhooks.
    pub webhook_verify_token: Option<Source>,
    /// `JOB_LEASE_SECONDS` (default 90; 3 to 3,600): the lease of a job, extended at each checkpoint.
    pub job_lease: Duration,
    /// `PAGE_RATE_PER_SECOND` (default 30; from 1): the sends per second of one Page. Messenger stops a Page above 40 per second,
    /// see <https://developers.facebook.com/documentation/business-messaging/messenger-platform/overview/rate-limiting>.
    pub page_rate: NonZeroU32,
    /// `INLINE_LIMIT` (default 25; 0 to 1,000): the most contacts of a broadcast that is sent within the request itself; 0
    /// switches that off.
    pub inline_limit: u64,
    /// `MESSENGER_TIMEOUT_SECONDS` (default 10; 1 to 3,600): the time-out of a whole request to Messenger.
    pub messenger_timeout: Duration,
    /// `RETRY_BASE_SECONDS` (default 30; 1 to 3,600): the first back-off; each further one is twice as long.
    pub retry_base: Duration,
    /// `RETRY_ATTEMPTS` (default 5; from 1): the number of attempts after which a contact is `failed`.
    pub retry_attempts: u32,
    /// `DOUBT_CHECK_SECONDS` (default `150,600`; one to eight ages of 1 to 604,800, ascending): the ages, counted from the
    /// reservation, at which a send in doubt is looked up.
    pub doubt_checks: Vec<Duration>,
    /// `IN_DOUBT_POLICY` (default `hold`; `hold` or `resend`): the treatment of a send that the last lookup did not find.
    pub in_doubt_policy: InDoubtPolicy,
    /// `REQUIRE_APPROVAL` (default `off`; `on` or `off`): every broadcast needs the approval of another caller than its maker.
    pub require_approval: bool,
    /// `RETENTION_DAYS` (default 90; 1 to 3,650): the time after its due time during which a job can be worked on.
    pub retention: Duration,
    /// `PAGES_CLAIM`: the JWT claim that names the Pages which its bearer may use; without it a bearer may use every Page.
    pub pages_claim: Option<String>,
    /// `ROLES_CLAIM`: the JWT claim that lists the scopes of its bearer as roles or groups; without it API Gateway checks scopes.
    pub roles_claim: Option<String>,
    /// `MIN_GAP_SECONDS` (default 0, which switches it off; to 2,592,000): the time after a send to a contact in which no other
    /// broadcast is sent to it. It costs a write of the contact for each send.
    pub min_gap: Option<Duration>,
    /// `OPT_OUT_WORDS` (default `stop,unsubscribe`; `off`: none): the messages by which a contact opts out.
    pub opt_out_words: Words,
    /// `OPT_IN_WORDS`: the messages by which a contact opts in again; without it there are none.
    pub opt_in_words: Words,
    /// `CONTACTS_FROM_WEBHOOKS` (`on` or `off`; by default `on` if `APP_SECRET` and `WEBHOOK_VERIFY_TOKEN` are set): a person of whom
    /// Messenger reports a message or the like becomes a contact.
    pub contacts_from_webhooks: bool,
    /// `PROFILES` (default `off`; `on` or `off`): Messenger is asked for what a text needs of a contact's profile and the contact
    /// lacks, before the text is sent.
    pub profiles: bool,
    /// `METRICS_NAMESPACE`: the CloudWatch namespace of the metrics; without it no metrics are printed.
    pub metrics_namespace: Option<String>,
}

/// The place of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `file:PATH`: a file.
    File(PathBuf),
    /// `ssm:NAME`: a parameter of AWS Systems Manager.
    Parameter(String),
}

impl FromStr for Source {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(PathBuf::from(path))),
            Some(("ssm", name)) if !name.is_empty() => Ok(Self::Parameter(name.to_owned())),
            _ => Err("must be file:PATH or ssm:NAME"),
        }
    }
}

/// The treatment of a send in doubt, once the last lookup has found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InDoubtPolicy {
    /// The send stays in doubt, listed for the operator: no contact gets a message twice.
    Hold,
    /// The message is sent again. This assumes that no process is frozen between reserving and sending, and that no message
    /// stays invisible to lookups, for longer than the age of the last lookup; and that Messenger shows a text as it was sent,
    /// except for its line ends and the white space around it. Otherwise a contact gets it twice.
    Resend,
}

impl FromStr for InDoubtPolicy {
    type Err = &'static str;

    fn from_str(policy: &str) -> Result<Self, Self::Err> {
        match policy {
            "hold" => Ok(Self::Hold),
            "resend" => Ok(Self::Resend),
            _ => Err("must be hold or resend"),
        }
    }
}

/// A setting that is `on` or `off`.
struct Switch(bool);

impl FromStr for Switch {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "on" => Ok(Self(true)),
            "off" => Ok(Self(false)),
            _ => Err("must be on or off"),
        }
    }
}

/// Ages in seconds, separated by commas.
struct Ages(Vec<Duration>);

impl FromStr for Ages {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "must be whole seconds in ascending order, apart by commas: one to eight, a week at most";
        let ages: Result<Vec<_>, _> = text.split(',').map(|age| age.trim().parse()).collect();
        let ages: Vec<u64> = ages.map_err(|_| WRONG)?;
        let ascending = ages.is_sorted_by(|age, later| age < later);
        let in_bounds = ages.iter().all(|age| (1..=604_800).contains(age)) && ages.len() <= 8;
        if !ascending || !in_bounds {
            return Err(WRONG);
        }
        Ok(Self(ages.into_iter().map(Duration::from_secs).collect()))
    }
}

/// A variable that is missing or wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {problem}")]
pub struct ConfigError {
    /// The name of the variable.
    pub variable: &'static str,
    /// The problem, as a predicate of the name.
    pub problem: String,
}

impl Config {
    /// Reads the configuration from the environment of this process.
    ///
    /// # Errors
    /// If a variable is missing or has a value that is not allowed.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Reads the configuration from any source of variables, since a test has several environments in one process.
    ///
    /// # Errors
    /// If a variable is missing or has a value that is not allowed.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let variables = Variables(variable);
        let messenger_timeout = variables.seconds("MESSENGER_TIMEOUT_SECONDS", 10, 1)?;
        let in_doubt_policy = variables.or("IN_DOUBT_POLICY", InDoubtPolicy::Hold)?;
        let default_checks = Ages([150, 600].map(Duration::from_secs).to_vec());
        let Ages(doubt_checks) = variables.or("DOUBT_CHECK_SECONDS", default_checks)?;
        // A reservation may be as old as the time-out when it is used, and the send may take as long again: a lookup before
        // that could miss a message that is still on its way.
        let too_early = |last: &Duration| *last <= 2 * messenger_timeout;
        if in_doubt_policy == InDoubtPolicy::Resend && doubt_checks.last().is_none_or(too_early) {
            return Err(ConfigError {
                variable: "DOUBT_CHECK_SECONDS",
                problem: "must end with more than twice MESSENGER_TIMEOUT_SECONDS, for IN_DOUBT_POLICY is resend"
                    .to_owned(),
            });
        }
        let default_words: Words = "stop,unsubscribe".parse().unwrap_or_default();
        let opt_out_words = variables.or("OPT_OUT_WORDS", default_words)?;
        let opt_in_words = variables.or("OPT_IN_WORDS", Words::default())?;
        if opt_in_words.overlap(&opt_out_words) {
            return Err(ConfigError {
                variable: "OPT_IN_WORDS",
                problem: "must have no word of OPT_OUT_WORDS".to_owned(),
            });
        }
        let app_secret = variables.source("APP_SECRET")?;
        let webhook_verify_token = variables.source("WEBHOOK_VERIFY_TOKEN")?;
        let has_webhook = app_secret.is_some() && webhook_verify_token.is_some();
        Ok(Self {
            broadcasts_table: variables.required("BROADCASTS_TABLE")?,
            deliveries_table: variables.required("DELIVERIES_TABLE")?,
            contacts_table: variables.required("CONTACTS_TABLE")?,
            jobs_queue_url: variables.required("JOBS_QUEUE_URL")?,
            graph_api_url: variables.url("GRAPH_API_URL", "https://graph.facebook.com/v25.0")?,
            page_tokens: variables.source("PAGE_TOKENS")?.ok_or_else(|| missing("PAGE_TOKENS"))?,
            app_secret,
            webhook_verify_token,
            job_lease: variables.seconds("JOB_LEASE_SECONDS", 90, 3)?,
            page_rate: variables.or("PAGE_RATE_PER_SECOND", const { NonZeroU32::new(30).unwrap() })?,
            inline_limit: variables.number("INLINE_LIMIT", 25, 0..=1_000)?.into(),
            messenger_timeout,
            retry_base: variables.seconds("RETRY_BASE_SECONDS", 30, 1)?,
            retry_attempts: variables
                .or("RETRY_ATTEMPTS", const { NonZeroU32::new(5).unwrap() })?
                .get(),
            doubt_checks,
            in_doubt_policy,
            require_approval: variables.or("REQUIRE_APPROVAL", Switch(false))?.0,
            retention: DAY * variables.number("RETENTION_DAYS", 90, 1..=3_650)?,
            pages_claim: variables.optional("PAGES_CLAIM"),
            roles_claim: variables.optional("ROLES_CLAIM"),
            min_gap: Some(variables.number("MIN_GAP_SECONDS", 0, 0..=2_592_000)?)
                .filter(|seconds| *seconds > 0)
                .map(|seconds| Duration::from_secs(seconds.into())),
            opt_out_words,
            opt_in_words,
            contacts_from_webhooks: variables.or("CONTACTS_FROM_WEBHOOKS", Switch(has_webhook))?.0,
            profiles: variables.or("PROFILES", Switch(false))?.0,
            metrics_namespace: variables.optional("METRICS_NAMESPACE"),
        })
    }

    /// Returns the time for which a send may go on after its job is completed: a worker that was overtaken may hold a
    /// reservation. As [`InDoubtPolicy::Resend`] does, it assumes that none is frozen for longer than the age of the last lookup.
    pub fn longest_send(&self) -> Duration {
        2 * self.messenger_timeout + self.doubt_checks.last().copied().unwrap_or_default()
    }
}

struct Variables<F>(F);

impl<F: Fn(&str) -> Option<String>> Variables<F> {
    fn optional(&self, variable: &'static str) -> Option<String> {
        (self.0)(variable).filter(|value| !value.is_empty())
    }

    fn required(&self, variable: &'static str) -> Result<String, ConfigError> {
        self.optional(variable).ok_or_else(|| missing(variable))
    }

    fn or<T: FromStr<Err: Display>>(&self, variable: &'static str, default: T) -> Result<T, ConfigError> {
        let Some(value) = (self.0)(variable).filter(|value| !value.is_empty()) else {
            return Ok(default);
        };
        value.parse().map_err(|error| ConfigError {
            variable,
            problem: format!("is {value:?}: {error}"),
        })
    }

    /// Reads a number of seconds, an hour at most.
    fn seconds(&self, variable: &'static str, default: u32, least: u32) -> Result<Duration, ConfigError> {
        let seconds = self.number(variable, default, least..=3_600)?;
        Ok(Duration::from_secs(seconds.into()))
    }

    fn number(&self, variable: &'static str, default: u32, allowed: RangeInclusive<u32>) -> Result<u32, ConfigError> {
        let value = self.or(variable, default)?;
        if allowed.contains(&value) {
            return Ok(value);
        }
        let (least, most) = allowed.into_inner();
        Err(ConfigError {
            variable,
            problem: format!("is {value}, and must be from {least} to {most}"),
        })
    }

    /// Reads the base URL of an HTTP API. A value that is no URL would fail only at the first send, and put it in doubt.
    fn url(&self, variable: &'static str, default: &str) -> Result<String, ConfigError> {
        let value = self.or(variable, default.to_owned())?;
        let parsed = reqwest::Url::parse(&value);
        if !parsed.is_ok_and(|url| url.has_host() && ["http", "https"].contains(&url.scheme())) {
            return Err(ConfigError {
                variable,
                problem: format!("is {value:?}, and must be an http or https URL"),
            });
        }
        Ok(value.trim_end_matches('/').to_owned())
    }

    /// Reads the place of a secret. The error does not quote the value, which may be the secret itself by mistake.
    fn source(&self, variable: &'static str) -> Result<Option<Source>, ConfigError> {
        let Some(value) = self.optional(variable) else {
            return Ok(None);
        };
        let source = value.parse().map_err(|problem: &str| ConfigError {
            variable,
            problem: problem.to_owned(),
        });
        source.map(Some)
    }
}

fn missing(variable: &'static str) -> ConfigError {
    ConfigError {
        variable,
        problem: "is not set".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(changed: &str, value: Option<&str>) -> Result<Config, ConfigError> {
        Config::from_variables(|name| match name {
            name if name == changed => value.map(str::to_owned),
            "BROADCASTS_TABLE" | "DELIVERIES_TABLE" | "CONTACTS_TABLE" | "JOBS_QUEUE_URL" => Some(name.to_lowercase()),
            "PAGE_TOKENS" => Some("file:tokens.json".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let config = config("", None).unwrap();
        assert_eq!(config.graph_api_url, "https://graph.facebook.com/v25.0");
        assert_eq!(config.job_lease.as_secs(), 90);
        assert_eq!(config.page_rate.get(), 30);
        assert_eq!(config.retention.as_secs(), 90 * 86_400);
        assert_eq!(config.doubt_checks, [150, 600].map(Duration::from_secs));
        assert_eq!(config.in_doubt_policy, InDoubtPolicy::Hold);
        assert!(!config.contacts_from_webhooks && !config.profiles);
    }

    #[test]
    fn contacts_come_from_webhooks_where_a_webhook_is_set_up() {
        let comes = |given: &'static [&'static str]| {
            let config = Config::from_variables(|name| match name {
                name if given.contains(&name) || name == "PAGE_TOKENS" => Some("file:x".to_owned()),
                "CONTACTS_FROM_WEBHOOKS" => given.contains(&"off").then(|| "off".to_owned()),
                name if name.ends_with("_TABLE") || name == "JOBS_QUEUE_URL" => Some(name.to_lowercase()),
                _ => None,
            });
            config.unwrap().contacts_from_webhooks
        };
        assert!(comes(&["APP_SECRET", "WEBHOOK_VERIFY_TOKEN"]));
        assert!(!comes(&["APP_SECRET"]) && !comes(&["WEBHOOK_VERIFY_TOKEN"]));
        assert!(!comes(&["APP_SECRET", "WEBHOOK_VERIFY_TOKEN", "off"]));
    }

    #[test]
    fn resend_requires_a_lookup_after_every_send_has_ended() {
        let resending = |checks: &'static str| {
            Config::from_variables(|name| match name {
                "IN_DOUBT_POLICY" => Some("resend".to_owned()),
                "DOUBT_CHECK_SECONDS" => Some(checks.to_owned()),
                "PAGE_TOKENS" => Some("file:tokens.json".to_owned()),
                name if name.ends_with("_TABLE") || name.ends_with("_URL") => Some("http://name".to_owned()),
                _ => None,
            })
        };
        assert!(resending("5,21").is_ok());
        assert!(resending("5,20").is_err());
    }

    #[test]
    fn error_names_the_variable() {
        for (variable, value) in [
            ("BROADCASTS_TABLE", None),
            ("JOBS_QUEUE_URL", Some("")),
            ("PAGE_TOKENS", None),
            ("PAGE_TOKENS", Some("tokens.json")),
            ("PAGE_TOKENS", Some("ssm:")),
            ("APP_SECRET", Some("secret")),
            ("WEBHOOK_VERIFY_TOKEN", Some("file:")),
            ("PAGE_RATE_PER_SECOND", Some("0")),
            ("GRAPH_API_URL", Some("graph.facebook.com/v25.0")),
            ("JOB_LEASE_SECONDS", Some("1")),
            ("RETENTION_DAYS", Some("4000000")),
            ("RETRY_ATTEMPTS", Some("many")),
            ("IN_DOUBT_POLICY", Some("guess")),
            ("REQUIRE_APPROVAL", Some("yes")),
            ("CONTACTS_FROM_WEBHOOKS", Some("yes")),
            ("PROFILES", Some("yes")),
            ("DOUBT_CHECK_SECONDS", Some("600,150")),
            ("DOUBT_CHECK_SECONDS", Some("150,")),
            ("DOUBT_CHECK_SECONDS", Some("0")),
        ] {
            assert_eq!(config(variable, value).unwrap_err().variable, variable);
        }
    }
}
