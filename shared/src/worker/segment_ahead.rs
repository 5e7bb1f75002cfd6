//! The next segment of a run's backlog, loaded while the contacts before it are sent to.

use futures_util::future::BoxFuture;

use crate::app::App;
use crate::domain::backlog::Segment;
use crate::store;

/// A segment by its number, if there is one.
pub type Loaded = (u32, Result<Option<Segment>, store::Error>);

/// The load of a segment, if one is under way.
#[derive(Default)]
pub struct SegmentAhead<'a>(Option<BoxFuture<'a, Loaded>>);

impl<'a> SegmentAhead<'a> {
    /// Loads a segment of a snapshot, unless a load is under way.
    pub fn load(&mut self, app: &'a App, snapshot: &'a str, number: u32) {
        self.0
            .get_or_insert_with(|| Box::pin(async move { (number, app.store.segments().get(snapshot, number).await) }));
    }

    /// Returns `true` if a load is under way.
    pub fn is_loading(&self) -> bool {
        self.0.is_some()
    }

    /// Waits for the load that is under way; `None` if there is none. If the future is dropped before, the load goes on.
    pub async fn loaded(&mut self) -> Option<Loaded> {
        let loaded = self.0.as_mut()?.await;
        self.0 = None;
        Some(loaded)
    }
}
