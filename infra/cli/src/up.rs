//! `oncecast up`: runs the system until Ctrl-C or SIGTERM.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use local::SANDBOX_PAGES;
use local::gateway::JwtSettings;
use local::notify::{NotifyError, NotifySettings};
use local::stack::{Settings, Stack, StackError};
use reqwest::Url;
use shared::domain::sending::SendingState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time;

/// The limit for a stop. After it the processes are killed, which costs no more than a power cut.
const STOP_WITHIN: Duration = Duration::from_secs(9);

/// The options of `up`.
#[derive(Debug, Args)]
pub struct Options {
    /// Port of the API on 127.0.0.1
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// Base URL of Messenger, such as `https://graph.facebook.com/v25.0`; without it messages go to the sandbox
    #[arg(long, value_name = "URL")]
    graph_url: Option<String>,
    /// JSON file of Page access tokens: {"PAGE ID": "TOKEN"}
    #[arg(long, value_name = "FILE")]
    page_tokens: Option<PathBuf>,
    /// JSON file of the tokens of the API's callers; without it every caller is allowed
    #[arg(long, value_name = "FILE")]
    api_token: Option<PathBuf>,
    /// Issuer of the callers' JWTs, as an API Gateway would be given it, in place of --api-token
    #[arg(long, value_name = "URL", requires = "jwt_audience", conflicts_with = "api_token", value_parser = issuer)]
    jwt_issuer: Option<String>,
    /// Audience that a JWT must have, as `aud` or else as `client_id`; may be repeated
    #[arg(long, value_name = "AUDIENCE", requires = "jwt_issuer")]
    jwt_audience: Vec<String>,
    /// Text that the issuer writes before the name of a scope
    #[arg(
        long,
        value_name = "PREFIX",
        requires = "jwt_issuer",
        default_value = "",
        hide_default_value = true
    )]
    scope_prefix: String,
    /// Claim of a JWT that lists the Pages which its bearer may use; with `?` at its end, all without the claim
    #[arg(long, value_name = "CLAIM", requires = "jwt_issuer")]
    pages_claim: Option<String>,
    /// Claim of a JWT that lists the scopes of its bearer as roles or groups, in place of its scopes
    #[arg(long, value_name = "CLAIM", requires = "jwt_issuer", conflicts_with = "scope_prefix")]
    roles_claim: Option<String>,
    /// Name by which the API may be called beside localhost, such as that of a reverse proxy; may be repeated
    #[arg(long, value_name = "NAME", value_parser = host_name)]
    allow_host: Vec<String>,
    /// Directory that keeps all data from one start to the next; created if it does not exist
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Sets the switch for sending at the start: on, off, or halt, which halts every due job instead of sending. Without this
    /// option the switch stays as it was
    #[arg(long, value_name = "STATE", value_parser = sending_state)]
    sending: Option<SendingState>,
    /// URL that events are posted to, signed as Standard Webhooks prescribes: `oncecast listen` shows them
    #[arg(long, value_name = "URL", value_parser = receiver)]
    notify_url: Option<Url>,
    /// File of the secret that signs events, made if there is none; in the data directory by default
    #[arg(long, value_name = "FILE", requires = "notify_url")]
    notify_secret_file: Option<PathBuf>,
    /// Time between two searches for broadcasts that are due or stuck
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    schedule_every: Duration,
    /// Time-out of one invocation of the function that sends
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = duration)]
    process_timeout: Duration,
    /// File to which each AWS action that a function calls is appended, as the function's role must allow it
    #[arg(long, value_name = "FILE")]
    log_calls: Option<PathBuf>,
    /// Lets eventually consistent reads and queries of indexes lag by 2 s, as they may on AWS
    #[arg(long)]
    lagging_reads: bool,
}

/// Runs the system until Ctrl-C or SIGTERM.
///
/// # Errors
///
/// Fails if the system does not start.
pub async fn run(options: Options) -> Result<(), StackError> {
    shared::runtime::telemetry::init();
    let page_tokens = options.page_tokens.clone();
    let data = options.data.clone();
    let notify = match options.notify_url {
        Some(url) => Some(NotifySettings {
            url,
            secret_file: secret_file(options.notify_secret_file, data.as_deref())?,
        }),
        None => None,
    };
    let jwt = options.jwt_issuer.map(|issuer| JwtSettings {
        issuer,
        audiences: options.jwt_audience,
        scope_prefix: options.scope_prefix,
        pages_claim: options.pages_claim,
        roles_claim: options.roles_claim,
    });
    let stack = Stack::start(Settings {
        port: options.port,
        graph_url: options.graph_url,
        page_tokens: options.page_tokens,
        api_tokens: options.api_token,
        jwt,
        allow_hosts: options.allow_host,
        data: options.data,
        sending: options.sending,
        notify: notify.clone(),
        schedule_every: options.schedule_every,
        process_timeout: options.process_timeout,
        log_calls: options.log_calls,
        lagging_reads: options.lagging_reads,
        ..Settings::default()
    })
    .await?;
    let ready = async {
        stack.ready().await?;
        stack.subscribe_to_sandbox().await
    };
    let stopped = tokio::select! {
        ready = ready => {
            ready?;
            print_addresses(&stack, page_tokens.is_some(), data.as_deref(), notify.as_ref());
            stop_signal().await
        }
        stopped = stop_signal() => stopped,
    };
    if let Err(error) = stopped {
        tracing::error!(error = %error, "signals cannot be received; stopping at once");
    }
    println!("stopping");
    if time::timeout(STOP_WITHIN, stack.stop()).await.is_err() {
        tracing::warn!("the stop took too long; remaining processes are killed");
    }
    Ok(())
}

async fn stop_signal() -> std::io::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminated.recv() => Ok(()),
    }
}

fn print_addresses(stack: &Stack, own_pages: bool, data: Option<&Path>, notify: Option<&NotifySettings>) {
    let api = stack.api_url();
    println!("Oncecast is ready.");
    println!("  Console   {api}");
    println!("  API       {api}");
    println!("            {api}/docs");
    if let Some(sandbox) = stack.sandbox() {
        println!("  Sandbox   {}", sandbox.url());
        println!("            {}/summary", sandbox.control_url());
    }
    println!("  DynamoDB  {}", stack.database_endpoint());
    println!("  SQS       {}", stack.queue_endpoint());
    match data {
        Some(data) => println!("  Data      {}", data.display()),
        None => println!("  Data      in memory, lost when this process ends; use --data DIR to keep it"),
    }
    if let Some(NotifySettings { url, secret_file }) = notify {
        // Its path may hold a secret.
        println!("  Events    {}", url.origin().ascii_serialization());
        println!("            signed with the secret in {}", secret_file.display());
    }
    let page = if own_pages { "PAGE_ID" } else { SANDBOX_PAGES[0] };
    if !own_pages {
        println!("  Pages     {}", SANDBOX_PAGES.join(", "));
    }
    println!("Try:");
    println!("  curl -X PUT {api}/v1/contacts -H 'content-type: application/json' \\");
    println!("    -d '{{\"contacts\":[{{\"contact_id\":\"6001\",\"page_id\":\"{page}\",\"first_name\":\"Ana\"}}]}}'");
}

const NOT_A_NAME: &str = "write a host name such as oncecast.example.com, without scheme, port or path";

/// Parses a host name of the command line.
fn host_name(text: &str) -> Result<String, &'static str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let is_valid = !text.is_empty() && text.chars().all(is_name);
    is_valid.then(|| text.to_owned()).ok_or(NOT_A_NAME)
}

/// Parses the URL of a receiver of events.
fn receiver(text: &str) -> Result<Url, &'static str> {
    let url = text.parse::<Url>().ok();
    let url = url.filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    url.ok_or("write a URL such as https://example.com/oncecast-events")
}

/// Returns the file of the secret that signs events: the one that is named, or that of the data directory.
fn secret_file(named: Option<PathBuf>, data: Option<&Path>) -> Result<PathBuf, NotifyError> {
    let in_data = || data.map(|data| data.join("notify-secret"));
    named.or_else(in_data).ok_or(NotifyError::NoSecretFile)
}

/// Parses a position of the switch for sending.
fn sending_state(text: &str) -> Result<SendingState, &'static str> {
    match text {
        "on" => Ok(SendingState::On),
        "off" => Ok(SendingState::Off),
        "halt" => Ok(SendingState::Halt),
        _ => Err("write on, off or halt"),
    }
}

/// Parses an issuer. Its keys decide who may call, so they come over TLS, or from this machine.
fn issuer(text: &str) -> Result<String, &'static str> {
    let is_local = |host: &str| {
        let name = host.split(['/', ':']).next().unwrap_or_default();
        ["localhost", "127.0.0.1"].contains(&name) && !host.contains('@')
    };
    let is_valid = text.starts_with("https://") || text.strip_prefix("http://").is_some_and(is_local);
    is_valid
        .then(|| text.to_owned())
        .ok_or("write the issuer as its tokens do, such as https://idp.example.com/realms/shop")
}

const NOT_A_DURATION: &str = "write a whole number above 0 and a unit, such as 500ms, 60s or 2m";

/// Parses a duration of the command line. Zero is refused, because no option has a use for it.
fn duration(text: &str) -> Result<Duration, &'static str> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(NOT_A_DURATION)?;
    let (number, unit) = text.split_at(digits);
    let number: u32 = number.parse().map_err(|_| NOT_A_DURATION)?;
    let number = u64::from(number);
    match unit {
        _ if number == 0 => Err(NOT_A_DURATION),
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err(NOT_A_DURATION),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_name_has_neither_scheme_nor_port() {
        assert_eq!(host_name("send.example.com"), Ok("send.example.com".to_owned()));
        for text in [
            "",
            "*",
            "https://send.example.com",
            "send.example.com:443",
            "send.example.com/",
            "a b",
        ] {
            assert_eq!(host_name(text), Err(NOT_A_NAME), "{text}");
        }
    }

    #[test]
    fn duration_is_a_positive_whole_number_with_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "s", "60", "0s", "-1s", "1.5s", "60 s", "1h", "99999999999s"] {
            assert_eq!(duration(text), Err(NOT_A_DURATION), "{text}");
        }
    }
}
