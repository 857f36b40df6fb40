//! The promise that a record is durable, or the word that it is not.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Why a record's receipt did not come true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum NotDurable {
    /// The record is certainly not in: the pipeline ended without taking it, or the attempt that took it failed
    /// before the commit of its epoch. Sending it again cannot count it twice.
    #[error("the record was lost before its epoch was committed; send it again")]
    Lost,
    /// The pipeline ended, or was dropped, before it told whether the record's epoch was committed. Sending it again
    /// may count it twice.
    #[error(
        "the pipeline ended before it told whether the record's epoch was committed; check its output before sending \
         again"
    )]
    Unknown,
}

/// Becomes ready when the fate of one record is known: `Ok` once the epoch it belongs to is committed, so that it
/// will count exactly once whatever fails from then on. To be awaited, or waited for with [`Receipt::wait`].
///
/// Never stays open for ever: when the pipeline ends, so does every receipt. Dropping it has no effect on the record.
///
/// # Cancel safety
/// Awaiting `&mut receipt` may be broken off and taken up again.
#[must_use = "a receipt that nobody waits for tells nothing; use send instead"]
pub struct Receipt {
    shared: Arc<Shared>,
}

/// The other end of a receipt. Dropped unsettled, it settles as lost.
#[derive(Debug)]
pub(super) struct Settle {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    settled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Result<(), NotDurable>>,
    waker: Option<Waker>,
}

pub(super) fn receipt() -> (Settle, Receipt) {
    let shared = Arc::new(Shared::default());
    (Settle { shared: Arc::clone(&shared) }, Receipt { shared })
}

impl Receipt {
    /// Blocks until the record's fate is known. Not inside async code, where the receipt itself is to be awaited.
    ///
    /// # Errors
    /// [`NotDurable`] when the record is not in, or nobody can tell.
    pub fn wait(self) -> Result<(), NotDurable> {
        loop {
            // In slices only because the call needs a bound.
            if let Some(outcome) = self.wait_timeout(Duration::from_secs(3600)) {
                return outcome;
            }
        }
    }

    /// Blocks until the record's fate is known, for at most `timeout`; nothing if it is not known by then.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result<(), NotDurable>> {
        let state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.shared.settled.wait_timeout_while(state, timeout, |state| state.outcome.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.outcome
    }

    /// Returns the record's fate if it is known.
    pub fn try_wait(&self) -> Option<Result<(), NotDurable>> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).outcome
    }
}

impl Future for Receipt {
    type Output = Result<(), NotDurable>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.outcome {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("outcome", &self.try_wait()).finish()
    }
}

impl Receipt {
    /// Settles it from the sender's side, for when nobody is left who would.
    pub(super) fn settle(&self, outcome: Result<(), NotDurable>) {
        self.shared.settle(outcome);
    }
}

impl Settle {
    /// Settles the receipt; only the first outcome counts.
    pub(super) fn settle(&self, outcome: Result<(), NotDurable>) {
        self.shared.settle(outcome);
    }
}

impl Drop for Settle {
    fn drop(&mut self) {
        self.shared.settle(Err(NotDurable::Lost));
    }
}

impl Shared {
    fn settle(&self, outcome: Result<(), NotDurable>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(outcome);
        let waker = state.waker.take();
        drop(state);
        self.settled.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn wakes_whoever_awaits_it() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let (settle, receipt) = receipt();
        let mut receipt = pin!(receipt);
        assert_eq!(receipt.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
        settle.settle(Ok(()));
        drop(settle);
        assert!(woken.0.load(Ordering::Relaxed));
        assert_eq!(receipt.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(())));
    }

    #[test]
    fn is_lost_when_nobody_is_left_to_settle_it() {
        let (settle, receipt) = receipt();
        assert_eq!((receipt.try_wait(), receipt.wait_timeout(Duration::ZERO)), (None, None));
        let waiting = std::thread::spawn(move || receipt.wait());
        drop(settle);
        assert_eq!(waiting.join().unwrap(), Err(NotDurable::Lost));
    }
}
