//! What lies outside of a simulated process and outlives its crashes: numbered input, and sinks with a token.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::error::BoxError;
use crate::id::Epoch;
use crate::position::{Position, SplitId};
use crate::record::Record;
use crate::sink::{Encoder, EpochBatch, IntoSink, SinkContext, SinkError, SinkErrorKind, SinkSpec, Token, TokenSink};
use crate::source::{Batch, EpochLimits, Polled, Reader, Source};

/// One record of a [`SimSource`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Numbered {
    /// Which split, over all sources of one name.
    pub split: u32,
    /// Which record of the split, from 0.
    pub seq: u64,
}

/// A replayable source of numbered records, cut into batches of random size.
#[derive(Clone, Debug)]
pub struct SimSource {
    /// Records per split.
    pub lengths: Vec<u64>,
    /// Seed of batch sizes and idle polls.
    pub seed: u64,
    /// Number of the first split, so that two sources can differ.
    pub first_split: u32,
}

/// As if a split's records were in files of so many.
const SIM_FILE: u64 = 10;

impl Source for SimSource {
    type Out = Numbered;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        Ok((0..self.lengths.len()).map(|split| SplitId::new(split.to_string())).collect())
    }

    fn epoch_limits(&self) -> EpochLimits {
        let (limits, some) = (EpochLimits::default(), 1 + (self.seed >> 8) % 60);
        match self.seed % 4 {
            0 => limits,
            1 => EpochLimits { files: Some(1 + some % 4), ..limits },
            2 => EpochLimits { bytes: Some(some), ..limits },
            _ => EpochLimits { records: some, ..limits },
        }
    }

    fn reader(&self, split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<Numbered>>, BoxError> {
        let index: u32 = split.as_str().parse()?;
        let length = *self.lengths.get(index as usize).ok_or("no such split")?;
        let next = from.and_then(Position::as_u64).unwrap_or(0);
        if next > length {
            return Err(format!("position {next} is beyond the end of split {split}, {length}").into());
        }
        let rng = ChaCha8Rng::seed_from_u64(self.seed ^ (u64::from(index) << 32) ^ next);
        Ok(Box::new(SimReader { split: self.first_split + index, next, length, rng }))
    }
}

struct SimReader {
    split: u32,
    next: u64,
    length: u64,
    rng: ChaCha8Rng,
}

impl Reader<Numbered> for SimReader {
    fn poll(&mut self, batch: &mut Batch<Numbered>, limit: usize) -> Result<Polled, BoxError> {
        let largest = if self.rng.random_bool(0.1) { limit as u64 } else { 7.min(limit as u64) };
        let count = self.rng.random_range(0..=largest).min(self.length - self.next);
        let split = self.split;
        batch.records.extend((self.next..self.next + count).map(|seq| Record::new(Numbered { split, seq })));
        let files = self.next / SIM_FILE;
        self.next += count;
        batch.end = Position::from_u64(self.next);
        (batch.files, batch.bytes) = (self.next / SIM_FILE - files, count);
        Ok(match count {
            _ if self.next == self.length => Polled::End,
            0 => Polled::Idle,
            _ => Polled::More,
        })
    }
}

/// Rows that a sink outside has taken, with its token. Clones are the same place.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    token: Token,
    rows: Vec<Vec<u8>>,
    /// The epoch of each row.
    epochs: Vec<Epoch>,
    applied: u64,
    connectors: u64,
}

impl Outside {
    /// All rows, in the order of their arrival.
    pub fn rows(&self) -> Vec<Vec<u8>> {
        self.lock().rows.clone()
    }

    /// All rows with their epochs, in the order of their arrival.
    pub fn rows_of_epochs(&self) -> Vec<(Epoch, Vec<u8>)> {
        let outside = self.lock();
        outside.epochs.iter().copied().zip(outside.rows.iter().cloned()).collect()
    }

    /// How many batches were taken.
    pub fn applied(&self) -> u64 {
        self.lock().applied
    }

    fn next_connector(&self) -> u64 {
        let mut inner = self.lock();
        inner.connectors += 1;
        inner.connectors
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A level-2 sink that takes what it is given: only the token keeps it from taking rows twice.
#[derive(Clone, Debug)]
pub struct SimSink {
    /// Where rows go.
    pub outside: Outside,
    /// Seed of its own faults: commits whose answer is lost, refusals.
    pub seed: u64,
    /// How likely a batch meets a fault, 0 to 1.
    pub faults: f64,
}

struct SimConnector {
    sink: SimSink,
    rng: ChaCha8Rng,
}

impl TokenSink for SimConnector {
    fn open(&mut self, _context: &SinkContext) -> Result<Token, SinkError> {
        Ok(self.sink.outside.lock().token)
    }

    fn apply(&mut self, batch: &EpochBatch<'_>) -> Result<(), SinkError> {
        let fault = self.rng.random_bool(self.sink.faults).then(|| self.rng.random_range(0..3));
        let mut outside = self.sink.outside.lock();
        if fault == Some(0) {
            return Err(SinkError::plain(SinkErrorKind::Retry, "the sink is busy"));
        }
        if fault == Some(1) {
            return Err(SinkError::plain(SinkErrorKind::Unknown, "the connection broke before the commit"));
        }
        outside.rows.extend(batch.rows().map(|row| row.bytes.to_vec()));
        outside.epochs.extend(batch.rows().map(|row| row.epoch));
        outside.token = Token { next: batch.last().next() };
        outside.applied += 1;
        if fault == Some(2) {
            return Err(SinkError::plain(SinkErrorKind::Unknown, "the connection broke after the commit"));
        }
        Ok(())
    }
}

struct Debugged;

impl<T: std::fmt::Debug> Encoder<T> for Debugged {
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), BoxError> {
        out.extend_from_slice(format!("{value:?}").as_bytes());
        Ok(())
    }
}

impl<T: std::fmt::Debug + 'static> IntoSink<T> for SimSink {
    fn into_sink(self) -> SinkSpec<T> {
        let connector = move || {
            // A new connector must not repeat the faults of the one before.
            let seed = self.seed ^ self.outside.next_connector().wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let connector = SimConnector { sink: self.clone(), rng: ChaCha8Rng::seed_from_u64(seed) };
            Ok(Box::new(connector) as Box<dyn TokenSink>)
        };
        SinkSpec::Outbox { encoder: Arc::new(Debugged), connector: Arc::new(connector) }
    }
}
