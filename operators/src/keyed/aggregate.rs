//! Running aggregates: every record gives the new value of its key.

use std::ops::AddAssign;
use std::panic::Location;
use std::sync::Arc;

use millstream_runtime::checkpoint::StateDecl;
use millstream_runtime::graph::{OperatorOf, VertexKind};
use millstream_runtime::operator::OpenContext;
use millstream_runtime::state::StateValue;
use millstream_runtime::state::key_group::StreamKey;

use crate::keyed::update::{self, Update};
use crate::keyed_stream::KeyedStream;
use crate::stream::Stream;

impl<K: StreamKey, T: Send + 'static> KeyedStream<K, T> {
    /// Keeps a value per key, made by `init` and changed by each record, and sends `(key, new value)` for each.
    /// State is kept under `name`.
    #[track_caller]
    pub fn fold<S, I, F>(self, name: &str, init: I, update: F) -> Stream<(K, S)>
    where
        S: StateValue + Clone,
        I: Fn() -> S + Clone + Send + Sync + 'static,
        F: Fn(&mut S, T) + Clone + Send + Sync + 'static,
    {
        self.running("fold", name, move |slot: &mut Option<S>, value| {
            let state = slot.get_or_insert_with(&init);
            update(state, value);
            state.clone()
        })
    }

    /// Joins all records of a key into one, in their order, and sends `(key, joined)` for each. The first record of a key is
    /// its own result. State is kept under `name`.
    #[track_caller]
    pub fn reduce<F>(self, name: &str, join: F) -> Stream<(K, T)>
    where
        T: StateValue + Clone,
        F: Fn(T, T) -> T + Clone + Send + Sync + 'static,
    {
        self.running("reduce", name, move |slot: &mut Option<T>, value| {
            let joined = match slot.take() {
                Some(before) => join(before, value),
                None => value,
            };
            slot.insert(joined).clone()
        })
    }

    /// Counts the records of each key and sends `(key, count so far)` for each record: 1, 2, 3 … State is kept under `name`.
    #[track_caller]
    pub fn count(self, name: &str) -> Stream<(K, u64)> {
        self.running("count", name, |slot: &mut Option<u64>, _| {
            let count = slot.get_or_insert(0);
            *count += 1;
            *count
        })
    }

    /// Adds up a number of each record per key and sends `(key, sum so far)` for each record. Integers that overflow panic in
    /// debug builds and wrap in release builds, as `+=` does. State is kept under `name`.
    #[track_caller]
    pub fn sum<N, F>(self, name: &str, number: F) -> Stream<(K, N)>
    where
        N: StateValue + AddAssign + Clone,
        F: Fn(&T) -> N + Clone + Send + Sync + 'static,
    {
        self.running("sum", name, move |slot: &mut Option<N>, value| {
            let number = number(&value);
            match slot {
                Some(sum) => {
                    *sum += number;
                    sum.clone()
                }
                None => slot.insert(number).clone(),
            }
        })
    }

    #[track_caller]
    fn running<S, F>(self, label: &str, name: &str, step: F) -> Stream<(K, S)>
    where
        S: StateValue,
        F: Fn(&mut Option<S>, T) -> S + Clone + Send + Sync + 'static,
    {
        let (stream, selector, wire) = self.into_parts();
        let make = move |open: &OpenContext| Update::open(open, selector.clone(), step.clone());
        let operator = OperatorOf::stateful(label, vec![StateDecl::value(update::STATE, update::VERSION)], make);
        stream.then_by(Some(name), VertexKind::Operator(Arc::new(operator)), Location::caller(), Some(wire))
    }
}
