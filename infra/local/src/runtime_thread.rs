//! A thread with a runtime of its own, for a server that works behind one lock and would otherwise block other tasks.

use std::future::Future;
use std::{io, thread};

use tokio::runtime;
use tokio::sync::oneshot;

/// A thread with a runtime. Dropping it ends the runtime and waits for the thread.
#[derive(Debug)]
pub struct RuntimeThread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl RuntimeThread {
    /// Runs `serve` until this value is dropped. The future is created on the new thread, so it need not be `Send`.
    ///
    /// # Errors
    ///
    /// Fails if the runtime or the thread cannot be created.
    pub fn spawn<F: Future<Output = ()>>(
        name: &str,
        serve: impl FnOnce() -> F + Send + 'static,
    ) -> io::Result<RuntimeThread> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve() => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(RuntimeThread {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for RuntimeThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The panic hook has already reported a panic of the thread.
            let _ = thread.join();
        }
    }
}
