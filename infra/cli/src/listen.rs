//! `oncecast listen`: a receiver of events, for trying them out. It takes an event once it has shown it.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use clap::Args;
use secrecy::ExposeSecret;
use shared::domain::event::{BroadcastEvent, EventType};
use shared::runtime::secrets::read_file;
use standardwebhooks::Webhook;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::api::Session;
use crate::failure::{Exit, Failure};
use crate::output::{Output, Tone};
use crate::text::plain;

/// The options of `listen`.
#[derive(Debug, Args)]
pub struct ListenOptions {
    /// Port on 127.0.0.1; 0 stands for any free one
    #[arg(long, default_value_t = 4000)]
    port: u16,
    /// File of the secret that signs events, such as data/notify-secret; without it no signature is checked
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

/// The receiver behind the port.
struct Receiver {
    webhook: Option<Webhook>,
    output: Output,
    received: mpsc::Sender<Received>,
}

/// An event, and the one to tell that it is shown.
struct Received {
    event: BroadcastEvent,
    shown: oneshot::Sender<()>,
}

/// Shows events until Ctrl-C.
///
/// # Errors
///
/// Fails if the port is taken, the secret is none, or the output does not take an event.
pub async fn run(session: &Session, options: &ListenOptions) -> Result<(), Failure> {
    let output = &session.output;
    let webhook = options.secret_file.as_deref().map(webhook).transpose()?;
    let port = options.port;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| {
        let what = format!("port {port} cannot be listened on: {error}");
        Failure::new(Exit::Failed, what).and("choose another with --port")
    })?;
    let address = listener.local_addr()?;
    output.note(&format!("Listening: oncecast up --notify-url http://{address}"));
    if webhook.is_none() {
        output.note("Signatures are not checked; --secret-file FILE has them checked.");
    }
    let (sender, mut received) = mpsc::channel(1);
    let receiver = Arc::new(Receiver {
        webhook,
        output: output.clone(),
        received: sender,
    });
    let router = Router::new().fallback(receive).with_state(receiver);
    tokio::select! {
        ended = async { axum::serve(listener, router).await } => Ok(ended?),
        failed = show_all(output, &mut received) => failed,
    }
}

/// Reads the secret that signs events.
fn webhook(path: &Path) -> Result<Webhook, Failure> {
    // The error names the file, and its own cause.
    let secret = read_file(path).map_err(|error| {
        let unreadable = Failure::new(Exit::Arguments, error.to_string());
        unreadable.and("up makes the file when it first starts with --notify-url")
    })?;
    Webhook::new(secret.expose_secret()).map_err(|_| {
        let what = format!("{}: not the secret of a webhook, such as whsec_…", path.display());
        Failure::new(Exit::Arguments, what)
    })
}

/// Takes an event that is signed within the last five minutes, or not at all if there is no secret.
async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let refused = |status, reason: &str| {
        receiver.output.note(&format!("refused: {}", plain(reason)));
        status
    };
    if let Some(webhook) = &receiver.webhook
        && let Err(error) = webhook.verify(&body, &headers)
    {
        return refused(StatusCode::UNAUTHORIZED, &error.to_string());
    }
    let event = match serde_json::from_slice(&body) {
        Ok(event) => event,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &format!("not an event: {error}")),
    };
    let (shown, is_shown) = oneshot::channel();
    let sent = receiver.received.send(Received { event, shown }).await;
    match sent.is_ok() && is_shown.await.is_ok() {
        true => StatusCode::NO_CONTENT,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Shows events as they come, one in a line.
async fn show_all(output: &Output, received: &mut mpsc::Receiver<Received>) -> Result<(), Failure> {
    let mut known = HashSet::new();
    while let Some(Received { event, shown }) = received.recv().await {
        let is_new = known.insert(event.id.clone());
        match output.is_json() {
            true => output.object(&event)?,
            false => output.line(&line(output, &event, is_new))?,
        }
        // The sender may have gone meanwhile.
        let _ = shown.send(());
    }
    Ok(())
}

/// Returns the line that shows an event.
fn line(output: &Output, event: &BroadcastEvent, is_new: bool) -> String {
    let (kind, tone) = match event.kind {
        EventType::Completed => ("completed", Tone::Good),
        EventType::Cancelled => ("cancelled", Tone::Faint),
        EventType::Halted => ("halted   ", Tone::Bad),
        EventType::InDoubt => ("in_doubt ", Tone::Warning),
    };
    let page = plain(&event.data.page_id);
    let again = if is_new { "" } else { "(again)" };
    let line = format!(
        "{:.0}  {}  {}  {page} {again}",
        event.timestamp,
        output.paint(tone, kind),
        event.data.broadcast_id,
    );
    line.trim_end().to_owned()
}
