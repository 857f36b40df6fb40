//! The contract of a level-1 sink.

use millstream_runtime::error::BoxError;
use millstream_runtime::id::Epoch;
use millstream_runtime::sink::{Sink, SinkContext};

use super::{Nonconformance, context, kill, wrong};

/// An outside system as the test of a level-1 sink needs it: one target, at first empty.
pub trait DirectOutside {
    /// Makes a sink that is not open, as for a subtask of a new attempt.
    fn connect(&self) -> Box<dyn Sink<String>>;

    /// Reads what a reader of the target finds after a crash of the writing process, in the order in which it came.
    fn visible(&self) -> Vec<String>;
}

/// Tests a level-1 sink against its contract: what was written is outside when `flush` returns, whatever happens then; it is
/// never taken back, made up or changed; records of one sink keep their order; an opening destroys nothing, be it a restart or
/// another subtask. Records may come twice, and records that no flush confirmed may be there or not. `fresh` makes a new, empty
/// target for each case.
///
/// # Errors
/// [`Nonconformance`], the first that is found.
pub fn sink_conformance<O: DirectOutside>(fresh: impl Fn() -> O) -> Result<(), Nonconformance> {
    // 3 epochs of 2 records, each a call, and their flushes.
    for killed_after in 0..=9 {
        survives_a_kill(&fresh(), killed_after)?;
    }
    subtasks_share_a_target(&fresh())?;
    an_older_instance_does_no_harm(&fresh())
}

/// One case: what was written, what was confirmed, what is there.
struct Life<'a, O> {
    outside: &'a O,
    case: String,
    /// Everything that was ever handed to a sink.
    written: Vec<String>,
    /// What a flush confirmed.
    confirmed: Vec<String>,
}

impl<'a, O: DirectOutside> Life<'a, O> {
    fn new(outside: &'a O, case: String) -> Self {
        Self { outside, case, written: Vec::new(), confirmed: Vec::new() }
    }

    fn failed(&self, call: &str, error: &BoxError) -> Nonconformance {
        wrong(&self.case, format!("{call} failed: {error}"))
    }

    fn open(&self, subtask: u16, first_epoch: u64) -> Result<Box<dyn Sink<String>>, Nonconformance> {
        let mut sink = self.outside.connect();
        let context = SinkContext { subtask, first_epoch: Epoch::new(first_epoch), ..context(first_epoch) };
        sink.open(&context).map_err(|error| self.failed("open", &error))?;
        self.check()?;
        Ok(sink)
    }

    fn write(&mut self, sink: &mut dyn Sink<String>, row: String) -> Result<(), Nonconformance> {
        self.written.push(row.clone());
        sink.write(row).map_err(|error| self.failed("write", &error))
    }

    /// Flushes an epoch whose rows are `rows`.
    fn flush(&mut self, sink: &mut dyn Sink<String>, epoch: u64, rows: &[String]) -> Result<(), Nonconformance> {
        sink.flush(Epoch::new(epoch)).map_err(|error| self.failed("flush", &error))?;
        self.confirmed.extend_from_slice(rows);
        self.check()
    }

    fn check(&self) -> Result<(), Nonconformance> {
        let visible = self.outside.visible();
        if let Some(lost) = self.confirmed.iter().find(|row| !visible.contains(row)) {
            return Err(wrong(&self.case, format!("{lost:?} was confirmed by a flush and is not there: {visible:?}")));
        }
        if let Some(other) = visible.iter().find(|row| !self.written.contains(row)) {
            return Err(wrong(&self.case, format!("{other:?} is there and was never written: {visible:?}")));
        }
        Ok(())
    }
}

fn row(epoch: u64, place: u64) -> String {
    format!("epoch {epoch} row {place} with a \"quote\", a\ttab and ü")
}

fn rows(epoch: u64) -> [String; 2] {
    [row(epoch, 0), row(epoch, 1)]
}

fn survives_a_kill(outside: &impl DirectOutside, killed_after: usize) -> Result<(), Nonconformance> {
    let mut life = Life::new(outside, format!("killed after {killed_after} calls and restarted"));
    let (mut calls, mut committed) = (0, 0);
    // The first life ends after so many calls; the second begins behind the last epoch that was flushed.
    for attempt in 0..2 {
        let mut sink = life.open(0, committed + 1)?;
        'life: for epoch in committed + 1..=3 {
            for row in rows(epoch) {
                if attempt == 0 && calls == killed_after {
                    break 'life;
                }
                life.write(sink.as_mut(), row)?;
                calls += 1;
            }
            if attempt == 0 && calls == killed_after {
                break 'life;
            }
            life.flush(sink.as_mut(), epoch, &rows(epoch))?;
            committed = epoch;
            calls += 1;
        }
        kill(sink);
        life.check()?;
    }
    // The last life wrote what it wrote in this order, from the first epoch that was not confirmed before.
    let visible = outside.visible();
    let last = |row: &String| visible.iter().rposition(|seen| seen == row);
    let places: Vec<_> = (1..=3).flat_map(rows).map(|row| last(&row)).collect();
    if !places.is_sorted() {
        return Err(wrong(&life.case, format!("the order changed: {visible:?}")));
    }
    Ok(())
}

fn subtasks_share_a_target(outside: &impl DirectOutside) -> Result<(), Nonconformance> {
    let mut life = Life::new(outside, "two subtasks write at the same time".to_owned());
    let (mut left, mut right) = (life.open(0, 1)?, life.open(1, 1)?);
    for epoch in 1..=2 {
        let of = |subtask: u16| [0, 1].map(|place| format!("{} of subtask {subtask}", row(epoch, place)));
        for (left_row, right_row) in of(0).into_iter().zip(of(1)) {
            life.write(left.as_mut(), left_row)?;
            life.write(right.as_mut(), right_row)?;
        }
        life.flush(left.as_mut(), epoch, &of(0))?;
        life.flush(right.as_mut(), epoch, &of(1))?;
    }
    kill(left);
    kill(right);
    life.check()
}

fn an_older_instance_does_no_harm(outside: &impl DirectOutside) -> Result<(), Nonconformance> {
    let mut life = Life::new(outside, "an older instance is still alive".to_owned());
    let mut old = life.open(0, 1)?;
    life.write(old.as_mut(), row(1, 0))?;
    life.flush(old.as_mut(), 1, &[row(1, 0)])?;
    life.write(old.as_mut(), row(2, 0))?;
    let mut new = life.open(0, 2)?;
    for row in rows(2) {
        life.write(new.as_mut(), row)?;
    }
    life.flush(new.as_mut(), 2, &rows(2))?;
    // It may be refused, or bring its records a second time.
    let late = row(2, 1);
    let _ = old.write(late).and_then(|()| old.flush(Epoch::new(2)));
    life.check()?;
    for row in rows(3) {
        life.write(new.as_mut(), row)?;
    }
    life.flush(new.as_mut(), 3, &rows(3))?;
    kill(old);
    kill(new);
    life.check()
}
