//! The threads of one job: named, started in one place, and all waited for at its end.

use std::cell::RefCell;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use actix::{ArbiterHandle, System};

use crate::error::panic_text;
use crate::time::SharedClock;

/// How far below the workers a thread ranks whose work no record waits for.
///
/// It still has to get on where every core is busy: there, at 10, an epoch was written about twice as late as at equal priority,
/// and at 19, the lowest, three of four epochs were not written in time at all. At 5 the cost was a fifth, for the same gain.
#[cfg(target_os = "linux")]
const NICER: i32 = 5;

/// Lets the workers and readers go first wherever they want the calling thread's core; threads that it starts from now on
/// inherit that.
///
/// On an equal footing the scheduler leaves a thread that computes on its core for a slice of milliseconds, and what wakes
/// up there meanwhile waits, even if another core is idle. Only Linux ranks single threads; elsewhere nothing happens. Where
/// it is refused the thread stays as it is: that costs latency, not correctness.
pub(super) fn yield_to_workers() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICER) {
        tracing::debug!(%error, "a background thread keeps the priority of the workers");
    }
}

/// Calls it on a thread that ranks below the workers, so that threads which it starts do too.
///
/// # Errors
/// What the operating system says when it gives no thread.
pub(crate) fn below_the_workers<T: Send>(call: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let below = move || {
            yield_to_workers();
            call()
        };
        let thread = Builder::new().name("millstream-open".to_owned()).spawn_scoped(scope, below)?;
        thread.join().map_err(|panic| io::Error::other(panic_text(panic.as_ref())))
    })
}

struct Watched {
    name: String,
    /// Nothing is ever sent: it is closed when the thread has dropped everything that it had.
    gone: Receiver<()>,
    thread: JoinHandle<()>,
}

/// All threads of a job. Used on its control thread only.
#[derive(Default)]
pub(super) struct Threads {
    list: RefCell<Vec<Watched>>,
}

impl Threads {
    /// Starts a thread.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn spawn(&self, name: String, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let (here, gone): (SyncSender<()>, _) = sync_channel(1);
        let thread = Builder::new().name(name.clone()).spawn(move || {
            run();
            drop(here);
        })?;
        let mut list = self.list.borrow_mut();
        list.retain(|watched| !watched.thread.is_finished());
        list.push(Watched { name, gone, thread });
        Ok(())
    }

    /// Stops waiting for a thread that hangs.
    pub(super) fn leave_behind(&self, name: &str) {
        self.list.borrow_mut().retain(|watched| watched.name != name);
    }

    /// Waits for all threads, for at most `within`; returns those that did not end.
    pub(super) fn join(&self, within: Duration, clock: &SharedClock) -> Vec<String> {
        let until = clock.now().saturating_add(within);
        let mut left = Vec::new();
        for Watched { name, gone, thread } in self.list.take() {
            match gone.recv_timeout(until.saturating_since(clock.now())) {
                Err(RecvTimeoutError::Timeout) => left.push(name),
                // It has nothing left to do but to end.
                Ok(()) | Err(RecvTimeoutError::Disconnected) => drop(thread.join()),
            }
        }
        left
    }
}

/// One worker: a thread with an Arbiter. Dropped, it is told to stop.
///
/// The Arbiter is the first one of a System of its own: `Arbiter::new` names its threads itself, and a panic message that
/// says `millstream-work-1` is worth more than a shared System.
pub(super) struct Worker {
    pub(super) name: String,
    pub(super) arbiter: ArbiterHandle,
    system: System,
}

impl Worker {
    /// Starts a worker.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn spawn(name: String, threads: &Threads) -> io::Result<Self> {
        let (ready, started) = sync_channel(1);
        threads.spawn(name.clone(), move || {
            // Without drivers: data loops use neither timers nor sockets, and each yield would have to turn them.
            let runtime = match tokio::runtime::Builder::new_current_thread().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let runner = System::with_tokio_rt(|| runtime);
            if ready.send(Ok(System::current())).is_ok()
                && let Err(error) = runner.run()
            {
                tracing::error!(%error, "a worker ended");
            }
        })?;
        let died = || io::Error::other("a worker died while it was started");
        let system = started.recv().map_err(|_| died())??;
        Ok(Self { name, arbiter: system.arbiter().clone(), system })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.system.stop();
    }
}
