//! What the benches share: arguments, clock, machine noise, and a store that tells how large epochs were.

pub(crate) mod payload;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millstream::runtime::id::ShardId;
use millstream::runtime::state::entry;
use millstream::runtime::state::store::{
    Durability, Mark, RunEntry, SortedRun, Space, StateBackend, Store, StoreError, StoreRead, Visit, WriteBatch,
    WriteOp,
};

/// Says whether `name` is to run: `cargo bench` was asked for everything, or for a part of this name.
///
/// `cargo test --benches` starts the same binaries without `--bench`; minutes of measuring are not wanted there.
pub(crate) fn is_wanted(name: &str) -> bool {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut names = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
    arguments.iter().any(|argument| argument == "--bench")
        && (names.peek().is_none() || names.any(|wanted| name.contains(wanted.as_str())))
}

/// Reads a number that a variable of the environment may override.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The one clock of a bench: nanoseconds since it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "a bench measures real time, on one clock for source and sink")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    #[inline]
    pub(crate) fn nanos(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Returns the median; 0 of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle.wrapping_sub(1)), sorted.get(middle)) {
        (Some(below), Some(above)) if sorted.len().is_multiple_of(2) => (below + above) / 2.0,
        (_, Some(middle)) => *middle,
        _ => 0.0,
    }
}

/// Returns the smallest and the largest value.
pub(crate) fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, 0.0), |(low, high), value| (low.min(*value), high.max(*value)))
}

/// How much of the machine others took while something was measured: a ratio of two runs says little when this differs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noise {
    started: Stopwatch,
    all: f64,
    own: f64,
    stolen: f64,
}

impl Noise {
    pub(crate) fn begin() -> Self {
        let (all, own) = busy_seconds().unwrap_or_default();
        Self { started: Stopwatch::start(), all, own, stolen: stolen_seconds().unwrap_or_default() }
    }

    /// Cores that other processes kept busy since the beginning, on average. Nothing where the kernel does not tell.
    pub(crate) fn foreign_cores(self) -> Option<f64> {
        let (all, own) = busy_seconds()?;
        let foreign = (all - self.all) - (own - self.own);
        Some((foreign / self.started.elapsed().as_secs_f64()).max(0.0))
    }

    /// Seconds of CPU that this process and the children it has waited for took since the beginning.
    pub(crate) fn own_seconds(self) -> f64 {
        busy_seconds().map_or(f64::NAN, |(_, own)| own - self.own)
    }

    /// Cores that the machine's host gave to other machines, as text; a part of the foreign ones.
    pub(crate) fn stolen_text(self) -> String {
        let cores = |now| (now - self.stolen) / self.started.elapsed().as_secs_f64();
        stolen_seconds().map_or_else(|| "?".to_owned(), |now| format!("{:.2}", cores(now)))
    }

    pub(crate) fn text(self) -> String {
        self.foreign_cores().map_or_else(|| "?".to_owned(), |cores| format!("{cores:.2}"))
    }
}

/// Milliseconds in which threads of this process whose names begin so could have run and had no core (Linux). What the machine's host
/// takes away does not count there: the kernel believes that the thread runs.
pub(crate) fn waited_for_a_core(names: &str) -> Option<f64> {
    scheduled(names, 1).map(|nanos| nanos / 1e6)
}

/// Nanoseconds for which such threads had a core (Linux).
pub(crate) fn ran_on_a_core(names: &str) -> Option<f64> {
    scheduled(names, 0)
}

fn scheduled(names: &str, field: usize) -> Option<f64> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?.filter_map(Result::ok).map(|task| task.path());
    let named =
        tasks.filter(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with(names)));
    let nanos = named.map(|task| {
        std::fs::read_to_string(task.join("schedstat")).ok()?.split_whitespace().nth(field)?.parse::<f64>().ok()
    });
    nanos.sum()
}

fn seconds(ticks: &[&str]) -> Option<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    ticks.iter().map(|ticks| ticks.parse::<f64>().ok()).sum::<Option<f64>>().map(|sum| sum / TICKS_PER_SECOND)
}

/// Seconds in which a core had work and the machine's host gave it to another machine (Linux).
fn stolen_seconds() -> Option<f64> {
    let machine = std::fs::read_to_string("/proc/stat").ok()?;
    seconds(&[machine.lines().next()?.split_whitespace().nth(8)?])
}

/// Seconds that all cores were busy, and those of this process with the children it has waited for (Linux).
fn busy_seconds() -> Option<(f64, f64)> {
    let machine = std::fs::read_to_string("/proc/stat").ok()?;
    let machine: Vec<&str> = machine.lines().next()?.split_whitespace().skip(1).collect();
    // user, nice, system, then (past idle and I/O wait) the interrupts and what a hypervisor took.
    let all = seconds(machine.get(0..3)?)? + seconds(machine.get(5..8)?)?;
    let own = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The process's name may hold anything; the fields go on behind its bracket.
    let own: Vec<&str> = own.rsplit_once(')')?.1.split_whitespace().collect();
    Some((all, seconds(own.get(11..15)?)?))
}

/// An epoch as the store saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closed {
    /// When it was written.
    pub(crate) at_nanos: u64,
    /// Entries of its deltas: its dirty keys.
    pub(crate) entries: u64,
    /// Their bytes.
    pub(crate) bytes: usize,
}

/// A backend that notes what every epoch wrote. It counts on the committer's thread, off the data path.
#[derive(Clone)]
pub(crate) struct Counted {
    inner: Arc<dyn StateBackend>,
    clock: Stopwatch,
    closed: Arc<Mutex<Vec<Closed>>>,
}

impl Counted {
    /// The store that users get: RocksDB in `directory`, in memory where it is not compiled in.
    pub(crate) fn at(directory: &Path, clock: Stopwatch) -> Self {
        #[cfg(feature = "rocksdb")]
        let inner = Arc::new(millstream::runtime::state::store::RocksDb::at(directory));
        #[cfg(not(feature = "rocksdb"))]
        let inner = {
            let _ = directory;
            println!("store: in memory, RocksDB is not compiled in. These figures say nothing about durable epochs.");
            Arc::new(millstream::runtime::state::store::Memory::new())
        };
        Self { inner, clock, closed: Arc::default() }
    }

    /// Epochs that were written so far.
    pub(crate) fn closed(&self) -> Vec<Closed> {
        lock(&self.closed).clone()
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}

impl StateBackend for Counted {
    fn open(&self, pipeline: &str, shard: ShardId, create: bool) -> Result<Box<dyn Store>, StoreError> {
        let store = self.inner.open(pipeline, shard, create)?;
        Ok(Box::new(CountedStore {
            store,
            clock: self.clock,
            closed: Arc::clone(&self.closed),
            open: Mutex::default(),
        }))
    }

    fn describe(&self, pipeline: &str, shard: ShardId) -> String {
        self.inner.describe(pipeline, shard)
    }
}

#[derive(Debug)]
struct CountedStore {
    store: Box<dyn Store>,
    clock: Stopwatch,
    closed: Arc<Mutex<Vec<Closed>>>,
    /// Entries and bytes of epochs whose index record was not written yet.
    open: Mutex<HashMap<[u8; 8], (u64, usize)>>,
}

impl CountedStore {
    /// Counts a chunk of a delta; says which epoch it is if it is an index record instead, which makes the epoch one,
    /// wherever its deltas were put.
    fn count(&self, key: &[u8], value: &[u8]) -> Option<[u8; 8]> {
        let epoch = *key.first_chunk::<8>()?;
        // The key of an epoch's index record ends like no delta's.
        if key.ends_with(&[0xFF; 12]) {
            return Some(epoch);
        }
        let mut open = lock(&self.open);
        let (entries, bytes) = open.entry(epoch).or_default();
        *entries += entry::entries(value).count() as u64;
        *bytes += value.len();
        None
    }
}

impl StoreRead for CountedStore {
    fn place(&self) -> &Path {
        self.store.place()
    }

    fn multi_get(&self, space: Space, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.store.multi_get(space, keys)
    }

    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.store.scan(space, from, to, visit)
    }

    fn write_run(&self, space: Space, sorted: &mut dyn Iterator<Item = RunEntry<'_>>) -> Result<SortedRun, StoreError> {
        if space != Space::Log {
            return self.store.write_run(space, sorted);
        }
        let mut counted = sorted.inspect(|(key, value)| {
            self.count(key, value.as_deref().unwrap_or_default());
        });
        self.store.write_run(space, &mut counted)
    }
}

impl Store for CountedStore {
    fn write(&mut self, batch: WriteBatch<'_>, durability: Durability) -> Result<(), StoreError> {
        let at_nanos = self.clock.nanos();
        let mut written = Vec::new();
        for op in &batch.ops {
            let WriteOp::Put { space: Space::Log, key, value } = op else { continue };
            written.extend(self.count(key, value));
        }
        for epoch in written {
            let (entries, bytes) = lock(&self.open).remove(&epoch).unwrap_or_default();
            lock(&self.closed).push(Closed { at_nanos, entries, bytes });
        }
        self.store.write(batch, durability)
    }

    fn reader(&self) -> Arc<dyn StoreRead> {
        self.store.reader()
    }

    fn set_mark(&mut self, mark: Mark) -> Result<(), StoreError> {
        self.store.set_mark(mark)
    }

    fn mark(&self) -> Option<Mark> {
        self.store.mark()
    }

    fn ingest(&mut self, run: SortedRun) -> Result<(), StoreError> {
        self.store.ingest(run)
    }

    fn checkpoint(&self, path: &Path) -> Result<(), StoreError> {
        self.store.checkpoint(path)
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Lists that are only pushed to: a panic leaves them whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
