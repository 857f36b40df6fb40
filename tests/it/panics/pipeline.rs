//! A pipeline in which user code can panic wherever it runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream::prelude::*;
use millstream::runtime::record::Record;
use millstream::runtime::sink::{
    Encoder, EpochBatch, IntoSink, Roll, Sink, SinkContext, SinkError, SinkSpec, Token, TokenSink,
};
use millstream::runtime::source::{Batch, Polled, Position, Reader, Source, SplitId};
use millstream::runtime::state::key_group::{StreamKey, StreamKeyRef};
use millstream::runtime::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{NUMBERS, pass};

/// The numbers in one split, in batches of 50. The reader has nothing more at `upto`, unless that is the end.
#[derive(Clone)]
pub(super) struct Numbers {
    pub(super) upto: Arc<AtomicU64>,
}

struct NumbersReader {
    at: u64,
    upto: Arc<AtomicU64>,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { upto: Arc::new(NUMBERS.into()) }
    }
}

impl Source for Numbers {
    type Out = u64;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        pass("splits");
        Ok(vec![SplitId::new("all")])
    }

    fn reader(&self, _: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<u64>>, BoxError> {
        pass("reader");
        let at = from.and_then(Position::as_u64).unwrap_or(0);
        Ok(Box::new(NumbersReader { at, upto: Arc::clone(&self.upto) }))
    }

    fn committed(&self, _: &[(SplitId, Position)]) {
        pass("committed");
    }
}

impl Reader<u64> for NumbersReader {
    fn poll(&mut self, batch: &mut Batch<u64>, limit: usize) -> Result<Polled, BoxError> {
        pass("poll");
        let upto = self.upto.load(Ordering::SeqCst);
        let end = upto.min(self.at + (limit as u64).min(50));
        batch.records.extend((self.at..end).map(Record::new));
        self.at = end;
        batch.end = Position::from_u64(end);
        Ok(match end {
            NUMBERS => Polled::End,
            _ if end == upto => Polled::Idle,
            _ => Polled::More,
        })
    }
}

impl Drop for NumbersReader {
    fn drop(&mut self) {
        pass("drop of a reader");
    }
}

/// A key of the user's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot(u64);

impl StreamKey for Spot {
    type Borrowed = Self;

    fn read_key(bytes: &[u8]) -> Option<Self> {
        pass("key of its bytes");
        u64::read_key(bytes).map(Self)
    }
}

impl StreamKeyRef for Spot {
    type Owned = Self;

    fn write_key(&self, out: &mut Vec<u8>) {
        pass("bytes of a key");
        self.0.write_key(out);
    }

    fn to_key(&self) -> Self {
        self.clone()
    }

    fn key_hash(&self, scratch: &mut Vec<u8>) -> u32 {
        pass("hash of a key");
        self.0.key_hash(scratch)
    }
}

/// A number that is kept in state.
#[derive(Debug)]
struct Kept(u64);

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        pass("encode");
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        pass("decode");
        u64::deserialize(deserializer).map(Self)
    }
}

/// Counts per key, and tells the number at a timer.
struct Counting;

impl Clone for Counting {
    fn clone(&self) -> Self {
        pass("clone of an operator");
        Self
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        pass("drop of an operator");
    }
}

impl KeyedProcess for Counting {
    type Key = Spot;
    type In = u64;
    type Out = (u64, u64);
    type State = Value<Kept>;

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Value<Kept>, BoxError> {
        pass("open of an operator");
        Ok(ctx.value("count")?)
    }

    fn on_record(
        &mut self,
        number: u64,
        count: &mut Value<Kept>,
        ctx: &mut ProcessContext<'_, (u64, u64)>,
    ) -> Result<(), BoxError> {
        count.update(|| Kept(0), |count| count.0 += 1);
        pass("on_record");
        ctx.timers().register(TimerKind::EventTime, Timestamp::from_millis(number as i64));
        Ok(())
    }

    fn on_timer(
        &mut self,
        time: Timestamp,
        count: &mut Value<Kept>,
        ctx: &mut ProcessContext<'_, (u64, u64)>,
    ) -> Result<(), BoxError> {
        pass("on_timer");
        ctx.key::<Spot>()?;
        ctx.emit((time.as_micros() as u64 / 1_000, count.get().map_or(0, |count| count.0)));
        Ok(())
    }
}

/// Records that level-1 sinks were given.
pub(super) static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// A level-1 sink beside the other.
#[derive(Clone)]
struct Look;

impl Sink<(u64, u64)> for Look {
    fn open(&mut self, _: &SinkContext) -> Result<(), BoxError> {
        pass("open of a sink");
        Ok(())
    }

    fn write(&mut self, _: (u64, u64)) -> Result<(), BoxError> {
        pass("write");
        WRITTEN.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn flush(&mut self, _: millstream::runtime::id::Epoch) -> Result<(), BoxError> {
        pass("flush");
        Ok(())
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        pass("drop of a sink");
    }
}

impl IntoSink<(u64, u64)> for Look {
    fn into_sink(self) -> SinkSpec<(u64, u64)> {
        SinkSpec::Direct(Arc::new(|| {
            pass("factory of a sink");
            Ok(Box::new(Look))
        }))
    }
}

/// A level-2 sink: a system outside with a token, which keeps the numbers. It outlives attempts and jobs.
#[derive(Clone, Default)]
pub(super) struct Outside {
    inner: Arc<Mutex<(Token, Vec<u64>)>>,
    /// Gets more numbers with each delivery, so that there are several.
    raises: Option<Numbers>,
}

/// Numbers that one delivery brings.
pub(super) const STAGE: u64 = NUMBERS / 5;

struct Connector(Outside);

struct Number;

impl Outside {
    /// Makes one that lets the source go on by a stage with each delivery.
    pub(super) fn raising(source: &Numbers) -> Self {
        Self { raises: Some(source.clone()), ..Self::default() }
    }

    /// Says that every number up to this one is there once.
    pub(super) fn is_each_once(&self, upto: u64) -> bool {
        let mut numbers = self.inner.lock().unwrap().1.clone();
        numbers.sort_unstable();
        numbers.into_iter().eq(0..upto)
    }
}

impl Encoder<(u64, u64)> for Number {
    fn encode(&self, (number, _): &(u64, u64), out: &mut Vec<u8>) -> Result<(), BoxError> {
        pass("encode of a row");
        out.extend_from_slice(&number.to_be_bytes());
        Ok(())
    }
}

impl TokenSink for Connector {
    fn open(&mut self, _: &SinkContext) -> Result<Token, SinkError> {
        pass("open of a connector");
        Ok(self.0.inner.lock().unwrap().0)
    }

    fn apply(&mut self, batch: &EpochBatch<'_>) -> Result<(), SinkError> {
        if let Some(source) = &self.0.raises {
            let more = source.upto.load(Ordering::SeqCst) + STAGE;
            source.upto.store(more.min(NUMBERS), Ordering::SeqCst);
        }
        pass("apply");
        let mut outside = self.0.inner.lock().unwrap();
        outside.1.extend(batch.rows().map(|row| u64::from_be_bytes(row.bytes.try_into().unwrap())));
        outside.0 = Token { next: batch.last().next() };
        drop(outside);
        pass("end of apply");
        Ok(())
    }

    fn roll(&self) -> Roll {
        pass("roll");
        Roll::default()
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        pass("drop of a connector");
    }
}

impl IntoSink<(u64, u64)> for Outside {
    fn into_sink(self) -> SinkSpec<(u64, u64)> {
        let connector = move || {
            pass("factory of a connector");
            Ok(Box::new(Connector(self.clone())) as Box<dyn TokenSink>)
        };
        SinkSpec::Outbox { encoder: Arc::new(Number), connector: Arc::new(connector) }
    }
}

pub(super) fn describe(source: Numbers, outside: Outside, epochs: Duration) -> Pipeline {
    let pipeline = Pipeline::new("panics").epoch_interval(epochs);
    let counted = pipeline
        .source("numbers", source)
        .map(|number| {
            pass("map");
            number
        })
        .filter(|_| {
            pass("filter");
            true
        })
        .flat_map(|number| {
            (0..2).map(move |half| {
                pass("flat_map");
                number * 2 + half
            })
        })
        .filter(|half| half % 2 == 0)
        .try_map(|half| {
            pass("try_map");
            Ok::<_, BoxError>(half / 2)
        })
        .event_time(
            |number| {
                pass("event_time");
                Timestamp::from_millis(*number as i64)
            },
            Duration::ZERO,
        )
        .key_by(|number| {
            pass("key_by");
            Spot(number % 7)
        })
        .accept_late()
        .process("count", Counting);
    counted.clone().sink("look", Look);
    counted
        .key_by(|(number, _)| number % 3)
        .fold(
            "last",
            || {
                pass("init of a fold");
                (0, 0)
            },
            |last, record| {
                pass("update of a fold");
                *last = record;
            },
        )
        .map(|(_, record)| record)
        .sink("out", outside);
    pipeline
}
