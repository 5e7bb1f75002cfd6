//! The failure of a command: what happened, what to do, and the exit status.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use client::SignError;
use reqwest::StatusCode;

use crate::text::plain;

/// The exit statuses as the help shows them.
pub const STATUSES: &str = "\
Exit statuses:
    0  done
    1  failed for another reason
    2  the arguments are wrong, or a file that they name
    3  the API was not reached, or did not answer in time: repeat it
    4  the API refused the caller: its token or signature, or its scope
    5  the API refused the request; its faults are listed
    6  done in part: contacts were refused, or messages are not sent
  130  interrupted

NO_COLOR=1 has no colours. The README of infra/cli tells more.";

/// The most characters that are shown of an answer that is none of Oncecast's.
const MAX_FOREIGN: usize = 200;

/// The reason why a command ends without success, as its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Nothing that the user has to know: the reader of the output has gone.
    Quiet = 0,
    /// A reason that the others do not name.
    Failed = 1,
    /// The arguments, or a file that they name, are wrong.
    Arguments = 2,
    /// The API was not reached, or did not answer in time.
    Unreachable = 3,
    /// The API refused the caller.
    Denied = 4,
    /// The API refused the request.
    Refused = 5,
    /// Done in part.
    InPart = 6,
    /// Interrupted by the user.
    Interrupted = 130,
}

/// The failure of a command.
#[derive(Debug)]
pub struct Failure {
    /// The exit status.
    pub exit: Exit,
    what: String,
    details: Vec<String>,
}

impl Failure {
    /// Returns a failure that is told in one line.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        let (what, details) = (what.into(), Vec::new());
        Self { exit, what, details }
    }

    /// Returns the failure of a file, whose name the line begins with.
    pub fn of_file(path: &std::path::Path, error: &(dyn Error + 'static)) -> Self {
        Self::new(Exit::Failed, format!("{}: {}", path.display(), with_causes(error)))
    }

    /// Returns the end of a command whose reader has gone, as in `oncecast report ID | head`. It is told to nobody.
    pub fn quiet() -> Self {
        Self::new(Exit::Quiet, "")
    }

    /// Adds a line: a fault, or what to do.
    pub fn and(mut self, line: impl Into<String>) -> Self {
        self.details.push(line.into());
        self
    }

    /// Prints the failure to stderr, and returns the exit status.
    pub fn report(&self) -> ExitCode {
        if self.exit != Exit::Quiet {
            let mut text = format!("error: {}\n", plain(&self.what));
            for line in &self.details {
                text.push_str(&format!("  {}\n", plain(line)));
            }
            // Nobody is left to tell if stderr fails, too.
            let _ = io::stderr().write_all(text.as_bytes());
        }
        ExitCode::from(self.exit as u8)
    }
}

/// A failure of the machine, such as too few file descriptors.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        match &error {
            client::Error::Request(source) => Self::new(
                Exit::Arguments,
                format!("the request cannot be built: {}", with_causes(source)),
            )
            .and("name the API by --api URL or ONCECAST_API, such as http://127.0.0.1:3000"),
            client::Error::Unanswered { call, source } => unanswered(call, source),
            client::Error::NotTheApi { status, .. } => Self::new(exit_of(*status), error.to_string())
                .and("no Oncecast API is there: --api and ONCECAST_API name it, without /v1"),
            client::Error::NotSigned(cause) => Self::new(Exit::Denied, with_causes(cause)).and(match cause {
                SignError::NoRegion => "name it by --region REGION or AWS_REGION",
                SignError::NoCredentials(_) => {
                    "set AWS_PROFILE, log in by `aws sso login`, or give a token by ONCECAST_TOKEN"
                }
                SignError::Expired => "renew them, such as by `aws sso login`, and repeat the command",
                SignError::Signing(_) => "check the AWS credentials",
            }),
            client::Error::Clock { .. } => Self::new(Exit::Denied, error.to_string())
                .and("set the clock of this machine, such as by `timedatectl set-ntp true`, and repeat the command"),
            client::Error::Unreadable { .. } => Self::new(Exit::Failed, with_causes(&error))
                .and("--api and ONCECAST_API name an Oncecast API of this version, without /v1"),
            client::Error::Refused {
                status,
                problem,
                request_id,
                ..
            } => {
                // API Gateway, a proxy or another server wrote an answer in another form.
                let is_foreign = problem.kind == "about:blank";
                let what = match is_foreign {
                    true => error
                        .to_string()
                        .lines()
                        .next()
                        .unwrap_or_default()
                        .chars()
                        .take(MAX_FOREIGN)
                        .collect(),
                    false => problem.detail.clone(),
                };
                let mut failure = Self::new(exit_of(*status), what);
                for fault in &problem.errors {
                    failure = failure.and(format!("{} {}", fault.field, fault.message));
                }
                failure.details.extend(remedy(*status, is_foreign).map(str::to_owned));
                if let Some(id) = request_id.as_ref().filter(|_| status.is_server_error()) {
                    failure = failure.and(format!("the log of the API names the request {id}"));
                }
                failure
            }
        }
    }
}

fn exit_of(status: StatusCode) -> Exit {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED => Exit::Denied,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Exit::Unreachable,
        status if status.is_client_error() => Exit::Refused,
        _ => Exit::Failed,
    }
}

fn remedy(status: StatusCode, is_foreign: bool) -> Option<&'static str> {
    match status {
        StatusCode::UNAUTHORIZED => Some("give a token of this API by ONCECAST_TOKEN or --token-file FILE"),
        StatusCode::FORBIDDEN => {
            Some("use a token with that scope and for these Pages, or ask who administers the API")
        }
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => Some("a proxy asks for a name and a password: see HTTPS_PROXY"),
        StatusCode::NOT_FOUND if is_foreign => {
            Some("no Oncecast API is there: --api and ONCECAST_API name it, without /v1")
        }
        _ if exit_of(status) == Exit::Unreachable => Some("the API is busy: repeat the command in a while"),
        _ => None,
    }
}

/// Returns the failure of a request that was not answered.
fn unanswered(call: &str, error: &reqwest::Error) -> Failure {
    let server = match error.url() {
        Some(url) => url.origin().ascii_serialization(),
        None => "the API".to_owned(),
    };
    let cause = root(error).to_string();
    let failure = |what: String| Failure::new(Exit::Unreachable, what);
    if error.is_timeout() {
        return failure(format!("{server} did not answer {call} in time")).and("repeat the command");
    }
    let failure = failure(format!("{server} does not answer {call}: {cause}"));
    if cause.contains("certificate") {
        return failure.and("its certificate is not trusted here: check the URL, the clock, and SSL_CERT_FILE");
    }
    let proxies = [
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ];
    let proxy = proxies.into_iter().find(|name| std::env::var_os(name).is_some());
    let is_local = error.url().and_then(|url| url.host_str()).is_some_and(is_this_machine);
    match proxy.filter(|_| !is_local) {
        _ if !error.is_connect() => failure.and("repeat the command"),
        Some(proxy) => failure.and(format!("{proxy} is set: check it, or name this host in NO_PROXY")),
        None => failure.and("name the API by --api URL or ONCECAST_API; `oncecast up` starts one on this machine"),
    }
}

/// Returns true for a name of this machine, to which no proxy leads.
pub fn is_this_machine(host: &str) -> bool {
    ["localhost", "127.0.0.1", "[::1]"].contains(&host)
}

/// Returns the innermost cause of an error.
fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error
}

/// Returns the error and its causes as one line.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}
