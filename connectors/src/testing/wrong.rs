//! Sinks with a bug each: the suites must find it, or they prove nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use millstream_runtime::error::BoxError;
use millstream_runtime::id::Epoch;
use millstream_runtime::sink::{EpochBatch, Sink, SinkContext, SinkError, SinkErrorKind, Token, TokenSink};

use super::token::AtStep;
use super::{DirectOutside, Outside, sink_conformance, token_sink_conformance};

/// What is wrong with a level-2 sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// It remembers no token.
    NoToken,
    /// It moves the token, then writes the rows.
    TokenBeforeRows,
    /// It writes the rows, then moves the token: two steps where it had to be one.
    RowsBeforeToken,
    /// It never asks whether somebody else opened.
    NoFencing,
    /// It reads the token before it shuts out older instances.
    TokenBeforeFencing,
    /// Its rows say which attempt wrote them, so a repeat writes others.
    BytesOfTheAttempt,
    /// Rows are recognised by a count of its own, which begins anew in every instance: no repeat meets its row.
    PlacesOfTheInstance,
    /// It moves the token past the first epoch of a batch only.
    TokenOfTheFirstEpoch,
    /// It leaves out the last row of a batch.
    LosesTheLastRow,
    /// It takes back what an instance before it delivered.
    BeginsAnew,
    /// It says that nothing happened when something had.
    RetryAfterTheRows,
}

#[derive(Clone, Default)]
struct Database {
    next: Epoch,
    fence: u64,
    /// By epoch and place.
    rows: BTreeMap<(u64, u64), Vec<u8>>,
}

#[derive(Clone)]
struct Target {
    database: Arc<Mutex<Database>>,
    bug: Bug,
}

struct Connector {
    target: Target,
    at: Option<(usize, AtStep)>,
    steps: AtomicUsize,
    fence: u64,
    attempt: u64,
    written: u64,
}

impl Target {
    fn database(&self) -> MutexGuard<'_, Database> {
        self.database.lock().unwrap()
    }

    fn connector(&self, at: Option<(usize, AtStep)>) -> Box<dyn TokenSink> {
        let target = self.clone();
        Box::new(Connector { target, at, steps: AtomicUsize::new(0), fence: 0, attempt: 0, written: 0 })
    }
}

impl Outside for Target {
    fn connect(&self) -> Box<dyn TokenSink> {
        self.connector(None)
    }

    fn connect_at(&self, step: usize, act: AtStep) -> Option<Box<dyn TokenSink>> {
        Some(self.connector(Some((step, act))))
    }

    fn visible(&self) -> Vec<Vec<u8>> {
        self.database().rows.values().cloned().collect()
    }
}

impl Connector {
    fn step(&self) {
        let step = self.steps.fetch_add(1, Ordering::Relaxed);
        if let Some((at, act)) = &self.at
            && *at == step
        {
            act();
        }
    }

    fn is(&self, bug: Bug) -> bool {
        self.target.bug == bug
    }

    fn rows(&mut self, batch: &EpochBatch<'_>) -> BTreeMap<(u64, u64), Vec<u8>> {
        let mut rows = BTreeMap::new();
        for row in batch.rows() {
            let mut bytes = row.bytes.to_vec();
            if self.is(Bug::BytesOfTheAttempt) {
                bytes.extend_from_slice(self.attempt.to_string().as_bytes());
            }
            self.written += 1;
            let place = if self.is(Bug::PlacesOfTheInstance) { self.written } else { u64::from(row.seq) };
            rows.insert((row.epoch.number(), place), bytes);
        }
        if self.is(Bug::LosesTheLastRow) {
            rows.pop_last();
        }
        rows
    }
}

impl TokenSink for Connector {
    fn open(&mut self, context: &SinkContext) -> Result<Token, SinkError> {
        self.attempt = context.attempt.number();
        self.step();
        let early = self.target.database().next;
        if self.is(Bug::TokenBeforeFencing) {
            self.step();
        }
        let mut database = self.target.database();
        database.fence += 1;
        self.fence = database.fence;
        if self.is(Bug::BeginsAnew) {
            database.rows.clear();
        }
        drop(database);
        self.step();
        let next = self.target.database().next;
        Ok(match self.target.bug {
            Bug::NoToken => Token::default(),
            Bug::TokenBeforeFencing => Token { next: early },
            _ => Token { next },
        })
    }

    fn apply(&mut self, batch: &EpochBatch<'_>) -> Result<(), SinkError> {
        self.step();
        let rows = self.rows(batch);
        let next = if self.is(Bug::TokenOfTheFirstEpoch) { batch.first().next() } else { batch.last().next() };
        let shared = Arc::clone(&self.target.database);
        let mut database = shared.lock().unwrap();
        if database.fence != self.fence && !self.is(Bug::NoFencing) {
            return Err(SinkError::plain(SinkErrorKind::Fenced, "somebody else opened"));
        }
        match self.target.bug {
            Bug::TokenBeforeRows => {
                database.next = next;
                drop(database);
                self.step();
                shared.lock().unwrap().rows.extend(rows);
            }
            Bug::RowsBeforeToken | Bug::PlacesOfTheInstance => {
                database.rows.extend(rows);
                drop(database);
                self.step();
                shared.lock().unwrap().next = next;
            }
            Bug::RetryAfterTheRows if self.at.is_some() && self.attempt == 8 && self.written == rows.len() as u64 => {
                // Only the first time of the instance that is to be stopped, and under a number that no repeat meets.
                let moved = rows.into_iter().map(|((epoch, place), row)| ((epoch, place + 100), row));
                database.rows.extend(moved);
                return Err(SinkError::plain(SinkErrorKind::Retry, "busy"));
            }
            _ => {
                database.rows.extend(rows);
                database.next = next;
                drop(database);
            }
        }
        self.step();
        Ok(())
    }
}

fn verdict(bug: Bug) -> Result<(), String> {
    let fresh = || Target { database: Arc::default(), bug };
    token_sink_conformance(fresh).map_err(|found| found.to_string())
}

#[test]
fn a_right_level_2_sink_passes() {
    assert_eq!(verdict(Bug::None), Ok(()));
}

#[test]
fn every_planted_bug_of_a_level_2_sink_is_found() {
    let table = [
        (Bug::NoToken, "killed after", "token: saw"),
        (Bug::TokenBeforeRows, "stopped at step", "rows: saw"),
        (Bug::RowsBeforeToken, "stopped at step", "rows: saw"),
        (Bug::NoFencing, "an older instance", "saw Ok(())"),
        (Bug::TokenBeforeFencing, "an older instance delivers at step", "token: saw"),
        (Bug::BytesOfTheAttempt, "killed after", "rows: saw"),
        (Bug::PlacesOfTheInstance, "stopped at step", "rows: saw"),
        (Bug::TokenOfTheFirstEpoch, "several epochs at once", "token: saw"),
        (Bug::LosesTheLastRow, "killed after", "rows: saw"),
        (Bug::BeginsAnew, "killed after", "rows: saw"),
        (Bug::RetryAfterTheRows, "stopped at step", "rows: saw"),
    ];
    for (bug, case, what) in table {
        let found = verdict(bug).expect_err(&format!("{bug:?} was not found"));
        assert!(found.contains(case) && found.contains(what), "{bug:?}: {found}");
    }
}

/// What is wrong with a level-1 sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DirectBug {
    None,
    /// It writes at its end, in `Drop`, which a killed process never reaches.
    WritesWhenItIsDropped,
    /// It writes at the flush after the next one.
    OneFlushBehind,
    /// An opening empties the target.
    EmptiesTheTarget,
    /// It replaces what another subtask wrote.
    OverwritesOthers,
    /// It changes a record.
    Changes,
    /// It writes the newest record first.
    Reverses,
}

#[derive(Clone)]
struct DirectTarget {
    rows: Arc<Mutex<Vec<String>>>,
    bug: DirectBug,
}

struct Buffered {
    target: DirectTarget,
    buffer: Vec<String>,
    before: Vec<String>,
}

impl Buffered {
    fn write_out(&mut self, mut rows: Vec<String>) {
        match self.target.bug {
            DirectBug::Reverses => rows.reverse(),
            DirectBug::Changes => rows.iter_mut().for_each(|row| *row = row.replace('\t', " ")),
            DirectBug::OverwritesOthers => self.target.rows.lock().unwrap().clear(),
            _ => {}
        }
        self.target.rows.lock().unwrap().extend(rows);
    }
}

impl Sink<String> for Buffered {
    fn open(&mut self, _context: &SinkContext) -> Result<(), BoxError> {
        if self.target.bug == DirectBug::EmptiesTheTarget {
            self.target.rows.lock().unwrap().clear();
        }
        Ok(())
    }

    fn write(&mut self, value: String) -> Result<(), BoxError> {
        self.buffer.push(value);
        Ok(())
    }

    fn flush(&mut self, _epoch: Epoch) -> Result<(), BoxError> {
        if self.target.bug == DirectBug::WritesWhenItIsDropped {
            return Ok(());
        }
        let mut rows = std::mem::take(&mut self.buffer);
        if self.target.bug == DirectBug::OneFlushBehind {
            std::mem::swap(&mut rows, &mut self.before);
        }
        self.write_out(rows);
        Ok(())
    }
}

impl Drop for Buffered {
    fn drop(&mut self) {
        let rows = std::mem::take(&mut self.buffer);
        self.write_out(rows);
    }
}

impl DirectOutside for DirectTarget {
    fn connect(&self) -> Box<dyn Sink<String>> {
        Box::new(Buffered { target: self.clone(), buffer: Vec::new(), before: Vec::new() })
    }

    fn visible(&self) -> Vec<String> {
        self.rows.lock().unwrap().clone()
    }
}

fn direct_verdict(bug: DirectBug) -> Result<(), String> {
    sink_conformance(|| DirectTarget { rows: Arc::default(), bug }).map_err(|found| found.to_string())
}

#[test]
fn a_right_level_1_sink_passes() {
    assert_eq!(direct_verdict(DirectBug::None), Ok(()));
}

#[test]
fn every_planted_bug_of_a_level_1_sink_is_found() {
    let table = [
        (DirectBug::WritesWhenItIsDropped, "killed after 0 calls", "was confirmed by a flush and is not there"),
        (DirectBug::OneFlushBehind, "killed after 0 calls", "was confirmed by a flush and is not there"),
        (DirectBug::EmptiesTheTarget, "killed after 3 calls", "was confirmed by a flush and is not there"),
        (DirectBug::OverwritesOthers, "killed after 0 calls", "was confirmed by a flush and is not there"),
        (DirectBug::Changes, "killed after 0 calls", "was confirmed by a flush and is not there"),
        (DirectBug::Reverses, "killed after 0 calls", "the order changed"),
    ];
    for (bug, case, what) in table {
        let found = direct_verdict(bug).expect_err(&format!("{bug:?} was not found"));
        assert!(found.contains(case) && found.contains(what), "{bug:?}: {found}");
    }
}
