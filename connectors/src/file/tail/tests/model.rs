//! A writer and a rotator that do what they want, a reader that dies when it wants: every line that was written comes exactly
//! once, but for those that were cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;

use super::*;
use crate::file::tail::DataLoss;
use crate::file::tail::place::{FilePlace, Place};

#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    /// Half a line; the next write completes it.
    Begin,
    /// Lines into the file that was rotated last, by who has it open still.
    WriteLate(usize),
    /// A rotated file gets a new one at once, or when the next line comes.
    Rotate {
        and_create: bool,
    },
    CopyAndCutOff,
    CutOff,
    /// The oldest file, if the committed place is behind it; a reader may have it open still.
    Delete,
    Poll(usize),
    Commit,
    Kill,
}

fn steps(may_cut_off: bool) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..5_usize).prop_map(Step::Write),
        1 => Just(Step::Begin),
        2 => (1..3_usize).prop_map(Step::WriteLate),
        3 => any::<bool>().prop_map(|and_create| Step::Rotate { and_create }),
        2 => Just(Step::CopyAndCutOff),
        u32::from(may_cut_off) => Just(Step::CutOff),
        1 => Just(Step::Delete),
        8 => (1..6_usize).prop_map(Step::Poll),
        4 => Just(Step::Commit),
        2 => Just(Step::Kill),
    ];
    // A step of weight 0 is none.
    proptest::collection::vec(step, 1..80)
        .prop_map(move |steps| steps.into_iter().filter(|step| may_cut_off || !matches!(step, Step::CutOff)).collect())
}

/// What the rotator calls the files.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Names {
    Numbers,
    Dates,
}

struct World {
    bench: Bench,
    names: Names,
    rotations: u32,
    /// Rotated files, oldest first.
    rotated: Vec<String>,
    /// The files' lines, by inode; one that was cut off has new ones.
    lines: BTreeMap<u64, Vec<u32>>,
    next_line: u32,
    log: Option<File>,
    begun: bool,
    late: Option<File>,
    /// Lines that need not come.
    excused: BTreeSet<u32>,
    /// Whether the committed place may be in what was cut off: then nobody knows what was rotated since.
    is_cut_off: bool,
    read: Vec<String>,
    committed: (Vec<String>, Option<Position>),
}

impl World {
    fn new(names: Names, loss: DataLoss) -> Self {
        Self {
            bench: Bench::new(|source| source.on_data_loss(loss)),
            names,
            rotations: 0,
            rotated: Vec::new(),
            lines: BTreeMap::new(),
            next_line: 0,
            log: None,
            begun: false,
            late: None,
            excused: BTreeSet::new(),
            is_cut_off: false,
            read: Vec::new(),
            committed: (Vec::new(), None),
        }
    }

    fn put(&mut self, mut file: &File, text: &str) {
        file.write_all(text.as_bytes()).unwrap();
        self.lines.entry(file.metadata().unwrap().ino()).or_default().push(self.next_line);
        self.next_line += 1;
    }

    fn write(&mut self, count: usize) {
        let log = self.log.take().unwrap_or_else(|| self.bench.open("app.log"));
        for _ in 0..count {
            let line = self.next_line;
            let text = if std::mem::take(&mut self.begun) { format!("{line}\n") } else { format!("line {line}\n") };
            self.put(&log, &text);
        }
        self.log = Some(log);
    }

    fn finish_line(&mut self) {
        if self.begun {
            self.write(1);
        }
    }

    /// Makes room for the newest rotated file, and returns its name.
    fn rotated_name(&mut self) -> String {
        if self.is_cut_off {
            let inode = self.inode("app.log");
            self.excused.extend(self.lines.get(&inode).into_iter().flatten());
        }
        self.rotations += 1;
        if self.names == Names::Dates {
            self.rotated.push(format!("app.log-{}", 20_261_100 + self.rotations));
        } else {
            let count = self.rotated.len();
            for (age, name) in self.rotated.iter_mut().enumerate() {
                let shifted = format!("app.log.{}", count + 1 - age);
                fs::rename(self.bench.path(name), self.bench.path(&shifted)).unwrap();
                *name = shifted;
            }
            self.rotated.push("app.log.1".to_owned());
        }
        self.rotated.last().unwrap().clone()
    }

    fn inode(&self, name: &str) -> u64 {
        fs::metadata(self.bench.path(name)).unwrap().ino()
    }

    fn poll(&mut self, limit: usize) -> Polled {
        let bench = &mut self.bench;
        if bench.reader.is_none() {
            let split = bench.source.splits().unwrap().remove(0);
            bench.reader = Some(bench.source.reader(&split, bench.position.as_ref()).unwrap());
        }
        let mut batch = Batch::default();
        let polled = bench.reader.as_mut().unwrap().poll(&mut batch, limit).unwrap();
        assert!(batch.records.len() <= limit);
        self.read.extend(batch.records.into_iter().map(|record| record.value));
        self.bench.position = Some(batch.end);
        polled
    }

    fn commit(&mut self) {
        self.committed = (self.read.clone(), self.bench.position.clone());
    }

    fn is_committed(&self, line: u32) -> bool {
        self.committed.0.contains(&format!("line {line}"))
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Write(count) => self.write(*count),
            Step::Begin if self.log.is_some() && !self.begun => {
                self.log.as_mut().unwrap().write_all(b"line ").unwrap();
                self.begun = true;
            }
            Step::WriteLate(count) => {
                if let Some(late) = self.late.take() {
                    for _ in 0..*count {
                        let text = format!("line {}\n", self.next_line);
                        self.put(&late, &text);
                    }
                    self.late = Some(late);
                }
            }
            Step::Rotate { and_create } if self.log.is_some() => {
                // Who writes a line by halves ends it where it was begun.
                self.finish_line();
                let name = self.rotated_name();
                self.bench.rename("app.log", &name);
                self.late = self.log.take();
                self.log = and_create.then(|| self.bench.open("app.log"));
            }
            Step::CopyAndCutOff if self.log.is_some() => {
                self.finish_line();
                self.late = None;
                let name = self.rotated_name();
                self.bench.copy("app.log", &name);
                self.bench.truncate("app.log");
                let lines = self.lines.remove(&self.inode("app.log")).unwrap_or_default();
                self.lines.insert(self.inode(&name), lines);
            }
            Step::CutOff if self.log.is_some() => {
                self.bench.truncate("app.log");
                self.begun = false;
                self.excused.extend(self.lines.remove(&self.inode("app.log")).unwrap_or_default());
                self.is_cut_off = true;
            }
            Step::Delete => self.delete_oldest(),
            Step::Poll(limit) => drop(self.poll(*limit)),
            Step::Commit => {
                if self.is_cut_off {
                    while self.poll(9) == Polled::More {}
                    let place = self.bench.position.as_ref().and_then(Place::read);
                    // Again nothing is known of it.
                    self.is_cut_off =
                        matches!(place, Some(Place::In { current, previous: None }) if current.offset == 0);
                }
                self.commit();
            }
            Step::Kill => {
                (self.read, self.bench.position) = self.committed.clone();
                self.bench.stop();
            }
            _ => {}
        }
    }

    fn delete_oldest(&mut self) {
        let Some(oldest) = self.rotated.first().cloned().filter(|_| self.rotated.len() > 1) else { return };
        let inode = self.inode(&oldest);
        let path = self.bench.path(&oldest);
        let has = |place: &FilePlace| place.inode == inode || Followed::open_at(&path, place).unwrap().is_some();
        let is_at = |position: &Option<Position>| match position.as_ref().and_then(Place::read) {
            // Of a file of which nothing was read only the one before it says what became of it.
            Some(Place::In { current, previous }) => {
                has(&current) || (current.offset == 0 && previous.is_some_and(|previous| has(&previous)))
            }
            _ => true,
        };
        let lines = self.lines.get(&inode).cloned().unwrap_or_default();
        let is_done = lines.iter().all(|line| self.is_committed(*line) || self.excused.contains(line));
        if is_done && !is_at(&self.committed.1) && !is_at(&self.bench.position) {
            fs::remove_file(path).unwrap();
            self.rotated.remove(0);
            self.lines.remove(&inode);
        }
    }

    fn judge(mut self, in_order: bool) {
        self.finish_line();
        self.write(1);
        while self.poll(7) == Polled::More {}
        self.commit();
        let lines = &self.committed.0;
        let numbers: Vec<u32> = lines.iter().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect();
        assert_eq!(numbers.len(), lines.len(), "only whole lines: {lines:?}");
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        assert!(sorted.is_sorted_by(|one, two| one < two), "a line came twice: {numbers:?}");
        let missing: Vec<_> = (0..self.next_line)
            .filter(|line| !self.excused.contains(line) && sorted.binary_search(line).is_err())
            .collect();
        assert!(missing.is_empty(), "missing {missing:?} in {numbers:?}");
        assert!(!in_order || numbers.is_sorted(), "out of order: {numbers:?}");
    }
}

fn check(names: Names, loss: DataLoss, steps: &[Step]) {
    let mut world = World::new(names, loss);
    // It begins with the file that is there.
    world.write(1);
    world.poll(9);
    world.commit();
    for step in steps {
        world.step(step);
    }
    world.judge(!steps.iter().any(|step| matches!(step, Step::WriteLate(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_line_comes_exactly_once(steps in steps(false), numbers in any::<bool>()) {
        check(if numbers { Names::Numbers } else { Names::Dates }, DataLoss::Fail, &steps);
    }

    #[test]
    fn every_line_that_was_not_cut_off_comes_exactly_once(steps in steps(true), numbers in any::<bool>()) {
        check(if numbers { Names::Numbers } else { Names::Dates }, DataLoss::Continue, &steps);
    }
}
