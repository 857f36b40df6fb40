use std::collections::BTreeMap;

use super::*;
use crate::checkpoint::Delta;
use crate::state::Cells;
use crate::state::freeze::Snapshot;
use crate::state::read::Found;

fn setup(groups: Range<u16>) -> TableSetup {
    let (operator, key_groups, restored) = (OperatorId::new(1), KeyGroups::default(), Epoch::GENESIS);
    TableSetup {
        operator,
        state: 0,
        key_groups,
        groups,
        restored,
        share: StoreShare::default(),
        has_rows: false,
        memory: MemoryBudget::default(),
    }
}

fn table() -> Table<u32, Single<u64>> {
    Table::new(setup(0..960))
}

fn add(table: &mut Table<u32, Single<u64>>, key: u32) {
    let hash = key.key_hash(&mut Vec::new());
    *table.get_or_insert_with(hash, &key, || 0).unwrap() += 1;
}

fn content(table: &Table<u32, Single<u64>>) -> BTreeMap<u32, u64> {
    table.iter().filter_map(|(key, single)| Some((*key, *single.cell(&())?.value()?))).collect()
}

/// What a store would hold after these deltas.
fn restored<'a>(deltas: impl IntoIterator<Item = &'a Delta>) -> BTreeMap<u32, u64> {
    let mut fresh = table();
    let chunks: Vec<_> = deltas.into_iter().flat_map(|delta| delta.chunks.iter().cloned()).collect();
    fresh.load(&chunks).unwrap();
    content(&fresh)
}

fn freeze(table: &mut Table<u32, Single<u64>>, epoch: u64) -> BTreeMap<u32, u64> {
    table.freeze(Epoch::new(epoch));
    content(table)
}

#[test]
fn the_delta_of_an_epoch_is_what_the_state_was_at_its_barrier_whatever_is_changed_meanwhile() {
    for slice in [1, 2, 7, 1000] {
        let mut table = table();
        (0..10).for_each(|key| add(&mut table, key));
        let at_one = freeze(&mut table, 1);
        let mut deltas = Vec::new();
        (5..15).for_each(|key| add(&mut table, key));
        deltas.extend(table.encode_slice(slice).unwrap().done);
        let hash = 7u32.key_hash(&mut Vec::new());
        assert_eq!(table.remove(hash, &7).unwrap(), Some(2));
        let at_two = freeze(&mut table, 2);
        (0..20).for_each(|key| add(&mut table, key));
        while table.frozen.front().is_some() {
            deltas.extend(table.encode_slice(slice).unwrap().done);
        }
        assert_eq!(deltas.iter().map(|(epoch, _)| epoch.number()).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(restored([&deltas[0].1]), at_one, "slices of {slice}");
        assert_eq!(restored([&deltas[0].1, &deltas[1].1]), at_two, "slices of {slice}");
    }
}

#[test]
fn an_entry_is_in_a_delta_once_and_only_if_it_changed() {
    let mut table = table();
    (0..3).for_each(|key| add(&mut table, key));
    add(&mut table, 1);
    table.freeze(Epoch::new(1));
    let done = table.encode_slice(100).unwrap().done;
    assert_eq!(done[0].1.entries, 3);
    add(&mut table, 2);
    table.freeze(Epoch::new(2));
    add(&mut table, 2);
    let done = table.encode_slice(100).unwrap().done;
    assert_eq!((done[0].1.entries, restored([&done[0].1])), (1, BTreeMap::from([(2, 2)])));
}

#[test]
fn refuses_a_record_of_another_subtask_and_an_entry_of_another_type() {
    let mut table: Table<u32, Single<u64>> = Table::new(setup(0..0));
    assert!(matches!(table.get_or_insert_with(3, &3, || 0), Err(StateError::NotMine { hash: 3 })));

    let mut strings: Table<u32, Single<String>> = Table::new(setup(0..960));
    let hash = 3u32.key_hash(&mut Vec::new());
    strings.get_or_insert_with(hash, &3, || "three".into()).unwrap();
    strings.freeze(Epoch::new(1));
    let delta = strings.encode_slice(10).unwrap().done.remove(0).1;
    assert!(matches!(self::table().load(&delta.chunks), Err(LoadError::Value { state: 0, .. })));
}

/// A table of sets of numbers, as its content and as what its deltas restore.
type Sets = Table<u32, Cells<u64, u8>>;

fn hash(key: u32) -> u32 {
    key.key_hash(&mut Vec::new())
}

fn live(sets: &Sets) -> BTreeMap<(u32, u64), u8> {
    let cells = sets.iter().flat_map(|(key, cells)| cells.cells().map(|(element, cell)| ((*key, *element), cell)));
    cells.filter_map(|(place, cell)| Some((place, *cell.value()?))).collect()
}

fn encode_all(sets: &mut Sets) -> Vec<Delta> {
    let mut deltas = Vec::new();
    while !sets.frozen.is_empty() {
        deltas.extend(sets.encode_slice(3).unwrap().done.into_iter().map(|(_, delta)| delta));
    }
    deltas
}

#[test]
fn elements_of_a_key_change_and_are_written_each_by_itself() {
    let mut sets = Sets::new(setup(0..960));
    for element in 0..10 {
        *sets.touch(hash(7), &7, &element).unwrap() = Some(1);
    }
    sets.freeze(Epoch::new(1));
    *sets.touch(hash(7), &7, &3).unwrap() = Some(2);
    assert_eq!(sets.take(hash(7), &7, &4).unwrap(), Some(1));
    assert_eq!(sets.take(hash(7), &7, &99).unwrap(), None);
    assert_eq!(sets.take(hash(8), &8, &0).unwrap(), None);
    let after_two = live(&sets);
    sets.freeze(Epoch::new(2));
    let deltas = encode_all(&mut sets);
    assert_eq!(deltas.iter().map(|delta| delta.entries).collect::<Vec<_>>(), [10, 2]);

    let mut fresh = Sets::new(setup(0..960));
    fresh.load(&deltas[0].chunks).unwrap();
    assert_eq!(live(&fresh), (0..10).map(|element| ((7, element), 1)).collect());
    let mut fresh = Sets::new(setup(0..960));
    fresh.load(&[deltas[0].chunks.clone(), deltas[1].chunks.clone()].concat()).unwrap();
    assert_eq!(live(&fresh), after_two);
}

#[test]
fn the_last_entry_of_a_cell_counts_and_those_before_it_are_not_decoded() {
    // Encoded in two bytes, of which the first says so; 0xC1 says nothing.
    let broken = |element| {
        let mut entry = log_of(7, element, Some(200));
        let value = entry.len() - 2;
        entry[value] = 0xC1;
        entry
    };
    let old = [broken(1), broken(2), log_of(7, 3, Some(30))].concat();
    let new = [log_of(7, 1, Some(10)), log_of(7, 1, Some(11)), log_of(7, 2, None)].concat();
    let mut sets = Sets::new(setup(0..960));
    sets.load(&[old.clone(), new.clone()]).unwrap();
    assert_eq!(live(&sets), [((7, 1), 11), ((7, 3), 30)].into());
    assert!(matches!(Sets::new(setup(0..960)).load(&[new, old]), Err(LoadError::Value { state: 0, .. })));
}

#[test]
fn a_tombstone_stays_until_the_rows_know_of_it_and_only_if_the_cell_stays_gone() {
    let mut sets = Sets::new(setup(0..960));
    for element in 0..3 {
        *sets.touch(hash(7), &7, &element).unwrap() = Some(1);
    }
    sets.freeze(Epoch::new(1));
    for element in 0..3 {
        sets.take(hash(7), &7, &element).unwrap();
    }
    sets.freeze(Epoch::new(2));
    encode_all(&mut sets);
    let cells = |sets: &Sets| sets.content(hash(7), &7).map(|cells| cells.cells().count());
    sets.sweep(Epoch::new(1), 100);
    assert_eq!(cells(&sets), Some(3), "epoch 2 is not in the rows");
    // One comes back, and goes once more: its second removal is of epoch 3.
    *sets.touch(hash(7), &7, &0).unwrap() = Some(5);
    sets.take(hash(7), &7, &0).unwrap();
    sets.freeze(Epoch::new(3));
    encode_all(&mut sets);
    sets.sweep(Epoch::new(2), 1);
    sets.sweep(Epoch::new(2), 100);
    assert_eq!(cells(&sets), Some(1));
    sets.sweep(Epoch::new(3), 100);
    assert_eq!((cells(&sets), sets.graves.len()), (None, 0));
}

#[test]
fn what_was_removed_does_not_come_back_with_rows_that_were_on_their_way() {
    let row = |key: u32, element: u64| {
        let entry = log_of(key, element, Some(1));
        let parsed = entry::entries(&entry).next().unwrap();
        (entry::row_key(OperatorId::new(1), parsed.key), parsed.value.unwrap().to_vec())
    };
    for asked in [false, true] {
        let group = KeyGroups::default().group(hash(7));
        let share = StoreShare::default();
        let mut sets = Sets::new(TableSetup {
            restored: Epoch::new(1),
            has_rows: true,
            share: share.clone(),
            ..setup(group..group + 1)
        });
        // The rows have two elements, of which one is removed while they are read.
        let read = Found { rows: vec![row(7, 1), row(7, 2)], more: false };
        if asked {
            sets.load(&[log_of(7, 2, None)]).unwrap();
            sets.want(hash(7), &7);
            assert_eq!(sets.look(&mut Vec::new()), 1);
        } else {
            sets.want(hash(7), &7);
            sets.look(&mut Vec::new());
            sets.take_in(std::slice::from_ref(&read)).unwrap();
            assert!(sets.look_ahead().is_some());
            for element in [1, 2] {
                assert_eq!(sets.take(hash(7), &7, &element).unwrap(), Some(1));
            }
            sets.freeze(Epoch::new(2));
            encode_all(&mut sets);
        }
        share.set_folded_through(Epoch::new(2));
        sets.rest();
        if asked {
            sets.take_in(&[read]).unwrap();
            assert_eq!(live(&sets), BTreeMap::from([((7, 1), 1)]), "asked");
        } else {
            sets.take_in_ahead(&read).unwrap();
            assert_eq!(live(&sets), BTreeMap::new(), "unasked");
        }
        sets.rest();
        let cells = sets.content(hash(7), &7).map_or(0, |cells| cells.cells().count());
        assert_eq!(cells, usize::from(asked), "and leaves no tombstone once they are in");
    }
}

/// What the log has of one element.
fn log_of(key: u32, element: u64, value: Option<u8>) -> Vec<u8> {
    let mut entry = Vec::new();
    let write = value.map(|value| move |out: &mut Vec<u8>| Plain.encode(&value, out));
    let write_element = |out: &mut Vec<u8>| Cells::<u64, u8>::write_element(&element, out);
    let group = KeyGroups::default().group(hash(key));
    entry::append(&mut entry, 0, group, |out| key.write_key(out), write_element, write).unwrap();
    entry
}

#[test]
fn what_a_call_changed_is_taken_back_whatever_is_frozen() {
    for frozen in [false, true] {
        let mut table = table();
        (0..4).for_each(|key| add(&mut table, key));
        let mut deltas = Vec::new();
        if frozen {
            table.freeze(Epoch::new(1));
        }
        let before = content(&table);
        table.note_changes();
        add(&mut table, 1);
        add(&mut table, 1);
        add(&mut table, 9);
        table.remove(2u32.key_hash(&mut Vec::new()), &2).unwrap();
        table.take_back().unwrap();
        assert_eq!(content(&table), before);

        table.note_changes();
        add(&mut table, 3);
        table.keep();
        table.freeze(Epoch::new(if frozen { 2 } else { 1 }));
        while !table.frozen.is_empty() {
            deltas.extend(table.encode_slice(1).unwrap().done);
        }
        assert_eq!(restored(deltas.iter().map(|(_, delta)| delta)), content(&table), "frozen: {frozen}");
        if frozen {
            assert_eq!(restored([&deltas[0].1]), before);
        }
    }
}
