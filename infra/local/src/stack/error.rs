//! The error of starting the system.

use std::io;
use std::path::PathBuf;

use shared::runtime::config::ConfigError;
use shared::store;

use crate::data_dir::DataDirError;
use crate::database::DatabaseError;
use crate::gateway::TokensError;
use crate::messenger::MessengerError;
use crate::notify::NotifyError;
use crate::resources::ResourcesError;
use crate::sandbox::SubscribeError;
use crate::secrets::SecretsError;

/// Failure to start the system.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    #[error(transparent)]
    Data(#[from] DataDirError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("the queue cannot listen on 127.0.0.1")]
    Queue(#[source] io::Error),
    #[error(transparent)]
    Resources(#[from] ResourcesError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the unfinished jobs cannot be read from the database")]
    Unfinished(#[source] store::Error),
    #[error("the switch for sending cannot be set")]
    Sending(#[source] store::Error),
    #[error(transparent)]
    Messenger(#[from] MessengerError),
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error(transparent)]
    ApiTokens(#[from] TokensError),
    #[error(transparent)]
    Notify(#[from] NotifyError),
    #[error("the check of JWTs cannot be made")]
    Jwt(#[source] reqwest::Error),
    #[error("the log of calls cannot be written to {}", path.display())]
    LogCalls {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("port {port} is taken by another program; choose another with --port")]
    PortTaken { port: u16 },
    #[error("the API cannot listen on port {port}")]
    Listen {
        port: u16,
        #[source]
        source: io::Error,
    },
    #[error("the API's health cannot be checked")]
    HealthCheck(#[source] reqwest::Error),
    #[error("the pages for operators cannot call the API")]
    Console(#[source] client::Error),
    #[error("the sandbox could not subscribe the API to its webhooks")]
    Subscribe(#[source] SubscribeError),
    #[error("the API does not answer its health check; the log above gives the reason")]
    NotReady,
}
