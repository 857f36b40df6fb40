//! The late threshold of an operator as rows of a reserved state.
//!
//! ```text
//! key group: first of a run of groups with one threshold    key and element: empty    value: (first group behind it, micros)
//! ```
//! A run is one row, not a row per group, so that an epoch in which the watermark rose costs a subtask one entry. Runs are cut anew
//! when the parallelism changes: the first epoch of the new subtasks then writes all of theirs and removes what is left over, in
//! the same commit, so that runs never overlap in a store.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::checkpoint::Delta;
use crate::codec::{self, CodecError};
use crate::state::entry::{self, EntryKey};
use crate::state::freeze::DeltaBuilder;
use crate::state::log::keys;
use crate::state::read::{Found, Look};
use crate::state::table::{LoadError, TableSetup};
use crate::time::Timestamp;
use crate::watermark::{Run, Thresholds};

/// See the module.
#[derive(Debug)]
pub(super) struct LateRows {
    setup: TableSetup,
    pub(super) thresholds: Thresholds,
    /// Where rows of the subtask's groups begin in the store.
    stored: BTreeSet<u16>,
    /// The store does not know the thresholds as they are.
    changed: bool,
    /// What the log says, until the rows are read.
    log: Option<Arc<Vec<Vec<u8>>>>,
}

impl LateRows {
    pub(super) fn new(setup: TableSetup) -> Self {
        let thresholds = Thresholds::new(setup.groups.clone(), &[]);
        Self { setup, thresholds, stored: BTreeSet::new(), changed: false, log: None }
    }

    /// Restores what the log says, once the rows are there too.
    pub(super) fn load(&mut self, log: &Arc<Vec<Vec<u8>>>) -> Result<(), LoadError> {
        if self.setup.has_rows {
            self.log = Some(Arc::clone(log));
            return Ok(());
        }
        self.restore(BTreeMap::new(), log)
    }

    /// Says whether the rows have to be read before anybody can tell what is late.
    pub(super) const fn is_missing(&self) -> bool {
        self.log.is_some()
    }

    /// The look for all rows, those of other subtasks included.
    pub(super) fn look(&self) -> Look {
        let prefix =
            |state: u16| [self.setup.operator.number().to_be_bytes().as_slice(), &state.to_be_bytes()].concat();
        Look::Scan { from: prefix(self.setup.state), to: prefix(self.setup.state + 1), limit: usize::MAX }
    }

    /// Takes in what [`LateRows::look`] found.
    pub(super) fn take_in(&mut self, found: &Found) -> Result<(), LoadError> {
        let mut rows = BTreeMap::new();
        // The sentinel of the state comes first.
        for (row, value) in found.rows.iter().filter(|(row, _)| !keys::is_sentinel(row)) {
            let key = row.get(4..).and_then(EntryKey::parse).ok_or(LoadError::Key { state: self.setup.state })?;
            self.note(&mut rows, &key, Some(value))?;
        }
        match self.log.take() {
            Some(log) => self.restore(rows, &log),
            None => Ok(()),
        }
    }

    fn note(&self, rows: &mut BTreeMap<u16, Run>, key: &EntryKey<'_>, value: Option<&[u8]>) -> Result<(), LoadError> {
        let state = self.setup.state;
        if key.state != state {
            return Ok(());
        }
        let Some(bytes) = value else {
            rows.remove(&key.group);
            return Ok(());
        };
        let decoded = codec::decode::<(u16, i64)>(bytes);
        let (end, micros) = decoded.map_err(|error| LoadError::Value { state, source: error.into() })?;
        rows.insert(key.group, Run { groups: key.group..end, threshold: Timestamp::from_micros(micros) });
        Ok(())
    }

    fn restore(&mut self, mut rows: BTreeMap<u16, Run>, log: &[Vec<u8>]) -> Result<(), LoadError> {
        for stored in log.iter().flat_map(|chunk| entry::entries(chunk)) {
            let key = EntryKey::parse(stored.key).ok_or(LoadError::Key { state: self.setup.state })?;
            self.note(&mut rows, &key, stored.value)?;
        }
        // Rows of all groups: a run of the time before may begin with another subtask's groups and reach into these.
        let all: Vec<Run> = rows.values().cloned().collect();
        self.thresholds = Thresholds::new(self.setup.groups.clone(), &all);
        let mine: Vec<&Run> = all.iter().filter(|run| self.setup.groups.contains(&run.groups.start)).collect();
        self.stored = mine.iter().map(|run| run.groups.start).collect();
        self.changed = !self.thresholds.runs().iter().eq(mine);
        Ok(())
    }

    /// Takes note that a watermark was handled completely.
    pub(super) fn raise(&mut self, watermark: Timestamp) {
        self.changed |= self.thresholds.raise(watermark);
    }

    pub(super) fn groups(&self) -> &Range<u16> {
        &self.setup.groups
    }

    /// Returns what changed since the last epoch.
    pub(super) fn freeze(&mut self) -> Result<Delta, CodecError> {
        let mut delta = DeltaBuilder::new(self.setup.operator);
        if std::mem::take(&mut self.changed) {
            let runs = self.thresholds.runs();
            let begin: BTreeSet<u16> = runs.iter().map(|run| run.groups.start).collect();
            for gone in self.stored.difference(&begin) {
                self.write(&mut delta, *gone, None)?;
            }
            for run in runs {
                self.write(&mut delta, run.groups.start, Some((run.groups.end, run.threshold.as_micros())))?;
            }
            self.stored = begin;
        }
        Ok(delta.finish())
    }

    fn write(&self, delta: &mut DeltaBuilder, group: u16, value: Option<(u16, i64)>) -> Result<(), CodecError> {
        let value = value.map(|value| move |out: &mut Vec<u8>| codec::encode_into(&value, out));
        delta.push(|chunk| entry::append(chunk, self.setup.state, group, |_| (), |_| (), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, OperatorId};
    use crate::state::MemoryBudget;
    use crate::state::key_group::KeyGroups;
    use crate::state::store::StoreShare;

    fn rows(groups: Range<u16>, stored: &[Vec<u8>]) -> LateRows {
        let (operator, key_groups, restored) = (OperatorId::new(1), KeyGroups::default(), Epoch::GENESIS);
        let (share, memory) = (StoreShare::default(), MemoryBudget::default());
        let setup =
            TableSetup { operator, state: 0xFFEF, key_groups, groups, restored, share, has_rows: false, memory };
        let mut rows = LateRows::new(setup);
        rows.load(&Arc::new(stored.to_vec())).unwrap();
        rows
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn moves_with_its_key_groups_through_changes_of_parallelism() {
        let mut store: Vec<Vec<u8>> = Vec::new();
        let mut whole = rows(0..960, &store);
        assert_eq!(whole.freeze().unwrap().entries, 0);
        whole.raise(at(10));
        store.extend(whole.freeze().unwrap().chunks);
        assert_eq!(whole.freeze().unwrap().entries, 0, "nothing changed since");

        // Into two, of which only one moves on.
        let mut halves = [rows(0..480, &store), rows(480..960, &store)];
        assert_eq!(halves.each_ref().map(|half| half.thresholds.watermark()), [Some(at(10)); 2]);
        halves[1].raise(at(20));
        for half in &mut halves {
            let delta = half.freeze().unwrap();
            assert_eq!(delta.entries, 1, "a run that was cut is written in the first epoch");
            store.extend(delta.chunks);
        }

        // Into three, and back to one.
        let mut thirds = [rows(0..320, &store), rows(320..640, &store), rows(640..960, &store)];
        let late = |rows: &LateRows, group, millis| rows.thresholds.is_late(group, at(millis));
        assert!(late(&thirds[1], 479, 10) && !late(&thirds[1], 479, 11) && late(&thirds[1], 480, 20));
        store.extend(thirds.iter_mut().flat_map(|third| third.freeze().unwrap().chunks));
        let mut whole = rows(0..960, &store);
        assert!(late(&whole, 479, 10) && !late(&whole, 479, 11) && late(&whole, 480, 20));
        whole.raise(at(30));
        store.extend(whole.freeze().unwrap().chunks);
        let mut again = rows(0..960, &store);
        assert_eq!(again.thresholds.runs(), [Run { groups: 0..960, threshold: at(30) }]);
        assert_eq!((again.stored.len(), again.freeze().unwrap().entries), (1, 0));
    }
}
