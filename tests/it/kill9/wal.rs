//! A write-ahead log in front of a feed: what was called durable is in the output once, whenever the process is killed.
//!
//! The child tells each number whose receipt has come true, which is when it is in the log: most often before its epoch is committed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use millstream::prelude::*;
use millstream::runtime::fault::CrashPoint;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::life::{Life, Told, executable, live};

/// Lives that are killed.
const LIVES: u64 = 10;
/// Each life sends numbers of its own.
const SPAN: u64 = 1_000_000;

fn arguments(life: u64, records: u64) -> [String; 3] {
    ["--workload=numbers".to_owned(), format!("--first={}", life * SPAN), format!("--records={records}")]
}

/// All rows that are there: a number and how often it was counted.
fn rows(out: &Path) -> Vec<String> {
    if !out.exists() {
        return Vec::new();
    }
    read_committed(out).unwrap().iter().flat_map(|file| file.lines().unwrap()).collect()
}

#[test]
fn what_a_write_ahead_log_has_counts_once_whenever_the_process_is_killed() {
    let (exe, dir) = (executable(), tempfile::tempdir().unwrap());
    let out = dir.path().join("out");
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let (mut durable, mut ahead) = (BTreeSet::new(), 0);
    for number in 0..LIVES {
        let point = [None, Some(CrashPoint::CommitWritten), None, Some(CrashPoint::PublishBefore)][number as usize % 4];
        let nth = rng.random_range(2..6);
        let environment: Vec<_> =
            point.map(|point| ("MILLSTREAM_FAILPOINT", format!("{point}:{nth}"))).into_iter().collect();
        let mut life = Life::begin(&exe, dir.path(), &arguments(number, SPAN), &environment);
        match point {
            Some(point) => drop(life.wait_for(|told| *told == Told::Stopped(point.name().to_owned())).unwrap()),
            None => drop(life.wait_for(|told| matches!(told, Told::Durable(_))).unwrap()),
        }
        assert!(life.listen(Duration::from_micros(rng.random_range(0..60_000))), "it ended before its kill");
        let life = life.kill();
        assert!(!life.durable.is_empty(), "life {number} had nothing durable");
        let visible: BTreeSet<String> = rows(&out).into_iter().collect();
        ahead += life.durable.iter().filter(|number| !visible.contains(&format!("{number} 1"))).count();
        durable.extend(life.durable.iter().map(|number| format!("{number} 1")));
    }
    assert!(ahead > 0, "whatever was durable was visible at each kill: the log was not needed");
    live(&exe, dir.path(), &arguments(LIVES, 100), &[]).unwrap();
    let all = rows(&out);
    let distinct: BTreeSet<String> = all.iter().cloned().collect();
    let doubled: Vec<_> = all.iter().filter(|row| !row.ends_with(" 1")).collect();
    assert!(doubled.is_empty() && distinct.len() == all.len(), "doubled: {doubled:?} of {} rows", all.len());
    let lost: Vec<_> = durable.difference(&distinct).collect();
    assert!(lost.is_empty(), "lost of {} durable ones: {lost:?}", durable.len());
    println!("{} rows, {} were durable, {ahead} of them not visible yet at a kill", all.len(), durable.len());
}
