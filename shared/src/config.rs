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
    /// `PAGE_TOKENS`, as `file:PATH`: a JSON object of Page ids and their access tokens.
    pub page_tokens: PathBuf,
    /// `APP_SECRET`, as `file:PATH`: with it every call carries `appsecret_proof`.
    pub app_secret: Option<PathBuf>,
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
    /// `RETENTION_DAYS`: how long after its due time a job can be worked on.
    pub retention: Duration,
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
        Ok(Self {
            broadcasts_table: variables.required("BROADCASTS_TABLE")?,
            deliveries_table: variables.required("DELIVERIES_TABLE")?,
            contacts_table: variables.required("CONTACTS_TABLE")?,
            jobs_queue_url: variables.required("JOBS_QUEUE_URL")?,
            graph_api_url: variables.url("GRAPH_API_URL", "https://graph.facebook.com/v25.0")?,
            page_tokens: variables
                .file("PAGE_TOKENS")?
                .ok_or_else(|| missing("PAGE_TOKENS"))?,
            app_secret: variables.file("APP_SECRET")?,
            job_lease: variables.seconds("JOB_LEASE_SECONDS", 90, 3)?,
            page_rate: variables.or(
                "PAGE_RATE_PER_SECOND",
                const { NonZeroU32::new(30).unwrap() },
            )?,
            inline_limit: variables.number("INLINE_LIMIT", 25, 0..=1_000)?.into(),
            messenger_timeout: variables.seconds("MESSENGER_TIMEOUT_SECONDS", 10, 1)?,
            retry_base: variables.seconds("RETRY_BASE_SECONDS", 30, 1)?,
            retry_attempts: variables
                .or("RETRY_ATTEMPTS", const { NonZeroU32::new(5).unwrap() })?
                .get(),
            retention: DAY * variables.number("RETENTION_DAYS", 90, 1..=3_650)?,
        })
    }
}

struct Variables<F>(F);

impl<F: Fn(&str) -> Option<String>> Variables<F> {
    fn required(&self, variable: &'static str) -> Result<String, ConfigError> {
        (self.0)(variable)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| missing(variable))
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

    fn file(&self, variable: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        let Some(value) = (self.0)(variable).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        match value.strip_prefix("file:") {
            Some(path) => Ok(Some(PathBuf::from(path))),
            None => Err(ConfigError {
                variable,
                problem: "must be file:PATH".to_owned(),
            }),
        }
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
    }

    #[test]
    fn an_error_names_the_variable() {
        for (variable, value) in [
            ("BROADCASTS_TABLE", None),
            ("JOBS_QUEUE_URL", Some("")),
            ("PAGE_TOKENS", None),
            ("PAGE_TOKENS", Some("tokens.json")),
            ("APP_SECRET", Some("secret")),
            ("PAGE_RATE_PER_SECOND", Some("0")),
            ("GRAPH_API_URL", Some("graph.facebook.com/v25.0")),
            ("JOB_LEASE_SECONDS", Some("1")),
            ("RETENTION_DAYS", Some("4000000")),
            ("RETRY_ATTEMPTS", Some("many")),
        ] {
            assert_eq!(config(variable, value).unwrap_err().variable, variable);
        }
    }
}
