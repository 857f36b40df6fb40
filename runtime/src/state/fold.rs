//! Folds the log into rows: the newest entry of every key becomes its row, a tombstone removes it.
//!
//! ```text
//! (a) a prefix of the log is read, merged and written as a sorted run beside the store     any thread: FoldJob::run
//! (b) the run is ingested: rows and sentinels, durable                                    the owner: CommitLog::ingest
//! (c) a later epoch's batch carries folded_through and removes the folded deltas          the owner: CommitLog::commit
//! (d) only then folded_through advances, and what is in the rows may leave memory
//! ```
//! Nothing of it needs to be atomic: entries are absolute values and the log wins over rows, so a crash between any two
//! steps only means that the same prefix, or a longer one, is folded again. A fold never goes beyond the committed epoch.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

use super::entry::{self, Entry, EntryKey};
use super::key_group::hash_bytes;
use super::log::{Damage, FoldError, Identity, keys, read};
use super::store::{RunEntry, SortedRun, Space, StoreShare};
use crate::checkpoint::EpochBundle;
use crate::fault::{CrashPoint, SharedFaults};
use crate::id::{Epoch, OperatorId, SubtaskId};

/// A prefix of the log that is to become rows. May run on any thread while epochs go on being committed.
#[derive(Debug)]
pub struct FoldJob {
    pub(super) through: Epoch,
    pub(super) records: Vec<read::IndexRecord>,
    pub(super) share: StoreShare,
    pub(super) identity: Identity,
    pub(super) faults: SharedFaults,
    /// Which handle of the store it reads through and writes beside.
    pub(super) handle: u64,
    /// Raised when nobody wants the result any more.
    pub(super) cancelled: Arc<AtomicBool>,
}

/// Rows that are ready to be ingested.
#[derive(Debug)]
pub struct FoldedRun {
    pub(super) through: Epoch,
    pub(super) handle: u64,
    pub(super) states: BTreeSet<(OperatorId, u16)>,
    pub(super) epochs: usize,
    pub(super) rows: u64,
    pub(super) run: SortedRun,
}

/// What a fold did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folded {
    /// The last epoch whose changes are in the rows now.
    pub through: Epoch,
    /// Epochs that were folded.
    pub epochs: u64,
    /// Rows that were written or removed.
    pub rows: u64,
}

/// Chunks of deltas, oldest first, by operator.
type Chunks = BTreeMap<OperatorId, Vec<Vec<u8>>>;

impl FoldJob {
    /// Reads, merges and writes the run. Takes as long as it takes; gives up early when nobody wants it any more.
    ///
    /// # Errors
    /// [`FoldError`]: nothing has changed.
    pub fn run(&self) -> Result<FoldedRun, FoldError> {
        self.fold(&[])
    }

    /// Folds the log and, what only a planted bug asks for, epochs that are not committed.
    pub(super) fn fold(&self, uncommitted: &[EpochBundle]) -> Result<FoldedRun, FoldError> {
        self.faults.pass(CrashPoint::FoldBefore)?;
        let _held = self.share.holds_for_fold(self.records.iter().map(read::IndexRecord::bytes).sum());
        let mut chunks = self.read()?;
        for delta in uncommitted.iter().flat_map(|bundle| &bundle.parts).flat_map(|part| &part.deltas) {
            chunks.entry(delta.operator).or_default().extend(delta.chunks.iter().cloned());
        }
        let (mut states, mut rows) = (BTreeSet::new(), 0);
        let mut merged: BTreeMap<OperatorId, Merged<'_>> = BTreeMap::new();
        for (operator, chunks) in &chunks {
            let part = Merged::of(chunks).ok_or_else(|| self.damaged(self.through, *operator, SubtaskId::default()))?;
            states.extend(part.states.iter().map(|state| (*operator, *state)));
            merged.insert(*operator, part);
        }
        let sentinel = read::sentinel_bytes(self.through)?;
        let mut sorted = merged.iter().flat_map(|(operator, merged)| merged.rows(*operator, &sentinel));
        let mut counted = sorted.by_ref().take_while(|_| !self.is_cancelled()).inspect(|_| rows += 1);
        let written = self.share.with(|store| store.write_run(Space::Rows, &mut counted));
        let run = written.ok_or(FoldError::Closed)??;
        if self.is_cancelled() {
            return Err(FoldError::Closed);
        }
        self.faults.pass(CrashPoint::FoldWritten)?;
        let rows = rows - states.len() as u64;
        Ok(FoldedRun { through: self.through, handle: self.handle, states, epochs: self.records.len(), rows, run })
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    fn read(&self) -> Result<Chunks, FoldError> {
        let mut chunks = Chunks::new();
        for record in &self.records {
            for listed in &record.deltas {
                if self.is_cancelled() {
                    return Err(FoldError::Closed);
                }
                // One delta at a time: the way to the store may be shut in between.
                let read = self.share.with(|store| {
                    read::delta(store, record.epoch, listed).map_err(|error| error.at(&self.identity, store.place()))
                });
                let mut delta = read.ok_or(FoldError::Closed)??;
                chunks.entry(listed.operator).or_default().append(&mut delta);
            }
        }
        Ok(chunks)
    }

    fn damaged(&self, epoch: Epoch, operator: OperatorId, subtask: SubtaskId) -> FoldError {
        let place = self.share.with(|store| store.place().to_owned()).unwrap_or_default();
        FoldError::Unreadable(
            read::ReadError::from(Damage::Delta { epoch, operator, subtask }).at(&self.identity, &place),
        )
    }
}

/// Where an entry is: its chunk and its offset there. A fold of millions of entries keeps no more than that of each, for it works
/// on a copy of the log beside all that is in memory anyway.
#[derive(Clone, Copy, Debug)]
struct Place {
    chunk: u32,
    offset: u32,
}

/// The newest entry of every key of one operator, in the order of the rows.
struct Merged<'a> {
    chunks: &'a [Vec<u8>],
    places: Vec<Place>,
    /// Rows that find timers by their time; made from the entries, so they own their keys.
    timers: Vec<(Vec<u8>, bool)>,
    states: BTreeSet<u16>,
}

/// The entry at a place; an empty one where there is none, which no place is made for.
fn entry_at<'a>(chunks: &'a [Vec<u8>], place: Place) -> Entry<'a> {
    let chunk = chunks.get(place.chunk as usize).map(Vec::as_slice).unwrap_or_default();
    entry::at(chunk, place.offset as usize).unwrap_or(Entry { key: &[], value: None })
}

/// Spreads the 31-bit hash over the 64 bits that the map wants.
fn spread(key: &[u8]) -> u64 {
    u64::from(hash_bytes(key)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl<'a> Merged<'a> {
    /// Takes chunks from the oldest to the newest; nothing if one is damaged.
    fn of(chunks: &'a [Vec<u8>]) -> Option<Self> {
        // From the newest to the oldest, keeping the first of each key: where the same keys change in every epoch, few of many
        // entries are left to be sorted.
        let mut places: Vec<Place> = Vec::new();
        let mut seen: HashTable<u32> = HashTable::new();
        let mut starts = Vec::new();
        for (number, chunk) in chunks.iter().enumerate().rev() {
            let number = u32::try_from(number).ok()?;
            let mut entries = entry::entries(chunk);
            starts.clear();
            loop {
                let start = chunk.len() - entries.left();
                if entries.next().is_none() {
                    break;
                }
                starts.push(u32::try_from(start).ok()?);
            }
            if entries.is_damaged() {
                return None;
            }
            for offset in starts.drain(..).rev() {
                let place = Place { chunk: number, offset };
                let key = entry_at(chunks, place).key;
                let key_of = |index: &u32| places.get(*index as usize).map(|place| entry_at(chunks, *place).key);
                let is_known = |index: &u32| key_of(index) == Some(key);
                let hash_of = |index: &u32| spread(key_of(index).unwrap_or_default());
                if let Slot::Vacant(vacant) = seen.entry(spread(key), is_known, hash_of) {
                    vacant.insert(u32::try_from(places.len()).ok()?);
                    places.push(place);
                }
            }
        }
        drop(seen);
        places.sort_unstable_by(|left, right| entry_at(chunks, *left).key.cmp(entry_at(chunks, *right).key));
        let mut merged = Self { chunks, places, timers: Vec::new(), states: BTreeSet::new() };
        for place in &merged.places {
            let found = entry_at(chunks, *place);
            let key = EntryKey::parse(found.key)?;
            if merged.states.last() != Some(&key.state) {
                merged.states.insert(key.state);
            }
            if key.state == entry::TIMERS {
                merged.timers.push((entry::timer_index(&key), found.value.is_some()));
            }
        }
        merged.timers.sort();
        Some(merged)
    }

    /// The rows in order: of every state its sentinel first, then its rows; timers by their time come last.
    fn rows<'b>(
        &'b self,
        operator: OperatorId,
        sentinel: &'b [u8],
    ) -> impl Iterator<Item = RunEntry<'b>> + use<'a, 'b> {
        let mut last = None;
        let rows = self.places.iter().flat_map(move |place| {
            let found = entry_at(self.chunks, *place);
            let state = found.key.first_chunk::<2>().copied().map(u16::from_be_bytes);
            let first = state.filter(|state| last.replace(*state) != Some(*state));
            let sentinel = first.map(|state| (keys::sentinel(operator, state), Some(sentinel.into())));
            let row = (entry::row_key(operator, found.key), found.value.map(Cow::Borrowed));
            sentinel.into_iter().chain(std::iter::once(row))
        });
        let timers =
            self.timers.iter().map(move |(key, is_set)| (entry::row_key(operator, key), is_set.then(Cow::default)));
        rows.chain(timers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// State, key, element and value.
    type Given<'a> = (u16, &'a [u8], &'a [u8], Option<u8>);

    fn chunk(entries: &[Given<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        for (state, key, element, value) in entries {
            let value = value.map(|value| {
                move |out: &mut Vec<u8>| {
                    out.push(value);
                    Ok::<(), ()>(())
                }
            });
            entry::append(
                &mut out,
                *state,
                7,
                |out| out.extend_from_slice(key),
                |out| out.extend_from_slice(element),
                value,
            )
            .unwrap();
        }
        out
    }

    #[test]
    fn the_newest_entry_of_a_key_wins_and_rows_stand_in_the_order_of_their_keys() {
        let chunks = [
            chunk(&[(1, b"b", b"", Some(1)), (0, b"a", b"", Some(2))]),
            chunk(&[(0, b"a", b"", Some(3)), (1, b"b", b"", None), (1, b"b", b"x", Some(4))]),
        ];
        let merged = Merged::of(&chunks).unwrap();
        let operator = OperatorId::new(9);
        let rows: Vec<_> = merged.rows(operator, b"s").collect();
        assert!(rows.windows(2).all(|pair| pair[0].0 < pair[1].0), "{rows:?}");
        let values: Vec<_> = rows.iter().map(|(_, value)| value.as_deref()).collect();
        assert_eq!(values, [Some(&b"s"[..]), Some(&[3]), Some(b"s"), None, Some(&[4])]);
    }

    #[test]
    fn timers_get_a_row_by_their_time() {
        let early = entry::timer_element(0, crate::time::Timestamp::from_millis(-1));
        let late = entry::timer_element(0, crate::time::Timestamp::from_millis(1));
        let chunks = [chunk(&[(entry::TIMERS, b"a", &late, Some(0)), (entry::TIMERS, b"b", &early, None)])];
        let merged = Merged::of(&chunks).unwrap();
        let rows: Vec<_> = merged.rows(OperatorId::new(1), b"s").collect();
        assert!(rows.windows(2).all(|pair| pair[0].0 < pair[1].0), "{rows:?}");
        let by_time: Vec<_> =
            rows.iter().filter_map(|(key, value)| Some((entry::parse_timer_index(key)?, value))).collect();
        assert_eq!(by_time.len(), 2);
        assert_eq!((by_time[0].0.element, by_time[0].0.key, by_time[0].1.is_some()), (&early[..], &b"b"[..], false));
        assert_eq!((by_time[1].0.element, by_time[1].0.group), (&late[..], 7));
    }
}
