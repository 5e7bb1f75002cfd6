//! Web pages for the operators of Oncecast, over the HTTP API of any Oncecast, by means of the crate [`client`].
//!
//! Every view is a page that works as plain HTML, with a URL of its own. While something runs, a page asks for its part that changes
//! every two seconds. Every change is a form. No credential reaches the browser, and no page loads anything from another host.
//!
//! - `session`: who may see the pages, and the forms that are taken
//! - `assets`: the files that the pages load
//! - `frame`, `page`: the frame of all pages, and the answers with one
//! - `show`, `fields`: values as they are shown, and as they are sent
//! - `failure`: failures as pages
//! - `message`: the parts of a message
//! - `broadcasts`: the list of the broadcasts, each of them, and the orders for it
//! - `deliveries`: the outcome of a broadcast for each contact
//! - `compose`: a new broadcast
//! - `contacts`: the contacts, and the imports of files
//! - `pages`: the Pages
//! - `sending`: the switch for sending
//! - `sandbox`: what contacts see of the messages, where there is no Messenger

mod assets;
mod broadcasts;
mod compose;
mod contacts;
mod deliveries;
mod failure;
mod fields;
mod frame;
mod message;
mod page;
mod pages;
mod sandbox;
mod sending;
mod session;
mod show;

use std::fmt;
use std::sync::Arc;

use axum::routing::get;
use axum::{Router, middleware};
use client::Client;
use shared::domain::sending::SendingState;

use contacts::Imports;
use frame::{Chrome, Section};
use sandbox::Sandbox;
use session::{Sessions, Visitor};

pub use session::Entry;

/// The part of the console that its caller decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The API, with the credentials that every visitor uses, or with none if each signs in.
    pub client: Client,
    /// The visitors that are let in.
    pub entry: Entry,
    /// The base URL of the sandbox's control API, if the API sends to one.
    pub sandbox: Option<String>,
}

/// The console.
pub(crate) struct Console {
    client: Client,
    sandbox: Option<Sandbox>,
    sessions: Sessions,
    imports: Imports,
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").finish_non_exhaustive()
    }
}

impl Console {
    /// Returns the frame of a page, with the switch for sending as it is now.
    pub async fn chrome(&self, visitor: &Visitor, section: Section) -> Chrome {
        // A caller who may not read the switch has a page without it.
        let sending = visitor.client.sending(None).await.ok();
        Chrome {
            section,
            has_sandbox: self.sandbox.is_some(),
            signed_in: visitor.signed_in,
            stopped: sending.filter(|sending| sending.all_pages != SendingState::On),
        }
    }
}

/// Returns the pages. The server in front of them must refuse requests with a foreign `Host`.
pub fn router(settings: Settings) -> Router {
    let console = Arc::new(Console {
        client: settings.client,
        sandbox: settings.sandbox.as_deref().and_then(Sandbox::new),
        sessions: Sessions::new(settings.entry),
        imports: Imports::default(),
    });
    let views = Router::new()
        .merge(broadcasts::routes())
        .merge(deliveries::routes())
        .merge(compose::routes())
        .merge(contacts::routes())
        .merge(pages::routes())
        .merge(sandbox::routes())
        .merge(sending::routes())
        .layer(middleware::from_fn_with_state(Arc::clone(&console), session::let_in));
    Router::new()
        .merge(views)
        .merge(session::routes())
        .route("/static/{name}", get(assets::show))
        .layer(middleware::map_response(page::with_rules))
        .with_state(console)
}
