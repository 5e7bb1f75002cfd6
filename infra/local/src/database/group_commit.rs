//! Group commit: writes that wait for the disk at the same time share one sync.
//!
//! With `synchronous=NORMAL` SQLite syncs the write-ahead log before a checkpoint and the database after it, and a log's header when
//! the log begins anew; but not the log at a commit. [`GroupCommit`] does that in its place. No answer leaves before what it may have
//! seen has reached the disk: not only a write waits, but also a read, and a write that is refused, since the caller may take
//! either for the proof of an earlier write whose answer it missed, and act on it. The log is sequential, so the sync of a write
//! covers all writes before it.

use std::io;

use dynoxide::DynoxideError;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::storage::NOT_SYNCED;

/// The writes of a database and those of them that have reached the disk, by their numbers.
#[derive(Debug)]
pub struct GroupCommit {
    written: watch::Sender<u64>,
    synced: watch::Sender<Result<u64, String>>,
}

impl Default for GroupCommit {
    fn default() -> GroupCommit {
        GroupCommit {
            written: watch::Sender::new(0),
            synced: watch::Sender::new(Ok(0)),
        }
    }
}

impl GroupCommit {
    /// Fails if a sync has failed: nothing may be read or written any more.
    ///
    /// # Errors
    ///
    /// The failure.
    pub fn check(&self) -> Result<(), DynoxideError> {
        match &*self.synced.borrow() {
            Ok(_) => Ok(()),
            Err(error) => Err(DynoxideError::InternalServerError(error.clone())),
        }
    }

    /// Notes that something was written: after its commit, and before anything is answered.
    pub fn written(&self) {
        self.written.send_modify(|written| *written += 1);
    }

    /// Waits until all that was written has reached the disk.
    ///
    /// # Errors
    ///
    /// Fails if a sync has failed, now or at any time before.
    pub async fn reach_disk(&self) -> Result<(), DynoxideError> {
        let written = *self.written.borrow();
        let mut synced = self.synced.subscribe();
        let reached = |synced: &Result<u64, String>| !matches!(synced, Ok(synced) if *synced < written);
        // The sender lives as long as `self`.
        let _ = synced.wait_for(reached).await;
        self.check()
    }

    /// Syncs whenever something was written, until a sync fails. That is the last one: the kernel tells a failure once and then
    /// drops the data, so that the next sync would succeed without it.
    pub async fn run(&self, sync: impl Fn() -> io::Result<()> + Clone + Send + 'static) {
        let mut writes = self.written.subscribe();
        writes.mark_changed();
        loop {
            // The sender lives as long as `self`.
            let _ = writes.changed().await;
            let written = *writes.borrow_and_update();
            let ended = spawn_blocking(sync.clone()).await.map_err(io::Error::other).flatten();
            let ended = ended
                .map(|()| written)
                .map_err(|error| format!("{NOT_SYNCED}: {error}"));
            let has_failed = ended.is_err();
            self.synced.send_modify(|synced| *synced = ended);
            if has_failed {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc};

    use futures_util::FutureExt;
    use futures_util::future::{join_all, poll_immediate};
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    /// A disk whose syncs end when they are told to.
    struct Disk {
        begun: UnboundedReceiver<()>,
        ends: mpsc::Sender<io::Result<()>>,
    }

    impl Disk {
        /// Runs a group commit on such a disk; the sync of what was written before is over.
        async fn start() -> (Arc<GroupCommit>, Disk) {
            let commit = Arc::new(GroupCommit::default());
            let (begins, begun) = unbounded_channel();
            let (ends, ended) = mpsc::channel();
            let ended = Arc::new(Mutex::new(ended));
            let sync = move || {
                begins.send(()).unwrap();
                ended.lock().unwrap().recv().unwrap()
            };
            let running = Arc::clone(&commit);
            tokio::spawn(async move { running.run(sync).await });
            let mut disk = Disk { begun, ends };
            disk.begun.recv().await.unwrap();
            disk.ends.send(Ok(())).unwrap();
            (commit, disk)
        }
    }

    #[tokio::test]
    async fn writes_that_wait_share_a_sync_that_begins_after_them() {
        let (commit, mut disk) = Disk::start().await;
        commit.written();
        let mut first = Box::pin(commit.reach_disk());
        assert!(poll_immediate(&mut first).await.is_none());
        disk.begun.recv().await.unwrap();
        let others = (0..100).map(|_| {
            commit.written();
            commit.reach_disk().boxed()
        });
        let mut others: Vec<_> = others.collect();

        disk.ends.send(Ok(())).unwrap();
        first.await.unwrap();
        for other in &mut others {
            assert!(poll_immediate(other).await.is_none(), "its sync began before it");
        }
        disk.begun.recv().await.unwrap();
        disk.ends.send(Ok(())).unwrap();
        assert!(join_all(others).await.iter().all(Result::is_ok));
        assert!(disk.begun.try_recv().is_err(), "two syncs were enough for 101 writes");
        commit.reach_disk().now_or_never().unwrap().unwrap();
    }

    #[tokio::test]
    async fn failed_sync_fails_what_waits_and_all_that_follows() {
        let (commit, mut disk) = Disk::start().await;
        commit.written();
        disk.begun.recv().await.unwrap();
        commit.written();
        disk.ends.send(Err(io::Error::other("lost page"))).unwrap();
        let error = commit.reach_disk().await.unwrap_err();
        assert!(error.to_string().contains("lost page"), "{error}");

        commit.written();
        assert!(commit.reach_disk().await.is_err());
        assert!(disk.begun.recv().await.is_none(), "there is no other sync");
    }
}
