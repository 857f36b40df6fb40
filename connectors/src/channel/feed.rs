//! Sending records into a pipeline of the same process.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millstream_runtime::channel::{QueueSendError, QueueSender, queue};
use millstream_runtime::record::Record;
use millstream_runtime::time::Timestamp;

use super::receipt::{NotDurable, Receipt, Settle, receipt};
use super::source::{FeedSource, Intake};

/// Makes a feed: `Feed` is kept, cloned and sent to, `FeedSource` is the pipeline's source. At most `capacity`
/// records wait between the two (at least 1).
///
/// # Delivery
/// The feed outlives the attempts of a job: what the source has not taken stays queued over a restart. What it had
/// taken but no epoch had committed is lost with a failed attempt: **at-most-once for the open epoch**, never twice.
/// Who needs to know uses [`Feed::send_durable`] and sends again what its [`Receipt`] reports as lost. The process's
/// end loses what was not committed. Clean ends (drain, or all feeds dropped) lose nothing.
pub fn feed<T: Send + 'static>(capacity: usize) -> (Feed<T>, FeedSource<T>) {
    let (sender, receiver) = queue(capacity);
    let gone = Arc::new(AtomicBool::new(false));
    let source = FeedSource::new(Intake::new(receiver, Arc::clone(&gone)));
    (Feed { sender, gone }, source)
}

/// The sending side; clones feed the same source.
///
/// Records of one thread arrive in the order of its sends. The source ends when every clone has been closed or dropped
/// and what they sent has been taken.
pub struct Feed<T> {
    sender: QueueSender<Fed<T>>,
    /// Set when nobody will read the queue any more, before what was left in it is settled.
    gone: Arc<AtomicBool>,
}

/// One record on its way.
pub(super) struct Fed<T> {
    pub(super) record: Record<T>,
    pub(super) receipt: Option<Settle>,
}

/// The record comes back: the pipeline has ended or was dropped, so nobody would ever take it.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot send: the pipeline of this feed has ended")]
pub struct FeedError<T>(pub T);

/// The record comes back.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TryFeedError<T> {
    /// The feed is full: the pipeline is slower than its senders at the moment. Send again later, or send blocking.
    #[error("cannot send: the feed is full")]
    Full(T),
    /// As [`FeedError`].
    #[error("cannot send: the pipeline of this feed has ended")]
    Ended(T),
}

impl<T> Feed<T> {
    /// Sends a record without an event time; blocks the thread while the feed is full.
    ///
    /// # Errors
    /// [`FeedError`] with the record when the pipeline has ended.
    pub fn send(&self, value: T) -> Result<(), FeedError<T>> {
        self.send_record(Record::new(value))
    }

    /// Sends a record with its event time; blocks the thread while the feed is full.
    ///
    /// # Errors
    /// As [`Feed::send`].
    pub fn send_at(&self, value: T, time: Timestamp) -> Result<(), FeedError<T>> {
        self.send_record(Record::at(value, time))
    }

    /// Sends a record without an event time; waits while the feed is full, without blocking the thread.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it has sent the record or lost it, and nobody can tell which; it never sends
    /// twice. To keep the record, use [`Feed::try_send`], which hands it back.
    ///
    /// # Errors
    /// As [`Feed::send`].
    pub async fn send_async(&self, value: T) -> Result<(), FeedError<T>> {
        self.send_record_async(Record::new(value)).await
    }

    /// Sends a record with its event time; waits while the feed is full, without blocking the thread.
    ///
    /// # Cancel safety
    /// As [`Feed::send_async`].
    ///
    /// # Errors
    /// As [`Feed::send`].
    pub async fn send_async_at(&self, value: T, time: Timestamp) -> Result<(), FeedError<T>> {
        self.send_record_async(Record::at(value, time)).await
    }

    /// Sends a record without an event time if there is room now.
    ///
    /// # Errors
    /// [`TryFeedError`] with the record.
    pub fn try_send(&self, value: T) -> Result<(), TryFeedError<T>> {
        self.try_send_record(Record::new(value))
    }

    /// Sends a record with its event time if there is room now.
    ///
    /// # Errors
    /// [`TryFeedError`] with the record.
    pub fn try_send_at(&self, value: T, time: Timestamp) -> Result<(), TryFeedError<T>> {
        self.try_send_record(Record::at(value, time))
    }

    /// Sends a record without an event time and returns a [`Receipt`] that tells when it is durable: when the epoch
    /// it fell into is committed, so after about one epoch interval. Blocks the thread while the feed is full.
    ///
    /// # Errors
    /// As [`Feed::send`].
    pub fn send_durable(&self, value: T) -> Result<Receipt, FeedError<T>> {
        self.send_durable_record(Record::new(value))
    }

    /// Sends a record with its event time and returns a [`Receipt`]; otherwise as [`Feed::send_durable`].
    ///
    /// # Errors
    /// As [`Feed::send`].
    pub fn send_durable_at(&self, value: T, time: Timestamp) -> Result<Receipt, FeedError<T>> {
        self.send_durable_record(Record::at(value, time))
    }

    /// Sends a record without an event time and returns a [`Receipt`]; waits while the feed is full, without blocking
    /// the thread. The receipt then is another thing to await: being sent is not being durable.
    ///
    /// # Cancel safety
    /// As [`Feed::send_async`].
    ///
    /// # Errors
    /// As [`Feed::send`].
    pub async fn send_durable_async(&self, value: T) -> Result<Receipt, FeedError<T>> {
        self.send_durable_record_async(Record::new(value)).await
    }

    /// Sends a record with its event time and returns a [`Receipt`]; otherwise as [`Feed::send_durable_async`].
    ///
    /// # Cancel safety
    /// As [`Feed::send_async`].
    ///
    /// # Errors
    /// As [`Feed::send`].
    pub async fn send_durable_async_at(&self, value: T, time: Timestamp) -> Result<Receipt, FeedError<T>> {
        self.send_durable_record_async(Record::at(value, time)).await
    }

    /// Closes this handle; the same as dropping it. When all clones are closed, the source ends.
    pub fn close(self) {}

    /// How many records wait to be taken.
    pub fn len(&self) -> usize {
        self.sender.len()
    }

    /// Whether no record waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.sender.is_empty()
    }

    /// Whether the pipeline has ended, so that every send fails.
    pub fn is_ended(&self) -> bool {
        self.sender.is_closed()
    }

    fn send_record(&self, record: Record<T>) -> Result<(), FeedError<T>> {
        self.sender.send(Fed { record, receipt: None }).map_err(|error| FeedError(error.0.record.value))
    }

    async fn send_record_async(&self, record: Record<T>) -> Result<(), FeedError<T>> {
        let sent = self.sender.send_async(Fed { record, receipt: None }).await;
        sent.map_err(|error| FeedError(error.0.record.value))
    }

    fn try_send_record(&self, record: Record<T>) -> Result<(), TryFeedError<T>> {
        self.sender.try_send(Fed { record, receipt: None }).map_err(|error| match error {
            QueueSendError::Full(fed) => TryFeedError::Full(fed.record.value),
            other => TryFeedError::Ended(other.into_inner().record.value),
        })
    }

    fn send_durable_record(&self, record: Record<T>) -> Result<Receipt, FeedError<T>> {
        let (settle, receipt) = receipt();
        let sent = self.sender.send(Fed { record, receipt: Some(settle) });
        sent.map_err(|error| FeedError(error.0.record.value))?;
        Ok(self.watched(receipt))
    }

    async fn send_durable_record_async(&self, record: Record<T>) -> Result<Receipt, FeedError<T>> {
        let (settle, receipt) = receipt();
        let sent = self.sender.send_async(Fed { record, receipt: Some(settle) }).await;
        sent.map_err(|error| FeedError(error.0.record.value))?;
        Ok(self.watched(receipt))
    }

    /// A record may slip into the queue while its reader is going away; nobody would settle that one.
    fn watched(&self, receipt: Receipt) -> Receipt {
        if self.gone.load(Ordering::SeqCst) {
            receipt.settle(Err(NotDurable::Lost));
        }
        receipt
    }
}

impl<T> Clone for Feed<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), gone: Arc::clone(&self.gone) }
    }
}

impl<T> fmt::Debug for Feed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("len", &self.len()).field("ended", &self.is_ended()).finish()
    }
}

// Not derived: the record needs no `Debug` of its own for an error to be one.
impl<T> fmt::Debug for FeedError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FeedError(..)")
    }
}

impl<T> fmt::Debug for TryFeedError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "TryFeedError::Full(..)",
            Self::Ended(_) => "TryFeedError::Ended(..)",
        })
    }
}
