//! The platform's own hiccups, in the manner of jHiccup: how late a thread wakes that only sleeps.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::latency::Latency;
use crate::pacing::sharpen_timers;
use crate::source::lock;

const INTERVAL: Duration = Duration::from_millis(1);

/// A thread that sleeps 1 ms again and again and records by how much it overslept.
#[derive(Debug)]
pub(crate) struct HiccupMeter {
    seen: Arc<Mutex<Latency>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl HiccupMeter {
    pub(crate) fn start(clock: Stopwatch) -> anyhow::Result<Self> {
        let (seen, ending) = (Arc::new(Mutex::new(Latency::new()?)), Arc::new(AtomicBool::new(false)));
        let (ours, end) = (Arc::clone(&seen), Arc::clone(&ending));
        let thread = std::thread::Builder::new().name("loadtest-hiccup".into()).spawn(move || {
            sharpen_timers();
            let interval = INTERVAL.as_nanos() as u64;
            while !end.load(Ordering::Acquire) {
                let before = clock.nanos();
                std::thread::sleep(INTERVAL);
                let late = (clock.nanos() - before).saturating_sub(interval);
                // Right here: the meter waits for its own sleep, so that it misses what happens during a long one.
                lock(&ours).record_with_missed(late, interval);
            }
        })?;
        Ok(Self { seen, ending, thread: Some(thread) })
    }

    /// Takes what was seen since the last call.
    pub(crate) fn take(&self) -> Latency {
        let mut seen = lock(&self.seen);
        let taken = seen.clone();
        seen.clear();
        taken
    }
}

impl Drop for HiccupMeter {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // It sleeps for 1 ms at most; a panic of it has been printed.
            let _ = thread.join();
        }
    }
}
