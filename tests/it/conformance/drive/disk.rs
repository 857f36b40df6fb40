//! A script on RocksDB: every drain has a runtime of its own, which goes on from the store of the one before.

use std::fmt::Debug;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use millstream::operators::Stream;
use millstream::prelude::*;
use millstream::runtime::error::BoxError;
use millstream::runtime::id::ExecutionMode;
use millstream::runtime::position::{Position, SplitId};
use millstream::runtime::record::Record;
use millstream::runtime::source::{Batch, Polled, Reader, Source};
use millstream::runtime::testing::{Outside, SimSink};

use super::{Event, Script, sorted};

/// How far each source is durable, in records.
type Durable = Arc<(Mutex<Vec<usize>>, Condvar)>;

/// Hands out what has begun, and says what is durable.
struct Opened {
    events: Vec<Event>,
    index: usize,
    durable: Durable,
}

impl Source for Opened {
    type Out = Event;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        Ok(vec![SplitId::new("script")])
    }

    fn reader(&self, _split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<Event>>, BoxError> {
        let next = from.and_then(Position::as_u64).unwrap_or(0) as usize;
        Ok(Box::new(OpenedReader { events: self.events.clone(), next }))
    }

    fn committed(&self, at: &[(SplitId, Position)]) {
        let (durable, changed) = &*self.durable;
        for (_, position) in at {
            durable.lock().unwrap()[self.index] = position.as_u64().unwrap() as usize;
        }
        changed.notify_all();
    }
}

struct OpenedReader {
    events: Vec<Event>,
    next: usize,
}

impl Reader<Event> for OpenedReader {
    fn poll(&mut self, batch: &mut Batch<Event>, limit: usize) -> Result<Polled, BoxError> {
        let records = self.events.iter().skip(self.next).take(limit);
        batch.records.extend(records.map(|event| Record::new(event.clone())));
        self.next += batch.records.len();
        batch.end = Position::from_u64(self.next as u64);
        Ok(if batch.records.is_empty() { Polled::Idle } else { Polled::More })
    }
}

/// What was sent by each drain, sorted.
pub(super) fn run<Out: Debug + Send + 'static>(
    script: &Script,
    mode: ExecutionMode,
    describe: &dyn Fn(Vec<Stream<Event>>) -> Stream<Out>,
) -> Vec<Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    #[cfg(feature = "rocksdb")]
    let backend = RocksDb::at(dir.path());
    #[cfg(not(feature = "rocksdb"))]
    let backend = Memory::new();
    let durable: Durable = Arc::new((Mutex::new(vec![0; script.inputs.len()]), Condvar::new()));
    let outside = Outside::default();
    let mut delivered = 0;
    let life = |drain: usize| {
        let events = |index: usize| script.inputs[index].iter().take(drain + 1).flatten().cloned().collect::<Vec<_>>();
        let source = |index| Opened { events: events(index), index, durable: Arc::clone(&durable) };
        let sink = SimSink { outside: outside.clone(), seed: 0, faults: 0.0 };
        let pipeline = script.describe(source, describe, sink).parallelism([1, 3][drain % 2]);
        let pipeline = match mode {
            ExecutionMode::Continuous => pipeline.epoch_interval(Duration::from_millis(5)),
            _ => pipeline.trigger(Trigger::AvailableNow).no_data_epochs(script.no_data_epochs),
        };
        let runtime = Runtime::builder().workers(2).state_backend(backend.clone()).build().unwrap();
        let job = runtime.start(pipeline).unwrap();
        if mode == ExecutionMode::Continuous {
            let (durable, changed) = &*durable;
            let wanted: Vec<usize> = (0..script.inputs.len()).map(|index| events(index).len()).collect();
            let missing =
                |durable: &mut Vec<usize>| durable.iter().zip(&wanted).any(|(durable, wanted)| durable < wanted);
            drop(changed.wait_while(durable.lock().unwrap(), missing).unwrap());
            job.stop_blocking(Duration::from_secs(60)).unwrap();
        } else {
            job.join().unwrap();
        }
        let rows = outside.rows();
        let new = sorted(rows[delivered..].iter().map(|row| String::from_utf8_lossy(row).into_owned()));
        delivered = rows.len();
        new
    };
    (0..script.inputs[0].len()).map(life).collect()
}
