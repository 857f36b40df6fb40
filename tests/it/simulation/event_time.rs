//! Event time in random topologies, and an operator that holds every watermark against what must be true of it.
//!
//! Where watermarks fall between the records depends on timing, so results must not. What must hold whatever the timing:
//! within a split no record is later than its disorder, so none comes at or behind a watermark, as long as no split that has
//! something to give is taken for idle; and no watermark after a restart is below the one that was in force at its epoch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream::operators::{Stream, WatermarkStrategy};
use millstream::runtime::channel::Frame;
use millstream::runtime::error::BoxError;
use millstream::runtime::graph::OperatorVertex;
use millstream::runtime::operator::{AnyNode, Flow, Node, OpenContext, TaskContext, TaskError};
use millstream::runtime::source::{Batch, Polled, Position, Reader, Source, SplitId};
use millstream::runtime::testing::{Numbered, SimSource};
use millstream::runtime::time::Timestamp;
use rand::{Rng, RngExt};

use super::topology::Item;

/// When a split counts as idle, and whether it may be.
#[derive(Clone, Copy, Debug)]
enum Idle {
    Never,
    /// Readers always have something, so it never is.
    NotTrue(Duration),
    /// Readers now and then have nothing.
    True(Duration),
}

/// The event time of a topology.
#[derive(Clone, Debug)]
pub(super) struct EventTime {
    disorder_ms: u64,
    idle: Idle,
    /// How many of the sources have event time; the others must hold nothing back.
    sources: usize,
    memory: Memory,
}

/// What outlives a crash, outside: watermarks at barriers, and the first violation.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    /// The lowest in force at an operator's barrier, over its subtasks and attempts.
    at_barrier: BTreeMap<(&'static str, u64), Timestamp>,
    violation: Option<String>,
}

impl EventTime {
    pub(super) fn draw(rng: &mut impl Rng) -> Option<Self> {
        let idle_after = Duration::from_micros(rng.random_range(50..3_000));
        let idle = match rng.random_range(0..4) {
            0 | 1 => Idle::Never,
            2 => Idle::NotTrue(idle_after),
            _ => Idle::True(idle_after),
        };
        let disorder_ms = *[0, 30, 1_000].get(rng.random_range(0..3)).unwrap();
        let (sources, memory) = (rng.random_range(1..=2), Memory::default());
        rng.random_bool(0.6).then_some(Self { disorder_ms, idle, sources, memory })
    }

    /// The source's records, as they are read under this event time.
    pub(super) fn source(&self, source: SimSource) -> Reading {
        Reading { source, always: matches!(self.idle, Idle::NotTrue(_)) }
    }

    pub(super) fn assign(&self, stream: Stream<Item>, source: usize) -> Stream<Item> {
        if source >= self.sources {
            return stream;
        }
        let disorder = self.disorder_ms;
        let mut strategy = WatermarkStrategy::bounded(Duration::from_millis(behind(disorder)));
        if let Idle::NotTrue(after) | Idle::True(after) = self.idle {
            strategy = strategy.idle_after(after);
        }
        let timed = stream.event_time_by(move |(numbered, _)| time(*numbered, disorder), strategy);
        self.check(timed, ["near-0", "near-1"][source])
    }

    pub(super) fn check(&self, stream: Stream<Item>, place: &'static str) -> Stream<Item> {
        let strict = !matches!(self.idle, Idle::True(_));
        stream.apply(None, CheckOf { place, strict, memory: self.memory.clone() })
    }

    pub(super) fn violation(&self) -> Option<String> {
        self.memory.0.lock().unwrap().violation.clone()
    }
}

/// How far, at most and now and then exactly, a record comes behind the one before it, which is 10 ms earlier by itself.
const fn behind(disorder_ms: u64) -> u64 {
    disorder_ms.saturating_sub(10)
}

/// Splits lie apart, begin before 1970, and are in order but for the disorder. Some records have no time, some an absurd one.
fn time(Numbered { split, seq }: Numbered, disorder_ms: u64) -> Timestamp {
    let mixed = (seq + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    match seq % 61 {
        11 => Timestamp::MIN,
        23 => Timestamp::MAX,
        _ => {
            let behind = match mixed % 4 {
                0 => 0,
                1 => disorder_ms,
                _ => mixed % (disorder_ms + 1),
            };
            Timestamp::from_millis(i64::from(split) * 2_000 + seq as i64 * 10 - behind as i64 - 3_000)
        }
    }
}

/// A source whose readers, if they must, always have something until the end.
pub(super) struct Reading {
    source: SimSource,
    always: bool,
}

impl From<SimSource> for Reading {
    fn from(source: SimSource) -> Self {
        Self { source, always: false }
    }
}

impl Source for Reading {
    type Out = Numbered;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        self.source.splits()
    }

    fn reader(&self, split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<Numbered>>, BoxError> {
        let reader = self.source.reader(split, from)?;
        Ok(if self.always { Box::new(Always(reader)) } else { reader })
    }
}

struct Always(Box<dyn Reader<Numbered>>);

impl Reader<Numbered> for Always {
    fn poll(&mut self, batch: &mut Batch<Numbered>, limit: usize) -> Result<Polled, BoxError> {
        loop {
            match self.0.poll(batch, limit)? {
                Polled::Idle => {}
                polled => return Ok(polled),
            }
        }
    }
}

struct CheckOf {
    place: &'static str,
    strict: bool,
    memory: Memory,
}

impl OperatorVertex for CheckOf {
    fn label(&self) -> &str {
        "check"
    }

    fn states(&self) -> Vec<millstream::runtime::checkpoint::StateDecl> {
        Vec::new()
    }

    fn build(&self, open: &OpenContext, next: AnyNode) -> Result<AnyNode, TaskError> {
        let next = *next.downcast::<Box<dyn Node<Item>>>().unwrap();
        let (place, strict, memory) = (self.place, self.strict, self.memory.clone());
        let saved = memory.0.lock().unwrap().at_barrier.get(&(place, open.restored.number())).copied();
        let node: Box<dyn Node<Item>> = Box::new(Check { place, strict, memory, saved, watermark: None, next });
        Ok(Box::new(node))
    }
}

struct Check {
    place: &'static str,
    strict: bool,
    memory: Memory,
    /// In force when the epoch that was restored from was closed.
    saved: Option<Timestamp>,
    watermark: Option<Timestamp>,
    next: Box<dyn Node<Item>>,
}

impl Check {
    fn violated(&self, text: String) {
        let text = format!("{}: {text}", self.place);
        self.memory.0.lock().unwrap().violation.get_or_insert(text);
    }

    fn look(&mut self, frame: &Frame<Item>, context: &TaskContext) {
        match frame {
            Frame::Records(records) if self.strict => {
                let Some(watermark) = self.watermark else { return };
                let timed = records.iter().filter(|record| record.time > Timestamp::MIN);
                if let Some(record) = timed.min_by_key(|record| record.time)
                    && record.time <= watermark
                {
                    self.violated(format!("{:?} at {} came behind {watermark}", record.value, record.time));
                }
            }
            Frame::Watermark(time) => {
                if self.watermark.is_some_and(|before| before >= *time) {
                    self.violated(format!("watermark {time} does not rise"));
                }
                if let Some(saved) = self.saved.take().filter(|saved| self.strict && time < saved) {
                    self.violated(format!("watermark {time} is below {saved}, which was saved"));
                }
                self.watermark = Some(*time);
            }
            Frame::Barrier(_) => {
                let watermark = self.watermark.unwrap_or(Timestamp::MIN);
                let mut seen = self.memory.0.lock().unwrap();
                let lowest = seen.at_barrier.entry((self.place, context.epoch().number())).or_insert(watermark);
                *lowest = (*lowest).min(watermark);
            }
            Frame::End if self.watermark != Some(Timestamp::MAX) => {
                self.violated(format!("the end came behind {:?}", self.watermark));
            }
            _ => {}
        }
    }
}

impl Node<Item> for Check {
    fn offer(&mut self, frame: Frame<Item>, context: &mut TaskContext) -> Result<Flow, TaskError> {
        self.look(&frame, context);
        self.next.offer(frame, context)
    }

    fn resume(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        self.next.resume(context)
    }

    fn flush(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        self.next.flush(context)
    }

    fn encode_slice(&mut self, entries: usize, context: &mut TaskContext) -> Result<usize, TaskError> {
        self.next.encode_slice(entries, context)
    }
}
