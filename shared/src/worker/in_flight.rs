//! The sends in flight of one run. No send outlives the run, since nothing but the run polls them.

use std::pin::pin;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::worker::deliver::Delivered;

/// The sends in flight, and the results that nothing has taken yet.
#[derive(Default)]
pub struct InFlight<'a> {
    sends: FuturesUnordered<BoxFuture<'a, Delivered>>,
    /// The results that arrived during [`InFlight::poll_while`].
    arrived: Vec<Delivered>,
}

impl<'a> InFlight<'a> {
    /// Adds a send; it makes progress whenever the sends are polled.
    pub fn push(&mut self, send: impl Future<Output = Delivered> + Send + 'a) {
        self.sends.push(Box::pin(send));
    }

    /// Returns the number of sends in flight.
    pub fn len(&self) -> usize {
        self.sends.len()
    }

    /// Returns `true` if no send is in flight; results may still be there to be taken.
    pub fn is_empty(&self) -> bool {
        self.sends.is_empty()
    }

    /// Returns `true` if there are results to be taken by [`InFlight::take_arrived`].
    pub fn has_arrived(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// Takes the results that arrived while something else was awaited.
    pub fn take_arrived(&mut self) -> Vec<Delivered> {
        std::mem::take(&mut self.arrived)
    }

    /// Waits for the next result; `None` if no send is in flight.
    pub async fn next(&mut self) -> Option<Delivered> {
        self.sends.next().await
    }

    /// Polls the sends while awaiting `other`, and keeps their results.
    pub async fn poll_while<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = pin!(other);
        loop {
            tokio::select! {
                biased;
                out = &mut other => return out,
                Some(delivered) = self.sends.next() => self.arrived.push(delivered),
            }
        }
    }
}
