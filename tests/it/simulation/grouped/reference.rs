//! What group state and timers come to, record by record: a map of keys, and at every watermark a search for what is due.

use std::collections::{BTreeMap, BTreeSet};

use millstream::runtime::testing::Numbered;

use super::program::{Program, Session, Turn};
use super::{MILLI, Row, time};

/// A record with its key, and the watermark behind it.
type Input = (u64, Numbered, Option<i64>);

/// What each key has of group state: a session, and a timeout.
type Sessions = BTreeMap<u64, (Option<Session>, Option<i64>)>;

/// Whether a record comes too late. Group state begins with a watermark of 0.
const fn is_late(time: i64, watermark: i64) -> bool {
    time <= watermark
}

/// Runs the program; returns a row per call that tells something, and the late records.
pub(super) fn groups(program: Program, records: &[Input], initial: &[u64]) -> (Vec<Row>, Vec<u64>) {
    let mut keys = Sessions::new();
    let (mut rows, mut late, mut watermark) = (Vec::new(), Vec::new(), 0);
    for key in initial {
        take(program.on_initial(Some(Session::initial(*key))), *key, &mut keys, &mut rows);
    }
    for (key, record, behind) in records {
        if is_late(time(*record), watermark) {
            late.push(record.seq);
        } else {
            let session = keys.remove(key).and_then(|(session, _)| session);
            take(program.on_record(session, *record, watermark), *key, &mut keys, &mut rows);
        }
        watermark = watermark.max(behind.unwrap_or(0));
        time_out(program, watermark, &mut keys, &mut rows);
    }
    // At the end event time has passed everything; there is no time for another timeout.
    for (key, (session, timeout)) in keys {
        if timeout.is_some() {
            let end = i64::MAX / MILLI * MILLI;
            rows.push((key, program.on_timeout(session, end).tells));
        }
    }
    (rows, late)
}

/// Fires what lies before the watermark, and what that sets in its turn.
fn time_out(program: Program, watermark: i64, keys: &mut Sessions, rows: &mut Vec<Row>) {
    let due = |(_, timeout): &(Option<Session>, Option<i64>)| timeout.is_some_and(|timeout| timeout < watermark);
    while let Some(key) = keys.iter().find(|(_, entry)| due(entry)).map(|(key, _)| *key) {
        let session = keys.remove(&key).and_then(|(session, _)| session);
        take(program.on_timeout(session, watermark), key, keys, rows);
    }
}

fn take(turn: Turn, key: u64, keys: &mut Sessions, rows: &mut Vec<Row>) {
    let Turn { tells, session, timeout } = turn;
    if session.is_some() || timeout.is_some() {
        keys.insert(key, (session, timeout));
    }
    rows.push((key, tells));
}

/// What a key has of a processor.
#[derive(Default)]
struct Key {
    count: Option<u64>,
    list: Vec<u64>,
    by_timer: BTreeMap<i64, u64>,
    timers: BTreeSet<i64>,
}

/// Does what [`Timers`](super::processor::Timers) does.
pub(super) fn timers(scripted: bool, records: &[Input], initial: &[u64]) -> (Vec<Row>, Vec<u64>) {
    let mut keys: BTreeMap<u64, Key> = BTreeMap::new();
    let (mut rows, mut late, mut watermark) = (Vec::new(), Vec::new(), 0);
    for key in initial {
        keys.insert(*key, Key { count: Some(1_000), list: vec![*key], ..Key::default() });
        rows.push((*key, vec!["initial".to_owned()]));
    }
    for (key, record, behind) in records {
        if is_late(time(*record), watermark) {
            late.push(record.seq);
        } else {
            let row = on_row(keys.entry(*key).or_default(), *record, scripted);
            rows.push((*key, vec![row]));
        }
        // What was registered in the past, and then what the watermark brings.
        for now in [watermark, watermark.max(behind.unwrap_or(0))] {
            fire(&mut keys, now, scripted, &mut rows);
            watermark = now;
        }
    }
    fire(&mut keys, i64::MAX, scripted, &mut rows);
    (rows, late)
}

fn on_row(key: &mut Key, record: Numbered, scripted: bool) -> String {
    let (seq, at) = (record.seq, time(record));
    let count = key.count.unwrap_or(0) + 1;
    key.count = Some(count);
    match seq % 11 {
        5 => key.list = vec![seq],
        8 => key.list.clear(),
        _ => key.list.push(seq),
    }
    let (soon, later) = (at + seq as i64 % 5 * 10 * MILLI, at + 30 * MILLI);
    key.timers.extend([soon, later]);
    key.by_timer.extend([(soon, seq), (later, seq)]);
    if seq % 5 == 4 {
        key.timers.remove(&later);
        key.by_timer.remove(&later);
    }
    if scripted && seq % 6 == 1 {
        key.timers.insert(at - 20 * MILLI);
    }
    format!("row {seq} {count} {:?}", key.list)
}

fn fire(keys: &mut BTreeMap<u64, Key>, watermark: i64, scripted: bool, rows: &mut Vec<Row>) {
    for (name, key) in keys {
        while let Some(timer) = key.timers.first().copied().filter(|timer| *timer <= watermark) {
            let seq = key.by_timer.remove(&timer);
            let mut told = format!("timer {timer} {seq:?}");
            if scripted {
                told.push_str(&format!(" {:?} {} {}", key.count, key.timers.len(), watermark / MILLI));
                if let Some(again) = seq.filter(|seq| seq % 4 == 2) {
                    key.timers.insert(timer + 15_000 + again as i64);
                    key.count = None;
                }
            }
            key.timers.remove(&timer);
            rows.push((*name, vec![told]));
        }
    }
}
