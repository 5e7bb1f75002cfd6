//! TLS for the clients that `reqwest` makes. Each is made for one invocation, and by itself reads and parses every certificate of
//! the machine: on a small function that takes longer than a whole broadcast to one contact.

use std::sync::{Arc, LazyLock};

use reqwest::{Client, ClientBuilder};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls_platform_verifier::BuilderVerifierExt as _;

/// The settings of this process: those that a client would make for itself.
static SETTINGS: LazyLock<Result<ClientConfig, rustls::Error>> = LazyLock::new(|| {
    let settings = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let settings = settings.with_safe_default_protocol_versions()?;
    Ok(settings.with_platform_verifier()?.with_no_client_auth())
});

/// Returns a builder of clients that share their certificates and TLS sessions, but no connection.
pub fn client() -> ClientBuilder {
    match &*SETTINGS {
        Ok(settings) => Client::builder().tls_backend_preconfigured(settings.clone()),
        // The client fails for the same reason, and tells it.
        Err(_) => Client::builder(),
    }
}
