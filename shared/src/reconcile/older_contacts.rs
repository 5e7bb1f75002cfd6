//! Contacts of an earlier version: after an update each is given its place in the index of audiences, once.

use tokio::time::Instant;
use tracing::info;

use crate::app::App;
use crate::store;

/// Goes on through the contacts until `ends`, or until all have their place. Returns the number of those that got it.
///
/// # Errors
/// If a table does not answer. The next firing goes on from the last place that was kept.
pub async fn index_older_contacts(app: &App, ends: Instant) -> Result<u64, store::Error> {
    let mut indexed = 0;
    while let Some(more) = app.store.contacts().index_next_older().await? {
        indexed += more;
        if Instant::now() >= ends {
            break;
        }
    }
    if indexed > 0 {
        info!(
            contacts.indexed = indexed,
            "contacts of an earlier version can be addressed by audiences now"
        );
    }
    Ok(indexed)
}
