//! Lambda on this machine: each function runs as child processes that speak the Runtime API.

mod child;
mod runtime_api;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;

use self::child::{Child, Process};

/// Why an invocation has no answer.
#[derive(Debug, thiserror::Error)]
pub enum InvokeError {
    #[error("the function was killed at its time-out")]
    TimedOut,
    #[error("the function's process ended before it answered")]
    Crashed,
    #[error("the function failed: {0}")]
    Failed(String),
    #[error("no process could be started for the function")]
    Start(#[source] io::Error),
    #[error("the function is being stopped")]
    Stopped,
}

/// What a function runs as.
#[derive(Debug, Clone)]
pub struct Definition {
    /// `AWS_LAMBDA_FUNCTION_NAME`.
    pub name: String,
    /// What its processes run.
    pub executable: PathBuf,
    /// With which arguments.
    pub args: Vec<String>,
    /// Added to our own environment, which the processes inherit.
    pub env: BTreeMap<String, String>,
    /// How long one invocation may take.
    pub timeout: Duration,
    /// How many processes there are at most, and so invocations at once.
    pub max_children: u32,
}

/// A function. Its processes start on demand, wait for the next invocation, and end with the last clone of this.
#[derive(Debug, Clone)]
pub struct Function {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    definition: Definition,
    slots: Arc<Semaphore>,
    processes: Mutex<Processes>,
}

#[derive(Debug, Default)]
struct Processes {
    idle: Vec<Child>,
    all: Vec<Arc<Process>>,
}

/// The right to one invocation, held from before the work is fetched until it is done.
pub type Slot = OwnedSemaphorePermit;

/// A running process of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningProcess {
    /// Its id in the operating system.
    pub pid: u32,
    /// Whether it works on an invocation.
    pub busy: bool,
}

impl Function {
    /// A function without processes yet.
    pub fn new(definition: Definition) -> Function {
        let slots = usize::try_from(definition.max_children).unwrap_or(Semaphore::MAX_PERMITS);
        Function {
            shared: Arc::new(Shared {
                slots: Arc::new(Semaphore::new(slots)),
                processes: Mutex::default(),
                definition,
            }),
        }
    }

    /// What it is called in Lambda.
    pub fn name(&self) -> &str {
        &self.shared.definition.name
    }

    /// Waits until an invocation is possible.
    pub async fn slot(&self) -> Result<Slot, InvokeError> {
        let slots = Arc::clone(&self.shared.slots);
        slots
            .acquire_owned()
            .await
            .map_err(|_| InvokeError::Stopped)
    }

    /// Invokes the function as soon as there is a slot.
    pub async fn invoke(&self, payload: impl Into<Bytes>) -> Result<Bytes, InvokeError> {
        let slot = self.slot().await?;
        self.invoke_in(slot, payload).await
    }

    /// Invokes the function. The invocation goes on to its end if the caller stops waiting, as on AWS.
    pub async fn invoke_in(
        &self,
        slot: Slot,
        payload: impl Into<Bytes>,
    ) -> Result<Bytes, InvokeError> {
        let function = self.clone();
        let payload = payload.into();
        let invocation = tokio::spawn(async move {
            let answer = function.run(payload).await;
            drop(slot);
            answer
        });
        invocation.await.unwrap_or(Err(InvokeError::Crashed))
    }

    async fn run(&self, payload: Bytes) -> Result<Bytes, InvokeError> {
        let child = match self.take_idle() {
            Some(child) => child,
            None => self.start_child().await?,
        };
        let answer = child.invoke(payload, self.shared.definition.timeout).await;
        if !child.process.has_exited() && !self.shared.slots.is_closed() {
            self.processes().idle.push(child);
        }
        answer
    }

    /// A waiting process, unless it ended while it waited.
    fn take_idle(&self) -> Option<Child> {
        let mut processes = self.processes();
        processes.idle.retain(|child| !child.process.has_exited());
        processes.idle.pop()
    }

    async fn start_child(&self) -> Result<Child, InvokeError> {
        let child = Child::start(&self.shared.definition)
            .await
            .map_err(InvokeError::Start)?;
        {
            let mut processes = self.processes();
            processes.all.retain(|process| !process.has_exited());
            processes.all.push(Arc::clone(&child.process));
        }
        // A stop kills what it finds in the list, and this child may have been too late for that.
        if self.shared.slots.is_closed() {
            return Err(InvokeError::Stopped);
        }
        child.ready().await?;
        Ok(child)
    }

    /// The processes that run now.
    pub fn processes_running(&self) -> Vec<RunningProcess> {
        self.running()
            .iter()
            .map(|process| RunningProcess {
                pid: process.pid(),
                busy: process.is_busy(),
            })
            .collect()
    }

    /// Kills a process with SIGKILL; returns once it is gone, false if it is none of ours.
    pub async fn kill(&self, pid: u32) -> bool {
        let running = self.running();
        let Some(process) = running.iter().find(|process| process.pid() == pid) else {
            return false;
        };
        process.kill().await;
        true
    }

    /// Kills a process in mid-invocation, if there is one, and returns its id.
    pub async fn kill_one_busy(&self) -> Option<u32> {
        let running = self.running();
        let process = running.iter().find(|process| process.is_busy())?;
        process.kill().await;
        Some(process.pid())
    }

    /// Lets running invocations finish within `grace`, then kills what is left. Later invocations are refused.
    pub async fn stop(&self, grace: Duration) {
        let all_slots = self
            .shared
            .slots
            .acquire_many(self.shared.definition.max_children);
        let drained = time::timeout(grace, all_slots).await;
        if drained.is_err() {
            tracing::warn!(
                function.name = self.name(),
                "killing processes that are still at work"
            );
        }
        self.shared.slots.close();
        // Not before: slots that come free go to whoever waits for one.
        drop(drained);
        for process in self.running() {
            process.kill().await;
        }
        self.processes().idle.clear();
    }

    fn running(&self) -> Vec<Arc<Process>> {
        let mut processes = self.processes();
        processes.all.retain(|process| !process.has_exited());
        processes.all.clone()
    }

    fn processes(&self) -> MutexGuard<'_, Processes> {
        // Lists are changed by single calls, so a panic elsewhere leaves nothing half done.
        self.shared
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub mod tests;
