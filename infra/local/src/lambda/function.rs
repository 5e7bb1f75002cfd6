//! A function as a pool of child processes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;

use super::child::{Child, Process};
use super::definition::{Definition, RecursiveLoop};
use super::error::InvokeError;
use super::runtime_api::MAX_PAYLOAD_BYTES;
use super::trace::Trace;

/// A function. Its processes start on demand, wait for the next invocation, and end when the last clone of this value
/// is dropped.
#[derive(Debug, Clone)]
pub struct Function {
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    definition: Definition,
    slots: Arc<Semaphore>,
    processes: Mutex<Processes>,
}

#[derive(Debug, Default)]
struct Processes {
    idle: Vec<Child>,
    all: Vec<Arc<Process>>,
}

/// The right to one invocation. It is acquired before the work is fetched and held until the work is done.
pub type Slot = OwnedSemaphorePermit;

/// A running process of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningProcess {
    /// The process id.
    pub pid: u32,
    /// True if the process works on an invocation.
    pub busy: bool,
}

impl Function {
    /// Returns a function without any process yet.
    pub fn new(definition: Definition) -> Function {
        let slots = usize::try_from(definition.max_children).unwrap_or(Semaphore::MAX_PERMITS);
        Function {
            pool: Arc::new(Pool {
                slots: Arc::new(Semaphore::new(slots)),
                processes: Mutex::default(),
                definition,
            }),
        }
    }

    /// Returns the function's name.
    pub fn name(&self) -> &str {
        &self.pool.definition.name
    }

    /// Waits until another invocation may run.
    ///
    /// # Errors
    ///
    /// Fails with [`InvokeError::Stopped`] if the function is being stopped.
    pub async fn slot(&self) -> Result<Slot, InvokeError> {
        let slots = Arc::clone(&self.pool.slots);
        slots.acquire_owned().await.map_err(|_| InvokeError::Stopped)
    }

    /// Waits for a slot and invokes the function.
    ///
    /// # Errors
    ///
    /// Fails if the function is being stopped, does not start, fails, crashes or exceeds its time-out.
    pub async fn invoke(&self, payload: impl Into<Bytes>) -> Result<Bytes, InvokeError> {
        let slot = self.slot().await?;
        self.invoke_in(slot, payload, None).await
    }

    /// Invokes the function, as part of the chain of requests whose trace header is given. As on AWS, the invocation runs to
    /// its end even if the caller stops waiting.
    ///
    /// # Errors
    ///
    /// Fails if the function does not start, fails, crashes or exceeds its time-out, and if the payload is too large or
    /// the function is invoked in a recursive loop that is not allowed.
    pub async fn invoke_in(
        &self,
        slot: Slot,
        payload: impl Into<Bytes>,
        trace: Option<&str>,
    ) -> Result<Bytes, InvokeError> {
        let payload = payload.into();
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(InvokeError::TooLarge(payload.len()));
        }
        let trace = self.trace(trace)?;
        let function = self.clone();
        let invocation = tokio::spawn(async move {
            let answer = function.run(payload, trace).await;
            drop(slot);
            answer
        });
        invocation.await.unwrap_or(Err(InvokeError::Crashed))
    }

    /// Returns the trace of an invocation by a chain of requests.
    fn trace(&self, chain: Option<&str>) -> Result<Trace, InvokeError> {
        let chain = chain.map_or_else(Trace::begin, Trace::parse);
        match chain.clone().invoke(self.name()) {
            Some(trace) => Ok(trace),
            None if self.pool.definition.recursive_loop == RecursiveLoop::Allow => Ok(chain),
            None => Err(InvokeError::RecursiveLoop),
        }
    }

    async fn run(&self, payload: Bytes, trace: Trace) -> Result<Bytes, InvokeError> {
        let child = match self.take_idle() {
            Some(child) => child,
            None => self.start_child().await?,
        };
        let answer = child.invoke(payload, &trace, self.pool.definition.timeout).await;
        if !child.process.has_exited() && !self.pool.slots.is_closed() {
            self.processes().idle.push(child);
        }
        answer
    }

    /// Takes an idle process that has not ended.
    fn take_idle(&self) -> Option<Child> {
        let mut processes = self.processes();
        processes.idle.retain(|child| !child.process.has_exited());
        processes.idle.pop()
    }

    async fn start_child(&self) -> Result<Child, InvokeError> {
        let child = Child::start(&self.pool.definition).await.map_err(InvokeError::Start)?;
        {
            let mut processes = self.processes();
            processes.all.retain(|process| !process.has_exited());
            processes.all.push(Arc::clone(&child.process));
        }
        // A stop kills the processes in the list, and may have read the list before this child was in it.
        if self.pool.slots.is_closed() {
            return Err(InvokeError::Stopped);
        }
        child.ready().await?;
        Ok(child)
    }

    /// Returns the running processes.
    pub fn processes_running(&self) -> Vec<RunningProcess> {
        self.running()
            .iter()
            .map(|process| RunningProcess {
                pid: process.pid(),
                busy: process.is_busy(),
            })
            .collect()
    }

    /// Kills a process with SIGKILL and waits until it has ended. Returns false if the function has no such process.
    pub async fn kill(&self, pid: u32) -> bool {
        let running = self.running();
        let Some(process) = running.iter().find(|process| process.pid() == pid) else {
            return false;
        };
        process.kill().await;
        true
    }

    /// Kills a process that works on an invocation, if there is one, and returns its id.
    pub async fn kill_one_busy(&self) -> Option<u32> {
        let running = self.running();
        let process = running.iter().find(|process| process.is_busy())?;
        process.kill().await;
        Some(process.pid())
    }

    /// Lets running invocations finish within `grace`, and then ends all processes. Later invocations are refused.
    pub async fn stop(&self, grace: Duration) {
        let all_slots = self.pool.slots.acquire_many(self.pool.definition.max_children);
        let drained = time::timeout(grace, all_slots).await;
        if drained.is_err() {
            tracing::warn!(
                function.name = self.name(),
                "invocations did not finish within the grace period; ending their processes"
            );
        }
        self.pool.slots.close();
        // The slots are released only now, because a slot that is released before the close goes to a waiting
        // invocation.
        drop(drained);
        let ending = self.running().into_iter().map(async |process| process.end().await);
        ending.collect::<FuturesUnordered<_>>().collect::<()>().await;
        self.processes().idle.clear();
    }

    fn running(&self) -> Vec<Arc<Process>> {
        let mut processes = self.processes();
        processes.all.retain(|process| !process.has_exited());
        processes.all.clone()
    }

    fn processes(&self) -> MutexGuard<'_, Processes> {
        // Each change of the lists is a single call, so a panic elsewhere leaves no change incomplete.
        self.pool.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
