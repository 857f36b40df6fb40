//! A bounded hand-over queue between threads that are not ours and the runtime: feeds, collectors, readers.
//!
//! It is no channel between tasks: it carries plain values, knows no frames and no barriers, and its senders may block.
//! Values arrive in the order in which their sends completed; those of one sender arrive in its order.

use std::fmt;
use std::time::Duration;

/// Makes a queue that holds at most `capacity` values; 0 counts as 1.
pub fn queue<T>(capacity: usize) -> (QueueSender<T>, QueueReceiver<T>) {
    let (sender, receiver) = flume::bounded(capacity.max(1));
    (QueueSender { inner: sender }, QueueReceiver { inner: receiver })
}

/// The receiver is gone, so the value comes back. Nothing that is sent from now on would ever be read.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the receiver of the queue is gone")]
pub struct QueueClosed<T>(pub T);

/// A value that could not be sent comes back.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueSendError<T> {
    /// There is no room now.
    #[error("the queue is full")]
    Full(T),
    /// The receiver is gone.
    #[error("the receiver of the queue is gone")]
    Closed(T),
}

/// Nothing was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueRecvError {
    /// Nothing is there; something may still come.
    #[error("the queue is empty")]
    Empty,
    /// Nothing is there and all senders are gone: nothing comes any more.
    #[error("the queue is empty and all its senders are gone")]
    Closed,
}

// Not derived: the value needs no `Debug` of its own for an error to be one.
impl<T> fmt::Debug for QueueClosed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QueueClosed(..)")
    }
}

impl<T> fmt::Debug for QueueSendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "QueueSendError::Full(..)",
            Self::Closed(_) => "QueueSendError::Closed(..)",
        })
    }
}

impl<T> QueueSendError<T> {
    /// Returns the value that was not sent.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(value) | Self::Closed(value) => value,
        }
    }
}

/// The sending end; clones send into the same queue. The queue is closed when the last of them is dropped.
pub struct QueueSender<T> {
    inner: flume::Sender<T>,
}

impl<T> QueueSender<T> {
    /// Sends a value; blocks the thread while the queue is full. Not for a worker's thread.
    ///
    /// # Errors
    /// [`QueueClosed`] with the value when the receiver is gone, also if it goes while this waits.
    pub fn send(&self, value: T) -> Result<(), QueueClosed<T>> {
        self.inner.send(value).map_err(|error| QueueClosed(error.0))
    }

    /// Sends a value; waits while the queue is full, without blocking the thread.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it has sent the value or lost it, and nobody can tell which; it never sends twice.
    /// To keep the value, use [`QueueSender::try_send`], which hands it back.
    ///
    /// # Errors
    /// As [`QueueSender::send`].
    pub async fn send_async(&self, value: T) -> Result<(), QueueClosed<T>> {
        self.inner.send_async(value).await.map_err(|error| QueueClosed(error.0))
    }

    /// Sends a value if there is room now.
    ///
    /// # Errors
    /// [`QueueSendError`] with the value.
    pub fn try_send(&self, value: T) -> Result<(), QueueSendError<T>> {
        self.inner.try_send(value).map_err(|error| match error {
            flume::TrySendError::Full(value) => QueueSendError::Full(value),
            flume::TrySendError::Disconnected(value) => QueueSendError::Closed(value),
        })
    }

    /// Returns a sending end that does not keep the queue open.
    pub fn downgrade(&self) -> WeakQueueSender<T> {
        WeakQueueSender { inner: self.inner.downgrade() }
    }

    /// How many values wait now. Senders that wait for room are not counted.
    pub fn len(&self) -> usize {
        self.inner.len()
    }

    /// Whether nothing waits now.
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.inner.is_disconnected()
    }
}

impl<T> Clone for QueueSender<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<T> fmt::Debug for QueueSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueSender").field("len", &self.len()).field("closed", &self.is_closed()).finish()
    }
}

/// A sending end that does not keep the queue open.
pub struct WeakQueueSender<T> {
    inner: flume::WeakSender<T>,
}

impl<T> WeakQueueSender<T> {
    /// Returns a sending end, unless all others are gone.
    pub fn upgrade(&self) -> Option<QueueSender<T>> {
        self.inner.upgrade().map(|inner| QueueSender { inner })
    }
}

impl<T> fmt::Debug for WeakQueueSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakQueueSender")
    }
}

/// The receiving end.
///
/// Dropping it closes the queue, but what is queued then lives on until the last sender is dropped too: who needs the
/// values' own `Drop` to run receives until [`QueueRecvError`] first.
pub struct QueueReceiver<T> {
    inner: flume::Receiver<T>,
}

impl<T> QueueReceiver<T> {
    /// Takes the oldest value; blocks the thread for at most `timeout` while there is none.
    ///
    /// # Errors
    /// [`QueueRecvError::Empty`] after the time, [`QueueRecvError::Closed`] when nothing comes any more.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, QueueRecvError> {
        self.inner.recv_timeout(timeout).map_err(|error| match error {
            flume::RecvTimeoutError::Timeout => QueueRecvError::Empty,
            flume::RecvTimeoutError::Disconnected => QueueRecvError::Closed,
        })
    }

    /// Takes the oldest value if there is one.
    ///
    /// # Errors
    /// [`QueueRecvError::Empty`] when there is none now, [`QueueRecvError::Closed`] when nothing comes any more.
    pub fn try_recv(&self) -> Result<T, QueueRecvError> {
        self.inner.try_recv().map_err(|error| match error {
            flume::TryRecvError::Empty => QueueRecvError::Empty,
            flume::TryRecvError::Disconnected => QueueRecvError::Closed,
        })
    }

    /// How many values wait now.
    pub fn len(&self) -> usize {
        self.inner.len()
    }

    /// Whether nothing waits now.
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }
}

impl<T> fmt::Debug for QueueReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueReceiver").field("len", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn hands_over_in_order_and_refuses_what_does_not_fit() {
        let (sender, receiver) = queue(2);
        sender.send(1).unwrap();
        sender.clone().try_send(2).unwrap();
        assert_eq!(sender.try_send(3), Err(QueueSendError::Full(3)));
        assert_eq!((sender.len(), receiver.len()), (2, 2));
        assert_eq!((receiver.try_recv(), receiver.recv_timeout(Duration::ZERO)), (Ok(1), Ok(2)));
        assert_eq!(receiver.try_recv(), Err(QueueRecvError::Empty));
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Err(QueueRecvError::Empty));
    }

    #[test]
    fn hands_out_what_is_left_after_the_last_sender_is_gone() {
        let (sender, receiver) = queue(0);
        sender.send("last").unwrap();
        drop(sender);
        assert_eq!(receiver.try_recv(), Ok("last"));
        assert_eq!(receiver.try_recv(), Err(QueueRecvError::Closed));
        assert_eq!(receiver.recv_timeout(Duration::from_secs(9)), Err(QueueRecvError::Closed));
    }

    #[test]
    fn gives_the_value_back_when_the_receiver_is_gone() {
        let (sender, receiver) = queue(1);
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(sender.send(7), Err(QueueClosed(7)));
        assert_eq!(sender.try_send(7).map_err(QueueSendError::into_inner), Err(7));
    }

    #[test]
    fn a_cancelled_send_sends_at_most_once() {
        let (sender, receiver) = queue(1);
        sender.send(1).unwrap();
        {
            let mut cancelled = pin!(sender.send_async(2));
            let mut context = Context::from_waker(Waker::noop());
            assert_eq!(cancelled.as_mut().poll(&mut context), Poll::Pending);
        }
        assert_eq!(receiver.try_recv(), Ok(1));
        assert_eq!(receiver.try_recv(), Err(QueueRecvError::Empty));
    }
}
