//! The handle on a stream whose records have a key.

use std::fmt;
use std::sync::Arc;

use millstream_runtime::channel::{HashFrame, Routing};
use millstream_runtime::graph::WireOf;
use millstream_runtime::state::key_group::{KeyGroups, StreamKey};

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

/// A stream whose records have a key: all records of one key meet in one subtask, in the order of their source.
pub struct KeyedStream<K: StreamKey, T> {
    stream: Stream<T>,
    selector: KeySelector<K, T>,
    hash: HashFrame<T>,
}

impl<K: StreamKey, T> fmt::Debug for KeyedStream<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedStream").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl<K: StreamKey, T: Clone + Send + 'static> Clone for KeyedStream<K, T> {
    fn clone(&self) -> Self {
        let (stream, selector) = (self.stream.clone(), self.selector.clone());
        Self { stream, selector, hash: Arc::clone(&self.hash) }
    }
}

impl<K: StreamKey, T: Send + 'static> KeyedStream<K, T> {
    pub(crate) fn new(stream: Stream<T>, selector: KeySelector<K, T>, hash: HashFrame<T>) -> Self {
        Self { stream, selector, hash }
    }

    /// Takes the stream apart: the records, their key, and the wire that exchanges them by it.
    pub(crate) fn into_parts(self) -> (Stream<T>, KeySelector<K, T>, WireOf<T>) {
        let hash = self.hash;
        let routing = move |groups: KeyGroups| Routing::Hash { hash: Arc::clone(&hash), groups };
        (self.stream, self.selector, WireOf::new(routing))
    }
}
