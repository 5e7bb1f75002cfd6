//! A child process that works for a function, one invocation at a time.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::process::Command;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time;

use crate::clients::{PLACEHOLDER_KEY, REGION, access_key};

use super::runtime_api::{Invocation, RuntimeApi};
use super::{Definition, InvokeError};

/// How long a child may take until it asks for work. Lambda's own limit is the same.
const INIT_TIMEOUT: Duration = Duration::from_secs(10);

const LOCALHOST: &str = "127.0.0.1";

/// A process as seen from outside: its id, whether it works, and the means to kill it.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    busy: AtomicBool,
    kill: Notify,
    exited: watch::Sender<bool>,
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it works on an invocation.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst) && !self.has_exited()
    }

    pub fn has_exited(&self) -> bool {
        *self.exited.borrow()
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub async fn kill(&self) {
        self.kill.notify_one();
        self.exited().await;
    }

    async fn exited(&self) {
        // The sender is our own, so the channel cannot close meanwhile.
        let _ = self.exited.subscribe().wait_for(|exited| *exited).await;
    }
}

/// A process with its Runtime API; dropping it kills the process.
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
            // One for each function, by which the log of calls tells them apart.
            .env("AWS_ACCESS_KEY_ID", access_key(name))
            .env("AWS_SECRET_ACCESS_KEY", PLACEHOLDER_KEY)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("NO_PROXY", without_proxy())
            .envs(&definition.env)
            // The child ends when this pipe closes, and it closes however we end.
            .stdin(Stdio::piped())
            // A Ctrl-C in the terminal is for us: a child that it killed in mid-send would leave contacts in doubt.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let shared = Arc::new(Process {
            pid: process.id().unwrap_or_default(),
            busy: AtomicBool::new(false),
            kill: Notify::new(),
            exited: watch::Sender::new(false),
        });
        // Waiting for a process closes its stdin, so the pipe is held apart.
        let stdin = process.stdin.take();
        let watched = Arc::clone(&shared);
        tokio::spawn(async move {
            supervise(&mut process, &watched).await;
            drop(stdin);
        });
        Ok(Child {
            process: shared,
            api,
        })
    }

    /// Waits until the child asks for work. Its start does not count against the time-out, as on AWS.
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

    /// Has the child work, and kills it when the time is up.
    pub async fn invoke(&self, payload: Bytes, timeout: Duration) -> Result<Bytes, InvokeError> {
        self.process.busy.store(true, Ordering::SeqCst);
        let (answer, answered) = oneshot::channel();
        let timeout_ms = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
        self.api.offer(Invocation {
            payload,
            deadline_ms: Timestamp::now().as_millisecond().saturating_add(timeout_ms),
            answer,
        });
        let answer = tokio::select! {
            // An answer that is there counts, even if the child has ended since.
            biased;
            Ok(answer) = answered => answer.map_err(InvokeError::Failed),
            () = self.process.exited() => Err(InvokeError::Crashed),
            () = time::sleep(timeout) => {
                self.process.kill().await;
                Err(InvokeError::TimedOut)
            }
        };
        self.process.busy.store(false, Ordering::SeqCst);
        answer
    }
}

/// Hosts that need no proxy: ours, and those that the operator names.
fn without_proxy() -> String {
    let named = std::env::var("NO_PROXY").or_else(|_| std::env::var("no_proxy"));
    named.map_or_else(
        |_| LOCALHOST.to_owned(),
        |hosts| format!("{hosts},{LOCALHOST}"),
    )
}

/// Waits for the process, and kills it when asked to.
async fn supervise(process: &mut tokio::process::Child, shared: &Process) {
    let status = loop {
        tokio::select! {
            status = process.wait() => break status,
            () = shared.kill.notified() => {
                if let Err(error) = process.start_kill() {
                    tracing::warn!(process.pid = shared.pid, error = %error, "could not kill a process");
                }
            }
        }
    };
    tracing::debug!(
        process.pid = shared.pid,
        ?status,
        "a function's process ended"
    );
    shared.exited.send_replace(true);
}
