//! Our contender: the child's pipeline.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::ensure;
use millstream::prelude::*;
use millstream::runtime::error::BoxError;
use millstream::runtime::record::Record;
use millstream::runtime::source::{Batch, Polled, Position, Reader, Source, SplitId};
use serde::{Deserialize, Serialize};

use crate::keys::{self, ZipfKeys};
use crate::support::Stopwatch;
use crate::{Answer, PATIENCE, Setup};

const WORKERS: u16 = 2;
const FILL: u8 = 0;
const UNIFORM: u8 = 1;
const ZIPF: u8 = 2;

/// Split i has the numbers i, i + 2, i + 4 …; the first `keys` of all are all keys.
#[derive(Clone)]
struct Numbers {
    keys: u64,
    zipf: ZipfKeys,
    phase: Arc<AtomicU8>,
}

struct NumbersReader {
    numbers: Numbers,
    next: u64,
}

impl Source for Numbers {
    type Out = u64;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        Ok((0..WORKERS).map(|split| SplitId::new(split.to_string())).collect())
    }

    fn reader(&self, split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<u64>>, BoxError> {
        let next = from.and_then(Position::as_u64).map_or_else(|| split.as_str().parse(), Ok)?;
        Ok(Box::new(NumbersReader { numbers: self.clone(), next }))
    }
}

impl Reader<u64> for NumbersReader {
    fn poll(&mut self, batch: &mut Batch<u64>, limit: usize) -> Result<Polled, BoxError> {
        let Numbers { keys, zipf, phase } = &self.numbers;
        let phase = phase.load(Ordering::Relaxed);
        for _ in 0..limit {
            let key = match phase {
                _ if self.next < *keys => self.next,
                FILL => break,
                ZIPF => zipf.key(keys::mix(self.next)),
                _ => keys::uniform(keys::mix(self.next), *keys),
            };
            batch.records.push(Record::new(key));
            self.next += u64::from(WORKERS);
        }
        batch.end = Position::from_u64(self.next);
        Ok(if batch.records.is_empty() { Polled::Idle } else { Polled::More })
    }
}

/// What is kept per key.
#[derive(Debug, Serialize, Deserialize)]
struct Held {
    count: u64,
    payload: String,
}

/// Counts per key beside a payload.
#[derive(Clone)]
struct Hold {
    value_bytes: u64,
}

impl KeyedProcess for Hold {
    type Key = u64;
    type In = u64;
    type Out = (u64, u64);
    type State = Value<Held>;

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Value<Held>, BoxError> {
        Ok(context.value("held")?)
    }

    fn on_record(
        &mut self,
        key: u64,
        held: &mut Value<Held>,
        context: &mut ProcessContext<'_, (u64, u64)>,
    ) -> Result<(), BoxError> {
        let (mut count, bytes) = (0, self.value_bytes);
        held.update(
            || Held { count: 0, payload: keys::payload(key, bytes) },
            |held| {
                held.count += 1;
                count = held.count;
            },
        );
        context.emit((key, count));
        Ok(())
    }
}

/// Fills, measures both distributions, and says how fast it was.
pub(crate) fn run(setup: Setup, directory: &Path) -> anyhow::Result<Answer> {
    let phase = Arc::new(AtomicU8::new(FILL));
    let zipf = ZipfKeys::new(setup.keys);
    let numbers = Numbers { keys: setup.keys, zipf, phase: Arc::clone(&phase) };
    let hole = Blackhole::new();
    let arrived = hole.count();
    let pipeline = Pipeline::new("larger").parallelism(WORKERS).epoch_interval(setup.epoch);
    pipeline
        .source("numbers", numbers)
        .key_by(|key| *key)
        .process("held", Hold { value_bytes: setup.value_bytes })
        .sink("out", hole);
    let runtime = Runtime::builder()
        .state_backend(RocksDb::at(directory))
        .state_memory(setup.budget)
        .workers(usize::from(WORKERS))
        .build()?;
    let job = runtime.start(pipeline)?;

    let begun = Stopwatch::start();
    let mut said = 0;
    while arrived.records() < setup.keys {
        let status = job.status();
        ensure!(status.last_failure.is_none(), "the job failed: {:?}", status.last_failure);
        ensure!(begun.elapsed() < PATIENCE, "filling takes too long: {status:?}");
        if begun.elapsed().as_secs() >= said {
            said += 5;
            eprintln!("{:?}: {} records, {:?}, {:?}", begun.elapsed(), arrived.records(), job.state(), status.held);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let fill_per_second = setup.keys as f64 / begun.elapsed().as_secs_f64();
    let measure = |of: u8| -> anyhow::Result<f64> {
        phase.store(of, Ordering::Relaxed);
        std::thread::sleep(setup.warm_up);
        let (clock, before) = (Stopwatch::start(), arrived.records());
        std::thread::sleep(setup.measured);
        let (seconds, after) = (clock.elapsed().as_secs_f64(), arrived.records());
        let status = job.status();
        ensure!(status.last_failure.is_none(), "the job failed: {:?}", status.last_failure);
        eprintln!("{} records/s, {:?}, {:?}", (after - before) as f64 / seconds, job.state(), status.held);
        Ok((after - before) as f64 / seconds)
    };
    Ok(Answer { fill_per_second, uniform_per_second: measure(UNIFORM)?, zipf_per_second: measure(ZIPF)? })
}
