//! Configuration: environment variables, read once at start.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

/// What the functions are told by their environment.
#[derive(Clone, Debug)]
pub struct Config {
    /// `BROADCASTS_TABLE`.
    pub broadcasts_table: String,
    /// `DELIVERIES_TABLE`.
    pub deliveries_table: String,
    /// `CONTACTS_TABLE`.
    pub contacts_table: String,
    /// `JOBS_QUEUE_URL`.
    pub jobs_queue_url: String,
    /// `GRAPH_API_URL`: base of all Messenger calls, version included, without a slash at its end.
    pub graph_api_url: String,
    /// `PAGE_TOKENS`: a file with a JSON object of Page ids and their access tokens, or what the names of parameters begin
    /// with and Page ids end.
    pub page_tokens: Source,
    /// `APP_SECRET`: with it every call carries `appsecret_proof`, and webhooks are verified.
    pub app_secret: Option<Source>,
    /// `WEBHOOK_VERIFY_TOKEN`: what Meta must know to subscribe to webhooks for us.
    pub webhook_verify_token: Option<Source>,
    /// `JOB_LEASE_SECONDS`: how long a worker that says nothing is taken for alive.
    pub job_lease: Duration,
    /// `PAGE_RATE_PER_SECOND`: sends a second for one Page; Messenger stops a Page above 40.
    pub page_rate: NonZeroU32,
    /// `INLINE_LIMIT`: broadcasts to so many contacts are worked off in the request itself; 0 switches that off.
    pub inline_limit: u64,
    /// `MESSENGER_TIMEOUT_SECONDS`: for a whole request.
    pub messenger_timeout: Duration,
    /// `RETRY_BASE_SECONDS`: the first back-off; each further one is twice as long.
    pub retry_base: Duration,
    /// `RETRY_ATTEMPTS`: after so many the contact has failed.
    pub retry_attempts: u32,
    /// `DOUBT_CHECK_SECONDS`: how long after its reservation a send that is in doubt is looked up, and again, in ascending
    /// order.
    pub doubt_checks: Vec<Duration>,
    /// `IN_DOUBT_POLICY`: what becomes of a send that the last look-up did not find.
    pub in_doubt_policy: InDoubtPolicy,
    /// `RETENTION_DAYS`: how long after its due time a job can be worked on.
    pub retention: Duration,
    /// `PAGES_CLAIM`: the claim of a JWT that names the Pages which its bearer may use; none: all.
    pub pages_claim: Option<String>,
    /// `METRICS_NAMESPACE`: what the metrics are printed for, if they are.
    pub metrics_namespace: Option<String>,
}

/// Where a secret is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `file:PATH`
    File(PathBuf),
    /// `ssm:NAME`: a parameter of the Systems Manager.
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

/// What becomes of a send that may have arrived, once the last look-up has found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InDoubtPolicy {
    /// It stays in doubt, for the operator to see: nobody gets a message twice.
    Hold,
    /// It is sent again. Whoever chooses this assumes that no process is frozen between reserving and sending, and that no
    /// message stays invisible to look-ups, for longer than the age of the last look-up: otherwise somebody gets it twice.
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

/// Ages in seconds, apart by commas.
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
    /// Its name.
    pub variable: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl Config {
    /// Reads the environment of this process.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Reads variables from anywhere: a test has several environments in one process.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let variables = Variables(variable);
        let messenger_timeout = variables.seconds("MESSENGER_TIMEOUT_SECONDS", 10, 1)?;
        let in_doubt_policy = variables.or("IN_DOUBT_POLICY", InDoubtPolicy::Hold)?;
        let default_checks = Ages([150, 600].map(Duration::from_secs).to_vec());
        let Ages(doubt_checks) = variables.or("DOUBT_CHECK_SECONDS", default_checks)?;
        // A reservation may be as old as the time-out when it is used, and the send may take as long again.
        let too_early = |last: &Duration| *last <= 2 * messenger_timeout;
        if in_doubt_policy == InDoubtPolicy::Resend && doubt_checks.last().is_none_or(too_early) {
            return Err(ConfigError {
                variable: "DOUBT_CHECK_SECONDS",
                problem: "must end with more than twice MESSENGER_TIMEOUT_SECONDS, for IN_DOUBT_POLICY is resend"
                    .to_owned(),
            });
        }
        Ok(Self {
            broadcasts_table: variables.required("BROADCASTS_TABLE")?,
            deliveries_table: variables.required("DELIVERIES_TABLE")?,
            contacts_table: variables.required("CONTACTS_TABLE")?,
            jobs_queue_url: variables.required("JOBS_QUEUE_URL")?,
            graph_api_url: variables.url("GRAPH_API_URL", "https://graph.facebook.com/v25.0")?,
            page_tokens: variables
                .source("PAGE_TOKENS")?
                .ok_or_else(|| missing("PAGE_TOKENS"))?,
            app_secret: variables.source("APP_SECRET")?,
            webhook_verify_token: variables.source("WEBHOOK_VERIFY_TOKEN")?,
            job_lease: variables.seconds("JOB_LEASE_SECONDS", 90, 3)?,
            page_rate: variables.or(
                "PAGE_RATE_PER_SECOND",
                const { NonZeroU32::new(30).unwrap() },
            )?,
            inline_limit: variables.number("INLINE_LIMIT", 25, 0..=1_000)?.into(),
            messenger_timeout,
            retry_base: variables.seconds("RETRY_BASE_SECONDS", 30, 1)?,
            retry_attempts: variables
                .or("RETRY_ATTEMPTS", const { NonZeroU32::new(5).unwrap() })?
                .get(),
            doubt_checks,
            in_doubt_policy,
            retention: DAY * variables.number("RETENTION_DAYS", 90, 1..=3_650)?,
            pages_claim: variables.optional("PAGES_CLAIM"),
            metrics_namespace: variables.optional("METRICS_NAMESPACE"),
        })
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

    fn or<T: FromStr<Err: Display>>(
        &self,
        variable: &'static str,
        default: T,
    ) -> Result<T, ConfigError> {
        let Some(value) = (self.0)(variable).filter(|value| !value.is_empty()) else {
            return Ok(default);
        };
        value.parse().map_err(|error| ConfigError {
            variable,
            problem: format!("is {value:?}: {error}"),
        })
    }

    /// Seconds, an hour at most.
    fn seconds(
        &self,
        variable: &'static str,
        default: u32,
        least: u32,
    ) -> Result<Duration, ConfigError> {
        let seconds = self.number(variable, default, least..=3_600)?;
        Ok(Duration::from_secs(seconds.into()))
    }

    fn number(
        &self,
        variable: &'static str,
        default: u32,
        allowed: RangeInclusive<u32>,
    ) -> Result<u32, ConfigError> {
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

    /// The base of an HTTP API. What is no URL would be found out at the first send, and cost a doubt.
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

    /// The problem does not quote the value: somebody may have put the secret itself there.
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
            "BROADCASTS_TABLE" | "DELIVERIES_TABLE" | "CONTACTS_TABLE" | "JOBS_QUEUE_URL" => {
                Some(name.to_lowercase())
            }
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
    }

    #[test]
    fn whoever_resends_looks_when_no_send_can_be_under_way() {
        let resending = |checks: &'static str| {
            Config::from_variables(|name| match name {
                "IN_DOUBT_POLICY" => Some("resend".to_owned()),
                "DOUBT_CHECK_SECONDS" => Some(checks.to_owned()),
                "PAGE_TOKENS" => Some("file:tokens.json".to_owned()),
                name if name.ends_with("_TABLE") || name.ends_with("_URL") => {
                    Some("http://name".to_owned())
                }
                _ => None,
            })
        };
        assert!(resending("5,21").is_ok());
        assert!(resending("5,20").is_err());
    }

    #[test]
    fn an_error_names_the_variable() {
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
            ("DOUBT_CHECK_SECONDS", Some("600,150")),
            ("DOUBT_CHECK_SECONDS", Some("150,")),
            ("DOUBT_CHECK_SECONDS", Some("0")),
        ] {
            assert_eq!(config(variable, value).unwrap_err().variable, variable);
        }
    }
}
