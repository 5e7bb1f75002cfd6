//! `oncecast console`: the pages for operators over any API, on this machine only.

use std::time::Duration;

use clap::Args;
use client::{BroadcastQuery, Patience};
use console::{Entry, Settings};
use local::server::{self, Server};
use reqwest::StatusCode;
use secrecy::SecretString;
use serde_json::json;
use uuid::Uuid;

use crate::api::Session;
use crate::failure::{Exit, Failure};

/// The time for which a page asks an API again that is busy, before it says so.
const PATIENCE: Duration = Duration::from_secs(10);

/// The options of `console`.
#[derive(Debug, Args)]
pub struct ConsoleOptions {
    /// Port on 127.0.0.1; 0 stands for any free one
    #[arg(long, default_value_t = 4010)]
    port: u16,
}

/// Serves the pages until Ctrl-C. They have the credentials of this command; a browser gets in by the printed address, whose key is
/// another one at each start.
///
/// # Errors
///
/// Fails if the API does not answer or knows no such caller, or the port is taken.
pub async fn run(session: &Session, options: &ConsoleOptions) -> Result<(), Failure> {
    check(session).await?;
    let port = options.port;
    let unusable = |error| {
        let what = format!("port {port} cannot be listened on: {error}");
        Failure::new(Exit::Failed, what).and("choose another with --port")
    };
    let listener = server::bind(port).await.map_err(unusable)?;
    let key = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let address = format!("http://{}/enter?key={key}", listener.local_addr()?);
    let pages = console::router(Settings {
        client: session.client.clone().with_patience(Patience::new(PATIENCE, |_, _| {})),
        entry: Entry::Key(SecretString::from(key)),
        sandbox: None,
    });
    let _server = Server::route(listener, pages).map_err(unusable)?;
    match session.output.is_json() {
        true => session.output.object(&json!({ "url": address }))?,
        false => session.output.line(&address)?,
    }
    let api = &session.api;
    session.output.note(&format!(
        "Open this address in a browser. The pages show {api} until Ctrl-C."
    ));
    std::future::pending().await
}

/// Checks that the API takes this caller, so that a wrong URL or token is told here and not on every page.
async fn check(session: &Session) -> Result<(), Failure> {
    let query = BroadcastQuery {
        limit: Some(1),
        ..BroadcastQuery::default()
    };
    match session.client.broadcasts(&query).await {
        // A caller may have other rights than to read broadcasts.
        Err(error) if error.status() != Some(StatusCode::FORBIDDEN) => Err(error.into()),
        _ => Ok(()),
    }
}
