//! `local up`: runs the system until it is told to stop.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time;

use crate::duration;
use crate::page_tokens::SANDBOX_PAGES;
use crate::stack::{Error, Settings, Stack};

/// A stop that takes longer is cut short: processes are killed as by a power cut, which they bear.
const STOP_WITHIN: Duration = Duration::from_secs(9);

/// Options of `up`.
#[derive(Debug, Args)]
pub struct Options {
    /// Port of the API on 127.0.0.1
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// Send through this Messenger, such as `https://graph.facebook.com/v25.0`, instead of the sandbox
    #[arg(long, value_name = "URL")]
    graph_url: Option<String>,
    /// JSON file of Page access tokens: {"PAGE ID": "TOKEN"}
    #[arg(long, value_name = "FILE")]
    page_tokens: Option<PathBuf>,
    /// How often to look for broadcasts that are due or stuck
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::parse)]
    schedule_every: Duration,
    /// How long one piece of sending may take
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = duration::parse)]
    process_timeout: Duration,
}

/// Runs until Ctrl-C or SIGTERM.
pub async fn run(options: Options) -> Result<(), Error> {
    shared::telemetry::init();
    let page_tokens = options.page_tokens.clone();
    let stack = Stack::start(Settings {
        port: options.port,
        graph_url: options.graph_url,
        page_tokens: options.page_tokens,
        schedule_every: options.schedule_every,
        process_timeout: options.process_timeout,
        ..Settings::default()
    })
    .await?;
    let stopped = tokio::select! {
        ready = stack.ready() => {
            ready?;
            print_addresses(&stack, page_tokens.is_some());
            stop_signal().await
        }
        stopped = stop_signal() => stopped,
    };
    if let Err(error) = stopped {
        tracing::error!(error = %error, "signals cannot be received, so this stops at once");
    }
    println!("stopping");
    if time::timeout(STOP_WITHIN, stack.stop()).await.is_err() {
        tracing::warn!("stopped without waiting for everything to end");
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

fn print_addresses(stack: &Stack, own_pages: bool) {
    let api = stack.api_url();
    println!("Oncecast is ready.");
    println!("  API       {api}");
    if let Some(sandbox) = stack.sandbox() {
        println!("  Sandbox   {}", sandbox.url());
        println!("            {}/summary", sandbox.control_url());
    }
    println!("  DynamoDB  {}", stack.database_endpoint());
    println!("  SQS       {}", stack.queue_endpoint());
    let page = if own_pages {
        "PAGE_ID"
    } else {
        SANDBOX_PAGES[0]
    };
    if !own_pages {
        println!("  Pages     {}", SANDBOX_PAGES.join(", "));
    }
    println!("Try:");
    println!("  curl -X PUT {api}/v1/contacts -H 'content-type: application/json' \\");
    println!(
        "    -d '{{\"contacts\":[{{\"contact_id\":\"6001\",\"page_id\":\"{page}\",\"first_name\":\"Ana\"}}]}}'"
    );
}
