//! The API that a command talks to: its URL, the caller's token, and the patience with it.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;
use std::{env, fs};

use clap::Args;
use client::{Client, Patience, Signer, region_of};
use reqwest::Url;
use secrecy::SecretString;

use crate::failure::{Exit, Failure, is_this_machine};
use crate::output::Output;

/// The heading of these options in the help.
const HEADING: &str = "API";
/// The variable that holds a token.
const TOKEN: &str = "ONCECAST_TOKEN";
/// The time for which an API that is busy or has gone is asked again.
const PATIENCE: Duration = Duration::from_secs(120);
/// The shortest wait that the user is told of.
const WORTH_TELLING: Duration = Duration::from_millis(900);

/// The options that name the API and the caller.
#[derive(Debug, Args)]
pub struct Options {
    /// URL of the API, without /v1
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "ONCECAST_API",
        default_value = "http://127.0.0.1:3000",
        help_heading = HEADING
    )]
    api: String,
    /// File with the token of the caller; without it, the variable `ONCECAST_TOKEN` has the token, if one is needed
    #[arg(long, global = true, value_name = "FILE", help_heading = HEADING)]
    token_file: Option<PathBuf>,
    /// Signs requests with AWS credentials, as it is done without a token where the URL is one of API Gateway
    #[arg(long, global = true, conflicts_with = "token_file", help_heading = HEADING)]
    sign: bool,
    /// AWS Region that requests are signed for, if neither the URL nor the AWS configuration names it
    #[arg(long, global = true, value_name = "REGION", conflicts_with = "token_file", help_heading = HEADING)]
    region: Option<String>,
    /// Writes the API's own objects, one in a line
    #[arg(long, global = true, help_heading = HEADING)]
    json: bool,
}

/// The API and the output of one command.
#[derive(Debug)]
pub struct Session {
    /// The API.
    pub client: Client,
    /// The URL of the API.
    pub api: String,
    /// The output.
    pub output: Output,
    advice: Mutex<Vec<String>>,
}

impl Session {
    /// Returns the session of these options.
    ///
    /// # Errors
    ///
    /// Fails if the URL is none, the token cannot be read, or there are no AWS credentials to sign with.
    pub async fn new(options: &Options) -> Result<Self, Failure> {
        let output = Output::new(options.json);
        let client = Client::new(http(&options.api)?, &options.api)?.with_patience(patience(output.clone()));
        let region = options.region.clone().or_else(|| region_of(&options.api));
        let is_signed = options.sign || region.is_some();
        let client = match token(options)? {
            Some(token) => client.with_token(token),
            None if is_signed => {
                client.with_signer(Signer::from_environment(region).await.map_err(client::Error::from)?)
            }
            None => client,
        };
        let advice = Mutex::default();
        let api = options.api.trim_end_matches('/').to_owned();
        Ok(Self {
            client,
            api,
            output,
            advice,
        })
    }

    /// Keeps lines that tell what to do if the command is interrupted from now on.
    pub fn if_interrupted(&self, lines: &[String]) {
        // A poisoned lock holds lines all the same.
        let mut advice = self.advice.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *advice = lines.to_vec();
    }

    /// Returns the end of an interrupted command.
    pub fn interrupted(&self) -> Failure {
        let advice = self.advice.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let interrupted = Failure::new(Exit::Interrupted, "interrupted");
        advice.iter().fold(interrupted, |failure, line| failure.and(line))
    }
}

/// Returns the HTTP client. A proxy leads to other machines, not to this one.
fn http(api: &str) -> Result<reqwest::Client, Failure> {
    let is_local = Url::parse(api).is_ok_and(|url| url.host_str().is_some_and(is_this_machine));
    // A redirect would make a GET of a PUT; its place is told instead.
    let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let builder = if is_local { builder.no_proxy() } else { builder };
    Ok(builder.build().map_err(client::Error::Request)?)
}

/// Returns the patience of a person, who is told of each wait.
fn patience(output: Output) -> Patience {
    Patience::new(PATIENCE, move |error, delay| {
        if delay >= WORTH_TELLING {
            let what = match error.status() {
                Some(status) => format!("the API is busy ({})", status.as_u16()),
                None => "the API does not answer".to_owned(),
            };
            output.note(&format!("{what}; trying again in {:.0} s", delay.as_secs_f64().ceil()));
        }
    })
}

/// Returns the token of the file or of the variable.
fn token(options: &Options) -> Result<Option<SecretString>, Failure> {
    let (from, text) = match &options.token_file {
        Some(path) => {
            let text = fs::read_to_string(path).map_err(|error| Failure::of_file(path, &error))?;
            (path.display().to_string(), text)
        }
        None => match env::var(TOKEN) {
            Ok(text) => (TOKEN.to_owned(), text),
            Err(_) => return Ok(None),
        },
    };
    let token = text.trim();
    let is_token = !token.is_empty() && token.chars().all(|c| c.is_ascii_graphic());
    match is_token {
        true => Ok(Some(SecretString::from(token.to_owned()))),
        false if token.is_empty() && options.token_file.is_none() => Ok(None),
        false => Err(Failure::new(Exit::Arguments, format!("{from} holds no token"))
            .and("a token is one word of visible ASCII characters")),
    }
}
