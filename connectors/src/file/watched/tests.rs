//! A directory with a list on a disk that forgets: every line of every file once, whatever fails at any step.

mod rules;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use millstream_runtime::error::BoxError;
use millstream_runtime::fault::{CrashPoint, Crashed};
use millstream_runtime::source::{Batch, Polled, Position, Reader, Source, SplitId};
use millstream_runtime::state::store::{Durability, StateBackend, StoreErrorKind};
use millstream_runtime::testing::ManualClock;
use millstream_runtime::testing::sim_store::{FailedWrite, SimDisk, WriteFaults};
use millstream_runtime::time::Timestamp;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

use super::reader::Place;
use super::*;

const DAY: u64 = 24 * 60 * 60;
/// When all tests begin, in seconds.
const NOW: u64 = 100 * DAY;

/// Lets a file appear whole, last modified at this second.
fn appear(dir: &Path, path: &str, content: &str, modified: u64) {
    let (to, hidden) = (dir.join(path), dir.join(".being-written"));
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::write(&hidden, content).unwrap();
    let file = File::options().write(true).open(&hidden).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(modified)).unwrap();
    std::fs::rename(hidden, to).unwrap();
}

/// A pipeline as far as the directory can see one: what it has taken, and what of that is committed.
struct Pipeline {
    source: WatchedDirectory,
    clock: ManualClock,
    reader: Option<Box<dyn Reader<String>>>,
    seen: Vec<String>,
    position: Option<Position>,
    committed: (usize, Option<Position>),
}

impl Pipeline {
    fn of(dir: &Path, backend: impl StateBackend + 'static) -> Self {
        let clock = ManualClock::at(Timestamp::from_millis(NOW as i64 * 1_000));
        let source = WatchedDirectory::at(dir, "list", backend).clock(Arc::new(clock.clone()));
        Self { source, clock, reader: None, seen: Vec::new(), position: None, committed: (0, None) }
    }

    fn with(mut self, options: impl FnOnce(WatchedDirectory) -> WatchedDirectory) -> Self {
        self.source = options(self.source);
        self
    }

    /// An attempt ends; the next one goes on where the last epoch was committed.
    fn fail(&mut self) {
        self.reader = None;
        self.seen.truncate(self.committed.0);
        self.position = self.committed.1.clone();
    }

    /// The process ends, and another goes on with the same committed state.
    fn restart(&mut self, source: WatchedDirectory) {
        self.fail();
        self.source = source.clock(Arc::new(self.clock.clone()));
    }

    /// Takes what one poll gives. It is always time for a look, so that no poll waits.
    fn step(&mut self, limit: usize) -> Result<Polled, BoxError> {
        self.clock.advance(Duration::from_secs(1));
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => {
                let split = &self.source.splits()?[0];
                none.insert(self.source.reader(split, self.position.as_ref())?)
            }
        };
        let mut batch = Batch::default();
        let polled = reader.poll(&mut batch, limit)?;
        assert!(batch.records.len() <= limit);
        self.seen.extend(batch.records.into_iter().map(|record| record.value));
        self.position = Some(batch.end);
        Ok(polled)
    }

    /// Takes all there is, and returns what is new.
    fn all(&mut self) -> Vec<String> {
        self.try_all().unwrap()
    }

    fn try_all(&mut self) -> Result<Vec<String>, BoxError> {
        let before = self.seen.len();
        while self.step(100)? != Polled::Idle {}
        Ok(self.seen[before..].to_vec())
    }

    fn commit(&mut self) {
        self.committed = (self.seen.len(), self.position.clone());
        if let Some(position) = &self.position {
            self.source.committed(&[(SplitId::new("files"), position.clone())]);
        }
    }

    fn counts(&self) -> WatchedCounts {
        self.source.counter().counts()
    }
}

/// Lines that say which they are, but for some that are empty, with all kinds of ends.
fn content(rng: &mut ChaCha8Rng, file: usize) -> (String, Vec<String>) {
    let (mut text, mut lines) = (String::new(), Vec::new());
    let count = rng.random_range(0..6);
    for number in 0..count {
        let line = if rng.random_bool(0.2) { String::new() } else { format!("{file}/{number} \u{fc}") };
        text.push_str(&line);
        let may_end = number + 1 == count && !line.is_empty();
        match rng.random_range(0..3) {
            0 if may_end => {}
            1 => text.push_str("\r\n"),
            _ => text.push('\n'),
        }
        lines.push(line);
    }
    (text, lines)
}

/// What is seen of each file, in order, and how many lines were empty.
fn by_file<'a>(lines: impl Iterator<Item = &'a String>) -> (BTreeMap<&'a str, Vec<&'a str>>, usize) {
    let (mut files, mut empty) = (BTreeMap::<&str, Vec<&str>>::new(), 0);
    for line in lines {
        match line.split_once('/') {
            Some((file, _)) => files.entry(file).or_default().push(line),
            None => empty += 1,
        }
    }
    (files, empty)
}

/// One seeded life with crashes of every kind; returns what is wrong with its end.
fn live(seed: u64, durability: Durability) -> Result<(), String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (root, disk) = (TempDir::new().unwrap(), SimDisk::new());
    let dir = root.path().join("in");
    std::fs::create_dir(&dir).unwrap();
    let clean = match rng.random_range(0..3) {
        0 => CleanSource::Off,
        1 => CleanSource::Delete,
        _ => CleanSource::Archive(root.path().join("archive")),
    };
    let below = rng.random_bool(0.3);
    let open = || {
        let source = WatchedDirectory::at(&dir, "list", disk.clone()).clean_source(clean.clone());
        let mut source = if below { source.directories("d?") } else { source };
        source.set_durability(durability);
        source
    };
    let mut pipeline = Pipeline::of(&dir, disk.clone());
    pipeline.restart(open());
    let (mut expected, mut idle) = (Vec::new(), 0);
    for step in 0..1_000 {
        // In the end nothing fails any more, and everything has to come.
        let quiet = step > 100;
        if quiet {
            disk.heal();
        }
        match rng.random_range(0..14) {
            0 | 1 => pipeline.commit(),
            2 if !quiet => pipeline.fail(),
            3 if !quiet => {
                let outcome = if rng.random_bool(0.5) { FailedWrite::Lost } else { FailedWrite::Written };
                let kind = if rng.random_bool(0.5) { StoreErrorKind::Io } else { StoreErrorKind::Full };
                disk.fail_writes(WriteFaults { kind, after: rng.random_range(0..3), times: 1, outcome });
            }
            4 if !quiet => disk.between_write_and_sync(|| Err(Crashed(CrashPoint::CommitWritten))),
            5 if !quiet => {
                // The process dies, at this very step or within the write before it.
                disk.crash(&mut rng);
                pipeline.restart(open());
            }
            6 | 7 if !quiet => {
                let number = expected.len();
                let (text, lines) = content(&mut rng, number);
                let name = format!("{}{}-{number}", if below { "d1/" } else { "" }, rng.random_range(0..9));
                // Older and younger than those before.
                appear(&dir, &name, &text, NOW - rng.random_range(0..7 * DAY));
                expected.push(lines);
            }
            8 if !quiet => appear(&dir, &format!("_hidden-{step}"), "never\n", NOW),
            _ => match pipeline.step(rng.random_range(1..4)) {
                Ok(polled) => {
                    idle = if quiet && polled == Polled::Idle { idle + 1 } else { 0 };
                    if idle == 3 {
                        break;
                    }
                }
                Err(error) if error.downcast_ref::<WatchError>().is_some_and(is_crash) => {
                    disk.crash(&mut rng);
                    pipeline.restart(open());
                }
                Err(error) if quiet => return Err(format!("cannot go on: {error}")),
                Err(_) => pipeline.fail(),
            },
        }
    }
    let (seen, expected_files) = (by_file(pipeline.seen.iter()), by_file(expected.iter().flatten()));
    if idle < 3 || seen != expected_files {
        return Err(format!("{seen:?}\ninstead of\n{expected_files:?}"));
    }
    // What is committed is cleaned away, also what was committed before a crash.
    pipeline.commit();
    pipeline.all();
    let left = count_files(&dir);
    let archived = count_files(&root.path().join("archive"));
    let wanted = match clean {
        CleanSource::Off => (expected.len(), 0),
        CleanSource::Delete => (0, 0),
        CleanSource::Archive(_) => (0, expected.len()),
    };
    if (left, archived) == wanted { Ok(()) } else { Err(format!("{clean:?}: {left} left, {archived} archived")) }
}

/// Counts the files that are not hidden, at any depth.
fn count_files(dir: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.file_type().unwrap().is_dir() {
        true => count_files(&entry.path()),
        false => usize::from(!entry.file_name().to_string_lossy().starts_with(['.', '_'])),
    };
    entries.map(|entry| of(entry.unwrap())).sum()
}

fn is_crash(error: &WatchError) -> bool {
    matches!(error, WatchError::List { source, .. } if source.kind == StoreErrorKind::Crashed)
}

#[test]
fn every_line_of_every_file_comes_once_whatever_fails_at_any_step() {
    for seed in 0..400 {
        live(seed, Durability::Synced).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn the_test_finds_a_list_that_is_not_synced() {
    assert!((0..200).any(|seed| live(seed, Durability::Buffered).is_err()));
}
