//! A child process of a function, which works on one invocation at a time.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time;

use super::definition::Definition;
use super::error::InvokeError;
use super::runtime_api::{Invocation, RuntimeApi};
use super::trace::Trace;
use crate::clients::{PLACEHOLDER_KEY, REGION, access_key};

/// The limit for a child's initialization, until its first request for work. It is Lambda's own limit:
/// <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html>.
const INIT_TIMEOUT: Duration = Duration::from_secs(10);

/// The time from SIGTERM to SIGKILL when a process is ended, as on AWS with an extension:
/// <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html>.
const SHUTDOWN: Duration = Duration::from_secs(2);

const LOCALHOST: &str = "127.0.0.1";

/// The state of a child process: its id, a flag for a running invocation, and the means to kill it.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    busy: AtomicBool,
    terminate: Notify,
    kill: Notify,
    exited: watch::Sender<bool>,
}

impl Process {
    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns true if the process works on an invocation.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst) && !self.has_exited()
    }

    /// Returns true if the process has ended.
    pub fn has_exited(&self) -> bool {
        *self.exited.borrow()
    }

    /// Kills the process with SIGKILL and waits until it has ended.
    pub async fn kill(&self) {
        self.kill.notify_one();
        self.exited().await;
    }

    /// Ends the process with SIGTERM, and with SIGKILL if it has not ended two seconds later.
    pub async fn end(&self) {
        self.terminate.notify_one();
        if time::timeout(SHUTDOWN, self.exited()).await.is_err() {
            self.kill().await;
        }
    }

    async fn exited(&self) {
        // `self` holds the sender, so the channel cannot close meanwhile.
        let _ = self.exited.subscribe().wait_for(|exited| *exited).await;
    }
}

/// A process and its Runtime API. Dropping it kills the process.
#[derive(Debug)]
pub struct Child {
    pub process: Arc<Process>,
    api: RuntimeApi,
}

impl Drop for Child {
    fn drop(&mut self) {
        self.process.kill.notify_one();
    }
}

impl Child {
    /// Starts a process and its Runtime API.
    ///
    /// # Errors
    ///
    /// Fails if the executable cannot be started or no port is available.
    pub async fn start(definition: &Definition) -> io::Result<Child> {
        let name = &definition.name;
        let arn = format!("arn:aws:lambda:{REGION}:000000000000:function:{name}");
        let api = RuntimeApi::start(arn).await?;
        let mut process = Command::new(&definition.executable)
            .args(&definition.args)
            .env("AWS_LAMBDA_RUNTIME_API", api.address())
            .env("AWS_LAMBDA_FUNCTION_NAME", name)
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{name}"))
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "local")
            .env("AWS_REGION", REGION)
            .env("AWS_DEFAULT_REGION", REGION)
            // Each function has its own key, which identifies it in the log of calls.
            .env("AWS_ACCESS_KEY_ID", access_key(name))
            .env("AWS_SECRET_ACCESS_KEY", PLACEHOLDER_KEY)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("NO_PROXY", without_proxy())
            .envs(&definition.env)
            // The child ends when this pipe closes, and the pipe closes however this process ends.
            .stdin(Stdio::piped())
            // A Ctrl-C in the terminal must not reach the child: a child killed during a send would leave deliveries in
            // doubt.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let handle = Arc::new(Process {
            pid: process.id().unwrap_or_default(),
            busy: AtomicBool::new(false),
            terminate: Notify::new(),
            kill: Notify::new(),
            exited: watch::Sender::new(false),
        });
        // Waiting for a process closes its stdin, so the pipe is kept separately.
        let stdin = process.stdin.take();
        let watched = Arc::clone(&handle);
        tokio::spawn(async move {
            supervise(&mut process, &watched).await;
            drop(stdin);
        });
        Ok(Child { process: handle, api })
    }

    /// Waits until the child requests work. As on AWS, its start does not count against the time-out of the invocation.
    ///
    /// # Errors
    ///
    /// Fails if the child ends or takes longer than [`INIT_TIMEOUT`].
    pub async fn ready(&self) -> Result<(), InvokeError> {
        tokio::select! {
            () = self.api.ready() => Ok(()),
            () = self.process.exited() => Err(InvokeError::Crashed),
            () = time::sleep(INIT_TIMEOUT) => {
                self.process.kill().await;
                Err(InvokeError::Crashed)
            }
        }
    }

    /// Passes an invocation to the child, and ends the child at the time-out.
    ///
    /// # Errors
    ///
    /// Fails if the function reports an error, ends without an answer or exceeds the time-out.
    pub async fn invoke(&self, payload: Bytes, trace: &Trace, timeout: Duration) -> Result<Bytes, InvokeError> {
        self.process.busy.store(true, Ordering::SeqCst);
        let (answer, answered) = oneshot::channel();
        let timeout_ms = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
        self.api.offer(Invocation {
            payload,
            trace: trace.to_string(),
            deadline_ms: Timestamp::now().as_millisecond().saturating_add(timeout_ms),
            answer,
        });
        let answer = tokio::select! {
            // An answer that has arrived counts, even if the child has ended since.
            biased;
            Ok(answer) = answered => answer.map_err(InvokeError::Failed),
            () = self.process.exited() => Err(InvokeError::Crashed),
            () = time::sleep(timeout) => {
                self.process.end().await;
                Err(InvokeError::TimedOut)
            }
        };
        self.process.busy.store(false, Ordering::SeqCst);
        answer
    }
}

/// Sends SIGTERM to a process that has not been waited for, so that its id is still its own.
fn terminate(process: &tokio::process::Child) -> io::Result<()> {
    let pid = process.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
    pid.map_or(Ok(()), |pid| Ok(kill_process(pid, Signal::TERM)?))
}

/// Returns the hosts that are reached without a proxy: this machine, and those that the operator names.
fn without_proxy() -> String {
    let named = std::env::var("NO_PROXY").or_else(|_| std::env::var("no_proxy"));
    named.map_or_else(|_| LOCALHOST.to_owned(), |hosts| format!("{hosts},{LOCALHOST}"))
}

/// Waits for the process to end, and sends it the signals that are requested.
async fn supervise(process: &mut tokio::process::Child, handle: &Process) {
    let status = loop {
        let signalled = tokio::select! {
            status = process.wait() => break status,
            () = handle.kill.notified() => process.start_kill(),
            () = handle.terminate.notified() => terminate(process),
        };
        if let Err(error) = signalled {
            tracing::warn!(process.pid = handle.pid, error = %error, "a signal could not be sent to a function's process");
        }
    };
    tracing::debug!(process.pid = handle.pid, ?status, "a function's process ended");
    handle.exited.send_replace(true);
}
