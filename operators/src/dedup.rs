//! The first record of each key.

use std::panic::Location;
use std::time::Duration;

use millstream_runtime::error::BoxError;
use millstream_runtime::graph::{BuildError, Shape};
use millstream_runtime::operator::{DropReason, SideDecl};
use millstream_runtime::state::key_group::StreamKey;
use millstream_runtime::state::keyed::{KeyedState, Map};
use millstream_runtime::time::Timestamp;
use millstream_runtime::timer::TimerKind;

use crate::failing::{FailingRecords, Mishap};
use crate::keyed::engine;
use crate::keyed::{Late, Logic, OpenContext, ProcessContext};
use crate::keyed_stream::{KeySelector, KeyedStream, LateRecords};
use crate::side::AnyRecord;
use crate::stateless::Chain;
use crate::stream::Stream;

/// How long a key is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// For ever.
    Always,
    /// One time of a key is not another: until the watermark has come to it.
    Time,
    /// From the first record's time for so long, in event time.
    Within(Duration),
}

/// Sends the first record of each key.
struct Dedup<K: StreamKey, T> {
    memory: Memory,
    selector: KeySelector<K, T>,
    late: LateRecords<T>,
    failing: FailingRecords<T>,
}

impl<K: StreamKey, T> Clone for Dedup<K, T> {
    fn clone(&self) -> Self {
        let (selector, late, failing) = (self.selector.clone(), self.late.clone(), self.failing.clone());
        Self { memory: self.memory, selector, late, failing }
    }
}

impl<K: StreamKey, T: Send + 'static> Logic for Dedup<K, T> {
    type Key = K;
    type In = T;
    type Out = T;
    /// What is remembered, by time: that of the record, or 0 where one time is as good as another. Its value is when it is forgotten.
    type State = Map<i64, Timestamp>;

    fn shape(&self) -> Shape {
        Shape::Deduplication { within_watermark: matches!(self.memory, Memory::Within(_)) }
    }

    fn drop_reasons(&self) -> &'static [DropReason] {
        &[DropReason::Late, DropReason::Duplicate]
    }

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Self::State, BoxError> {
        Ok(ctx.map("seen")?)
    }

    fn own_sides(&self) -> Vec<SideDecl> {
        self.late.side().into_iter().chain(self.failing.side()).collect()
    }

    #[inline]
    fn mishap(&self, record: &T, sides: &[SideDecl]) -> Mishap {
        self.failing.mishap(record, sides)
    }

    #[inline]
    fn identify(&self, record: &T, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        self.failing.identify(record, out)
    }

    fn kept_away(&self, record: T, sides: &[SideDecl]) -> Option<(u16, AnyRecord)> {
        self.failing.kept_away(record, sides)
    }

    fn want(&self, record: &T, hash: u32, keyed: &mut KeyedState) {
        self.selector.want(record, hash, keyed);
    }

    #[inline]
    fn enter(&self, record: &T, hash: u32, keyed: &mut KeyedState) {
        self.selector.enter(record, hash, keyed);
    }

    fn late(&self, record: T, sides: &[SideDecl]) -> Late<T> {
        self.late.decide(record, sides)
    }

    fn on_record(
        &mut self,
        record: T,
        seen: &mut Self::State,
        ctx: &mut ProcessContext<'_, T>,
    ) -> Result<(), BoxError> {
        let time = ctx.time();
        let place = if self.memory == Memory::Time { time.as_micros() } else { 0 };
        if seen.contains_key(&place) {
            ctx.drops.count(DropReason::Duplicate);
            return Ok(());
        }
        // A record without event time is remembered for ever.
        let until = match self.memory {
            Memory::Time if time > Timestamp::MIN => time,
            Memory::Within(delay) if time > Timestamp::MIN => time.saturating_add(delay),
            _ => Timestamp::MAX,
        };
        seen.insert(&place, until);
        if until < Timestamp::MAX {
            ctx.timers().register(TimerKind::EventTime, until);
        }
        ctx.emit(record);
        Ok(())
    }

    fn on_timer(
        &mut self,
        time: Timestamp,
        seen: &mut Self::State,
        _ctx: &mut ProcessContext<'_, T>,
    ) -> Result<(), BoxError> {
        let place = if self.memory == Memory::Time { time.as_micros() } else { 0 };
        let is_over = seen.get(&place).is_some_and(|until| *until <= time);
        if is_over {
            seen.remove(&place);
        }
        Ok(())
    }
}

impl<K: StreamKey, T: Send + 'static> KeyedStream<K, T> {
    /// Sends the first record of each key and drops the others; they are counted. Every key is remembered for ever: where records have
    /// event times, see [`KeyedStream::drop_duplicates_within_watermark`]. Late records are dropped too, or go to
    /// [`KeyedStream::late_to`]. State is kept under `name`.
    #[track_caller]
    pub fn drop_duplicates(self, name: &str) -> Stream<T> {
        self.dedup(name, Memory::Always, Location::caller())
    }

    /// Sends the first record of each key and event time, and drops those of the same key and time. A key's time is forgotten once the
    /// watermark has come to it, when such a record is late anyway. Otherwise as [`KeyedStream::drop_duplicates`].
    #[track_caller]
    pub fn drop_duplicates_by_time(self, name: &str) -> Stream<T> {
        self.dedup(name, Memory::Time, Location::caller())
    }

    /// Sends the first record of each key, and drops those of the same key until the watermark has come to the first record's time and
    /// `delay`; duplicates do not prolong it. So all duplicates are found that are no more than the stream's disorder behind, for a
    /// `delay` of that disorder, and a key is remembered for no longer than that. Needs event times in front of it. Otherwise as
    /// [`KeyedStream::drop_duplicates`].
    ///
    /// | delay 10 s | |
    /// |---|---|
    /// | a at 10 s | is sent: remembered until the watermark is 20 s |
    /// | a at 19 s | is dropped |
    /// | a at 31 s, the watermark being 20 s | is sent |
    #[track_caller]
    pub fn drop_duplicates_within_watermark(self, name: &str, delay: Duration) -> Stream<T> {
        self.dedup(name, Memory::Within(delay), Location::caller())
    }

    fn dedup(self, name: &str, memory: Memory, at: &'static Location<'static>) -> Stream<T> {
        let (late, failing) = (self.late().clone(), self.failing().clone());
        let (stream, selector, wire) = self.into_parts();
        if let Memory::Within(delay) = memory
            && i64::try_from(delay.as_micros()).is_err()
        {
            let (code, operator, at) = ("E-WM-01", name.to_owned(), BuildError::place(at));
            let reason = format!("the delay is {delay:?}; it must be within the range of time");
            return stream.broken(BuildError::Unsupported { code, operator, at, reason });
        }
        match engine::vertex("dedup", Dedup { memory, selector, late, failing }) {
            Ok(kind) => stream.then_by(Some(name), kind, at, Some(wire)),
            Err(error) => stream.broken(engine::mistake(name, at, &error)),
        }
    }
}

impl<T: StreamKey, C: Chain<T>> Stream<T, C> {
    /// Sends each record once: the first of those that are equal. As [`KeyedStream::drop_duplicates`] by the whole record.
    #[track_caller]
    pub fn distinct(self, name: &str) -> Stream<T> {
        let at = Location::caller();
        self.key_by(T::clone).dedup(name, Memory::Always, at)
    }
}

#[cfg(test)]
mod tests;
