//! Wakes a task that has nothing to do.
//!
//! Channels are only ever polled; who sleeps, sleeps on its bell. So no future of a channel is ever dropped half-way (flume
//! says nothing of cancel safety), one wait covers all inputs and outputs of a task, and the simulator needs no executor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// A bell that stays rung until it is answered. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Bell {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    rung: AtomicBool,
    sleeper: Notify,
}

impl Bell {
    /// Rings. Cheap if it is rung already; a system call only if somebody sleeps on another thread.
    pub fn ring(&self) {
        if !self.inner.rung.swap(true, Ordering::AcqRel) {
            self.inner.sleeper.notify_one();
        }
    }

    /// Answers the bell and says whether it was rung. Answer first, then look for work: work that comes in between
    /// rings again.
    pub fn answer(&self) -> bool {
        self.inner.rung.swap(false, Ordering::AcqRel)
    }

    /// Says whether it is rung, without answering.
    pub fn is_rung(&self) -> bool {
        self.inner.rung.load(Ordering::Acquire)
    }

    /// Waits until the bell is rung. Does not answer it.
    ///
    /// # Cancel safety
    /// May be dropped at any time; a ring is never lost, since the bell stays rung.
    pub async fn wait(&self) {
        while !self.is_rung() {
            self.inner.sleeper.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_rung_until_it_is_answered() {
        let bell = Bell::default();
        bell.ring();
        bell.ring();
        assert!(bell.is_rung() && bell.answer() && !bell.answer());
    }

    #[test]
    fn wakes_a_sleeper_on_another_thread() {
        let bell = Bell::default();
        let sleeper = bell.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(sleeper.wait());
            sleeper.answer()
        });
        bell.ring();
        assert!(thread.join().unwrap());
    }
}
