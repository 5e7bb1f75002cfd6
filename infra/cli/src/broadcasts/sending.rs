//! `oncecast sending` and `stop-all`: the switch for sending.

use clap::Args;
use client::api::sending::{SendingChange, SendingReport};
use shared::domain::ids::PageId;
use shared::domain::sending::SendingState;

use super::words;
use crate::api::Session;
use crate::failure::Failure;
use crate::output::Tone;
use crate::text::plain;

/// The options of `stop-all`.
#[derive(Debug, Args)]
pub struct StopAllOptions {
    /// Reason, which the switch and reports show
    #[arg(long)]
    reason: Option<String>,
    /// Only for this Page
    #[arg(long, value_name = "PAGE", value_parser = PageId::parse)]
    page: Option<PageId>,
}

/// The options of `sending`.
#[derive(Debug, Args)]
pub struct Options {
    /// on; off, so that due broadcasts wait; or halt, so that due broadcasts are halted. Shows the switch without it
    #[arg(value_parser = words::sending_state)]
    state: Option<SendingState>,
    /// Reason, which the switch and reports show
    #[arg(long, requires = "state")]
    reason: Option<String>,
    /// Only for this Page
    #[arg(long, value_name = "PAGE", value_parser = PageId::parse)]
    page: Option<PageId>,
}

/// Switches sending off.
///
/// # Errors
///
/// Fails if a call or the output fails.
pub async fn stop_all(session: &Session, options: StopAllOptions) -> Result<(), Failure> {
    let StopAllOptions { reason, page } = options;
    let state = Some(SendingState::Off);
    run(session, Options { state, reason, page }).await
}

/// Shows or sets the switch for sending.
///
/// # Errors
///
/// Fails if a call or the output fails.
pub async fn run(session: &Session, options: Options) -> Result<(), Failure> {
    let Options { state, reason, page } = options;
    let report = match state {
        None => session.client.sending(page.as_ref()).await?,
        Some(state) => {
            let page_id = page.clone();
            let change = SendingChange { state, reason, page_id };
            session.client.change_sending(&change).await?
        }
    };
    if session.output.is_json() {
        return session.output.object(&report);
    }
    session.output.line(&line(session, &report))?;
    if state == Some(SendingState::Off) {
        let page = page
            .map(|page_id| format!(" --page {}", page_id.as_str()))
            .unwrap_or_default();
        session
            .output
            .note("  no new message is sent after five seconds; nothing is lost");
        session.output.note(&format!("  go on with: oncecast sending on{page}"));
    }
    Ok(())
}

fn line(session: &Session, report: &SendingReport) -> String {
    let change = &report.change;
    let (name, tone) = match change.switch.state {
        SendingState::On => ("on", Tone::Good),
        SendingState::Off => ("off", Tone::Bad),
        SendingState::Halt => ("halt", Tone::Bad),
    };
    let pages = change.page_id.as_ref().map_or("all Pages", PageId::as_str);
    let mut line = format!("sending {} for {pages}", session.output.paint(tone, name));
    if let Some(reason) = &change.switch.reason {
        line.push_str(&format!(": {}", plain(reason)));
    }
    if let Some(at) = change.switch.changed_at {
        line.push_str(&format!(", since {}", words::time(at)));
    }
    if let Some(by) = &change.switch.changed_by {
        line.push_str(&format!(", by {}", plain(by)));
    }
    if change.page_id.is_some() && report.all_pages != SendingState::On {
        line.push_str("; off for all Pages, too");
    }
    line
}
