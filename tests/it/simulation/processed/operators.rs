//! The users' operators of the pipelines that are drawn.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millstream::operators::prelude::*;
use millstream::runtime::error::BoxError;
use millstream::runtime::testing::Numbered;
use millstream::runtime::time::Timestamp;

use super::{Failing, Row, fails, panics};

/// Remembers every record in a map, a list and a value, and tells at its timer what it remembers of it.
#[derive(Clone)]
pub(super) struct Remember {
    pub(super) evens: OutputTag<i64>,
    /// Some records fail when everything is done.
    pub(super) failing: Option<Failing>,
}

pub(super) struct Memory {
    seen: Value<u64>,
    by_time: Map<i64, (u32, u64)>,
    all: List<(u32, u64)>,
    /// Records by the processing time at which they are told of, unless their event-time timer does it before.
    promised: Map<i64, (u32, u64)>,
    /// When a record came last, for a while.
    brief: Value<i64>,
}

/// How long [`Memory::brief`] lasts.
const BRIEF: Duration = Duration::from_millis(5);
/// Promises that were kept by a processing-time timer, in all runs of the process.
static KEPT: AtomicU64 = AtomicU64::new(0);
/// Records that found nothing left of the one before, in all runs of the process.
static EXPIRED: AtomicU64 = AtomicU64::new(0);

/// What users' operators did in processing time, which is no part of the output that must be the same.
pub(in crate::simulation) fn met() -> [(&'static str, u64); 2] {
    [
        ("processing-time timers fired", KEPT.load(Ordering::Relaxed)),
        ("values expired", EXPIRED.load(Ordering::Relaxed)),
    ]
}

impl Remember {
    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Memory, BoxError> {
        ctx.side_output(&self.evens)?;
        Ok(Memory {
            seen: ctx.value("seen")?,
            by_time: ctx.map("by-time")?,
            all: ctx.list("all")?,
            promised: ctx.map("promised")?,
            brief: ctx.value("brief")?.ttl(BRIEF),
        })
    }

    /// Works on a record, and then fails on some.
    fn on_record(
        &self,
        record: Numbered,
        memory: &mut Memory,
        ctx: &mut ProcessContext<'_, Row>,
    ) -> Result<(), BoxError> {
        self.remember(record, memory, ctx);
        match self.failing {
            // A panic, without its message on the terminal.
            Some(Failing::Panics) if panics(&record) => {
                drop(Self::fail(memory, ctx));
                std::panic::resume_unwind(Box::new("it was to panic"))
            }
            Some(Failing::Skipped | Failing::DeadLetters) if fails(&record) => Err(Self::fail(memory, ctx)),
            _ => Ok(()),
        }
    }

    fn remember(&self, record: Numbered, memory: &mut Memory, ctx: &mut ProcessContext<'_, Row>) {
        memory.seen.update(|| 0, |seen| *seen += 1);
        memory.all.push((record.split, record.seq));
        memory.by_time.insert(&ctx.time().as_micros(), (record.split, record.seq));
        let timers = ctx.timers();
        let at = ctx.time().saturating_add(Duration::from_millis(record.seq % 5 * 10));
        timers.register(TimerKind::EventTime, unique(at, record));
        timers.register(TimerKind::EventTime, unique(at, record));
        if record.seq % 5 == 2 {
            // One that must never fire.
            let decoy = Timestamp::from_micros(ctx.time().as_micros() * 10_000 + 9_999);
            timers.register(TimerKind::EventTime, decoy);
            timers.delete(TimerKind::EventTime, decoy);
        }
        if record.seq.is_multiple_of(2) {
            ctx.emit_to(&self.evens, ctx.time().as_micros());
        }
        Self::promise(record, memory, ctx);
    }

    /// Does what depends on the processing time, and shows in the output only where it is wrong.
    fn promise(record: Numbered, memory: &mut Memory, ctx: &mut ProcessContext<'_, Row>) {
        let now = ctx.processing_time().as_micros();
        let before = memory.brief.get().map(|written| *written);
        match before {
            Some(written) if now - written > BRIEF.as_micros() as i64 => ctx.emit((u64::MAX, 0, "expired".to_owned())),
            None if memory.seen.get().is_some_and(|seen| *seen > 1) => drop(EXPIRED.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
        memory.brief.set(now);
        let soonest = now + record.seq as i64 % 7 * 500;
        let due = (soonest..).find(|at| !memory.promised.contains_key(at)).unwrap_or(soonest);
        memory.promised.insert(&due, (record.split, record.seq));
        ctx.timers().register(TimerKind::ProcessingTime, Timestamp::from_micros(due));
    }

    /// Tells of a record, once.
    fn keep_promise((split, seq): (u32, u64), ctx: &mut ProcessContext<'_, Row>) -> Result<(), BoxError> {
        let key = ctx.key()?;
        ctx.emit((key, 0, format!("promise of {split} {seq}")));
        Ok(())
    }

    /// Makes a mess that must leave no trace.
    fn fail(memory: &mut Memory, ctx: &mut ProcessContext<'_, Row>) -> BoxError {
        memory.by_time.clear();
        memory.all.clear();
        memory.seen.take();
        memory.promised.clear();
        for kind in [TimerKind::EventTime, TimerKind::ProcessingTime] {
            for time in ctx.timers().list(kind) {
                ctx.timers().delete(kind, time);
            }
        }
        ctx.emit((u64::MAX, 0, "never".to_owned()));
        "it was to fail".into()
    }

    fn on_timer(
        &self,
        time: Timestamp,
        memory: &mut Memory,
        ctx: &mut ProcessContext<'_, Row>,
    ) -> Result<(), BoxError> {
        if ctx.firing() == Some(TimerKind::ProcessingTime) {
            KEPT.fetch_add(1, Ordering::Relaxed);
            // A timer of nothing would be a bug, and shows in the output.
            let promised = memory.promised.remove(&time.as_micros()).unwrap_or((u32::MAX, 0));
            return Self::keep_promise(promised, ctx);
        }
        let place = (time.as_micros().rem_euclid(100) as u32, (time.as_micros() / 100).rem_euclid(10_000) as u64);
        let (listed, seen) = (memory.all.iter().any(|known| *known == place), memory.seen.get().is_some());
        let by_time = memory.by_time.iter().find(|(_, known)| **known == place).map(|(key, _)| key);
        let removed = by_time.and_then(|key| memory.by_time.remove(&key));
        let key = ctx.key()?;
        ctx.emit((key, time.as_micros(), format!("{removed:?} {listed} {seen}")));
        let promised = memory.promised.iter().find(|(_, known)| **known == place).map(|(due, _)| due);
        if let Some(due) = promised {
            memory.promised.remove(&due);
            ctx.timers().delete(TimerKind::ProcessingTime, Timestamp::from_micros(due));
            Self::keep_promise(place, ctx)?;
        }
        Ok(())
    }
}

/// A timer's time that no other record has, and that tells whose it is.
fn unique(at: Timestamp, record: Numbered) -> Timestamp {
    Timestamp::from_micros(at.as_micros() / 1_000_000 * 1_000_000 + record.seq as i64 * 100 + i64::from(record.split))
}

impl KeyedProcess for Remember {
    type Key = u64;
    type In = Numbered;
    type Out = Row;
    type State = Memory;

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Memory, BoxError> {
        Self::open(self, ctx)
    }

    fn on_record(
        &mut self,
        record: Numbered,
        memory: &mut Memory,
        ctx: &mut ProcessContext<'_, Row>,
    ) -> Result<(), BoxError> {
        Self::on_record(self, record, memory, ctx)
    }

    fn on_timer(
        &mut self,
        time: Timestamp,
        memory: &mut Memory,
        ctx: &mut ProcessContext<'_, Row>,
    ) -> Result<(), BoxError> {
        Self::on_timer(self, time, memory, ctx)
    }
}

/// The same with two inputs.
#[derive(Clone)]
pub(super) struct Both(pub(super) Remember);

impl CoProcess for Both {
    type Key = u64;
    type Left = Numbered;
    type Right = Numbered;
    type Out = Row;
    type State = Memory;

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Memory, BoxError> {
        self.0.open(ctx)
    }

    fn on_left(
        &mut self,
        record: Numbered,
        memory: &mut Memory,
        ctx: &mut ProcessContext<'_, Row>,
    ) -> Result<(), BoxError> {
        Remember::on_record(&self.0, record, memory, ctx)
    }

    fn on_right(
        &mut self,
        record: Numbered,
        memory: &mut Memory,
        ctx: &mut ProcessContext<'_, Row>,
    ) -> Result<(), BoxError> {
        Remember::on_record(&self.0, record, memory, ctx)
    }

    fn on_timer(
        &mut self,
        time: Timestamp,
        memory: &mut Memory,
        ctx: &mut ProcessContext<'_, Row>,
    ) -> Result<(), BoxError> {
        Remember::on_timer(&self.0, time, memory, ctx)
    }
}

/// Sends every record on at a timer 20 ms behind it.
#[derive(Clone)]
pub(super) struct Delay;

impl KeyedProcess for Delay {
    type Key = u64;
    type In = Numbered;
    type Out = (u64, i64, u64);
    type State = Map<i64, u64>;

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Map<i64, u64>, BoxError> {
        Ok(ctx.map("waiting")?)
    }

    fn on_record(
        &mut self,
        record: Numbered,
        waiting: &mut Map<i64, u64>,
        ctx: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<(), BoxError> {
        // Unique, and after the watermark since the record is.
        let at = Timestamp::from_micros(ctx.time().as_micros() + 20_000 + record.seq as i64 % 1_000);
        let at = (at.as_micros()..).find(|at| !waiting.contains_key(at)).map_or(at, Timestamp::from_micros);
        waiting.insert(&at.as_micros(), record.seq);
        ctx.timers().register(TimerKind::EventTime, at);
        Ok(())
    }

    fn on_timer(
        &mut self,
        time: Timestamp,
        waiting: &mut Map<i64, u64>,
        ctx: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<(), BoxError> {
        // A timer of nothing would be a bug, and shows in the output.
        let seq = waiting.remove(&time.as_micros()).unwrap_or(u64::MAX);
        let key = ctx.key()?;
        ctx.emit((key, time.as_micros(), seq));
        Ok(())
    }
}

/// Counts records per key and tells how many of each second there were before.
#[derive(Clone)]
pub(super) struct CountTimes;

impl KeyedProcess for CountTimes {
    type Key = u64;
    type In = (u64, i64, u64);
    type Out = Row;
    type State = Map<i64, u64>;

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Map<i64, u64>, BoxError> {
        Ok(ctx.map("seconds")?)
    }

    fn on_record(
        &mut self,
        (key, time, seq): Self::In,
        seconds: &mut Map<i64, u64>,
        ctx: &mut ProcessContext<'_, Row>,
    ) -> Result<(), BoxError> {
        let second = time / 1_000_000;
        let before = seconds.get(&second).map_or(0, |count| *count);
        seconds.insert(&second, before + 1);
        let counts: BTreeMap<i64, u64> = seconds.iter().map(|(second, count)| (second, *count)).collect();
        ctx.emit((key, time, format!("{seq}: {counts:?}")));
        Ok(())
    }
}
