//! Opens a store under a watchdog: some damage makes a database's open spin or wait for ever.
//!
//! A thread cannot be ended from outside, so one that hangs is left behind with what it holds, the store's lock among it.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::{StateBackend, Store, StoreError, StoreErrorKind};
use crate::id::ShardId;

/// Opens the store of a pipeline on a thread of its own and waits for it no longer than `timeout`.
///
/// # Errors
/// As [`StateBackend::open`]; [`StoreErrorKind::Stuck`] when the time is over. The thread is then left behind. Should it come
/// to an end after all, the store is closed again and its lock is free.
pub fn open_within(
    timeout: Duration,
    backend: &Arc<dyn StateBackend>,
    pipeline: &str,
    shard: ShardId,
    create: bool,
) -> Result<Box<dyn Store>, StoreError> {
    let place = backend.describe(pipeline, shard);
    let action = "open the store";
    let (opened, answer) = sync_channel(1);
    let (theirs, name) = (Arc::clone(backend), pipeline.to_owned());
    let open = move || {
        // Nobody waits any more: the store is dropped with the answer, and so closed.
        if opened.send(theirs.open(&name, shard, create)).is_err() {
            tracing::warn!(pipeline = name, %shard, "a store that took too long to open did so after all; closed it");
        }
    };
    std::thread::Builder::new()
        .name(format!("millstream-open-{pipeline}"))
        .spawn(open)
        .map_err(|error| StoreError::new(StoreErrorKind::Io, action, &place, error))?;
    match answer.recv_timeout(timeout) {
        Ok(opened) => opened,
        Err(RecvTimeoutError::Timeout) => {
            let reason = format!(
                "it did not open within {timeout:?}, as a damaged MANIFEST or a disk that hangs can cause; the thread that \
                 hangs is left behind and holds the store's lock as long as this process lives: end the process, then \
                 restore the directory from a copy, or allow more time with Runtime::builder().open_timeout(..)"
            );
            Err(StoreError::new(StoreErrorKind::Stuck, action, place, reason))
        }
        Err(RecvTimeoutError::Disconnected) => {
            let reason = "the thread that opened it panicked; its message is on stderr";
            Err(StoreError::new(StoreErrorKind::Io, action, place, reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, SyncSender};

    use super::super::Memory;
    use super::*;

    const SHARD: ShardId = ShardId::new(0);

    /// Opens when it is let, and says when it is about to.
    #[derive(Debug)]
    struct Slow {
        inner: Memory,
        let_go: Mutex<Receiver<()>>,
        opening: SyncSender<()>,
    }

    impl StateBackend for Slow {
        fn open(&self, pipeline: &str, shard: ShardId, create: bool) -> Result<Box<dyn Store>, StoreError> {
            let store = self.inner.open(pipeline, shard, create)?;
            self.opening.send(()).unwrap();
            self.let_go.lock().unwrap().recv().unwrap();
            Ok(store)
        }

        fn describe(&self, pipeline: &str, shard: ShardId) -> String {
            self.inner.describe(pipeline, shard)
        }
    }

    #[test]
    fn an_open_that_hangs_is_left_behind_with_its_lock_until_it_ends_after_all() {
        let ((let_it, let_go), (opening, begun)) = (sync_channel(1), sync_channel(1));
        let inner = Memory::new();
        let slow: Arc<dyn StateBackend> = Arc::new(Slow { inner: inner.clone(), let_go: Mutex::new(let_go), opening });
        let error = open_within(Duration::from_millis(20), &slow, "p", SHARD, true).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Stuck);
        let text = format!("{error}: {}", error.source);
        for part in ["cannot open the store at memory/p/0", "within 20ms", "holds the store's lock", "end the process"]
        {
            assert!(text.contains(part), "{text}");
        }
        begun.recv().unwrap();
        assert_eq!(inner.open("p", SHARD, true).unwrap_err().kind, StoreErrorKind::Locked);

        let_it.send(()).unwrap();
        // The thread that was left behind ends on its own; nothing tells when.
        while inner.open("p", SHARD, true).is_err() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn an_open_in_time_is_as_without_a_watchdog() {
        let backend: Arc<dyn StateBackend> = Arc::new(Memory::new());
        let minute = Duration::from_secs(60);
        assert_eq!(open_within(minute, &backend, "p", SHARD, false).unwrap_err().kind, StoreErrorKind::Missing);
        let store = open_within(minute, &backend, "p", SHARD, true).unwrap();
        assert_eq!(open_within(minute, &backend, "p", SHARD, true).unwrap_err().kind, StoreErrorKind::Locked);
        drop(store);
    }
}
