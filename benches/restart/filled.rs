//! Stores that are filled once and copied for every start.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use millstream::runtime::state::log::LogLimits;
use tempfile::TempDir;

use crate::pipeline::{Bench, PATIENCE};
use crate::support::Stopwatch;

/// Bytes of an entry of the log beside its value, about.
const ENTRY_BYTES: u64 = 60;
/// Between two looks whether it is full.
const NOW_AND_THEN: Duration = Duration::from_millis(5);

/// What a store holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Keys whose value lies in the rows only.
    pub(crate) keys: u64,
    pub(crate) value_bytes: u64,
    /// The first so many of them have a timer each, which lies in the rows too.
    pub(crate) timers: u64,
    /// Bytes of the log, which holds other keys than the rows.
    pub(crate) log_bytes: u64,
}

impl Shape {
    /// Keys whose value lies in the log only; they come behind those of the rows.
    fn logged(self) -> u64 {
        self.log_bytes / (self.value_bytes + ENTRY_BYTES)
    }

    fn name(self) -> String {
        let Self { keys, value_bytes, timers, log_bytes } = self;
        format!("keys-{keys}x{value_bytes}-timers-{timers}-log-{log_bytes}")
    }
}

/// A store that is filled.
pub(crate) struct Filled {
    shape: Shape,
    directory: PathBuf,
}

impl Filled {
    /// Returns the store of this shape in `place`, filled now if it is not there yet.
    pub(crate) fn find_or_fill(place: &Path, shape: Shape) -> anyhow::Result<Self> {
        let directory = place.join(shape.name());
        if !directory.exists() {
            // Under another name until it is whole: a bench that is interrupted leaves nothing that passes for filled.
            let partial = place.join(format!("{}.partial", shape.name()));
            if partial.exists() {
                fs::remove_dir_all(&partial)?;
            }
            fs::create_dir_all(&partial)?;
            fill(&partial, shape)?;
            fs::rename(&partial, &directory)?;
        }
        Ok(Self { shape, directory })
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// Makes a copy beside it, which a start may change: tables are linked, since nothing ever changes one, the rest is copied.
    pub(crate) fn copy(&self) -> anyhow::Result<TempDir> {
        let copy = tempfile::tempdir_in(self.directory.parent().context("a store without a place")?)?;
        copy_into(&self.directory, copy.path())?;
        Ok(copy)
    }
}

fn copy_into(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy_into(&path, &target)?;
        } else if path.extension().is_some_and(|end| end == "sst") {
            fs::hard_link(&path, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

/// Fills a store through the pipeline: first the rows, folded as they come, then the log, which is not.
fn fill(directory: &Path, shape: Shape) -> anyhow::Result<()> {
    let (keys, all) = (shape.keys, shape.keys + shape.logged());
    if all == 0 {
        return Ok(());
    }
    let waited = Stopwatch::start();
    let bench = Bench::new(shape);
    bench.feed(0..keys);
    let (_runtime, job) = bench.start(directory, |builder| {
        builder.log_limits(LogLimits { fold_bytes: 64 << 20, fold_epochs: 50, ..LogLimits::default() })
    })?;
    let mut told = 0;
    bench.wait_for("filling", NOW_AND_THEN, |seen| {
        let tenth = if keys < 1_000_000 { 0 } else { seen.records * 10 / keys };
        if tenth > told {
            told = tenth;
            let (state, status) = (job.state(), job.status());
            println!(
                "filled {} of {keys} keys after {:?}; state {} of {} MB, {} keys read, {} evicted, folded through {} of {}, held: {:?}",
                seen.records,
                waited.elapsed(),
                state.memory_bytes >> 20,
                state.memory_limit >> 20,
                state.read_keys,
                state.evicted_keys,
                state.folded_through,
                status.committed,
                status.held,
            );
        }
        seen.records >= keys
    })?;
    let filled = job.status().committed;
    let folding = Stopwatch::start();
    while job.state().folded_through <= filled {
        ensure!(folding.elapsed() < PATIENCE, "folding takes too long");
        std::thread::sleep(NOW_AND_THEN);
    }
    bench.stop(&job)?;
    let folded = job.state().folded_through;
    drop(_runtime);
    if shape.logged() > 0 {
        bench.feed(keys..all);
        // Nothing asks for a fold: there is room for all of it, in the tables too.
        let (_runtime, job) = bench.start(directory, |builder| {
            let never = LogLimits { fold_bytes: u64::MAX, fold_epochs: u64::MAX, ..LogLimits::default() };
            builder.log_limits(never).max_unfolded_bytes(u64::MAX).state_memory(shape.log_bytes.saturating_mul(16))
        })?;
        bench.wait_for("filling the log", NOW_AND_THEN, |seen| seen.records >= all)?;
        bench.stop(&job)?;
        let now = job.state().folded_through;
        ensure!(now == folded, "a part of the log was folded: through {now}, not {folded} any more");
    }
    let seconds = waited.elapsed().as_secs_f64();
    println!("filled {} in {seconds:.1} s: {:.0} keys/s", shape.name(), all as f64 / seconds);
    Ok(())
}
