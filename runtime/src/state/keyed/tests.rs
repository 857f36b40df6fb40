use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::checkpoint::{Delta, StateDecl, StateEntry, StateKind};
use crate::codec;
use crate::id::{Epoch, OperatorId};
use crate::state::key_group::{KeyGroups, StreamKeyRef};
use crate::state::store::StoreShare;
use crate::state::{MemoryBudget, OperatorState, Snapshot, TableSetup, Versioned};
use crate::time::Timestamp;
use crate::timer::TimerKind;

const NAMES: [(&str, StateKind); 3] = [("value", StateKind::Value), ("list", StateKind::List), ("map", StateKind::Map)];

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn setup(stored: &[Delta]) -> KeyedSetup {
    let (operator, key_groups, restored) = (OperatorId::new(1), KeyGroups::default(), Epoch::GENESIS);
    let (share, memory) = (StoreShare::default(), MemoryBudget::default());
    let table = TableSetup { operator, state: 0, key_groups, groups: 0..960, restored, share, has_rows: false, memory };
    let numbers = (0..).zip(NAMES).map(|(number, (name, kind))| {
        let name = name.to_owned();
        StateEntry { number, name, version: 1, kind, removed: false }
    });
    let stored = stored.iter().flat_map(|delta| delta.chunks.clone()).collect();
    KeyedSetup {
        table,
        numbers: Some(numbers.collect()),
        folded: BTreeSet::new(),
        stored: Some(Arc::new(stored)),
        now: at(0),
    }
}

/// An operator's state with one handle of each kind.
struct Bench {
    state: KeyedState,
    value: Value<u64>,
    list: List<String>,
    map: Map<String, u64>,
}

impl Bench {
    fn open(stored: &[Delta], ttl: Option<Duration>) -> Self {
        let mut state = KeyedState::new::<u32>(setup(stored));
        let mut value = state.value("value").unwrap();
        let mut list = state.list("list").unwrap();
        let mut map = state.map("map").unwrap();
        if let Some(ttl) = ttl {
            (value, list, map) = (value.ttl(ttl), list.ttl(ttl), map.ttl(ttl));
        }
        state.load().unwrap();
        Self { state, value, list, map }
    }

    fn key(&mut self, key: u32) -> &mut Self {
        self.state.set_key(key.key_hash(&mut Vec::new()), &key);
        self
    }

    fn now(&mut self, millis: i64) -> &mut Self {
        self.state.set_now(at(millis));
        self
    }

    /// All that is visible of the current key.
    fn seen(&self) -> (Option<u64>, Vec<String>, Vec<(String, u64)>) {
        let list = self.list.iter().map(|element| element.clone()).collect();
        let map = self.map.iter().map(|(key, value)| (key, *value)).collect();
        (self.value.get().map(|value| *value), list, map)
    }

    fn deltas(&mut self, epoch: u64) -> Delta {
        self.state.freeze(Epoch::new(epoch));
        loop {
            let mut done = self.state.encode_slice(2).unwrap().done;
            if let Some((done, delta)) = done.pop() {
                assert_eq!(done, Epoch::new(epoch));
                return delta;
            }
        }
    }
}

fn strings(words: &str) -> Vec<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn handles_read_and_change_what_the_current_key_has_and_all_of_it_is_one_delta() {
    let mut bench = Bench::open(&[], None);
    assert_eq!(bench.key(1).seen(), (None, vec![], vec![]));
    bench.value.set(7);
    bench.value.update(|| 100, |value| *value += 1);
    bench.list.extend(strings("a b"));
    bench.list.push("c".into());
    assert_eq!((bench.map.insert("x", 1), bench.map.insert("x", 2), bench.map.insert("y", 3)), (None, Some(1), None));
    bench.key(2).value.update(|| 100, |value| *value += 1);
    bench.state.timers().register(TimerKind::EventTime, at(5));
    bench.state.raise(at(1));
    let first = bench.deltas(1);
    assert_eq!(first.entries, 2 + 3 + 2 + 1 + 1, "values, list, map, timer, late threshold");

    // Reading changes nothing, and neither does removing what is not there.
    bench.key(1).seen();
    assert_eq!((bench.map.remove("z"), bench.key(9).value.take(), bench.list.len()), (None, None, 0));
    bench.list.clear();
    assert!(bench.value.get_mut().is_none());
    assert_eq!(bench.deltas(2).entries, 0);

    *bench.key(1).map.get_mut("y").unwrap() += 10;
    assert_eq!(bench.map.remove("x"), Some(2));
    bench.list.replace(strings("d"));
    bench.value.clear();
    let wanted = (None, strings("d"), vec![("y".to_owned(), 13)]);
    assert_eq!(bench.seen(), wanted);
    let third = bench.deltas(3);
    assert_eq!(third.entries, 1 + 4 + 2);

    let mut restored = Bench::open(&[first, third], None);
    assert_eq!(restored.key(1).seen(), wanted);
    assert_eq!(restored.key(2).seen().0, Some(101));
    assert_eq!(restored.state.timers().list(TimerKind::EventTime), [at(5)]);
    assert_eq!(restored.state.watermark(), Some(at(1)));
    assert_eq!(restored.state.key::<u32>(), Some(2));
    assert_eq!(restored.state.key::<i32>(), None);
    assert!(restored.state.take_error().is_none());
}

#[test]
fn an_expired_element_is_invisible_at_once_and_every_write_resets_its_time() {
    let mut bench = Bench::open(&[], Some(Duration::from_secs(1)));
    bench.key(1).value.set(1);
    bench.list.push("a".into());
    bench.map.insert("x", 1);
    assert_eq!(bench.now(900).seen(), (Some(1), strings("a"), vec![("x".to_owned(), 1)]));
    bench.list.push("b".into());
    bench.map.insert("y", 2);
    *bench.value.get_mut().unwrap() = 2;
    assert_eq!(bench.now(999).seen().1, strings("a b"));
    let young = (Some(2), strings("b"), vec![("y".to_owned(), 2)]);
    assert_eq!(bench.now(1_000).seen(), young);
    let first = bench.deltas(1);

    // The write time is stored, so that a restart gives nothing a second life.
    let mut restored = Bench::open(&[first], Some(Duration::from_secs(1)));
    restored.key(1).now(1_000);
    assert_eq!(restored.seen(), young);
    restored.now(1_899);
    assert_eq!(restored.seen(), young);
    assert_eq!(restored.now(1_900).seen(), (None, vec![], vec![]));
    assert_eq!((restored.value.get_mut().is_none(), restored.map.insert("y", 5)), (true, None));
    restored.state.rest();
    let second = restored.deltas(1);
    assert_eq!(second.entries, 1 + 2 + 2, "value, two elements and an entry are removed, one entry is written");
    let mut again = Bench::open(&[second], None);
    assert_eq!(again.key(1).seen(), (None, vec![], vec![("y".to_owned(), 5)]));
}

#[test]
fn timers_fire_in_order_inclusively_once_and_only_if_their_key_still_has_them() {
    use TimerKind::{EventTime, ProcessingTime};
    let mut bench = Bench::open(&[], None);
    bench.key(1);
    let registered = [10, 3, 10, 12, 20].map(|millis| bench.state.timers().register(EventTime, at(millis)));
    assert_eq!(registered, [true, true, false, true, true], "the same timer again is no change");
    bench.state.timers().register(ProcessingTime, at(4));
    assert_eq!(bench.state.timers().list(EventTime), [3, 10, 12, 20].map(at));
    assert!(bench.state.timers().delete(EventTime, at(12)) && !bench.state.timers().delete(EventTime, at(12)));
    bench.key(2).state.timers().register(EventTime, at(10));

    let stored = bench.deltas(1);
    for mut bench in [bench, Bench::open(&[stored], None)] {
        assert_eq!(bench.state.first_timer(ProcessingTime), Some(at(4)));
        let mut fired = Vec::new();
        while let Popped::Timer(timer) = bench.state.pop_due(EventTime, at(10)) {
            bench.state.enter(&timer);
            let key = bench.state.key::<u32>().unwrap();
            assert!(bench.state.timers().list(EventTime).contains(&timer.time), "the firing timer is still listed");
            assert!(!bench.state.timers().register(EventTime, timer.time), "and registering it again is no change");
            bench.state.fired(&timer);
            fired.push((timer.time, key));
        }
        fired.sort_unstable();
        assert_eq!(fired, [(at(3), 1), (at(10), 1), (at(10), 2)]);
        assert_eq!(bench.key(1).state.timers().list(EventTime), [at(20)]);
        // One in the past is due at once, one in the future is not.
        bench.state.set_event_time(Some(at(10)));
        bench.state.timers().register(EventTime, at(5));
        bench.state.timers().register(EventTime, at(11));
        let past = bench.state.pop_past(EventTime).unwrap();
        assert_eq!((past.time, bench.state.pop_past(EventTime)), (at(5), None));
    }
}

#[test]
fn declarations_and_uses_that_cannot_be_are_refused_by_name() {
    let mut state = KeyedState::new::<u32>(setup(&[]));
    let mut value = state.value::<u64>("value").unwrap();
    assert!(matches!(state.list::<u64>("value"), Err(KeyedError::Twice { .. })));
    assert!(matches!(state.list::<u64>("other"), Err(KeyedError::Unknown(_))));
    let zero = Versioned { version: 0, migrate: |_, _: &[u8]| Ok(0u64) };
    assert!(matches!(state.list_with("list", zero), Err(KeyedError::VersionZero { .. })));
    value.set(1);
    assert!(matches!(state.take_error(), Some(KeyedError::NoKey)));
    assert!(state.take_error().is_none());
    let _ = value.ttl(Duration::ZERO);
    assert!(matches!(state.load(), Err(KeyedError::ZeroTimeToLive { .. })));

    let mut bench = Bench::open(&[], None);
    bench.key(1).value.set(1);
    let stored = [bench.deltas(1)];
    let mut other_key = KeyedState::new::<u64>(setup(&stored));
    let _ = other_key.value::<u64>("value").unwrap();
    assert!(matches!(other_key.load(), Err(KeyedError::Load(_))));
    let mut described = KeyedState::new::<u32>(KeyedSetup::describe());
    described.map_with::<u8, u64, _>("m", Versioned { version: 3, migrate: |_, _: &[u8]| Ok(0u64) }).unwrap();
    let declared = StateDecl { name: "m".into(), version: 3, kind: StateKind::Map, migrates: true, removed: false };
    assert_eq!(described.declared(), [declared]);
}

#[test]
fn a_value_of_an_older_version_is_migrated_when_it_is_loaded() {
    let mut bench = Bench::open(&[], None);
    bench.key(1).value.set(41);
    let stored = [bench.deltas(1)];
    let mut state = KeyedState::new::<u32>(setup(&stored));
    let migrate = |version: u32, bytes: &[u8]| Ok(format!("{} of version {version}", codec::decode::<u64>(bytes)?));
    let value = state.value_with("value", Versioned { version: 2, migrate }).unwrap();
    state.load().unwrap();
    state.set_key(1u32.key_hash(&mut Vec::new()), &1u32);
    assert_eq!(value.get().as_deref().map(String::as_str), Some("41 of version 1"));
}
