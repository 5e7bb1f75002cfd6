//! What can happen to a process at one of its external calls, and the way to its services on which it happens.
//!
//! A process dies when its future is dropped at the call; it freezes when its future is left alone there, and is taken up
//! again later.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::response::Response;
use tokio::sync::{Notify, watch};

use crate::proxy::{self, Call};
use crate::stack::Endpoints;

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// The process dies before the call is made.
    DiesBefore,
    /// The process dies, and the call has been carried out.
    DiesAfter,
    /// The process freezes before the call is made, and makes it when it thaws.
    FreezesBefore,
    /// The process freezes before it gets the answer.
    FreezesAfter,
    /// The call is not carried out.
    Fails,
    /// The call is carried out, and its answer lost.
    AnswerLost,
}

pub const STRIKES: [Strike; 6] = [
    Strike::DiesBefore,
    Strike::DiesAfter,
    Strike::FreezesBefore,
    Strike::FreezesAfter,
    Strike::Fails,
    Strike::AnswerLost,
];

impl Strike {
    /// Whether the process makes no further call.
    pub fn kills(self) -> bool {
        matches!(self, Self::DiesBefore | Self::DiesAfter)
    }
}

/// Counts calls, and strikes at some of them.
pub struct Plan {
    /// By the number of the call, from 0.
    strikes: BTreeMap<usize, Strike>,
    counting: AtomicBool,
    calls: AtomicUsize,
    struck: Notify,
    struck_at: Mutex<Vec<(String, Strike)>>,
    thawed: watch::Sender<bool>,
}

impl Plan {
    /// A plan that counts nothing yet.
    pub fn new(strikes: impl IntoIterator<Item = (usize, Strike)>) -> Arc<Self> {
        Arc::new(Self {
            strikes: strikes.into_iter().collect(),
            counting: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            struck: Notify::new(),
            struck_at: Mutex::default(),
            thawed: watch::Sender::new(false),
        })
    }

    /// A way to these services on which it happens.
    pub async fn on_the_way_to(self: &Arc<Self>, services: &Endpoints) -> Endpoints {
        let hook = || {
            let plan = Arc::clone(self);
            move |call| Arc::clone(&plan).carry_out(call)
        };
        Endpoints {
            dynamodb: proxy::between(&services.dynamodb, hook()).await,
            sqs: proxy::between(&services.sqs, hook()).await,
            graph: proxy::between(&services.graph, hook()).await,
            ..services.clone()
        }
    }

    /// Only what is called meanwhile counts.
    pub fn count(&self, counting: bool) {
        self.counting.store(counting, Ordering::SeqCst);
    }

    /// How many calls were counted.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// At which calls something happened, and what.
    pub fn struck_at(&self) -> Vec<(String, Strike)> {
        self.struck_at.lock().unwrap().clone()
    }

    /// Waits until a process is to die or to freeze.
    pub async fn struck(&self) {
        self.struck.notified().await;
    }

    /// Whether it was left as it is, to be taken up again. What dies at one call and freezes at another is dead.
    pub fn is_frozen(&self) -> bool {
        let struck = self.struck_at.lock().unwrap();
        !struck.iter().any(|(_, strike)| strike.kills())
    }

    /// What is frozen goes on, and freezes no more.
    pub fn thaw(&self) {
        self.thawed.send_replace(true);
    }

    /// Waits until then.
    pub async fn until_thawed(&self) {
        // The sender is our own, so the channel cannot close meanwhile.
        let _ = self.thawed.subscribe().wait_for(|thawed| *thawed).await;
    }

    async fn carry_out(self: Arc<Self>, call: Call) -> Response {
        if !self.counting.load(Ordering::SeqCst) {
            return call.carry_out().await;
        }
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let Some(strike) = self.strikes.get(&number) else {
            return call.carry_out().await;
        };
        self.struck_at.lock().unwrap().push((call.name(), *strike));
        match strike {
            Strike::Fails => proxy::no_answer(),
            Strike::AnswerLost => {
                call.carry_out().await;
                proxy::no_answer()
            }
            Strike::DiesBefore => {
                self.struck.notify_one();
                std::future::pending().await
            }
            Strike::DiesAfter => {
                call.carry_out().await;
                self.struck.notify_one();
                std::future::pending().await
            }
            Strike::FreezesBefore => {
                self.struck.notify_one();
                self.until_thawed().await;
                call.carry_out().await
            }
            Strike::FreezesAfter => {
                let answer = call.carry_out().await;
                self.struck.notify_one();
                self.until_thawed().await;
                answer
            }
        }
    }
}
