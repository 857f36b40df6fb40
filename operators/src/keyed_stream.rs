//! The handle on a stream whose records have a key.

use std::fmt;
use std::sync::Arc;

use millstream_runtime::channel::{HashFrame, Routing};
use millstream_runtime::graph::WireOf;
use millstream_runtime::operator::OutputTag;
use millstream_runtime::state::key_group::{KeyGroups, StreamKey, StreamKeyRef};
use millstream_runtime::state::keyed::KeyedState;
use serde::Serialize;

use crate::failing::FailingRecords;
use crate::stream::Stream;

type OwnedKey<K, T> = Arc<dyn Fn(&T) -> K + Send + Sync>;
type BorrowedKey<K, T> = Arc<dyn for<'a> Fn(&'a T) -> &'a <K as StreamKey>::Borrowed + Send + Sync>;

/// How a record's key is found. It is called where the record is exchanged and once more where its state is.
pub(crate) enum KeySelector<K: StreamKey, T> {
    Owned(OwnedKey<K, T>),
    Borrowed(BorrowedKey<K, T>),
}

impl<K: StreamKey, T> Clone for KeySelector<K, T> {
    fn clone(&self) -> Self {
        match self {
            Self::Owned(key) => Self::Owned(Arc::clone(key)),
            Self::Borrowed(key) => Self::Borrowed(Arc::clone(key)),
        }
    }
}

impl<K: StreamKey, T> KeySelector<K, T> {
    /// Returns the hash of a record's key.
    pub(crate) fn hash(&self, value: &T, scratch: &mut Vec<u8>) -> u32 {
        match self {
            Self::Owned(key) => key(value).borrow().key_hash(scratch),
            Self::Borrowed(key) => key(value).key_hash(scratch),
        }
    }

    /// Writes the bytes of a record's key.
    pub(crate) fn write(&self, value: &T, out: &mut Vec<u8>) {
        match self {
            Self::Owned(key) => key(value).borrow().write_key(out),
            Self::Borrowed(key) => key(value).write_key(out),
        }
    }

    /// Takes note that the state of a record's key is needed.
    pub(crate) fn want(&self, value: &T, hash: u32, keyed: &mut KeyedState) {
        match self {
            Self::Owned(key) => keyed.want(hash, key(value).borrow()),
            Self::Borrowed(key) => keyed.want(hash, key(value)),
        }
    }

    /// Makes a record's key the one whose state is at hand.
    pub(crate) fn enter(&self, value: &T, hash: u32, keyed: &mut KeyedState) {
        match self {
            Self::Owned(key) => keyed.set_key(hash, key(value).borrow()),
            Self::Borrowed(key) => keyed.set_key(hash, key(value)),
        }
    }
}

/// What becomes of late records.
pub(crate) enum LateRecords<T> {
    /// They are dropped and counted.
    Drop,
    /// They go to a side output.
    Side(OutputTag<T>),
    /// They are taken like any other.
    Accept,
}

impl<T> Clone for LateRecords<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Drop => Self::Drop,
            Self::Side(tag) => Self::Side(tag.clone()),
            Self::Accept => Self::Accept,
        }
    }
}

/// A stream whose records have a key: all records of one key meet in one subtask, in the order of their source.
pub struct KeyedStream<K: StreamKey, T> {
    stream: Stream<T>,
    selector: KeySelector<K, T>,
    hash: HashFrame<T>,
    late: LateRecords<T>,
    failing: FailingRecords<T>,
}

impl<K: StreamKey, T> fmt::Debug for KeyedStream<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedStream").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl<K: StreamKey, T: Clone + Send + 'static> Clone for KeyedStream<K, T> {
    fn clone(&self) -> Self {
        let (stream, selector) = (self.stream.clone(), self.selector.clone());
        let (late, failing) = (self.late.clone(), self.failing.clone());
        Self { stream, selector, hash: Arc::clone(&self.hash), late, failing }
    }
}

impl<K: StreamKey, T: Send + 'static> KeyedStream<K, T> {
    pub(crate) fn new(stream: Stream<T>, selector: KeySelector<K, T>, hash: HashFrame<T>) -> Self {
        Self { stream, selector, hash, late: LateRecords::Drop, failing: FailingRecords::default() }
    }

    /// Sends late records of the operator that follows to a side output instead of dropping them; read it with
    /// [`Stream::side`]. `process` and `drop_duplicates` and its like have late records, those whose event time is not above the operator's
    /// watermark, and windows have: see [`WindowedStream::late_to`](crate::window::WindowedStream::late_to).
    #[must_use]
    pub fn late_to(mut self, tag: &OutputTag<T>) -> Self {
        self.late = LateRecords::Side(tag.clone());
        self
    }

    /// Lets the operator that follows take late records like any other. Timers that it registers at their times fire at once. Not for
    /// windows, which have [`allowed_lateness`](crate::window::WindowedStream::allowed_lateness).
    #[must_use]
    pub fn accept_late(mut self) -> Self {
        self.late = LateRecords::Accept;
        self
    }

    /// Skips records for which the operator that follows returns an error, instead of failing the attempt. Nothing of such a
    /// record remains: what it emitted is dropped, its changes of state and timers are taken back. It is counted, see
    /// [`Dropped`](millstream_runtime::operator::Dropped). Only for `process` and aggregates (group state and stateful processors refuse it), and
    /// only for records: a timer that fails, or state that cannot be read or written, fails the attempt all the same, and so does a panic.
    #[must_use]
    pub fn skip_errors(mut self) -> Self {
        self.failing.skip_errors();
        self
    }

    /// As [`KeyedStream::skip_errors`], and sends each such record to a side output; read it with [`Stream::side`]. Every
    /// record is copied before it is worked on. They are counted as [`DeadLetters`](millstream_runtime::operator::DeadLetters).
    #[must_use]
    pub fn dead_letters_to(mut self, tag: &OutputTag<T>) -> Self
    where
        T: Clone,
    {
        self.failing.dead_letters_to(tag);
        self
    }

    /// Keeps records away from the operator that follows on which it panicked in two attempts. A panic is never skipped in place: the
    /// attempt ends and the job goes back to the last epoch. A record that makes the next attempt panic as well is in quarantine:
    /// the attempt after that does not give it to user code, and nothing of it remains. It goes where
    /// [`KeyedStream::dead_letters_to`] says, or else is dropped; it is counted there or there as quarantined, logged, and found in the job's status. Its first panic
    /// counts as a restart, the second does not. Only for `process`, and only for records: a timer that panics is no record's.
    ///
    /// A record is known again by its event time and its bytes; so every record is encoded once more, and two equal ones with the same
    /// time are one. Where `panic = "abort"` is set the process ends at the first panic and nothing is quarantined.
    #[must_use]
    pub fn quarantine_panics(mut self) -> Self
    where
        T: Serialize,
    {
        self.failing.quarantine_panics();
        self
    }

    /// What becomes of records that fail.
    pub(crate) const fn failing(&self) -> &FailingRecords<T> {
        &self.failing
    }

    /// What becomes of late records.
    pub(crate) const fn late(&self) -> &LateRecords<T> {
        &self.late
    }

    /// Takes the stream apart: the records, their key, and the wire that exchanges them by it.
    pub(crate) fn into_parts(self) -> (Stream<T>, KeySelector<K, T>, WireOf<T>) {
        let hash = self.hash;
        let routing = move |groups: KeyGroups| Routing::Hash { hash: Arc::clone(&hash), groups };
        (self.stream, self.selector, WireOf::new(routing))
    }
}
