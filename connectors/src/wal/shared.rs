//! The logs of all splits, as the readers of all attempts share them.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millstream_runtime::codec::{self, CodecError};
use millstream_runtime::error::BoxError;
use millstream_runtime::id::ShardId;
use millstream_runtime::record::Record;
use millstream_runtime::source::{Batch, Position, SplitId};
use millstream_runtime::state::store::{Durability, StateBackend, Store, StoreError, WriteBatch};
use millstream_runtime::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::WalError;
use super::log::{self, SplitLog, Unreadable};
use crate::newest::Replaced;

/// What was set.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) name: String,
    pub(super) backend: Arc<dyn StateBackend>,
    pub(super) durability: Durability,
    pub(super) max_bytes: u64,
    /// How long a poll waits for room, in the log or on the disk.
    pub(super) pause: Duration,
}

/// The store and its logs.
pub(super) struct Shared<T> {
    state: Mutex<State<T>>,
    /// Something was removed.
    room: Condvar,
}

struct State<T> {
    /// Nothing before the first attempt, and after an error: a handle that failed must not be used again.
    store: Option<Box<dyn Store>>,
    splits: Splits<T>,
}

type Splits<T> = BTreeMap<SplitId, Split<T>>;
type Parts<'a, T> = (&'a mut (dyn Store + 'static), &'a mut SplitLog, &'a mut Option<Pending<T>>);

struct Split<T> {
    /// Nothing while it has to be read anew.
    log: Option<SplitLog>,
    /// Counts the readers; only the newest may read and write.
    reader: u64,
    pending: Option<Pending<T>>,
}

/// Taken from the source and not known to be in the log. Outlives the attempt that took it.
pub(super) struct Pending<T> {
    records: Vec<Record<T>>,
    source_end: Position,
    /// The number of its first record, once it was tried to write it.
    first: Option<u64>,
}

/// Records that are in the log, and the source's position behind them.
pub(super) type Written<T> = (Vec<Record<T>>, Position);

/// What may be done with the logs.
pub(super) struct Wal<T> {
    config: Config,
    shared: Arc<Shared<T>>,
}

/// Where a new reader begins.
#[derive(Debug)]
pub(super) struct Begin {
    pub(super) reader: u64,
    pub(super) next: u64,
    /// Where the source goes on behind the log.
    pub(super) source_from: Option<Position>,
}

impl<T> Wal<T> {
    pub(super) fn new(config: Config) -> Self {
        let state = State { store: None, splits: BTreeMap::new() };
        Self { config, shared: Arc::new(Shared { state: Mutex::new(state), room: Condvar::new() }) }
    }

    pub(super) fn config(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Refuses a bound that lets nothing in.
    pub(super) fn check(&self) -> Result<(), WalError> {
        if self.config.max_bytes == 0 { Err(WalError::NoRoom) } else { Ok(()) }
    }

    /// Opens the store if it is not open.
    pub(super) fn open(&self) -> Result<(), WalError> {
        self.store(&mut self.state()).map(|_| ())
    }

    /// Says that everything before `wanted` is committed. An error is met again by the next poll.
    pub(super) fn remove_before(&self, split: &SplitId, wanted: u64) {
        let mut state = self.state();
        let State { store, splits } = &mut *state;
        let log = splits.get_mut(split).and_then(|split| split.log.as_mut());
        if let (Some(store), Some(log)) = (store, log)
            && let Err(error) = log.remove_before(store.as_mut(), wanted)
        {
            tracing::warn!(wal = %self.config.name, %error, "cannot remove committed records, the log is opened anew");
            state.forget();
        }
        drop(state);
        self.shared.room.notify_all();
    }

    /// Whether there is no room for more; if so after a wait for some.
    pub(super) fn is_full(&self) -> bool {
        let full = |state: &State<T>| {
            let logs = state.splits.values().filter_map(|split| split.log.as_ref());
            logs.map(SplitLog::bytes).sum::<u64>() >= self.config.max_bytes
        };
        let state = self.state();
        if !full(&state) {
            return false;
        }
        full(&self.shared.room.wait_timeout(state, self.config.pause).unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Waits until something is removed, which makes room on the disk too.
    pub(super) fn pause(&self) {
        let _ = self.shared.room.wait_timeout(self.state(), self.config.pause).unwrap_or_else(PoisonError::into_inner);
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store<'a>(
        &self,
        state: &'a mut State<T>,
    ) -> Result<(&'a mut (dyn Store + 'static), &'a mut Splits<T>), WalError> {
        let store = match &mut state.store {
            Some(store) => store,
            none => {
                let opened = self.config.backend.open(&self.config.name, ShardId::default(), true);
                let mut store = opened.map_err(|error| self.failed(error))?;
                match log::format(store.as_mut()) {
                    Ok(..=log::FORMAT) => {}
                    Ok(format) => return Err(self.newer(format)),
                    Err(error) => return Err(self.unreadable(None, error)),
                }
                none.insert(store)
            }
        };
        Ok((store.as_mut(), &mut state.splits))
    }

    /// Returns what a reader works with: the store, the log of its split, what is pending.
    fn parts<'a>(&self, state: &'a mut State<T>, split: &SplitId, reader: u64) -> Result<Parts<'a, T>, BoxError> {
        let (store, splits) = self.store(state)?;
        let of_split = splits.get_mut(split).filter(|split| split.reader == reader).ok_or(Replaced)?;
        let log = match &mut of_split.log {
            Some(log) => log,
            none => {
                let opened = SplitLog::open(store, split.as_str());
                none.insert(opened.map_err(|error| self.unreadable(Some(split), error))?)
            }
        };
        Ok((store, log, &mut of_split.pending))
    }

    fn failed(&self, source: StoreError) -> WalError {
        let place = self.config.backend.describe(&self.config.name, ShardId::default());
        WalError::Store { name: self.config.name.clone(), place, source }
    }

    fn newer(&self, format: u32) -> WalError {
        let place = self.config.backend.describe(&self.config.name, ShardId::default());
        WalError::Format { name: self.config.name.clone(), place, format, known: log::FORMAT }
    }

    fn unreadable(&self, split: Option<&SplitId>, error: Unreadable) -> WalError {
        match error {
            Unreadable::Store(error) => self.failed(error),
            Unreadable::Damaged(what) => {
                WalError::Damaged { name: self.config.name.clone(), split: split.map(ToString::to_string), what }
            }
        }
    }

    fn codec(&self, split: &SplitId) -> impl FnOnce(CodecError) -> WalError {
        let (name, split) = (self.config.name.clone(), split.to_string());
        move |source| WalError::Codec { name, split, source }
    }
}

impl<T: Serialize + DeserializeOwned> Wal<T> {
    /// Makes the only reader of a split from now on, which goes on with record `from`. What an earlier one has taken and not
    /// written is written first, so that the source goes on behind it.
    pub(super) fn begin(&self, split: &SplitId, from: u64) -> Result<Begin, BoxError> {
        let mut state = self.state();
        let new = || Split { log: None, reader: 0, pending: None };
        let of_split = state.splits.entry(split.clone()).or_insert_with(new);
        of_split.reader += 1;
        let reader = of_split.reader;
        self.write_locked(&mut state, split, reader)?;
        let (_, log, _) = self.parts(&mut state, split, reader)?;
        let (name, text) = (self.config.name.clone(), split.to_string());
        if from < log.first() {
            return Err(WalError::Removed { name, split: text, wanted: from, first: log.first() }.into());
        }
        if from > log.next() {
            return Err(WalError::Behind { name, split: text, wanted: from, next: log.next() }.into());
        }
        Ok(Begin { reader, next: from, source_from: log.source_end().cloned() })
    }

    /// Takes a batch over, to be written by [`Wal::write`].
    pub(super) fn take(&self, split: &SplitId, reader: u64, batch: Batch<T>) -> Result<(), BoxError> {
        let mut state = self.state();
        let of_split = state.splits.get_mut(split).filter(|split| split.reader == reader).ok_or(Replaced)?;
        of_split.pending = Some(Pending { records: batch.records, source_end: batch.end, first: None });
        Ok(())
    }

    /// Writes what is pending, and returns it with the source's position behind it once it is in the log.
    pub(super) fn write(&self, split: &SplitId, reader: u64) -> Result<Option<Written<T>>, BoxError> {
        self.write_locked(&mut self.state(), split, reader)
    }

    fn write_locked(&self, state: &mut State<T>, split: &SplitId, reader: u64) -> Result<Option<Written<T>>, BoxError> {
        let (store, log, slot) = self.parts(state, split, reader)?;
        let Some(pending) = slot else { return Ok(None) };
        let written = if pending.first.is_some_and(|first| first < log.next()) {
            // The write that failed has reached the log all the same. Now it has to be durable.
            store.write(WriteBatch::default(), Durability::Synced)
        } else {
            pending.first = Some(log.next());
            let encoded = encode(&pending.records).map_err(self.codec(split))?;
            log.write(store, (pending.records.len() as u64, &encoded), &pending.source_end, self.config.durability)
        };
        if let Err(error) = written {
            state.forget();
            return Err(self.failed(error).into());
        }
        Ok(slot.take().map(|pending| (pending.records, pending.source_end)))
    }

    /// Reads the records from `number` on that are in one frame with it; none if it is not in the log yet.
    pub(super) fn read(&self, split: &SplitId, reader: u64, number: u64) -> Result<Vec<Record<T>>, BoxError> {
        let mut state = self.state();
        let (store, log, _) = self.parts(&mut state, split, reader)?;
        if number >= log.next() {
            return Ok(Vec::new());
        }
        let (first, bytes) = log.read(store, number).map_err(|error| self.unreadable(Some(split), error))?;
        let records: Vec<(Timestamp, T)> = codec::decode(&bytes).map_err(self.codec(split))?;
        let passed = usize::try_from(number - first).unwrap_or(usize::MAX);
        Ok(records.into_iter().skip(passed).map(|(time, value)| Record::at(value, time)).collect())
    }
}

fn encode<T: Serialize>(records: &[Record<T>]) -> Result<Vec<u8>, CodecError> {
    let records: Vec<(Timestamp, &T)> = records.iter().map(|record| (record.time, &record.value)).collect();
    codec::encode(&records)
}

impl<T> State<T> {
    /// Lets go of a store that failed: all of it is read anew.
    fn forget(&mut self) {
        self.store = None;
        for split in self.splits.values_mut() {
            split.log = None;
        }
    }
}

impl<T> Clone for Wal<T> {
    fn clone(&self) -> Self {
        Self { config: self.config.clone(), shared: Arc::clone(&self.shared) }
    }
}
