//! Gives records a key.

use std::sync::Arc;

use millstream_runtime::channel::HashFrame;
use millstream_runtime::record::Record;
use millstream_runtime::state::key_group::{StreamKey, StreamKeyRef};

use crate::keyed_stream::{KeySelector, KeyedStream};
use crate::stateless::Chain;
use crate::stream::Stream;

impl<T: Send + 'static, C: Chain<T>> Stream<T, C> {
    /// Gives every record a key. `key` is called twice per record and must give the same key both times; for a key that would
    /// have to be allocated see [`Stream::key_by_ref`].
    #[track_caller]
    pub fn key_by<K, F>(self, key: F) -> KeyedStream<K, T>
    where
        K: StreamKey,
        F: Fn(&T) -> K + Clone + Send + Sync + 'static,
    {
        let hasher = key.clone();
        let hash: HashFrame<T> = Arc::new(move |records: &mut [Record<T>]| {
            let mut scratch = Vec::new();
            for record in records {
                record.hash = hasher(&record.value).borrow().key_hash(&mut scratch);
            }
        });
        KeyedStream::new(self.erase(), KeySelector::Owned(Arc::new(key)), hash)
    }

    /// Gives every record a key that lies in the record: nothing is allocated per record.
    ///
    /// ```
    /// # use millstream_operators::{KeyedStream, Stream};
    /// struct Order { customer: String }
    /// fn by_customer(orders: Stream<Order>) -> KeyedStream<String, Order> {
    ///     orders.key_by_ref(|order| order.customer.as_str())
    /// }
    /// ```
    #[track_caller]
    pub fn key_by_ref<B, F>(self, key: F) -> KeyedStream<B::Owned, T>
    where
        B: StreamKeyRef + ?Sized + 'static,
        F: Fn(&T) -> &B + Clone + Send + Sync + 'static,
    {
        let hasher = key.clone();
        let hash: HashFrame<T> = Arc::new(move |records: &mut [Record<T>]| {
            let mut scratch = Vec::new();
            for record in records {
                record.hash = hasher(&record.value).key_hash(&mut scratch);
            }
        });
        KeyedStream::new(self.erase(), KeySelector::Borrowed(Arc::new(key)), hash)
    }
}
