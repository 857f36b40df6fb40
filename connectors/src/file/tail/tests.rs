//! A log under a writer's and a rotator's hands. No test waits: whatever there is to find is found by the next polls.

mod model;
mod places;
mod rotation;
mod trouble;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use millstream_runtime::error::BoxError;
use millstream_runtime::source::{Batch, Polled, Position, Reader, Source};
use tempfile::TempDir;

use super::followed::Followed;
use super::{TailCounts, TailLines};

/// A directory with a log in it, and who follows it.
struct Bench {
    directory: TempDir,
    source: TailLines,
    reader: Option<Box<dyn Reader<String>>>,
    /// The end of the last batch that was read.
    position: Option<Position>,
}

impl Bench {
    fn new(with: impl FnOnce(TailLines) -> TailLines) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = with(TailLines::at(directory.path().join("app.log")).poll_interval(Duration::ZERO));
        Self { directory, source, reader: None, position: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Appends to a file, which is made if it is not there.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        self.open(name).write_all(bytes.as_ref()).unwrap();
    }

    fn open(&self, name: &str) -> File {
        OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap()
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn copy(&self, from: &str, to: &str) {
        fs::copy(self.path(from), self.path(to)).unwrap();
    }

    fn truncate(&self, name: &str) {
        OpenOptions::new().write(true).truncate(true).open(self.path(name)).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    fn link(&self, name: &str, to: &str) {
        std::os::unix::fs::symlink(to, self.path(name)).unwrap();
    }

    /// Reads all that there is, in batches of at most three lines.
    fn read(&mut self) -> Result<Vec<String>, BoxError> {
        if self.reader.is_none() {
            let split = self.source.splits()?.remove(0);
            self.reader = Some(self.source.reader(&split, self.position.as_ref())?);
        }
        let reader = self.reader.as_mut().unwrap();
        let mut lines = Vec::new();
        loop {
            let mut batch = Batch::default();
            let polled = reader.poll(&mut batch, 3)?;
            assert!(batch.records.len() <= 3);
            self.position = Some(batch.end);
            lines.extend(batch.records.into_iter().map(|record| record.value));
            match polled {
                Polled::More => {}
                Polled::Idle => return Ok(lines),
                Polled::End => panic!("a log never ends"),
            }
        }
    }

    #[track_caller]
    fn assert_reads<const N: usize>(&mut self, lines: [&str; N]) {
        assert_eq!(self.read().unwrap(), lines);
    }

    #[track_caller]
    fn refusal(&mut self) -> String {
        self.read().unwrap_err().to_string()
    }

    /// The process ends; the next one goes on at the last position.
    fn stop(&mut self) {
        self.reader = None;
    }

    fn counts(&self) -> TailCounts {
        self.source.counter().counts()
    }
}

fn plain() -> Bench {
    Bench::new(|source| source)
}

/// One that has read this of the log, and runs on or begins anew.
fn that_has_read(text: &str, is_running: bool) -> Bench {
    let mut bench = plain();
    bench.write("app.log", text);
    assert_eq!(bench.read().unwrap(), text.lines().collect::<Vec<_>>());
    if !is_running {
        bench.stop();
    }
    bench
}

#[test]
fn reads_lines_as_they_get_their_ends() {
    let mut bench = plain();
    bench.write("app.log", "\u{feff}one\r\ntwo\n\nhalf a");
    bench.assert_reads(["\u{feff}one", "two", ""]);
    bench.write("app.log", " line");
    bench.assert_reads([]);
    bench.write("app.log", "\r");
    bench.assert_reads([]);
    bench.write("app.log", "\nlast\rone\n");
    bench.assert_reads(["half a line", "last\rone"]);
    assert_eq!(bench.counts(), TailCounts { lines: 5, ..TailCounts::default() });
}

#[test]
fn goes_on_behind_any_line_in_a_new_process() {
    let text = "one\ntwo\r\n\nthree\n";
    let mut all = plain();
    all.write("app.log", format!("{text}begun"));
    let mut reader = all.source.reader(&all.source.splits().unwrap()[0], None).unwrap();
    let lines = ["one", "two", "", "three"];
    for behind in 1..=lines.len() {
        let mut batch = Batch::default();
        assert_eq!(reader.poll(&mut batch, 1).unwrap(), Polled::More);
        all.position = Some(batch.end);
        all.stop();
        assert_eq!(all.read().unwrap(), lines[behind..], "behind {behind}");
    }
    all.write("app.log", "\n");
    all.assert_reads(["begun"]);
}

#[test]
fn a_log_that_is_cut_off_or_overwritten_is_read_from_its_beginning() {
    let mut bench = plain();
    bench.write("app.log", "one\ntwo\nthr");
    bench.assert_reads(["one", "two"]);
    bench.truncate("app.log");
    bench.write("app.log", "1\n");
    bench.assert_reads(["1"]);
    // Shorter, as long as before, longer.
    for (count, text) in ["\n", "2\n", "3\n4\n5\n"].iter().enumerate() {
        bench.truncate("app.log");
        bench.write("app.log", text);
        assert_eq!(bench.read().unwrap(), text.lines().collect::<Vec<_>>());
        assert_eq!(bench.counts().truncations, 2 + count as u64);
    }
    bench.stop();
    bench.write("app.log", "6\n");
    bench.assert_reads(["6"]);
}

#[test]
fn half_a_line_may_be_taken_back() {
    let mut bench = plain();
    bench.write("app.log", "one\nhalf a line");
    bench.assert_reads(["one"]);
    bench.open("app.log").set_len(4).unwrap();
    bench.assert_reads([]);
    bench.write("app.log", "another\n");
    bench.assert_reads(["another"]);
    assert_eq!(bench.counts().truncations, 0);
}
