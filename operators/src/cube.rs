//! Groups by every combination of some fields at once: totals, subtotals, and the total of all.

use std::fmt;
use std::time::Duration;

use millstream_runtime::error::BoxError;
use millstream_runtime::state::key_group::StreamKey;
use millstream_runtime::time::Timestamp;

use crate::aggregate::Aggregate;
use crate::keyed_stream::KeyedStream;
use crate::stateless::Chain;
use crate::stream::Stream;
use crate::window::{TimeWindow, Trigger, WindowAssigner, WindowError, WindowKind, Windowed, WindowedStream};

/// Fields that are grouped by: a tuple of one to four keys.
pub trait CubeKey: Send + 'static {
    /// The fields of a group; `None` where it holds all of them.
    type Key: StreamKey;

    /// How many fields there are.
    const FIELDS: u32;

    /// Keeps the fields whose bit is set.
    fn keep(&self, fields: u32) -> Self::Key;
}

macro_rules! cube_keys {
    ($($fields:literal: ($($field:ident $index:tt),+) => $key:ty;)+) => {$(
        impl<$($field: StreamKey),+> CubeKey for ($($field,)+) {
            type Key = $key;

            const FIELDS: u32 = $fields;

            fn keep(&self, fields: u32) -> Self::Key {
                cube_keys!(@key $((fields & (1 << $index) > 0).then(|| self.$index.clone())),+)
            }
        }
    )+};
    (@key $one:expr) => { $one };
    (@key $($several:expr),+) => { ($($several),+) };
}

cube_keys! {
    1: (A 0) => Option<A>;
    2: (A 0, B 1) => (Option<A>, Option<B>);
    3: (A 0, B 1, C 2) => (Option<A>, Option<B>, Option<C>);
    4: (A 0, B 1, C 2, D 3) => (Option<A>, Option<B>, Option<C>, Option<D>);
}

/// A record in one of its groups.
#[derive(Clone, Debug)]
struct InGroup<K, T> {
    group: K,
    record: T,
}

/// A stream that is grouped by combinations of fields; see [`Stream::cube`].
pub struct CubedStream<K: StreamKey, T> {
    stream: KeyedStream<K, InGroup<K, T>>,
}

/// As [`CubedStream`], in windows.
pub struct CubedWindows<K: StreamKey, T, A> {
    stream: WindowedStream<K, InGroup<K, T>, OfRecord<A>>,
}

impl<K: StreamKey, T> fmt::Debug for CubedStream<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.fmt(f)
    }
}

impl<K: StreamKey, T, A> fmt::Debug for CubedWindows<K, T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.fmt(f)
    }
}

/// What is written for records, of records in a group.
#[derive(Clone)]
struct OfRecord<A>(A);

impl<K, T, G: Aggregate<T>> Aggregate<InGroup<K, T>> for OfRecord<G> {
    type Acc = G::Acc;
    type Out = G::Out;

    fn start(&self) -> G::Acc {
        self.0.start()
    }

    fn add(&self, acc: &mut G::Acc, record: &InGroup<K, T>) -> Result<(), BoxError> {
        self.0.add(acc, &record.record)
    }

    fn merge(&self, acc: &mut G::Acc, other: G::Acc) -> Result<(), BoxError> {
        self.0.merge(acc, other)
    }

    fn finish(&self, acc: &G::Acc) -> G::Out {
        self.0.finish(acc)
    }
}

impl<K, T, A: WindowAssigner<T>> WindowAssigner<InGroup<K, T>> for OfRecord<A> {
    fn kind(&self) -> WindowKind {
        self.0.kind()
    }

    fn assign(&self, record: &InGroup<K, T>, time: Timestamp, windows: &mut Vec<TimeWindow>) {
        self.0.assign(&record.record, time, windows);
    }

    fn check(&self) -> Result<(), WindowError> {
        self.0.check()
    }

    fn trigger(&self) -> Option<Trigger> {
        self.0.trigger()
    }
}

impl<T: Clone + Send + 'static, C: Chain<T>> Stream<T, C> {
    /// Groups by every combination of the fields of a tuple: of two fields four times, by both, by either, and all together. Each record
    /// is copied once per combination. A field of a result's key is `None` where the group holds all of it.
    ///
    /// ```
    /// # use millstream_operators::prelude::*;
    /// #[derive(Clone)]
    /// struct Sale { country: String, year: u16, cents: u64 }
    ///
    /// /// Sales by country and year, by country, by year, and in all.
    /// fn sales(sales: Stream<Sale>) -> Stream<((Option<String>, Option<u16>), u64)> {
    ///     sales
    ///         .cube(|sale| (sale.country.clone(), sale.year))
    ///         .aggregate("sales", Sum::of(|sale: &Sale| sale.cents))
    /// }
    /// ```
    #[track_caller]
    pub fn cube<F, X>(self, fields: F) -> CubedStream<X::Key, T>
    where
        X: CubeKey,
        F: Fn(&T) -> X + Clone + Send + Sync + 'static,
    {
        self.grouped(fields, (0..1 << X::FIELDS).rev().collect())
    }

    /// Groups by the fields of a tuple, by all but the last, and so on down to none: of two fields three times. Otherwise as
    /// [`Stream::cube`].
    #[track_caller]
    pub fn rollup<F, X>(self, fields: F) -> CubedStream<X::Key, T>
    where
        X: CubeKey,
        F: Fn(&T) -> X + Clone + Send + Sync + 'static,
    {
        self.grouped(fields, (0..=X::FIELDS).rev().map(|kept| (1 << kept) - 1).collect())
    }

    /// Groups by the combinations of fields whose bits are set.
    #[track_caller]
    fn grouped<F, X>(self, fields: F, sets: Vec<u32>) -> CubedStream<X::Key, T>
    where
        X: CubeKey,
        F: Fn(&T) -> X + Clone + Send + Sync + 'static,
    {
        let explode = move |record: T| {
            let key = fields(&record);
            let groups: Vec<X::Key> = sets.iter().map(|set| key.keep(*set)).collect();
            groups.into_iter().map(move |group| InGroup { group, record: record.clone() })
        };
        CubedStream { stream: self.flat_map(explode).key_by(|record| record.group.clone()) }
    }
}

impl<K: StreamKey, T: Send + 'static> CubedStream<K, T> {
    /// Makes one value of the records of each group; see [`KeyedStream::aggregate`].
    #[track_caller]
    pub fn aggregate<G: Aggregate<T>>(self, name: &str, aggregate: G) -> Stream<(K, G::Out)> {
        self.stream.aggregate(name, OfRecord(aggregate))
    }

    /// Groups by windows as well; see [`KeyedStream::window`].
    pub fn window<A: WindowAssigner<T>>(self, assigner: A) -> CubedWindows<K, T, A> {
        CubedWindows { stream: self.stream.window(OfRecord(assigner)) }
    }
}

impl<K: StreamKey, T: Send + 'static, A: WindowAssigner<T>> CubedWindows<K, T, A> {
    /// See [`WindowedStream::allowed_lateness`].
    #[must_use]
    pub fn allowed_lateness(self, lateness: Duration) -> Self {
        Self { stream: self.stream.allowed_lateness(lateness) }
    }

    /// See [`WindowedStream::trigger`].
    #[must_use]
    pub fn trigger(self, trigger: Trigger) -> Self {
        Self { stream: self.stream.trigger(trigger) }
    }

    /// Makes one value of the records of each group in each window; see [`WindowedStream::aggregate`].
    #[track_caller]
    pub fn aggregate<G: Aggregate<T>>(self, name: &str, aggregate: G) -> Stream<Windowed<K, G::Out>> {
        self.stream.aggregate(name, OfRecord(aggregate))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::prelude::*;
    use crate::scenario::{Event, drains, number, refusal, steps, watermark};

    /// S-AGG-02, S-AGG-03: a cube over two fields of two values has nine groups, a rollup seven.
    #[test]
    fn totals_subtotals_and_the_total_of_all() {
        let script: [&[_]; 1] = [&[number("a", 0, 1), number("a", 1, 2), number("b", 0, 3), number("b", 1, 4)]];
        let fields = |(key, seconds, _): &Event| (key.clone(), *seconds);
        let mean = Avg::of(|(.., number): &Event| *number);
        let cube = drains(OutputMode::Complete, &script, |events| events.cube(fields).aggregate("cube", mean.clone()));
        let cube = cube.unwrap().results.swap_remove(0);
        let rollup =
            drains(OutputMode::Complete, &script, |events| events.rollup(fields).aggregate("rollup", mean.clone()));
        let rollup = rollup.unwrap().results.swap_remove(0);
        let a = || Some("a".to_owned());
        for (groups, count) in [(&cube, 9), (&rollup, 7)] {
            assert_eq!(groups.len(), count, "{groups:?}");
            for wanted in [((a(), Some(1)), Some(2.0)), ((a(), None), Some(1.5)), ((None, None), Some(2.5))] {
                assert!(groups.contains(&wanted), "{wanted:?} in {groups:?}");
            }
        }
        assert!(cube.contains(&((None, Some(0)), Some(2.0))));
        assert!(rollup.iter().all(|((key, seconds), _)| key.is_some() || seconds.is_none()));
    }

    #[test]
    fn in_append_every_group_needs_the_window() {
        let windows = |events: Stream<Event>| {
            let cube = events.cube(|(key, ..): &Event| (key.clone(),)).window(Tumbling::of(Duration::from_secs(10)));
            let late = cube.allowed_lateness(Duration::from_secs(1));
            late.aggregate("cube", Count).map(|row| (row.key, row.value)).erase()
        };
        let script = [number("a", 1, 1), number("b", 2, 1), watermark(11)];
        let mut out = steps(OutputMode::Append, &script, windows).unwrap();
        out.sort();
        assert_eq!(out, [(None, 2), (Some("a".to_owned()), 1), (Some("b".to_owned()), 1)]);
        let plain = |events: Stream<Event>| events.cube(|(key, ..): &Event| (key.clone(),)).aggregate("cube", Count);
        assert_eq!([OutputMode::Append, OutputMode::Update].map(|mode| refusal(mode, plain)), ["E-MODE-01", ""]);
    }
}
