//! A thread with a runtime of its own, for a server that works behind one lock and would hold up everybody else's.

use std::future::Future;
use std::{io, thread};

use tokio::runtime;
use tokio::sync::oneshot;

/// The thread, and the means to stop it: dropping this ends the runtime and waits for the thread.
#[derive(Debug)]
pub struct RuntimeThread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl RuntimeThread {
    /// Runs `serve` until this value is dropped. The future is made on the new thread, so it need not be `Send`.
    pub fn spawn<F: Future<Output = ()>>(
        name: &str,
        serve: impl FnOnce() -> F + Send + 'static,
    ) -> io::Result<RuntimeThread> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
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
            // A panic of the thread was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}
