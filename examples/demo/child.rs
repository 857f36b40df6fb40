//! The child: the pipeline, and what it reports of itself.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millstream::prelude::*;
use millstream::runtime::id::Epoch;
use millstream::runtime::job::JobPhase;
use serde::{Deserialize, Serialize};

use crate::Args;
use crate::input::{SUFFIXES, words};
use crate::journal::Journal;
use crate::watched::{Latency, Line, Meter, Watched};

/// The pipeline's name, and its store's.
pub(crate) const PIPELINE: &str = "word-count";
/// How often the child looks at its job ...
const LOOK: Duration = Duration::from_millis(10);
/// ... and after how many looks it reports.
const REPORT: u32 = 20;

/// A line of the child's stdout.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// It runs, and went on from this epoch.
    Restored { epoch: u64 },
    /// How far it is.
    Progress { lines: u64, records: u64, epoch: u64, processed: Latency, durable: Latency },
    /// It has read, committed and delivered everything.
    Finished { epoch: u64 },
}

/// Where a child has what.
pub(crate) struct Layout<'a>(pub(crate) &'a Path);

impl Layout<'_> {
    pub(crate) fn input(&self) -> PathBuf {
        self.0.join("input")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.0.join("out")
    }
}

/// A word and when its line was read.
struct Word {
    text: String,
    read_at: Timestamp,
}

/// How often a word came, and when the line of the newest was read: for the latency.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Tally {
    count: u64,
    read_at: Timestamp,
}

fn word_count(source: Watched, meter: Arc<Meter>, out: PathBuf) -> Pipeline {
    let pipeline = Pipeline::new(PIPELINE);
    pipeline
        .source("lines", source)
        .flat_map_into(|line: Line, out: &mut Vec<Word>| {
            out.extend(words(&line.text).map(|text| Word { text, read_at: line.read_at }));
        })
        .key_by_ref(|word| word.text.as_str())
        .fold("counts", Tally::default, |tally, word| {
            *tally = Tally { count: tally.count + 1, read_at: word.read_at };
        })
        .inspect(move |(_, tally)| meter.processed(tally.read_at))
        .map(|(word, tally)| format!("{word} {}", tally.count))
        .sink("files", FileSink::at(out).roll_interval(Duration::from_millis(300)));
    pipeline
}

/// Runs one life of the child.
pub(crate) async fn run(args: &Args, dir: &Path) -> anyhow::Result<()> {
    end_with_stdin();
    let layout = Layout(dir);
    let meter = Arc::new(Meter::new()?);
    let journal = Journal::create(dir, args.life)?;
    let lines = Lines::at(layout.input()).suffixes(SUFFIXES);
    let bug = args.plant_bug.then(|| layout.input());
    let source = Watched::new(lines, journal, Arc::clone(&meter), args.rate, bug);

    let runtime = Runtime::builder().state_backend(RocksDb::at(layout.state())).workers(2).build()?;
    let job = runtime.start(word_count(source, Arc::clone(&meter), layout.out()))?;
    let progress = |epoch: Epoch| {
        let (lines, records) = (meter.lines.load(Ordering::Relaxed), meter.records.load(Ordering::Relaxed));
        let (processed, durable) = (meter.take_processed(), meter.take_durable());
        tell(&Report::Progress { lines, records, epoch: epoch.number(), processed, durable })
    };
    let mut running = 0;
    let mut looks = tokio::time::interval(LOOK);
    let ended = loop {
        tokio::select! {
            ended = job.wait() => break ended?,
            _ = looks.tick() => {}
        }
        let status = job.status();
        if running == 0 && status.phase == JobPhase::Starting {
            continue;
        }
        if running == 0 {
            tell(&Report::Restored { epoch: status.restored.number() })?;
        }
        if running % REPORT == 0 {
            progress(status.committed)?;
        }
        running += 1;
    };
    progress(ended.epoch())?;
    tell(&Report::Finished { epoch: ended.epoch().number() })
}

fn tell(report: &Report) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(report)?)?;
    Ok(out.flush()?)
}

/// Ends the process when its stdin ends, so that it never outlives its parent.
fn end_with_stdin() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(2);
    });
}
